"""`Policy`: how long a loaded value is kept and what happens at its end. One frozen record, checked when it is made.

This file must never act on a policy: that is `loading.py`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fastcache._ttl import check_ttl
from fastcache.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Any, Self

__all__ = ["Policy"]

LONGEST = 1e12  # seconds; what Redis can hold in milliseconds, with room (see expiry.py)


@dataclass(frozen=True, slots=True)
class Policy:
    """What `get_or_load`, the patterns and `cached` do with the values they load. All times are seconds.

    Raises ConfigurationError (a ValueError) for a value out of its range, when the policy is made.

    >>> Policy(60, stale_for=600).stale_for
    600.0
    """

    ttl: float | None = None
    """How long a loaded value is fresh, at most; None: the cache's own ttl. `math.inf`: for ever."""
    jitter: float = 0.1
    """Up to this part of the ttl is taken off at random, so that values loaded together don't expire together. 0 to 1,
    1 excluded. Subtractive: the ttl stays the upper bound."""
    stale_for: float = 0.0
    """For so long after the ttl an expired value is kept and may be served: while one caller refreshes it in the background,
    and when the loader fails."""
    retry_after: float = 10.0
    """After a failed refresh of a stale value the loader is left alone for so long; twice that after the next failure,
    and so on up to 60 s (or `retry_after`, if that is more)."""
    soft_timeout: float | None = None
    """Where there is a stale value, the caller that refreshes it waits so long for the new one before it takes the old
    one; the load goes on in the background. None: it doesn't wait at all."""
    hard_timeout: float | None = None
    """A loader that takes longer has failed: LoadTimeout, or the stale value where there is one. In asyncio it is cancelled;
    a thread can't be, so there the loader runs in one of at most 32 threads of the cache, and its late result is dropped."""
    refresh_ahead: float | None = None
    """A value is refreshed in the background before it expires, with a probability that grows with the load time and as
    the end comes near (XFetch, Vattani et al. 2015): this is its beta, 1.0 is the paper's optimum, more is earlier."""
    missing_ttl: float | None = None
    """How long to remember that a loader returned MISSING. None: not at all."""
    single_flight: bool = True
    """Concurrent callers of one missing key share one run of the loader, within the process."""
    lease: bool = True
    """The same across processes, and no fill after an invalidation by another one. It takes effect in the two-level cache,
    `TieredCache`, which has what it needs in Redis; the other caches have nothing to lease and ignore it."""
    store: Literal["foreground", "background"] = "foreground"
    """Whether the caller waits until a loaded value is in Redis. "background": it gets the value at once; `drain()` waits.
    A cache in memory always stores before it returns, which takes a microsecond."""

    def __post_init__(self) -> None:
        if self.ttl is not None:
            self._set("ttl", check_ttl(self.ttl))
        self._number("jitter", 0, 1, "a part of the ttl, from 0 to below 1", below=True)
        self._number("stale_for", 0, LONGEST, "a number of seconds from 0 on")
        self._number("retry_after", 0, LONGEST, "a number of seconds above 0", above=True)
        for name in ("soft_timeout", "hard_timeout"):
            self._number(name, 0, 1e6, "a number of seconds above 0 and at most 1,000,000, or None", True, above=True)
        self._number("refresh_ahead", 0, 1e6, "a number above 0 (1.0 is the usual one), or None", True, above=True)
        if self.missing_ttl is not None:
            self._set("missing_ttl", check_ttl(self.missing_ttl, "missing_ttl"))
        for name in ("single_flight", "lease"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: must be True or False")
        if self.store not in ("foreground", "background"):
            raise ConfigurationError(f"store={self.store!r}: must be 'foreground' or 'background'")
        soft, hard = self.soft_timeout, self.hard_timeout
        if soft is not None and hard is not None and soft > hard:
            raise ConfigurationError(f"soft_timeout={soft!r}: must be at most hard_timeout, which is {hard!r}")
        if soft is not None and not self.stale_for:
            raise ConfigurationError(
                f"soft_timeout={soft!r}: has no effect without a stale value to fall back on: give stale_for too, or use"
                f" hard_timeout"
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _number(
        self,
        name: str,
        low: float,
        high: float,
        allowed: str,
        optional: bool = False,
        above: bool = False,
        below: bool = False,
    ) -> None:
        value: Any = getattr(self, name)
        if optional and value is None:
            return
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high or (above and value == low) or (below and value == high):
            raise ConfigurationError(f"{name}={value!r}: must be {allowed}")
        self._set(name, float(value))

    @classmethod
    def resilient(cls, ttl: float) -> Self:
        """For values that are better old than absent: stale ones for ten ttls, a loader gets 0.1 s before one is served
        and 10 s at most.
        """
        return cls(ttl, stale_for=0.0 if ttl == math.inf else 10 * check_ttl(ttl), **_timeouts(ttl), hard_timeout=10.0)

    @classmethod
    def hot(cls, ttl: float) -> Self:
        """For keys that are read all the time: refreshed before they expire, so that no caller ever waits; for one more ttl
        a stale value bridges a slow loader.
        """
        return cls(ttl, stale_for=0.0 if ttl == math.inf else check_ttl(ttl), refresh_ahead=1.0)


def _timeouts(ttl: float) -> dict[str, Any]:
    return {} if ttl == math.inf else {"soft_timeout": 0.1}
