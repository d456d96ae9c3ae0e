"""`TieredCache`: copies in this process's memory over values in Redis, coherent between processes.

A hit in memory is one compiled lookup, behind the gate that says whether copies may be relied on; it makes no plan. All
else is in the plans of `tierplans.py`. This file must never decide anything twice: a branch that both faces need belongs
into a plan. Importing it imports redis and msgspec: the extra `fastcache-tiers[redis]`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

from fastcache.arguments import refuse_copy
from fastcache.backends import MemoryCache
from fastcache.errors import MissingType
from fastcache.events import OnEvent
from fastcache.memory import NOTHING, Entry
from fastcache.methods import declare_keywords, lookup_first
from fastcache.plan import run
from fastcache.policy import Policy
from fastcache.redis import RedisCache
from fastcache.stats import CacheStats
from fastcache.tierplans import Tiers

if TYPE_CHECKING:
    from fastcache.entries import Key

__all__ = ["TieredCache"]

T = TypeVar("T")
D = TypeVar("D")
Coherence: TypeAlias = Literal["pubsub", "tracking"] | None

_type = type  # where a parameter has that name


class TieredCache(Tiers):
    """Two tiers: a `MemoryCache` of this process over a `RedisCache` that all processes share. Thread-safe.

    local: the first tier, empty and this cache's own; its `maxsize` and `ttl` bound what is kept; what its
    `on_evict` raises goes to `sys.unraisablehook`, for a change has still to reach Redis then. remote: the second; its
    prefix, ttl, serializer and type are this cache's. `close()` closes both.
    policy: what `get_or_load` does (see `Policy`); by default that of `remote`. Loads are shared by all processes
    (`Policy.lease`), and what was loaded before an invalidation is stored nowhere.
    coherence: how copies learn what other processes write. "pubsub": each write and invalidation through such a cache is
    published. "tracking": Redis itself tells (RESP3, Redis 6 and later), also of writers that know nothing of this package.
    A copy is served only while the process is known to have missed nothing for at most 2 s; else Redis is read.
    None: not at all; a copy is served until its ttl ends, whatever other processes write.
    isolate: each reader gets an object of its own, decoded anew; otherwise all readers share one, and must not change it.
    on_event: called with an `Event` when a loader ran, a value was refused, coherence was lost, and so on.

    Keys are str (bytes too, unless the client has decode_responses=True). With Redis away nothing is raised for it: `get`
    finds nothing, `get_or_load` asks the loader, and what was written or invalidated is invalidated in Redis when it is
    back; until then nothing here reads it from there. Everything connects when first used.
    """

    _memories = (MemoryCache,)
    _wanted = RedisCache
    __contains__ = None  # `key in cache` would walk `cache[0]`, `cache[1]` ...; there is `exists(key)`
    __iter__ = None

    def __init__(
        self,
        local: MemoryCache[Any, Any],
        remote: RedisCache,
        *,
        policy: Policy | None = None,
        coherence: Coherence = "pubsub",
        isolate: bool = False,
        on_event: OnEvent | None = None,
    ) -> None:
        self._set_up(local, remote, policy, coherence, isolate, on_event)

    @lookup_first(1)
    def get(self, key: Key, default: Any = None, type: Any = None) -> Any:  # `type` by keyword: see get_or_load
        """The value of a key, decoded (into `type`, if given), or `default`. O(1) for a copy in memory, else one round trip.

        Raises SerializationError where the value in Redis can't be decoded.
        """
        value = self._lookup(key, NOTHING) if type is None else self._typed(key, type)
        if _type(value) is not Entry:
            return value
        return run(self._get_plan(key, value, default, type))

    def set(self, key: Key, value: Any, ttl: float | None = None, *, tags: Iterable[str] = ()) -> None:
        """Store a value in both tiers for `ttl` seconds (that of the Redis cache if None), and tell the other processes.

        `tags`: names by which it can be invalidated with others. One round trip. Not stored while another process is
        `writing` the key. Raises SerializationError for a value that can't be encoded, having changed nothing.
        """
        run(self._set_plan({key: value}, ttl, tags))

    def delete(self, key: Key) -> bool:
        """Remove a key from both tiers and all processes; whether Redis had it (False while it is away). One round trip."""
        return bool(run(self._delete_many_plan([key])))

    def invalidate(self, key: Key) -> None:
        """Have the next reader load the value, in all processes: the same as `delete`. One round trip.

        What is being loaded for it, here or elsewhere, goes to those who wait for it and is stored nowhere.
        """
        run(self._delete_many_plan([key]))

    def invalidate_tags(self, *tags: str) -> None:
        """Have no value that was stored with one of the tags be served any longer. O(1) in Redis for each tag."""
        run(self._invalidate_tags_plan(tags))

    @contextmanager
    def writing(self, key: Key) -> Generator[None, None, None]:
        """Surround the writing of what a key's value is made from, such as a database transaction. Two round trips.

        From the beginning on nobody stores the key, whatever he loads; at the end it is invalidated, also if the block
        raises. A process that dies in between leaves no value; the key isn't cached again for 10 s then.
        """
        held = run(self._loading.hold_plan(key))
        try:
            yield
        except BaseException:
            run(self._loading.abandon_plan(key, held))
            raise
        run(self._loading.invalidate_plan(key, held=held))

    def exists(self, key: Key) -> bool:
        """Whether there is a value. O(1) for a copy in memory, else one round trip."""
        return run(self._exists_plan(key))

    def remaining(self, key: Key) -> float | None:
        """Seconds until the key expires in Redis; None if it isn't there, `math.inf` if it never does. One round trip."""
        return run(self._remaining_plan(key))

    def get_many(self, keys: Iterable[Key], *, type: Any = None) -> dict[Any, Any]:
        """The values of those keys that are there. One round trip for all that have no copy (in a cluster, per node)."""
        return run(self._get_many_plan(keys, type))

    def set_many(self, mapping: Mapping[Any, Any], ttl: float | None = None, *, tags: Iterable[str] = ()) -> None:
        """Store all of `mapping`, each key as `set` would; nothing is sent unless all can be encoded. Not atomic."""
        run(self._set_plan(mapping, ttl, tags))

    def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove keys; how many Redis had. One round trip per 500."""
        return run(self._delete_many_plan(keys))

    def delete_pattern(self, glob: Key) -> int:
        """Remove the keys that match a Redis glob; how many. O(all keys in the database), by SCAN in small steps.

        With Redis away, all keys of the prefix are invalidated when it is back.
        """
        return run(self._delete_pattern_plan(glob))

    def clear(self) -> None:
        """Invalidate all that was stored through such a cache under this prefix. O(1) in Redis, where it expires by and by.

        Values that other programs, or a `RedisCache`, stored under the prefix stay; `delete_pattern("*")` removes these,
        too.
        """
        run(self._clear_plan())

    @overload
    def get_or_load(
        self,
        key: Key,
        loader: Callable[[Any], T],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
        tags: Iterable[str] = (),
    ) -> T: ...
    @overload
    def get_or_load(
        self,
        key: Key,
        loader: Callable[[Any], T | MissingType],
        default: D,
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
        tags: Iterable[str] = (),
    ) -> T | D: ...
    @lookup_first(2)
    def get_or_load(
        self,
        key: Key,
        loader: Any,
        default: Any = None,
        ttl: float | None = None,  # by keyword: see MemoryCache.get_or_load
        policy: Policy | None = None,
        type: Any = None,
        tags: Iterable[str] = (),
    ) -> Any:
        """The value of a key; where there is none, what `loader(key)` returns, which is stored in both tiers with `tags`.

        Callers share one run of the loader, in this process and with the others: who finds another process loading waits for
        it, 2 s at most (twice that if it dies), and then loads without storing. Otherwise as `RedisCache.get_or_load`.
        A copy in memory costs one lookup, a value in Redis one round trip, a load three.

        Raises what the loader raises; LoadTimeout by the policy's `hard_timeout`; ConfigurationError for a wrong ttl or tag.
        """
        value = self._lookup(key, NOTHING) if type is None else self._typed(key, type)
        if _type(value) is not Entry:
            return value
        return run(self._load_plan(key, value, loader, default, ttl, policy, type, tags))

    def get_or_load_many(
        self,
        keys: Iterable[Key],
        loader: Callable[[list[Any]], Mapping[Any, T | MissingType]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
        tags: Iterable[str] = (),
    ) -> dict[Any, T]:
        """The values of `keys`, the missing ones by one call of `loader(list of missing keys)`, which returns a mapping.

        Each value that is loaded is stored with `tags`. Otherwise as `RedisCache.get_or_load_many`, and `get_or_load`.
        """
        found: dict[Any, T] = run(self._load_many_plan(keys, loader, ttl, policy, type, tags))
        return found

    def sync(self) -> None:
        """Return when all that was written or invalidated anywhere before this call is known here. One round trip; 2 s at
        most.

        A copy is served afterwards only if it is no older than that.
        """
        run(self._sync_plan())

    def explain(self, key: Key) -> str:
        """Where a key is, whether it may be relied on, and what a `get` would do: some lines of text. One round trip."""
        return run(self._explain_plan(key))

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until the work in the background is done, at most `timeout` seconds; whether it is."""
        driver: Any = self._loading.driver
        done: bool = driver.drain(timeout)
        return done

    def stats(self) -> CacheStats:
        """The counters of this object since it was made. O(1), asks nobody."""
        return CacheStats(**self._snapshot())

    def close(self) -> None:
        """Stop listening, wait for what is loaded in the background, for 5 s at most, and close both tiers.

        What Redis hasn't heard of yet is sent before, if it is back.
        (A client that was given to the Redis cache stays open.) May be called again.
        """
        driver: Any = self._loading.driver
        if self._listener is not None:
            self._listener.leave()
        driver.close()
        run(self._loading.last_plan())
        self.local.close()
        self.remote.close()

    __reduce__ = refuse_copy

    def __getitem__(self, key: Key) -> Any:
        """The value of a key. Raises CacheMiss (a KeyError) if there is none."""
        return run(self._item_plan(key))

    def __enter__(self) -> TieredCache:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


declare_keywords(TieredCache.get)
declare_keywords(TieredCache.get_or_load)
