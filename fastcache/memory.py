"""What `MemoryCache` and `AsyncMemoryCache` are made of: the map, what the loading engine sees of it, and the locking.

A value is in the map as it is, unless the policy needs something beside it: then the map holds an `Entry`, which lives for
the ttl and `stale_for`. Every write holds the lock of the flights, so that a value that was being loaded meanwhile is not
stored over it. `on_evict` runs after the lock was released. This file must never wait for anything but that lock.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from fastcache._ttl import TTLCache
from fastcache.errors import MISSING
from fastcache.storing import Found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fastcache.flights import Flights
    from fastcache.plan import Plan
    from fastcache.policy import Policy
    from fastcache.storing import Errand, Landed

__all__ = ["NOTHING", "Departures", "Entry", "MemoryStore"]

_ABSENT: Any = object()


class Entry:
    """A value with what the engine needs beside it. `value` MISSING: it is remembered that there is none.

    `spare`: a two-level cache has it for want of a better one, and doesn't rely on it (see `front.py`).
    """

    __slots__ = ("load_seconds", "spare", "stale_for", "value")

    def __init__(self, value: Any, stale_for: float, load_seconds: float, spare: bool = False) -> None:
        self.value = value
        self.stale_for = stale_for
        self.load_seconds = load_seconds
        self.spare = spare


NOTHING = Entry(MISSING, 0.0, 0.0)
"""What a lookup of `get_or_load` gets for a miss: one check of the type tells both that and an `Entry` from a hit."""


class Departures(threading.local):
    """Calls `on_evict` with the values the program stored, once the thread is out of its locked sections."""

    def __init__(self, on_evict: Callable[[Any, Any, Any], object]) -> None:
        self._on_evict = on_evict
        self._waiting: list[tuple[Any, Any, Any]] = []
        self.depth = 0

    def __call__(self, key: Any, value: Any, cause: Any) -> None:
        if type(value) is Entry:
            value = value.value
            if value is MISSING:
                return
        if self.depth:
            self._waiting.append((key, value, cause))
        else:
            self._on_evict(key, value, cause)

    def deliver(self) -> None:
        waiting, self._waiting = self._waiting, []
        first: BaseException | None = None
        for departed in waiting:
            try:
                self._on_evict(*departed)
            except BaseException as error:
                first = first or error
        if first is not None:
            raise first


class Section:
    """The lock of the flights, and no `on_evict` before it is released."""

    __slots__ = ("_departures", "_flights")

    def __init__(self, flights: Flights, departures: Departures) -> None:
        self._flights = flights
        self._departures = departures

    def __enter__(self) -> None:
        self._flights.lock.acquire()
        self._departures.depth += 1

    def __exit__(self, *exc_info: object) -> None:
        self._departures.depth -= 1
        self._flights.lock.release()
        if not self._departures.depth:
            self._departures.deliver()


class MemoryStore:
    """The map as the engine sees it."""

    local = True
    leases = False

    def __init__(
        self,
        map: TTLCache[Any, Any],
        flights: Flights,
        departures: Departures | None,
        stored: Callable[[float], object],
    ) -> None:
        self._map = map
        self._flights = flights
        self._section = None if departures is None else Section(flights, departures)
        self._stored = WeakMethod(stored)  # no cycle: a dropped cache gives its memory back at once
        self.ttl: float | None = map.ttl
        self.has_entries = False

    def section(self) -> Any:
        return self._section or self._flights.lock

    def identity(self, key: Any) -> Any:
        return key

    def find(self, key: Any, entry: Entry) -> Found | None:
        """An entry of the map, with what it still has to live."""
        remaining = self._map.remaining(key)
        if remaining is None:
            return None
        left = remaining - entry.stale_for if entry.stale_for else remaining
        return Found(entry.value, left <= 0, False, left, entry.load_seconds)

    def read_plan(self, keys: Mapping[Any, Any], type: Any, policy: Policy) -> Plan[dict[Any, Found]]:
        found: dict[Any, Found] = {}
        for key in keys:
            value = self._map.peek(key, _ABSENT)
            if value is _ABSENT:
                continue
            if value.__class__ is Entry:
                one = self.find(key, value)
                if one is not None:
                    found[key] = one
            else:
                found[key] = Found(value)
        return found
        yield

    def write_plan(self, values: Mapping[Any, Any], errand: Errand, lives: Mapping[Any, float]) -> Plan[list[Any]]:
        policy = errand.policy
        with self.section():
            for key, value in values.items():
                life = lives[key]
                stale_for = 0.0 if life == math.inf or value is MISSING else policy.stale_for
                if stale_for or policy.refresh_ahead is not None or value is MISSING:
                    value = Entry(value, stale_for, errand.load_seconds)
                    self.has_entries = True
                self._map.set(key, value, life + stale_for)
                stored = self._stored()
                if stored is not None:
                    stored(life)
                if errand.writes:
                    self._flights.forget(key)
        return []
        yield

    def remove_plan(self, identities: Iterable[Any]) -> Plan[int]:
        with self.section():
            return sum(self._map.pop(key, _ABSENT) is not _ABSENT for key in identities)
        yield  # pragma: no cover (makes it a generator)

    def clear_plan(self, thorough: bool) -> Plan[None]:
        self._map.clear()
        return
        yield  # pragma: no cover (makes it a generator)

    def rescue(self, keys: Mapping[Any, Any], type: Any, policy: Policy) -> dict[Any, Found]:
        return {}

    def salvage(self, values: Mapping[Any, Any], errand: Errand, lives: Mapping[Any, float]) -> None:
        pass

    def share(self, key: Any, value: Any) -> Any:
        return value

    def own(self, key: Any, landed: Landed, type: Any) -> Any:
        return landed.value

    @property
    def closed(self) -> bool:
        return False

    def unreachable(self, error: Exception | None) -> bool:
        return False
