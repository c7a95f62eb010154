"""Content keys: one canonical text for a config, one hash of it.

What changes numbers goes in, always as resolved (never "auto"); what does not (workers, device, paths) stays out.
"""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys and no spaces, so that equal configs give equal texts. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_key(value: Any, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the sha256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def seeded_order_key(seed: int, stream: str, name: str) -> bytes:
    """A sort key that puts names into a seeded random order: the same on every platform and library version.

    A name keeps its place when others come or go, which a shuffled index list would not give.
    """
    return hashlib.sha256(f"{seed}/{stream}/{name}".encode()).digest()


def stream_seed(seed: int, stream: str) -> int:
    """An independent 63-bit seed for one stream (split, subset, init, batches, dropout, ...) of a run's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], "big") >> 1
