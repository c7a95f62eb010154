"""Write what follows from the code: docs/schema.md, docs/cli.md, README's file map. A test holds them to it.

python docs/generate.py
"""

import ast
import re
from pathlib import Path

from typer.main import get_command
from typer.testing import CliRunner

DOCS = Path(__file__).parent
ROOT = DOCS.parent
MAPPED = ("featurestore", "cohorts", "heads", "cli", "benchmarks")
_MAP = re.compile(r"(<!-- file map:[^\n]*-->\n).*?(<!-- end of file map -->)", re.DOTALL)


def schema_page() -> str:
    """The tables and views of a store, from the packages' own definitions."""
    import cohorts.schema
    import featurestore.schema
    import heads.schema
    from featurestore.catalog import Table

    lines = [
        "# Tables and views",
        "",
        "What `radfs query` sees. This page is made by `docs/generate.py` from the schema modules; each table is named",
        "with the truth files behind it. Reports' texts are never in the catalog.",
        "",
    ]
    views = [*heads.schema.VIEWS, *featurestore.schema.VIEWS]
    tables = [*heads.schema.TABLES, *cohorts.schema.TABLES, *featurestore.schema.TABLES]
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
    (ROOT / "README.md").write_text(with_file_map((ROOT / "README.md").read_text()))
