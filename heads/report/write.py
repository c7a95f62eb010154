"""Putting a report together: the sections of a study, then one file of HTML with all that it needs inside."""

import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from featurestore.catalog import Catalog
from featurestore.errors import DataError, counted
from featurestore.fsio import write_atomic
from featurestore.store import Store

from ..catalog import open_catalog
from ..charts import config
from .calibration import calibration
from .claims import claims
from .cohorts import audits, cohort_flow, failures
from .cost import cost
from .origin import origin
from .parts import Asked, Section, table_of
from .pictures import distillation, learning

_TEMPLATES = Path(__file__).parent / "templates"
METRICS = (("auroc", "AUROC"), ("auprc", "AUPRC"))
INSIDE = (
    "Inside this file: means, intervals, a value for each seed, counts, hashes, and the SQL that they come from. No "
    "ids of samples or patients, no images, no paths, and of reports at most single words that many share, where the "
    "audit finds that they give the label away. It loads nothing from elsewhere and sends nothing. The names of "
    "cohorts, classes and encoders are yours. Hashes of splits and cohorts were made from ids: for publishing, there "
    "is radfs export --results --public."
)


def write_report(
    store: Store,
    out: str | os.PathLike[str],
    *,
    where: str | None = None,
    title: str = "Results of a study",
    audit_images: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> list[Section]:
    """Write the report of a store's results.

    Args:
        store: an open store.
        out: the HTML file; replaced if it is there.
        where: an SQL condition on what `results` and `summary` have in common: cohort, method, backbone, fraction, ...
        title: of the page.
        audit_images: compare the cohorts' images in the audit too; takes about as long as reading them.
        on_progress: told which part is being made.

    Returns:
        The sections that were written.

    Raises:
        DataError: no results, SQL that is refused, or no folder to write to.
    """
    path = Path(out).expanduser()
    if not path.absolute().parent.is_dir():
        raise DataError(f"cannot write {path}: there is no folder {path.absolute().parent}.")
    catalog = open_catalog(store)
    catalog.fold()
    sections = _sections(store, catalog, where or "true", audit_images, on_progress or (lambda _: None))
    write_atomic(path.absolute(), page(sections, title=title, lead=_lead(catalog, where)).encode())
    return sections


def _sections(
    store: Store, catalog: Catalog, where: str, audit_images: bool, tell: Callable[[str], None]
) -> list[Section]:
    where = f"({where})"
    if catalog.query(f"SELECT count(*) AS n FROM summary WHERE {where}")["n"][0] == 0:
        for_which = "" if where == "(true)" else f" for which {where[1:-1]}"
        raise DataError(f'there are no results to report{for_which}. See what there is: radfs query "FROM summary".')
    names = catalog.query(f"SELECT DISTINCT cohort FROM results WHERE {where} ORDER BY cohort")["cohort"].to_list()
    peers = catalog.query("SELECT * FROM peer_results ORDER BY label, line")
    makers: list[tuple[str, Callable[[], Section | None]]] = [
        ("comparisons", lambda: claims(catalog, where)),
        ("learning curves", lambda: learning(Asked(catalog), where, peers)),
        ("distillation", lambda: distillation(Asked(catalog), where)),
        ("calibration", lambda: calibration(Asked(catalog), where)),
        ("peers", lambda: _peers(Asked(catalog))),
        ("cohorts", lambda: cohort_flow(Asked(catalog), where)),
        ("audit", lambda: audits(store, names, images=audit_images)),
        ("failures", lambda: failures(Asked(catalog), where)),
        ("cost", lambda: cost(Asked(catalog), where)),
        ("provenance", lambda: origin(Asked(catalog), where)),
    ]
    made = []
    for name, make in makers:
        tell(name)
        section = make()
        if section is not None:
            made.append(section)
    return made


def _peers(asked: Asked) -> Section | None:
    found = asked(
        "as reported",
        "SELECT label, cohort, method, backbone, fraction, n_train, n_seeds, auroc, auprc, note FROM peer_results "
        "ORDER BY label, line",
    )
    if found.is_empty():
        return None
    return Section(
        "peers",
        "What others report",
        words=(
            "Their numbers, on their rows: no difference to them is tested, and none of them is in any other table.",
        ),
        parts=(table_of(found, "Results of peers"),),
        sql=asked.sql,
    )


def _lead(catalog: Catalog, where: str | None) -> str:
    row = catalog.query(
        "SELECT count(*) AS runs, count(DISTINCT cohort) AS cohorts, count(DISTINCT method) AS methods, "
        "count(DISTINCT backbone) AS backbones, count(DISTINCT fraction) AS fractions, count(DISTINCT seed) AS seeds, "
        f"strftime(max(finished_at), '%Y-%m-%d') AS last FROM runs WHERE run IN "
        f"(SELECT run FROM results WHERE {where or 'true'})"
    ).row(0, named=True)
    of = f" where {where}" if where else ""
    nouns = {"cohorts": "cohort", "methods": "method", "backbones": "image encoder", "fractions": "training size"}
    counts = ", ".join(counted(row[name], noun) for name, noun in {**nouns, "seeds": "seed"}.items())
    return f"{counted(row['runs'], 'trained head')}{of}: {counts}. The last was trained on {row['last']}."


def page(sections: Sequence[Section], *, title: str, lead: str) -> str:
    """The HTML of a report."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    specs = {place: figure.specs for section in sections for place, figure in section.figures.items()}
    configs = {"light": config(), "dark": config(dark=True)}
    return environment.get_template("report.html").render(
        title=title,
        lead=lead,
        inside=INSIDE,
        metrics=METRICS,
        sections=sections,
        charts=_script_json({"specs": specs, "configs": configs}),
        has_charts=bool(specs),
        style=(_TEMPLATES / "style.css").read_text(),
        script=(_TEMPLATES / "report.js").read_text(),
        vega=_vega() if specs else "",
    )


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from vl-convert: no network, at no time."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    if "</script" in bundle.lower():
        raise AssertionError("the bundle of Vega would end its own script element")
    return bundle


def _script_json(value: Any) -> str:
    """JSON that may stand in a script element whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
