"""The counters of a cache and what each of them means.

Counting itself happens where things happen (the compiled core counts hits, misses, evictions and expirations);
this file only holds the frozen record that `stats()` returns. It must never import a cache.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

__all__ = ["AwaitableStats", "CacheStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """A snapshot of a cache's counters since it was made. Counters that don't apply to a cache stay 0.

    The record is a plain value: reading it costs nothing, and it never changes after it was made.
    """

    hits: int = 0
    """Lookups that found a live value, in any tier (`l1_hits` + `l2_hits` where there are two)."""
    l1_hits: int = 0
    """Hits that the process's own memory answered."""
    l2_hits: int = 0
    """Hits that Redis answered."""
    stale_hits: int = 0
    """Lookups answered with a value past its ttl, under `stale_for`. Not part of `hits`."""
    misses: int = 0
    """Lookups that found nothing, or something expired."""
    loads: int = 0
    """Runs of a loader (or of a decorated function), failed ones included."""
    load_errors: int = 0
    """Runs of a loader that raised or timed out."""
    load_seconds: float = 0.0
    """Time spent in loaders, in seconds."""
    evictions: int = 0
    """Live entries removed to make room."""
    expirations: int = 0
    """Entries removed because their time was over."""
    lease_refused: int = 0
    """Loaded values that were not stored, because the key was invalidated or written meanwhile."""
    coherence_lost: int = 0
    """How often the first tier lost its connection to the invalidation messages."""
    backend_errors: int = 0
    """Calls to Redis that failed or timed out."""
    breaker: str = "closed"
    """The breaker of the cache's server: "closed" (all well), "open" (calls fail at once) or "half-open" (probing)."""

    @property
    def hit_ratio(self) -> float:
        """Hits (stale ones too) among all lookups, from 0.0 to 1.0; 0.0 before the first lookup."""
        found = self.hits + self.stale_hits
        total = found + self.misses
        return found / total if total else 0.0


class AwaitableStats(CacheStats):
    """The same record; awaiting it returns it, so that an asyncio cache's `stats()` can be awaited like the rest."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, CacheStats]:
        return self
        yield
