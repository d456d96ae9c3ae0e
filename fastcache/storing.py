"""The half of the loading engine that stores, writes and invalidates; the other half is `loading.py`.

Rules: a loaded value is stored only while its flight is the one in the table; after the first failure of the backend a call
touches it no more; a key whose invalidation the backend didn't take waits in the outbox, and isn't read from the cache.
This file must never call a loader.
"""

from __future__ import annotations

import math
import random as _random
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from fastcache._lru import LRUCache
from fastcache.background import Tasks, Threads
from fastcache.errors import MISSING, BackendError, SerializationError
from fastcache.events import Reporter
from fastcache.flight import inside
from fastcache.outbox import Outbox
from fastcache.plan import Call, Join, Plan
from fastcache.policy import Policy

__all__ = ["Errand", "Found", "Store", "Storing", "Unstored"]

LONGEST_RETRY = 60.0  # seconds: a database that is back must be noticed within a minute
MOST_HELD_OFF = 10_000  # keys whose failed refresh is remembered, each some 200 bytes
FLUSH_BATCH = 500  # keys of the outbox at a time
FLUSH_INTERVAL = 1.0  # seconds, as the breaker's probe


@dataclass(slots=True)
class Found:
    """What a store has for a key."""

    value: Any
    """MISSING: it is remembered that there is nothing."""
    stale: bool = False
    broken: bool = False
    """There is something, but it can't be used: a miss, to be overwritten."""
    remaining: float = math.inf
    """Seconds for which it is fresh."""
    load_seconds: float = 0.0
    """How long it took to load, if that is known."""
    token: Any = None
    """What the store needs to know again that nobody else wrote meanwhile."""


class Unstored:
    """What a loader returns around a value that is for its callers only: what is stored under the key stays as it is."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Store(Protocol):
    """A cache as the engine sees it. All methods named `..._plan` are plans, and may raise BackendError."""

    local: bool
    """It is in this process's memory: writing takes no time, and is atomic under the lock of the flights."""
    ttl: float | None
    """Of an entry for which nobody says another; None: somebody has to."""

    def identity(self, key: Any) -> Hashable:
        """One value for all forms of a key. Raises what a wrong key is to raise."""
        ...

    def read_plan(self, keys: Mapping[Any, Any], type: Any, policy: Policy) -> Plan[dict[Any, Found]]:
        """What there is, by identity. `keys`: identity -> the caller's key."""
        ...

    def write_plan(
        self,
        values: Mapping[Any, Any],
        keys: Mapping[Any, Any],
        found: Mapping[Any, Found] | None,
        policy: Policy,
        lives: Mapping[Any, float],
        load_seconds: float,
    ) -> Plan[list[Any]]:
        """Store values for `lives` seconds each (plus `stale_for`), where nobody wrote since `found` (None: wherever).
        Returns the identities that were refused. Raises SerializationError, too, having stored nothing.
        """
        ...

    def remove_plan(self, identities: Iterable[Any]) -> Plan[Any]:
        """Remove keys."""
        ...

    def clear_plan(self) -> Plan[Any]:
        """Remove all keys."""
        ...

    def section(self) -> AbstractContextManager[Any]:
        """Of a local store: the lock of the flights, for checking and storing at once."""
        ...

    def unreachable(self, error: Exception | None) -> bool:
        """Whether the backend is away, said by its error; None: whether it is known to be away without asking it."""
        ...


@dataclass(slots=True)
class Errand:
    """One call of the engine."""

    keys: dict[Any, Any]  # identity -> the caller's key
    loader: Callable[[Any], Any]
    policy: Policy
    type: Any
    single: bool
    found: dict[Any, Found]
    alive: bool = True  # no backend failure yet
    seen: int = -1  # landings at the last look
    early: bool = False
    unstored: bool = False  # the loader returned an `Unstored`

    def name(self, identities: list[Any]) -> Any:
        """The key or keys, for events and messages."""
        return self.keys[identities[0]] if self.single else tuple(self.keys[identity] for identity in identities)


class Storing:
    """What an engine knows of its cache. `clock` and `random` are there for tests."""

    def __init__(
        self,
        store: Store,
        driver: Threads | Tasks,
        policy: Policy | None,
        reporter: Reporter,
        clock: Callable[[], float] = monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        if policy is not None and not isinstance(policy, Policy):
            raise TypeError(f"policy must be a Policy or None, not {policy!r}")
        self.store = store
        self.driver = driver
        self.flights = driver.flights
        self.writes = type(driver.flights)()
        self.reporter = reporter
        self.outbox = Outbox()
        self.random = random
        self._clock = clock
        self.policy = policy
        self._held_off: LRUCache[Any, tuple[float, float]] = LRUCache(MOST_HELD_OFF)
        self._flushing = False
        self._flush_after = -math.inf  # the calls' own flushing, after one that failed
        # Of a store elsewhere, any error is the backend's: its replies may be anything. In memory: a callback's.
        self._failures: type[Exception] = BackendError if store.local else Exception

    def _failed(self, errand: Errand, identities: list[Any], error: Exception) -> None:
        errand.alive = False
        self.reporter.backend_failed(errand.name(identities), error, self.store.unreachable(error))

    def _hold_off(self, identity: Any, policy: Policy) -> None:
        _, last = self._held_off.get(identity, (0.0, 0.0))
        delay = min(2 * last, max(LONGEST_RETRY, policy.retry_after)) if last else policy.retry_after
        self._held_off[identity] = (self._clock() + delay, delay)

    def _waits(self, identity: Any) -> bool:
        """Whether a refresh failed so recently that the next is to wait."""
        held = self._held_off.peek(identity)
        return held is not None and self._clock() < held[0]

    # -- storing ---------------------------------------------------------------------------------------------------

    def _store_plan(
        self, errand: Errand, loaded: dict[Any, Any], flights: Mapping[Any, Any], load_seconds: float
    ) -> Plan[None]:
        """Store what was loaded, but for what was invalidated meanwhile."""
        policy = errand.policy
        keep = {
            identity: value
            for identity, value in loaded.items()
            if (value is not MISSING or policy.missing_ttl is not None or identity in errand.found)
            and identity not in self.outbox
        }
        if not keep or not errand.alive or errand.unstored:
            return
        if self.store.local:
            with self.store.section():
                mine = [identity for identity in keep if self.flights.holds(identity, flights.get(identity))]
                yield from self._put_plan(errand, {identity: keep[identity] for identity in mine}, load_seconds)
        else:
            stored, mine = self.flights.begin_store(keep, flights.get)
            values = {identity: keep[identity] for identity in mine}

            def put() -> Plan[None]:
                try:
                    yield from self._put_plan(errand, values, load_seconds)
                finally:
                    self.flights.end_store(values, stored)

            if policy.store == "foreground" or not self.driver.spawn(put):
                yield from put()
        for identity in keep.keys() - set(mine):
            self.reporter.refuse(errand.keys[identity])

    def _put_plan(self, errand: Errand, values: dict[Any, Any], load_seconds: float) -> Plan[None]:
        policy = errand.policy
        gone = [identity for identity, value in values.items() if value is MISSING and policy.missing_ttl is None]
        kept = {identity: value for identity, value in values.items() if identity not in gone}
        try:
            if gone:
                yield from self.store.remove_plan(gone)  # a stale value of what is no more
            if kept:
                refused = yield from self.write_plan(kept, errand.keys, errand.found, policy, load_seconds)
                for identity in refused:
                    self.reporter.refuse(errand.keys[identity])
        except SerializationError as error:
            self.reporter.tell("store_error", errand.name(list(values)), error=error)
        except self._failures as error:
            self._failed(errand, list(values), error)

    def write_plan(
        self,
        values: Mapping[Any, Any],
        keys: Mapping[Any, Any],
        found: Mapping[Any, Found] | None,
        policy: Policy,
        load_seconds: float = 0.0,
    ) -> Plan[list[Any]]:
        assert policy.ttl is not None
        lives = {}
        for identity, value in values.items():
            ttl = policy.ttl if value is not MISSING or policy.missing_ttl is None else policy.missing_ttl
            lives[identity] = ttl if ttl == math.inf else ttl * (1 - policy.jitter * self.random())
        return (yield from self.store.write_plan(values, keys, found, policy, lives, load_seconds))

    # -- writing and invalidating ----------------------------------------------------------------------------------

    def forget_plan(self, identity: Any) -> Plan[None]:
        """Nothing that is being loaded for a key is stored from now on, nor still on its way into the store."""
        self._held_off.pop(identity, None)
        yield from self.await_plan([self.flights.forget(identity)])

    def await_plan(self, stores: Iterable[Any]) -> Plan[None]:
        for stored in stores:
            if stored is not None and stored.enter(inside.get()):
                try:
                    yield Join(stored)
                finally:
                    stored.leave(inside.get())

    def invalidate_plan(self, key: Any) -> Plan[None]:
        """Remove a key, or, if the backend doesn't, see to it that nobody here reads it."""
        identity = self.store.identity(key)
        marks = self.outbox.marks([identity])
        try:
            yield from self.forget_plan(identity)
            yield from self.store.remove_plan([identity])
        except self._failures as error:
            self.reporter.backend_failed(key, error, self.store.unreachable(error))
            self._post(identity)
        except BaseException as error:
            yield from self._interrupted_plan(identity, error)
            raise
        else:
            self.outbox.done(marks)
            self.reporter.backend_answered()
        finally:
            self.flights.forget(identity)

    def put_plan(self, key: Any, value: Any, policy: Policy) -> Plan[None]:
        """Store a value that the program wrote, or, if the backend doesn't, see to it that nobody here reads an older."""
        identity = self.store.identity(key)
        marks = self.outbox.marks([identity])
        try:
            yield from self.forget_plan(identity)
            yield from self.write_plan({identity: value}, {identity: key}, None, policy)
        except SerializationError as error:
            self.reporter.tell("store_error", key, error=error)
            yield from self.invalidate_plan(key)
        except self._failures as error:
            self.reporter.backend_failed(key, error, self.store.unreachable(error))
            if self.store.unreachable(error):
                self._post(identity)
            else:
                yield from self.invalidate_plan(key)  # it said no, so it is there
        except BaseException as error:
            yield from self._interrupted_plan(identity, error)
            raise
        else:
            self.outbox.done(marks)
            self.reporter.backend_answered()
        finally:
            self.flights.forget(identity)

    def _interrupted_plan(self, identity: Any, error: BaseException) -> Plan[None]:
        """Whether a write took place isn't known: see to it that nobody here reads what it was to replace."""
        if not self.store.local:
            self._post(identity)
        elif not isinstance(error, Exception):  # an error is that of an `on_evict`, after the write
            yield from self.store.remove_plan([identity])

    def exclusive_plan(self, key: Any, plan: Plan[Any]) -> Plan[Any]:
        """Run a plan while no other such plan runs for the key in this process (in asyncio, in this event loop)."""
        identity = self.store.identity(key)
        current = inside.get()
        while True:
            flight, mine = self.writes.board([identity])
            if mine:
                break
            other = self.writes.under_way(identity)
            if other is None:
                continue
            if not other.enter(current):
                return (yield from plan)  # inside the other one: it waits for us
            try:
                yield Join(other)
            finally:
                other.leave(current)
        flight.enter(current)
        token = inside.set(flight)
        try:
            return (yield from plan)
        finally:
            inside.reset(token)
            flight.leave(current)
            self.writes.drop([identity], flight)
            flight.hand_over()

    # -- the outbox ------------------------------------------------------------------------------------------------

    def _post(self, identity: Any) -> None:
        self.outbox.add(identity)
        if not self._flushing and not self.driver.stopped:
            self._flushing = True  # before the plan may end
            if not self.driver.keep(self._keep_flushing_plan()):
                self._flushing = False  # the next operation flushes

    def _keep_flushing_plan(self) -> Plan[None]:
        try:
            while self.outbox and not self.driver.stopped:
                yield Call(self.driver.pause, FLUSH_INTERVAL)
                yield from self._flush_plan(None)
        finally:
            self._flushing = False

    def _flush_plan(self, errand: Errand | None) -> Plan[None]:
        """Send the invalidations that wait, unless the backend is known to be away."""
        outbox = self.outbox
        if self.store.unreachable(None):
            return
        try:
            if overflow := outbox.overflowed:
                yield from self.store.clear_plan()
                outbox.cleared(overflow)
            while batch := outbox.batch(FLUSH_BATCH):
                yield from self.store.remove_plan(batch)
                outbox.done(batch)
        except self._failures as error:
            self.reporter.backend_failed(None, error, self.store.unreachable(error))
            self._flush_after = self._clock() + FLUSH_INTERVAL
            if errand is not None and self.store.unreachable(error):
                errand.alive = False
        else:
            self.reporter.backend_answered()
