"""The report says what the tables say, gives nothing of a patient away, and can be hurt by no name."""

import json
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import polars as pl
import pytest

from cohorts.audit import AuditReport
from cohorts.cohort import load_cohort
from cohorts.finding import Finding
from featurestore.errors import DataError
from featurestore.store import Store, open_store
from heads.catalog import open_catalog
from heads.exchange.peers import import_peer
from heads.report import claims as claims_module
from heads.report import cohorts as cohorts_module
from heads.report import write_report
from heads.report.claims import in_short, sentence
from heads.report.parts import Table, cell, table_of
from heads.report.pictures import is_control
from heads.train import train_grid

from .invented import invent_run, invent_seeds
from .stores import make_store, report_of, toy_grid

METHODS = ["image", "text", "distill", "self-distill", "distill-shuffled"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("report") / "hidden-folder"
    store = make_store(folder / "store", subjects=60)
    train_grid(store, toy_grid(method=METHODS, fraction=[0.5, 1.0], seed=3, epochs=2))
    (folder / "peer.csv").write_text("method,cohort,fraction,auroc\nimage,toy,0.5,0.625\n")
    import_peer(store, folder / "peer.csv", label="Peer & Co.")
    return store


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(trained, path)
    return path.read_text()


class Reader(HTMLParser):
    """What a browser makes of a page: elements, texts, and what stands in <pre>."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.sql: list[str] = []
        self._in_pre = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in_pre = tag == "pre"
        if self._in_pre:
            self.sql.append("")

    def handle_endtag(self, tag):
        self._in_pre = self._in_pre and tag != "pre"

    def handle_data(self, data):
        if self._in_pre:
            self.sql[-1] += data


def charts_of(html: str) -> dict:
    (data,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', html, flags=re.DOTALL)
    return json.loads(data)


def test_the_page_has_every_section_and_figure(page):
    for key in ("claims", "curves", "distillation", "calibration", "peers", "cohorts", "audit", "failures", "cost"):
        assert f'<section id="{key}"' in page
    assert '<section id="provenance"' in page
    specs = charts_of(page)["specs"]
    # curves and controls; bars, slopes and gains; reliability
    assert [name.split("-")[0] for name in specs] == ["curves"] * 2 + ["distillation"] * 3 + ["calibration"]
    for name, metrics in specs.items():
        assert set(metrics) == ({""} if name.startswith("calibration") else {"auroc", "auprc"})
        for variants in metrics.values():
            assert set(variants) == {"wide", "narrow"}
            for spec in variants.values():
                assert spec["description"]
                assert not {"title", "config"} & set(spec)
    assert len(re.findall(r'data-chart="([\w-]+)"', page)) == len(specs)


def test_every_query_of_the_page_is_one_that_the_store_answers(page, trained):
    catalog = open_catalog(trained)
    asked = [text for text in Reader(page).sql if not text.startswith("radfs ")]
    assert len(asked) > 10
    for sql in asked:
        assert catalog.query(sql).width > 0


def test_the_numbers_are_those_of_the_tables(page, trained):
    catalog = open_catalog(trained)
    points = json.dumps(charts_of(page)["specs"]["curves-0"]["auroc"]["wide"])
    for row in catalog.query("SELECT auroc_mean FROM summary WHERE method IN ('image', 'text', 'distill')").iter_rows():
        assert str(row[0]) in points
    assert "0.625" in points  # the peer's
    (hours,) = catalog.query("SELECT sum(seconds) / 3600 AS most FROM runs")["most"]
    busy = float(re.search(r"took ([\d.e-]+) device-hours", page)[1])
    assert 0 < busy <= hours * 1.01  # runs that trained together count once


def test_the_page_loads_nothing_and_holds_no_id_text_or_path(page, trained):
    for tag, attributes in Reader(page).elements:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:,"))
    samples = load_cohort(trained, "toy").samples
    hidden = {i for name in ("sample", "subject", "image", "text", "text_sha256") for i in samples[name]} - {None}
    hidden |= {report_of(sample) for sample in samples["sample"]} | {"/nowhere", "hidden-folder", str(trained.root)}
    assert [value for value in hidden if value in page] == []


def test_names_are_text_wherever_they_stand(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    bad = "</script><script>alert(1)</script>"
    for method in ("image", "distill"):
        invent_seeds(store, 3, quality=1.0, method=method, cohort=bad, classes=[bad, "<b>x</b>"], backbone="<i>mrm")
    (tmp_path / "peer.csv").write_text(f"method,cohort,n_train,auroc,auprc,note\n<b>m,{bad},9,.5,.5,<img src=x>\n")
    import_peer(store, tmp_path / "peer.csv", label="<script>peer</script>")
    write_report(store, tmp_path / "report.html", title=f"A {bad}")
    html = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in html
    elements = [tag for tag, _ in Reader(html).elements]
    assert elements.count("script") == 2
    assert not {"b", "i", "img"} & set(elements) - {"b", "i"} or "img" not in elements
    assert "<i>mrm" not in html
    assert "<b>m" not in html
    assert json.dumps(charts_of(html)).count("alert(1)") > 0  # there, as data


def test_a_condition_limits_the_page(trained, tmp_path):
    sections = write_report(trained, tmp_path / "r.html", where="method IN ('image', 'text') AND fraction = 1")
    html = (tmp_path / "r.html").read_text()
    assert "6 trained heads where method IN (&#39;image&#39;, &#39;text&#39;)" in html
    assert {section.key for section in sections} >= {"claims", "curves", "provenance"}
    assert "distillation" not in {section.key for section in sections}
    with pytest.raises(DataError, match="there are no results to report"):
        write_report(trained, tmp_path / "r.html", where="method = 'nothing'")
    with pytest.raises(DataError, match="SQL refused"):
        write_report(trained, tmp_path / "r.html", where="nonsense = 1")
    with pytest.raises(DataError, match="there is no folder"):
        write_report(trained, tmp_path / "nowhere" / "r.html")


LINE = {
    "fraction": 0.3,
    "n_train": 144.0,
    "n_seeds": 10,
    "difference": 0.012,
    "detectable": 0.02,
    "patients_p_holm": 0.01,
}
ABOVE = {"seeds_low": 0.003, "seeds_high": 0.021, "patients_low": 0.001, "patients_high": 0.023}
OPEN = {"seeds_low": 0.003, "seeds_high": 0.021, "patients_low": -0.004, "patients_high": 0.028}
NEITHER = {"seeds_low": -0.003, "seeds_high": 0.027, "patients_low": -0.04, "patients_high": 0.06}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ABOVE,
            "30% of the training samples (144): above by 0.012 AUROC (95% intervals: over 10 seeds +0.003 to +0.021, ",
        ),
        (
            ABOVE,
            "over patients +0.001 to +0.023). Both intervals exclude 0: it holds for other seeds, ",
        ),
        ({**ABOVE, "patients_p_holm": 0.2}, "but not after Holm's correction over the lines of the table: a hint."),
        ({**ABOVE, "n_seeds": 5}, "With so few seeds no sign-flip test can bear that out: train more."),
        ({**ABOVE, "n_seeds": 3}, "3 seeds are too few for any claim."),
        (OPEN, "does not hang on the seed. Whether other patients would show it is open: that interval contains 0."),
        ({**OPEN, "patients_low": None}, "over patients none). In this data set"),
        ({**OPEN, "patients_low": None}, "is open: there is no interval for that."),
        (
            NEITHER,
            "No difference is shown, nor that there is none. A true difference of 0.020 would be found 8 times in 10",
        ),
        (
            {**NEITHER, "patients_low": 0.001},
            "The interval over seeds contains 0, so other seeds may turn it round: no claim.",
        ),
        (
            {"n_seeds": 1, "seeds_low": None},
            "above by 0.012 AUROC on the one seed there is. Another seed may turn it round",
        ),
        ({**ABOVE, "difference": -0.012}, "below by 0.012 AUROC"),
        ({"difference": None}, "no seed has a value for both, so nothing can be said."),
        ({**NEITHER, "difference": 0.0001}, "level to three digits of AUROC"),
    ],
)
def test_what_may_be_claimed_follows_from_the_intervals(changes, said):
    assert said in sentence({**LINE, **changes}, 0.95)


def test_a_setting_in_short_says_at_which_sizes_what_may_be_claimed():
    rows = [
        {"fraction": 0.1, "difference": -0.002, "verdict": "none"},
        {"fraction": 0.4, "difference": 0.013, "verdict": "here"},
        {"fraction": 1.0, "difference": 0.023, "verdict": "here"},
        {"fraction": 0.7, "difference": None, "verdict": ""},
    ]
    assert in_short(rows) == (
        "-0.002 to +0.023 AUROC. Shown for this data set alone, open for other patients, at 40%, 100%. No difference "
        "is shown, nor that there is none, at 10%. Nothing can be claimed at 70%."
    )
    assert in_short(rows[:1]) == "-0.002 AUROC. No difference is shown, nor that there is none, at every size."
    assert in_short(rows[3:]) == "no seed has a value for both."


def test_audits_withhold_ids(trained, monkeypatch):
    samples = load_cohort(trained, "toy").samples["sample"].to_list()
    text = f"2 subjects are on both sides. Samples such as {samples[0]}, {samples[1]} and 3 more; see ({samples[2]})."
    found = AuditReport("toy", "k", (0,), (Finding("leak", "subjects", text, 2),))
    monkeypatch.setattr(cohorts_module, "audit_cohort", lambda *_, **__: found)
    (table,) = cohorts_module.audits(trained, ["toy", "gone"], images=False).parts
    said = table.lines[0][3]
    assert said == "2 subjects are on both sides. Samples such as (an id), (an id) and 3 more; see ((an id))."


def test_controls_are_told_from_methods():
    controls = {"image-long", "distill-shuffled", "distill-constant", "teacher-shuffled"}
    assert {name for name in [*METHODS, *controls, "teacher", "tram", "unknown"] if is_control(name)} == controls


def test_a_table_says_once_what_all_lines_share():
    frame = pl.DataFrame(
        {"cohort": ["a"] * 3, "lr": [1e-4] * 3, "n": [1, 2, 1000], "no": [None] * 3, "x": [0.5, 2.0, None]}
    )
    table = table_of(frame, "T")
    assert table.caption == "T (all lines: cohort a; lr 0.0001)"
    assert table.headings == ("n", "x")
    assert table.lines == (("1", "0.500"), ("2", "2"), ("1,000", ""))
    assert table.numeric == (True, True)
    assert [cell(value) for value in (None, True, 12345.6, ["a", "b"])] == ["", "yes", "12,346", "a, b"]


def test_one_seed_and_one_run_make_a_page_too(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    invent_run(store, [(f"p{i}/a", i % 2, 0.1 * (i % 10)) for i in range(40)])
    sections = write_report(store, tmp_path / "report.html")
    assert [section.key for section in sections][:1] == ["curves"]
    assert claims_module.claims(open_catalog(store), "true") is None


def test_settings_are_never_taken_for_seeds(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    for epochs, seed, method in product((1, 2), range(5), ("image", "distill")):
        rows = [(f"p{i}/a", i % 2, 0.1 * ((i + seed * epochs) % 10)) for i in range(40)]
        setting = {"epochs": epochs, "split_seed": seed, "split": f"s{seed}", "seed": seed}
        invent_run(store, rows, method=method, **setting)
    sections = {section.key: section for section in write_report(store, tmp_path / "report.html")}
    for key in ("distillation", "calibration"):
        assert 'There are epochs 1, 2. Choose one, such as --where "epochs = 2".' in " ".join(sections[key].words)
    assert [part.caption for part in sections["distillation"].parts if isinstance(part, Table)] == []
    told = sections["claims"].parts[0].points
    assert [point.partition(": ")[0] for point in told] == [
        f"toy, MRM, epochs {n}, baseline epochs {n}" for n in (1, 2)
    ]
    one = {section.key: section for section in write_report(store, tmp_path / "one.html", where="epochs = 2")}
    assert [part for part in one["distillation"].parts if isinstance(part, Table)]
    assert "Left out" not in " ".join((*one["distillation"].words, *one["calibration"].words))
    with pytest.raises(DataError, match="no results to report for which epochs = 3"):
        write_report(store, tmp_path / "none.html", where="epochs = 3")


def test_text_encoders_stand_apart_and_a_choice_of_temperature_keeps_the_baseline(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    for seed in range(5):
        rows = [(f"p{i}/a", i % 2, 0.1 * ((i + seed) % 10)) for i in range(40)]
        setting = {"split_seed": seed, "split": f"s{seed}", "seed": seed}
        invent_run(store, rows, **setting)
        for text in ("bert", "minilm"):
            encoders = {"text_encoder": text, "text_features": f"{text}@1"}
            invent_run(store, rows, method="distill", temperature=0.25, **encoders, **setting)
    made = {section.key: section for section in write_report(store, tmp_path / "two.html")}
    (gains,) = [part for part in made["distillation"].parts if isinstance(part, Table)]
    assert [line[gains.headings.index("text encoder")] for line in gains.lines] == ["bert", "minilm"]
    assert [line[gains.headings.index("seeds")] for line in gains.lines] == ["5", "5"]  # of each, not ten together
    for seed in range(5):
        setting = {"split_seed": seed, "split": f"s{seed}", "seed": seed, "text_encoder": "bert"}
        invent_run(store, rows, method="distill", temperature=2.5, text_features="bert@1", **setting)
    words = {section.key: " ".join(section.words) for section in write_report(store, tmp_path / "three.html")}
    condition = "temperature = 2.5 OR temperature IS NULL"
    assert f'temperature 0.25, 2.5. Choose one, such as --where "{condition}".' in words["distillation"]
    one = {section.key: section for section in write_report(store, tmp_path / "one.html", where=condition)}
    assert [part for part in one["distillation"].parts if isinstance(part, Table)]


def test_the_templates_name_no_address_of_the_network():
    folder = Path(claims_module.__file__).parent / "templates"
    for path in folder.iterdir():
        assert "http://" not in path.read_text().replace("http-equiv", "")
        assert "https://" not in path.read_text()


def test_the_flow_shows_the_steps_that_left_rows_out():
    steps = pl.DataFrame(
        {
            "cohort": ["c"] * 4,
            "step": ["read", "missing label", "missing file", "twice"],
            "left_out": [0, 0, 30, 10],
            "rows_left": [100, 100, 70, 60],
            "what": ["rows in a table", "no label", "no file", "the same again"],
        }
    )
    flow = cohorts_module._flow("c", steps)
    shown = [(step.name, step.rows, step.left_out, step.percent) for step in flow.steps]
    assert shown == [("read", "100", "", 100.0), ("missing file", "70", "30", 70.0), ("twice", "60", "10", 60.0)]
    assert flow.note == "Steps that had nothing to leave out: missing label."
