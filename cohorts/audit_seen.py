"""What an audit says of encoders: test images that they may have seen in pre-training, as far as that is known."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from featurestore.encoders import list_specs
from featurestore.errors import DataError
from featurestore.featureset import list_feature_sets
from featurestore.store import Store

from .cohort import Cohort
from .finding import Finding
from .splits import Split, local_id

DATA_SETS = {"mimic": "MIMIC-CXR", "chexpert": "CheXpert", "nih": "NIH-CXR", "padchest": "PadChest"}
"""How the data set of a cohort begins -> how encoders name it among what they were trained on."""


def seen_findings(
    store: Store, cohort: Cohort, splits: Mapping[int, Split], seen: Mapping[str, Path]
) -> Iterator[Finding]:
    """One finding for each encoder of the store that may know test images, and for each list of ids that was given."""
    test = sorted({sample for split in splits.values() for sample in split.test})
    if not test:
        return
    for encoder, path in seen.items():
        ids = _ids(path)
        known = sum(local_id(sample) in ids for sample in test)
        yield Finding(
            "warning" if known else "note",
            "pre-training",
            f"{known:,} of {len(test):,} test samples are among the {len(ids):,} images of {path.name} that {encoder} "
            "was trained on",
            known,
        )
    used = {feature_set.encoder for feature_set in list_feature_sets(store)} - set(seen)
    published = next((name for start, name in DATA_SETS.items() if _data_set(cohort).startswith(start)), None)
    for spec in list_specs():
        if published is None or spec.name not in used or not any(p.startswith(published) for p in spec.pretraining):
            continue
        parts = dict(cohort.samples.select("sample", "source_split").iter_rows())
        trained = [sample for sample in test if parts[sample] in ("train", None)]
        yield Finding(
            "warning",
            "pre-training",
            f"{spec.name} was trained on {published}: {len(trained):,} of {len(test):,} test samples are of its "
            f"publishers' train part, or of none that is known{_advice(spec.name)}",
            len(trained),
        )


def _advice(encoder: str) -> str:
    return " (its list of images is public: --seen rad-dino=training_images.csv)" if encoder == "rad-dino" else ""


def _data_set(cohort: Cohort) -> str:
    return cohort.samples["sample"][0].partition("/")[0]


def _ids(path: Path) -> set[str]:
    """Every cell of a table that is an id: the column dicom_id, image_id or id, else the first."""
    try:
        frame = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"list of images {path} cannot be read as a table ({type(error).__name__}).") from None
    column = next((name for name in ("dicom_id", "image_id", "id") if name in frame.columns), frame.columns[0])
    # A path counts by its last part, for lists name files as well as ids.
    return {Path(value).name.removesuffix(".jpg").removesuffix(".png") for value in frame[column].drop_nulls()}
