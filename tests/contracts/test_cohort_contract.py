"""What every cohort builder of the table must do: a new builder is covered by its line there and its `example`."""

import subprocess
import sys
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohorts import COHORT_BUILDERS, SplitScheme, list_cohorts, load_cohort, load_excluded, load_flow, make_split
from cohorts.build import BuildReport
from cohorts.cohort import SAMPLE_SCHEMA
from featurestore.errors import DataError
from featurestore.items import list_items
from featurestore.store import Store, open_store


def example(builder: str, store: Store, folder: Path, name: str = "small") -> BuildReport:
    folder.mkdir(exist_ok=True)
    module, _ = COHORT_BUILDERS[builder].split(":")
    return import_module(module).example(store, name, folder)


@pytest.fixture(params=sorted(COHORT_BUILDERS))
def builder(request) -> str:
    return request.param


def test_the_table_names_a_function(builder):
    module, name = COHORT_BUILDERS[builder].split(":")
    function = getattr(import_module(module), name)
    assert function.__name__ == f"build_{builder.replace('-', '_')}"
    assert function.__doc__


def test_a_cohort_is_listed_and_its_samples_hold_the_schema(builder, store, tmp_path):
    report = example(builder, store, tmp_path / "data")
    assert report.created
    assert list_cohorts(store) == ["small"]
    cohort = load_cohort(store, "small")
    samples = cohort.samples
    assert samples.schema == SAMPLE_SCHEMA
    assert samples["sample"].is_unique().all()
    assert samples["sample"].is_sorted()
    assert samples.select("sample", "subject", "label", "label_name").null_count().sum_horizontal().item() == 0
    assert samples.filter(pl.col("image").is_null() & pl.col("text").is_null()).is_empty()
    assert [cohort.classes[label] for label in samples["label"]] == samples["label_name"].to_list()
    assert set(samples["label_name"]) == set(cohort.classes)
    assert cohort.task == ("binary" if len(cohort.classes) == 2 else "multiclass")
    assert cohort.builder == builder
    assert cohort.licence


def test_the_items_of_samples_exist(builder, store, tmp_path):
    example(builder, store, tmp_path / "data")
    samples = load_cohort(store, "small").samples
    items = list_items(store)
    for modality in ("image", "text"):
        assert set(samples[modality].drop_nulls()) == set(items.filter(modality=modality)["item"])
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in items["path"].drop_nulls())
    assert all(text.strip() for text in items["text"].drop_nulls())


def test_the_flow_ends_at_the_samples_and_counts_every_exclusion(builder, store, tmp_path):
    report = example(builder, store, tmp_path / "data")
    flow, excluded = load_flow(store, "small"), load_excluded(store, "small")
    assert flow["n_after"][-1] == report.n_samples == load_cohort(store, "small").samples.height
    assert excluded.height == (flow["n_before"] - flow["n_after"]).sum()
    assert flow["n_before"][1:].to_list() == flow["n_after"][:-1].to_list()


def test_a_second_build_changes_nothing(builder, store, tmp_path):
    first = example(builder, store, tmp_path / "data")
    before = {p: p.stat().st_mtime_ns for p in store.root.rglob("*")}
    again = example(builder, store, tmp_path / "data")
    assert not again.created
    assert again.key == first.key
    assert {p: p.stat().st_mtime_ns for p in store.root.rglob("*")} == before


def test_the_key_does_not_depend_on_where_the_store_lies_nor_on_the_name(builder, store, tmp_path):
    elsewhere = open_store(tmp_path / "deep" / "elsewhere", create=True)
    first = example(builder, store, tmp_path / "data")
    other = example(builder, elsewhere, tmp_path / "other-data", name="renamed")
    assert other.key == first.key


def test_the_cohort_can_be_split_and_no_unit_is_in_two_parts(builder, store, tmp_path):
    example(builder, store, tmp_path / "data")
    cohort = load_cohort(store, "small")
    unit = "subject" if cohort.scheme.unit == "subject" else "sample"
    unit_of = dict(zip(cohort.samples["sample"], cohort.samples[unit], strict=True))
    for seed in range(4):
        split = cohort.split(seed)
        assert split.train
        assert split.test
        units = [{unit_of[sample] for sample in ids} for ids in split.parts().values()]
        assert len(set.union(*units)) == sum(map(len, units))
        assert split.subset(0.5) == split.train[: len(split.train) // 2]


def test_stays_are_whole_or_the_split_by_stay_is_refused(builder, store, tmp_path):
    example(builder, store, tmp_path / "data")
    samples = load_cohort(store, "small").samples
    stay_of = dict(samples.select("sample", "admission").iter_rows())
    for seed in range(4):
        split = partial(make_split, samples, seed=seed, classes=9, scheme=SplitScheme(unit="admission"))
        if samples["admission"].null_count():
            with pytest.raises(DataError, match="has no admission"):
                split()
            continue
        parts = [{stay_of[sample] for sample in ids} for ids in split().parts().values()]
        assert len(set.union(*parts)) == sum(map(len, parts)) == len(set(stay_of.values()))


def test_no_seed_and_no_fraction_puts_a_subject_on_both_sides(builder, store, tmp_path):
    example(builder, store, tmp_path / "data")
    cohort = load_cohort(store, "small")
    subject = dict(cohort.samples.select("sample", "subject").iter_rows())

    @given(st.integers(0, 2**31), st.lists(st.floats(0.2, 1), min_size=2, max_size=4))
    @settings(max_examples=25, deadline=None)
    def check(seed, fractions):
        split = make_split(cohort.samples, seed=seed, classes=len(cohort.classes), scheme=SplitScheme(test_share=0.25))
        test = {subject[sample] for sample in split.test}
        assert test
        taken = [split.subset(fraction) for fraction in sorted(fractions)]
        assert all(larger[: len(smaller)] == smaller for smaller, larger in pairwise(taken))
        assert not test & {subject[sample] for sample in taken[-1]}

    check()


def test_no_builder_loads_torch(tmp_path):
    code = (
        "import sys\n"
        "from importlib import import_module\n"
        "from pathlib import Path\n"
        "from cohorts import COHORT_BUILDERS\n"
        "import cohorts.schema\n"
        "from featurestore.store import open_store\n"
        "root = Path(sys.argv[1])\n"
        "for name, target in COHORT_BUILDERS.items():\n"
        "    (root / name).mkdir()\n"
        "    store = open_store(root / name / 'store', create=True)\n"
        "    import_module(target.split(':')[0]).example(store, name, root / name)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0
