"""Every error that radfs raises on purpose.

A message names the thing, the value, what was allowed and the next step; in a batch, the id. The command line prints
these as one line and exits with 1; anything else is a bug and shows its traceback.
"""

import difflib
from collections.abc import Iterable

_SHOWN = 30
_SEARCHED = 5_000  # item ids of a large store would take minutes


class RadfsError(Exception):
    """The base of all errors that a user can mend."""


class StoreError(RadfsError):
    """The store is missing, is of another format, or is held by another process."""


class DataError(RadfsError):
    """Input data (a table, an image, a grid) is not what was asked for."""


class DamageError(RadfsError):
    """Committed bytes are gone or differ from what was written."""


class ChecksumError(DamageError, OSError):
    """A table is not what radfs wrote. An OSError too: whoever expects files that cannot be read expects this."""


class UnknownNameError(RadfsError):
    """A name that stands in no table."""


class ItemError(RadfsError):
    """One item cannot be decoded or encoded. Extraction records it as a failure and goes on."""


def counted(count: int, noun: str) -> str:
    """A number and what it counts: "1 item", "2 items", "1,000 items"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a `name` that is not one of the `known` names of this `kind`, with the nearest ones first."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names[:_SEARCHED], n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return UnknownNameError(f"unknown {kind} {name!r}. {hint}Known: {', '.join(names[:_SHOWN]) or 'none yet'}{more}.")
