"""A store for tests of heads: a cohort and synthetic tokens whose mean says the label. No encoder, no image files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from cohorts.cohort import ATTRIBUTES, SAMPLE_SCHEMA, Cohort, rows_key, save_cohort
from cohorts.flow import EXCLUDED_SCHEMA, FLOW_SCHEMA
from cohorts.scheme import SplitScheme
from featurestore.featureset import FeatureSet, create_feature_set
from featurestore.items import ITEM_SCHEMA, add_items, list_items, text_hash
from featurestore.layout import FeatureLayout
from featurestore.sources import source_stamp
from featurestore.store import Store, open_store
from featurestore.writer import ShardWriter
from heads.grid import Grid

DIM = 8


def make_store(root: Path, *, subjects: int = 40, classes: int = 2, without_text: int = 3) -> Store:
    """A store with cohort "toy" and tokens of all its items by the encoders "tiny" and "tiny-text"."""
    store = open_store(root, create=True)
    labels = add_cohort(store, "toy", subjects=subjects, classes=classes, without_text=without_text)
    add_tokens(store, "tiny", "image", labels)
    add_tokens(store, "tiny-text", "text", labels)
    return store


_UNKNOWN = (None,) * (1 + len(ATTRIBUTES))  # no findings either


def add_cohort(
    store: Store, name: str, *, subjects: int = 40, classes: int = 2, without_text: int = 0, labels: str = "even"
) -> dict[str, int]:
    """Two samples a subject; the first `without_text` samples have no report. Returns the label of every sample.

    `labels`: "even" gives the classes in turn, "rare" gives the last class to the last subject alone.
    """
    label_of, rows, items = {}, [], []
    for i in range(2 * subjects):
        subject, sample = i // 2, f"{name}/s{i:03d}"
        label = subject % classes if labels == "even" else int(subject == subjects - 1)
        text = sample if i >= without_text else None
        label_of[sample] = label
        content = None if text is None else text_hash(report_of(sample))
        known = (sample, text, content, label, f"class {label}")
        rows.append((sample, f"patient{subject:03d}", None, None, *known, *_UNKNOWN))
        items.append((sample, "image", f"/nowhere/{sample}.png", None))
        if text is not None:
            items.append((sample, "text", None, report_of(sample)))
    samples = pl.DataFrame(rows, schema=SAMPLE_SCHEMA, orient="row")
    names = tuple(f"class {label}" for label in range(classes))
    add_items(store, pl.DataFrame(items, schema=ITEM_SCHEMA, orient="row"))
    cohort = Cohort(
        name=name,
        rows_key=rows_key(name, samples, classes=names),
        task="binary" if classes == 2 else "multiclass",
        classes=names,
        scheme=SplitScheme(test_share=0.25),
        licence="none",
        samples=samples,
        builder="table",
        options={},
    )
    save_cohort(store, cohort, flow=FLOW_SCHEMA.to_frame(), excluded=EXCLUDED_SCHEMA.to_frame())
    return label_of


def toy_grid(**changes) -> Grid:
    """A small grid on cohort "toy", with `changes`."""
    keys = {
        "cohort": "toy",
        "backbone": "tiny",
        "text_encoder": "tiny-text",
        "method": ["image", "text"],
        "fraction": [0.25, 1.0],
        "seed": 2,
        "epochs": 3,
        "precision": "fp32",
    }
    return Grid(**{**keys, **changes})


def report_of(sample: str) -> str:
    """The report of a sample."""
    return f"report of {sample}"


def add_tokens(
    store: Store,
    encoder: str,
    modality: str,
    labels: Mapping[str, int],
    *,
    weights: str = "ab" * 32,
    imported: bool = False,
    views: int = 0,
    content: str = "bytes",
    skip: Sequence[str] = (),
    failed: Sequence[str] = (),
) -> FeatureSet:
    """Tokens of every item of this modality but those to `skip`; `failed` ones are recorded as failures. `imported`:
    as if they had been made elsewhere."""
    layout = FeatureLayout(
        encoder=encoder,
        modality="image" if modality == "image" else "text",
        dim=DIM,
        tokens=5 if modality == "image" else 9,
        has_cls=False,
        shard_rows=32,
        what={"imported": {}} if imported else {"weights_sha256": weights},
        about={},
    )
    feature_set = create_feature_set(store, layout)
    items = list_items(store, modality=modality).filter(
        pl.col("item").is_in(list(labels)) & ~pl.col("item").is_in(skip)
    )
    paths = dict(items.select("item", "path").iter_rows())
    for plan in (plan for view in range(views + 1) for plan in feature_set.plan(items, view)):
        writer = ShardWriter(feature_set, plan)
        for position, item in enumerate(plan.items):
            stamp = source_stamp(paths[item])
            if item in failed:
                writer.fail(position, "made to fail", stamp=stamp)
            else:
                of = text_hash(report_of(item)) if modality == "text" else f"{content} of {item}"
                tokens = _tokens(item, modality, labels[item]) + plan.view / 8
                writer.put(position, tokens, content=of, stamp=stamp)
        writer.commit()
    return feature_set


def _tokens(item: str, modality: str, label: int) -> np.ndarray:
    rng = np.random.default_rng([len(modality), *item.encode()])
    length = 5 if modality == "image" else int(rng.integers(3, 10))
    tokens = rng.normal(size=(length, DIM))
    tokens[:, label] += 1.5
    return tokens
