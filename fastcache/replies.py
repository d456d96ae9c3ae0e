"""Many keys in batches, and whether a reply of the server is one that the command can have.

This file must never send anything, nor know what a reply is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["batches"]

BATCH = 10_000  # keys per MGET or pipeline: one round trip for all practical calls, bounded work and memory beyond


def batches(items: Sequence[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
