"""What a time to live may be, decided once for everything that stores in Redis.

A ttl is a positive finite number of seconds, or `math.inf` for "never expires". Anything else is refused where it is
given, before anything is stored. This file must never look at a clock or a cache.
"""

from __future__ import annotations

import math
from numbers import Real

from fastcache.errors import ConfigurationError

__all__ = ["MAX_TTL", "check_ttl", "milliseconds"]

MAX_TTL = 1e12
"""Seconds, some 31,700 years. Redis adds the milliseconds to its clock in a signed 64-bit number and refuses what would
overflow (9.2e15 s); a limit well below it catches a ttl given in nanoseconds by mistake."""


def check_ttl(ttl: float) -> float:
    """Return `ttl` in seconds if it is a positive number or `math.inf`. O(1).

    Raises `ConfigurationError` for zero, a negative number, NaN, a bool, a str, a timedelta, or more than `MAX_TTL`.
    """
    if isinstance(ttl, bool) or not isinstance(ttl, Real):
        raise ConfigurationError(
            f"ttl={ttl!r}: a ttl is a number of seconds (int or float) above 0, or math.inf for an entry that never"
            f" expires; got {type(ttl).__name__}"
        )
    if not ttl > 0:  # NaN too
        raise ConfigurationError(f"ttl={ttl!r}: a ttl is above 0 seconds, or math.inf for an entry that never expires")
    if ttl != math.inf and ttl > MAX_TTL:
        raise ConfigurationError(
            f"ttl={ttl!r}: a ttl is at most {MAX_TTL:g} seconds; math.inf is an entry that never expires"
        )
    return float(ttl)


def milliseconds(ttl: float) -> int | None:
    """What a checked ttl is in Redis' PX: whole milliseconds, at least 1, or None for one that never expires."""
    return None if ttl == math.inf else int(ttl * 1000) or 1
