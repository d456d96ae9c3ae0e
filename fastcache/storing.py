"""The loading engine's lowest part: what a store is, what a call of the engine is, and storing what was loaded.

Rules: a loaded value is stored only while its flight is the one in the table; after the first failure of the backend a call
touches it no more. This file must never call a loader.
"""

from __future__ import annotations

import math
import os
import random as _random
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from fastcache._lru import LRUCache
from fastcache.background import Tasks, Threads
from fastcache.errors import MISSING, BackendError, SerializationError
from fastcache.events import Reporter
from fastcache.outbox import Outbox
from fastcache.plan import Plan
from fastcache.policy import Policy

__all__ = ["Errand", "Found", "Landed", "Store", "Storing", "Unstored", "giving_back_plan"]

T = TypeVar("T")

LONGEST_RETRY = 60.0  # seconds: a database that is back must be noticed within a minute
MOST_HELD_OFF = 10_000  # keys whose failed refresh is remembered, each some 200 bytes


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


class Landed:
    """What a run of a loader gave, for all who share it."""

    __slots__ = ("shared", "type", "value")

    def __init__(self, value: Any, shared: Any, type: Any) -> None:
        self.value = value
        """For the one who ran it."""
        self.shared = shared
        """For the others, or what theirs is made from."""
        self.type = type
        """What it is to be, as the one who ran it wanted it."""


class Store(Protocol):
    """A cache as the engine sees it. All methods named `..._plan` are plans, and may raise BackendError."""

    local: bool
    """It is in this process's memory: writing takes no time, and is atomic under the lock of the flights."""
    leases: bool
    """Processes share it and agree on who loads: it has the methods of `leasing.LeaseStore`, too."""
    ttl: float | None
    """Of an entry for which nobody says another; None: somebody has to."""

    def identity(self, key: Any) -> Hashable:
        """One value for all forms of a key. Raises what a wrong key is to raise."""
        ...

    def read_plan(self, keys: Mapping[Any, Any], type: Any, policy: Policy) -> Plan[dict[Any, Found]]:
        """What there is, by identity. `keys`: identity -> the caller's key."""
        ...

    def write_plan(self, values: Mapping[Any, Any], errand: Errand, lives: Mapping[Any, float]) -> Plan[list[Any]]:
        """Store values for `lives` seconds each (plus `stale_for`), where nobody wrote since they were found or not found
        (of a write: wherever). Returns the identities that were refused. Raises SerializationError, too, having stored
        nothing.
        """
        ...

    def remove_plan(self, identities: Iterable[Any]) -> Plan[Any]:
        """Remove keys; how many there were."""
        ...

    def rescue(self, keys: Mapping[Any, Any], type: Any, policy: Policy) -> dict[Any, Found]:
        """What can be served although the backend is away, all of it stale."""
        ...

    def salvage(self, values: Mapping[Any, Any], errand: Errand, lives: Mapping[Any, float]) -> None:
        """Keep for `rescue` what the backend did not take."""
        ...

    def clear_plan(self, thorough: bool) -> Plan[Any]:
        """Remove all keys. Unless `thorough`, those may stay that were stored without the means to clear them quickly."""
        ...

    def share(self, key: Any, value: Any) -> Any:
        """What other callers of a load get of its value, or what theirs is made from where each is to have his own."""
        ...

    def own(self, key: Any, landed: Landed, type: Any) -> Any:
        """What a caller gets who shared a load, and wants `type`."""
        ...

    def section(self) -> AbstractContextManager[Any]:
        """Of a local store: the lock of the flights, for checking and storing at once."""
        ...

    @property
    def closed(self) -> bool:
        """Whether nothing will be sent any more."""
        ...

    def unreachable(self, error: Exception | None) -> bool:
        """Whether the backend is away, said by its error; None: whether it is known to be away without asking it."""
        ...


@dataclass(slots=True)
class Errand:
    """One call of the engine."""

    keys: dict[Any, Any]  # identity -> the caller's key
    loader: Any
    policy: Policy
    type: Any
    single: bool
    found: dict[Any, Found] = field(default_factory=dict)
    alive: bool = True  # no backend failure yet
    seen: int = -1  # landings at the last look
    early: bool = False
    writes: bool = False  # what the program wrote is stored, whatever there is
    load_seconds: float = 0.0
    tags: tuple[bytes, ...] = ()
    unstored: set[Any] = field(default_factory=set)  # what is loaded without the right to store it
    held: Any = None  # what a store with leases has to know again
    storing: set[Any] = field(default_factory=set)  # what is being stored, maybe in the background, and then given back
    withheld: bool = False  # the loader returned an `Unstored`
    anew: bool = False  # it is to be loaded whatever there is
    settled: set[Any] = field(default_factory=set)  # what was there has been replaced, or removed for something newer
    landed: dict[Any, Landed] = field(default_factory=dict)

    def name(self, identities: list[Any]) -> Any:
        """The key or keys, for events and messages."""
        return self.keys[identities[0]] if self.single else tuple(self.keys[identity] for identity in identities)


def giving_back_plan(store: Any, errand: Errand, identities: Callable[[], Iterable[Any]], plan: Plan[T]) -> Plan[T]:
    """Run a part of a load, and in the end give back what a `LeaseStore` holds for it, of the keys that are its own then."""
    try:
        result = yield from plan
        yield from store.release_plan(errand, identities())
        return result
    except GeneratorExit:  # nothing can be asked for any more
        store.abandon(errand, identities())
        raise
    except BaseException:
        yield from store.release_plan(errand, identities())
        raise
    finally:
        store.dismiss(errand, identities())


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
        self._flushing: set[Any] = set()  # where there is somebody who delivers what waits in the outbox
        self._flush_after = -math.inf  # what calls begin themselves, after one that failed
        # Of a store elsewhere, any error is the backend's: its replies may be anything. In memory: a callback's.
        self._failures: type[Exception] = BackendError if store.local else Exception
        _all_engines.add(self)

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

    def _ahead(self, found: Found, policy: Policy) -> float:
        """A random time: so many seconds before its end a value is refreshed. The exponential distribution of XFetch."""
        if policy.refresh_ahead is None or not found.load_seconds:
            return -math.inf
        return -found.load_seconds * policy.refresh_ahead * math.log(self.random() or 5e-324)

    def is_early_too(self, found: Found, copy: Found, policy: Policy) -> bool:
        """Whether a value is to be refreshed of which a copy is, though that may end sooner.

        With a new random time, but for the seconds between the two ends: one that has no memory makes that the same.
        """
        return found.remaining != math.inf and self._ahead(found, policy) >= found.remaining - copy.remaining

    # -- sharing ---------------------------------------------------------------------------------------------------

    def _landing(self, errand: Errand, identity: Any, value: Any) -> Landed:
        landed = errand.landed.get(identity)
        if landed is None or landed.value is not value:
            landed = Landed(value, self.store.share(errand.keys[identity], value), errand.type)
            errand.landed[identity] = landed
        return landed

    def landed(self, errand: Errand, identity: Any, default: Any) -> Any:
        """A value that is on its way into the store: it needs no second run. Not what has been invalidated since."""
        landed = self.flights.landed.get(identity)
        if landed is None or identity in self.outbox:
            return default
        return self.store.own(errand.keys[identity], landed, errand.type)

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
            and identity not in errand.unstored
        }
        errand.load_seconds = load_seconds
        if errand.withheld:
            return
        for identity in errand.unstored & loaded.keys():
            self.reporter.refuse(errand.keys[identity])
        if not keep or not errand.alive:
            kept = {each: keep[each] for each in keep if self.flights.holds(each, flights.get(each))}
            self.store.salvage(kept, errand, self._lives(kept, policy))
            return
        if self.store.local:
            with self.store.section():
                mine = [identity for identity in keep if self.flights.holds(identity, flights.get(identity))]
                yield from self._put_plan(errand, {identity: keep[identity] for identity in mine})
        else:
            landing = {identity: self._landing(errand, identity, value) for identity, value in keep.items()}
            stored, mine = self.flights.begin_store(landing, flights.get)
            values = {identity: keep[identity] for identity in mine}
            errand.storing.update(values)

            def put() -> Plan[None]:
                plan = self._put_in_turn_plan(errand, values, stored)
                try:
                    yield from (giving_back_plan(self.store, errand, values.keys, plan) if self.store.leases else plan)
                finally:
                    self.flights.end_store(values, stored)

            if policy.store == "foreground" or not self.driver.spawn(put):
                yield from put()
        others = keep.keys() - set(mine)
        for identity in others:
            self.reporter.refuse(errand.keys[identity])
        if errand.anew and others:
            try:
                yield from self._retire_plan(errand, others)
            except self._failures as error:
                self._failed(errand, list(others), error)

    def _retire_plan(self, errand: Errand, identities: Iterable[Any]) -> Plan[None]:
        """What was loaded anew isn't stored, for something newer was written, or will be: have nothing older stay."""
        store: Any = self.store
        if store.leases:
            yield from store.retire_plan(errand, identities)
        errand.settled.update(identities)

    def _put_in_turn_plan(self, errand: Errand, values: dict[Any, Any], stored: Any) -> Plan[None]:
        """Store, maybe after having waited for a worker, what nobody has invalidated meanwhile."""
        mine = self.flights.start_store(values, stored)
        for identity in values.keys() - set(mine):
            self.reporter.refuse(errand.keys[identity])
        if mine:
            yield from self._put_plan(errand, {identity: values[identity] for identity in mine})

    def _put_plan(self, errand: Errand, values: dict[Any, Any]) -> Plan[None]:
        policy = errand.policy
        lives = self._lives(values, policy)
        gone = [identity for identity, value in values.items() if value is MISSING and policy.missing_ttl is None]
        kept = {identity: value for identity, value in values.items() if identity not in gone}
        try:
            if gone:
                yield from self.store.remove_plan(gone)  # a stale value of what is no more
            if kept:
                refused = yield from self.store.write_plan(kept, errand, lives)
                for identity in refused:
                    self.reporter.refuse(errand.keys[identity])
                if errand.anew and refused:
                    yield from self._retire_plan(errand, refused)
            errand.settled.update(values)
        except SerializationError as error:
            self.reporter.tell("store_error", errand.name(list(values)), error=error)
        except self._failures as error:
            self._failed(errand, list(values), error)
            self.store.salvage(kept, errand, lives)

    def _lives(self, values: Mapping[Any, Any], policy: Policy) -> dict[Any, float]:
        """How long each value is to live: the ttl, less the jitter."""
        assert policy.ttl is not None
        lives = {}
        for identity, value in values.items():
            ttl = policy.ttl if value is not MISSING or policy.missing_ttl is None else policy.missing_ttl
            lives[identity] = ttl if ttl == math.inf else ttl * (1 - policy.jitter * self.random())
        return lives


_all_engines: WeakSet[Storing] = WeakSet()


def _after_fork_in_child() -> None:
    for engine in list(_all_engines):
        engine._flushing = set()  # they are the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
