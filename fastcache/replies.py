"""Many keys in batches, and whether a reply of the server is one that the command can have.

This file must never send anything, nor know what a reply is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["SCRIPT_BATCH", "batches", "is_sound"]

BATCH = 10_000  # keys per MGET or pipeline: one round trip for all practical calls, bounded work and memory beyond
SCRIPT_BATCH = 500  # scripts in one pipeline: some milliseconds of the server's time


def batches(items: Sequence[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def is_sound(command: Any, reply: Any) -> bool:
    """Whether a reply is of a type that the command's replies have, or an error. O(replies in it)."""
    if isinstance(reply, Exception):
        return True
    if command == "GET":
        return reply is None or type(reply) is bytes
    if command in ("PTTL", "UNLINK"):
        return type(reply) is int
    if command == "MGET":
        return type(reply) is list and all(one is None or type(one) is bytes for one in reply)
    return True
