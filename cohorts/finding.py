"""One finding of an audit."""

from collections.abc import Sequence
from dataclasses import dataclass

_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        level: "leak", "warning" or "note".
        check: name of the check.
        text: what it is, with the first ids.
        n: how many cases.
    """

    level: str
    check: str
    text: str
    n: int = 0


def shown(ids: Sequence[str]) -> str:
    """The first ids, and how many more."""
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more
