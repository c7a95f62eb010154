"""`--set KEY=VALUE`: other values for keys of a grid. No torch, no store."""

from collections.abc import Sequence
from typing import Any

from featurestore.errors import DataError, unknown_name

from ..grid import GRID_KEYS, TRAIN_KEYS

_NAMES = frozenset(
    {"cohort", "backbone", "text_encoder", "method", "head", "precision", "select", "teacher_epoch", "views"}
)
_SINGLE = frozenset({"seed", "split_seed", "batch_size", "dropout", "precision", "select", "teacher_epoch", "views"})
KEYS = (*GRID_KEYS, *TRAIN_KEYS)


def parse_overrides(written: Sequence[str]) -> dict[str, Any]:
    """{"fraction": [0.5, 1.0]} of ["fraction=0.5,1.0"]: what a grid takes, which checks the values.

    A list has commas; epochs may be a table, `epochs=0.1:100,0.5:50`; `seed=5` is the seeds 0 to 4, `seed=0,7` two.

    Raises:
        DataError: not of the form KEY=VALUE, a key twice, or a number that is none.
        UnknownNameError: no such key, with all that are known.
    """
    found: dict[str, Any] = {}
    for entry in written:
        key, equals, value = (part.strip() for part in entry.partition("="))
        if not (key and equals and value):
            raise DataError(f"--set {entry!r} is not of the form KEY=VALUE, such as backbone=efficientnet-lite0.")
        if key not in KEYS:
            raise unknown_name("key of --set", key, KEYS)
        if key in found:
            raise DataError(f"--set {key} is given twice. Several values have commas between: {key}=A,B.")
        found[key] = _value(key, [part.strip() for part in value.split(",")])
    return found


def _value(key: str, parts: Sequence[str]) -> Any:
    if key == "epochs" and any(":" in part for part in parts):
        pairs = [part.partition(":") for part in parts]
        return {fraction: _number(key, epochs) for fraction, _, epochs in pairs}
    values = list(parts) if key in _NAMES else [_number(key, part) for part in parts]
    if len(values) == 1:
        return values[0]
    if key in _SINGLE - {"seed"} or key == "epochs":
        raise DataError(f"--set {key}={','.join(parts)}: takes one value.")
    return values


def _number(key: str, text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise DataError(f"--set {key}={text}: {text!r} is no number.")
