"""What a time to live may be in Redis: what it may be anywhere (`_ttl.check_ttl`), up to a limit.

Anything else is refused where it is given, before anything is stored. This file must never look at a clock or a cache.
"""

from __future__ import annotations

import math

from fastcache._ttl import check_ttl as check_any_ttl
from fastcache.errors import ConfigurationError

__all__ = ["MAX_TTL", "check_ttl", "milliseconds"]

MAX_TTL = 1e12
"""Seconds, some 31,700 years. Redis adds the milliseconds to its clock in a signed 64-bit number and refuses what would
overflow (9.2e15 s); a limit well below it catches a ttl given in nanoseconds by mistake."""


def check_ttl(ttl: float) -> float:
    """Return `ttl` in seconds if it is a positive number or `math.inf`. O(1).

    Raises `ConfigurationError` for zero, a negative number, NaN, a bool, a str, a timedelta, or more than `MAX_TTL`.
    """
    seconds = check_any_ttl(ttl)
    if seconds != math.inf and seconds > MAX_TTL:
        raise ConfigurationError(
            f"ttl must be at most {MAX_TTL:g} seconds (math.inf: an entry that never expires), not {ttl!r}"
        )
    return seconds


def milliseconds(ttl: float) -> int | None:
    """What a checked ttl is in Redis' PX: whole milliseconds, at least 1, or None for one that never expires."""
    return None if ttl == math.inf else int(ttl * 1000) or 1
