"""The queries of docs/sql.md, by the title of their section: tests run what the documentation says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"


def recipes() -> dict[str, str]:
    """SQL by title."""
    return dict(re.findall(r"^## (.+?)\n.*?```sql\n(.*?)```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE))


def recipe(title: str) -> str:
    """The SQL of one section."""
    return recipes()[title]
