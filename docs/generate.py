"""Write what follows from the code: schema.md, cli.md, encoders.md, README's tables. A test holds them to it.

python docs/generate.py
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

DOCS = Path(__file__).parent
ROOT = DOCS.parent
MAPPED = ("featurestore", "cohorts", "heads", "cli", "benchmarks")
_ENCODERS = re.compile(r"(<!-- encoders:[^\n]*-->\n).*?(<!-- end of encoders -->)", re.DOTALL)
_MAP = re.compile(r"(<!-- file map:[^\n]*-->\n).*?(<!-- end of file map -->)", re.DOTALL)


def schema_page() -> str:
    """The tables and views of a store, from the packages' own definitions."""
    import cohorts.schema
    import featurestore.schema
    import heads.schema
    import heads.views
    from featurestore.catalog import Table
    from heads.exchange.peers import PEER_RESULTS

    lines = [
        "# Tables and views",
        "",
        "What `radfs query` sees. This page is made by `docs/generate.py` from the schema modules; each table is named",
        "with the truth files behind it. Reports' texts are never in the catalog.",
        "",
    ]
    views = [*heads.schema.VIEWS, *heads.views.VIEWS, *featurestore.schema.VIEWS]
    tables = [*heads.schema.TABLES, PEER_RESULTS, *cohorts.schema.TABLES, *featurestore.schema.TABLES]
    for kind, members in (("Views", views), ("Tables", tables)):
        lines += [f"## {kind}", ""]
        for member in members:
            truth = f" Truth: `{member.truth}`." if isinstance(member, Table) else ""
            lines += [
                f"### `{member.name}`",
                "",
                f"{member.comment}{truth}",
                "",
                "| column | type | meaning |",
                "|---|---|---|",
            ]
            lines += [f"| `{c.name}` | {c.type} | {c.comment.replace('|', '/')} |" for c in member.columns]
            lines.append("")
    return "\n".join(lines)


def cli_page() -> str:
    """`--help` of every command."""
    from cli.main import app

    lines = ["# Commands", "", "Made by `docs/generate.py` from the commands' own `--help`.", ""]
    for path in _command_paths(get_command(app), []):
        # A fixed width and no colours: the page must not depend on the terminal that it was made in.
        environment = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
        result = CliRunner().invoke(app, [*path, "--help"], env=environment, prog_name="radfs")
        text = "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())
        lines += [f"## `{' '.join(['radfs', *path])}`", "", "```text", text, "```", ""]
    return "\n".join(lines)


def encoders_page() -> str:
    """Every encoder's contract, from its spec."""
    from featurestore.encoders import list_specs

    lines = [(DOCS / "encoders.head.md").read_text().rstrip(), ""]
    for spec in list_specs():
        lines += [f"## `{spec.name}`", "", f"{spec.describe()}.", ""]
        lines += [f"- **Network**: {spec.architecture}{_options(spec.architecture.options)}", f"- {_source(spec)}"]
        if spec.load != type(spec.load)():
            lines.append(f"- **In the file**: {_load_rule(spec.load)}")
        lines += [
            f"- **Preprocessing**: {_fields(spec.preprocessing)}",
            f"- **Trained**: {spec.objective}, on {', '.join(spec.pretraining) or 'nothing'}",
            f"- **Licence**: {spec.licence}{'. ' + spec.terms if spec.terms else ''}",
        ]
        lines += [f"- **In {precision}**: {caution}." for precision, caution in spec.cautions]
        for variant in spec.variants:
            lines.append(f"- **Variant `{variant.axis}`**: default `{variant.default}`: {variant.reason}.")
            for choice, changes in variant.choices.items():
                same = "" if choice == variant.default else "the same numbers"
                said = "; ".join(_change(key, value) for key, value in changes.items()) or same
                if said:
                    lines.append(f"    - `{choice}`: {said}")
        lines += [f"- {spec.notes}", ""] if spec.notes else [""]
    return "\n".join(lines)


def with_encoders(readme: str) -> str:
    """README with its table of encoders made anew from the specs."""
    from featurestore.encoders import list_specs

    lines = ["", "| encoder | tokens | dim | trained | licence | weights |", "|---|---|---|---|---|---|"]
    for spec in list_specs():
        if spec.objective == "none":
            continue
        grid = spec.tokens.grid
        tokens = (
            f"{grid[0]}x{grid[1]}{' + CLS' if spec.tokens.has_cls else ''}" if grid else f"<= {spec.context_length}"
        )
        where = {"hub": "hub", "page": "by hand", "pypi": f"radfs[{getattr(spec.weights, 'extra', '')}]"}
        licence = spec.licence + (" (!)" if spec.terms else "")
        cells = (f"`{spec.name}`", tokens, spec.tokens.dim, spec.objective, licence, where[spec.weights.kind])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return _ENCODERS.sub(lambda match: match[1] + "\n".join([*lines, "", match[2]]), readme)


def _source(spec: Any) -> str:
    source = spec.weights
    if source.kind == "hub":
        known = f"; {', '.join(source.known)}" if source.known else ""
        return (
            f"**Weights**: [{source.repo}]({source.page}), revision {source.revision}, {', '.join(source.files)}{known}"
        )
    if source.kind == "page":
        return f"**Weights**: {', '.join(source.files)} from <{source.page}>, by hand"
    return f"**Weights**: {'PyPI, ' + source.distribution if source.kind == 'pypi' else 'drawn from a seed'}"


def _options(options: Mapping[str, Any]) -> str:
    return f" ({', '.join(f'{key} {value}' for key, value in options.items())})" if options else ""


def _load_rule(rule: Any) -> str:
    parts = [f"below `{rule.top_key}`"] if rule.top_key else []
    parts += [f"names begin with `{rule.strip_prefix}`"] if rule.strip_prefix else []
    parts += [f"left out: {', '.join(f'`{pattern}`' for pattern in rule.drop)}"] if rule.drop else []
    return "; ".join([*parts, *(f"`{theirs}` is `{ours}`" for theirs, ours in rule.rename)])


def _fields(value: Any) -> str:
    """A preprocessing's fields, without those that say nothing."""
    return ", ".join(f"{key} {given}" for key, given in asdict(value).items() if given not in ("", False, 0))


def _change(key: str, value: Any) -> str:
    return _fields(value) if hasattr(value, "__dataclass_fields__") else f"{key} {value}"


def with_file_map(readme: str) -> str:
    """README with its file map made anew: every module and the first line of its docstring."""
    lines = []
    for folder in MAPPED:
        lines += ["", "| file | what it is |", "|---|---|"]
        lines += [f"| `{path.relative_to(ROOT).as_posix()}` | {_purpose(path)} |" for path in _modules(ROOT / folder)]
    return _MAP.sub(lambda match: match[1] + "\n".join([*lines, "", match[2]]), readme)


def _modules(folder: Path) -> list[Path]:
    """A folder's files before those of the folders in it."""
    files = [path for path in folder.rglob("*.py") if path.read_text().strip()]
    return sorted(files, key=lambda path: (path.parent.as_posix(), path.name))


def _purpose(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[a-z0-9`)\]])\. ", text + " ")[0].rstrip(". ").replace("|", "/")


def _command_paths(command: object, path: list[str]) -> list[list[str]]:
    children: dict[str, object] = getattr(command, "commands", {})
    return [path, *[p for name, child in children.items() for p in _command_paths(child, [*path, name])]]


if __name__ == "__main__":
    (DOCS / "schema.md").write_text(schema_page())
    (DOCS / "cli.md").write_text(cli_page())
    (DOCS / "encoders.md").write_text(encoders_page())
    (ROOT / "README.md").write_text(with_encoders(with_file_map((ROOT / "README.md").read_text())))
