"""Tables of flights: who leads a run, who follows, and whether its result may still be stored.

One table serves everything that shares runs: `lru_cache` (`runs.py`), the loading engine and `SingleFlight`. The one for
tasks is in `taskflights.py`. A table holds a flight only while it flies. Its lock is held to look into it, never while a
run is under way and never while waiting. `forget` takes a flight out: the run goes on for those who wait for it, but it is
no longer the one in the table, so its result is not stored, and the next caller starts a new one.

Every flight ends, whatever fails: what takes it off the table may itself fail (a key's `__eq__`, no memory), so to end it
comes in a `finally`, needs no memory, and a flight that is `done` counts as absent wherever the table is asked.

This file must never know what is run, nor store a result itself.
"""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

from fastcache.errors import LoadTimeout
from fastcache.flight import Flight, TaskFlight, ThreadFlight, inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["ABSENT", "Flights", "ThreadFlights", "Work", "need_frames"]

ABSENT: Any = object()

FRAMES_NEEDED = 16  # calls deep that the code below goes, with room to spare


def need_frames(n: int = FRAMES_NEEDED) -> None:
    """RecursionError here, rather than where a flight is on the table and there is no room left to take it off again."""
    if n:
        need_frames(n - 1)


class Work:
    """What callers of one key share. This one only runs a function; others look for a result first and store it after."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run
        """The run itself, without arguments; what it returns is awaited in asyncio."""

    def look(self) -> Any:
        """A result that is there already, or ABSENT. Called with the table's lock held, before a run starts."""
        return ABSENT

    def store(self, value: Any) -> Any:
        """Keep a result. Called with the table's lock held, if the key wasn't forgotten meanwhile.

        Returns what had to go for it, to be released without the lock.
        """

    def joined(self) -> None:
        """Another caller's run gave the result."""


class Flights:
    """What both kinds of tables have in common."""

    def __init__(self) -> None:
        self._start_afresh()
        _all_flights.add(self)

    def _start_afresh(self) -> None:
        # Re-entrant: storing a result may release another, whose __del__ may come back here.
        self.lock = threading.RLock()
        self.landings = 0  # how many flights have left: when none has since a look, a second look finds nothing new
        self._alone: dict[Any, set[Flight]] = {}  # runs that nobody shares
        self._storing: dict[Any, Any] = {}  # results on their way into a store that can't be written under the lock
        self._landed: dict[Any, Any] = {}  # their values
        self._put_off: set[Flight] = set()  # of what is in `_storing`, what has not begun

    def _all(self) -> Iterable[dict[Any, Any]]:
        raise AssertionError("each kind of table has its own")  # pragma: no cover

    def make(self, batch: bool = False) -> Any:
        """A new flight that callers of this table can wait for."""
        raise AssertionError("each kind of table has its own")  # pragma: no cover

    def _here(self) -> dict[Any, Any]:
        """The table that the calling code boards flights of."""
        raise AssertionError("each kind of table has its own")  # pragma: no cover

    @property
    def landed(self) -> dict[Any, Any]:
        """Values on their way into a store, to be had already."""
        return self._landed

    @property
    def busy(self) -> bool:
        """Whether there is anything to forget. Asked with the lock held."""
        return bool(self._alone or self._storing) or any(self._all())

    def __len__(self) -> int:
        """How many keys are in flight."""
        with self.lock:
            return sum(len(table) for table in self._all()) + len(self._alone) + len(self._storing)

    def holds(self, key: Any, flight: Flight | None) -> bool:
        """Whether a flight is still the one whose result counts. For an answer that lasts, hold the lock."""
        if flight is None:
            return False
        with self.lock:
            return any(table.get(key) is flight for table in self._all()) or flight in self._alone.get(key, ())

    @staticmethod
    def _in(table: dict[Any, Any], key: Any) -> Any:
        """The flight of a key that is under way, or None."""
        flight = table.get(key)
        return None if flight is None or flight.done else flight

    def forget(self, key: Any) -> Any:
        """Have the result of this key's runs not stored. Returns the flight of one that is just being stored, or None."""
        with self.lock:
            for table in self._all():
                table.pop(key, None)
            self._alone.pop(key, None)
            self._landed.pop(key, None)
            if self._storing.get(key) in self._put_off:
                del self._storing[key]
            return self._storing.get(key)

    def forget_where(self, matches: Callable[[Any], object]) -> list[Any]:
        """The same for all keys that match."""
        with self.lock:
            keys = {key for table in self._all() for key in table} | set(self._alone) | set(self._storing)
            found = [self.forget(key) for key in keys if matches(key)]
        return [flight for flight in dict.fromkeys(found) if flight is not None]

    def forget_all(self) -> list[Any]:
        """The same for all keys."""
        return self.forget_where(lambda key: True)

    def unshare_all(self) -> None:
        """Have no later caller join the runs that are under way. Their results may be stored all the same."""
        with self.lock:
            self._landed.clear()
            for table in self._all():
                while table:
                    key, flight = table.popitem()
                    self._alone.setdefault(key, set()).add(flight)

    def discard(self, keys: Iterable[Any], flight: Flight) -> None:
        """A flight won't take place, or gives no result: whoever waits for it starts afresh."""
        try:
            self.drop(keys, flight)
        finally:
            flight.hand_over()

    def drop(self, keys: Iterable[Any], flight: Flight) -> None:
        """A flight is over, and about to end."""
        with self.lock:
            self.landings += 1
            for table in self._all():
                for key in keys:
                    if table.get(key) is flight:
                        del table[key]
            self._part(keys, flight)

    def board(self, keys: Iterable[Any]) -> tuple[Any, list[Any]]:
        """A new flight for those of the keys that are in none, and which they are."""
        with self.lock:
            table = self._here()
            mine = [key for key in keys if self._in(table, key) is None]
            flight = self.make(batch=True)
            try:
                for key in mine:
                    table[key] = flight
            except BaseException:
                self.discard(mine, flight)
                raise
        return flight, mine

    def under_way(self, key: Any) -> Any:
        """The flight of a key, or None."""
        with self.lock:
            return self._in(self._here(), key)

    def alone(self, keys: Iterable[Any]) -> Any:
        """A flight that nobody shares, so that a result can be refused after an invalidation. To be given to `leave`."""
        flight = self.make(batch=True)
        with self.lock:
            for key in keys:
                self._alone.setdefault(key, set()).add(flight)
        return flight

    def leave(self, keys: Iterable[Any], flight: Flight) -> None:
        with self.lock:
            self.landings += 1
            self._part(keys, flight)

    def _part(self, keys: Iterable[Any], flight: Flight) -> None:
        for key in keys if self._alone else ():
            flights = self._alone.get(key)
            if flights is not None:
                flights.discard(flight)
                if not flights:
                    del self._alone[key]

    def begin_store(self, values: dict[Any, Any], flight_of: Callable[[Any], Flight | None]) -> tuple[Any, list[Any]]:
        """Of the keys, those whose result may be stored: by who says `start_store`, and then `end_store`."""
        with self.lock:
            mine = [key for key in values if key not in self._storing and self.holds(key, flight_of(key))]
            stored = self.make()
            self._put_off.add(stored)
            for key in mine:
                self._storing[key] = stored
                if any(table.get(key) is flight_of(key) for table in self._all()):  # else it isn't for later callers
                    self._landed[key] = values[key]
        return stored, mine

    def start_store(self, keys: Iterable[Any], stored: Flight) -> list[Any]:
        """Of the keys, those that nobody has forgotten since. Whoever forgets one from now on waits until `end_store`."""
        with self.lock:
            self._put_off.discard(stored)
            return [key for key in keys if self._storing.get(key) is stored]

    def end_store(self, keys: Iterable[Any], stored: Flight) -> None:
        with self.lock:
            self.landings += 1
            self._put_off.discard(stored)
            for key in keys:
                if self._storing.get(key) is stored:
                    del self._storing[key]
                    self._landed.pop(key, None)
        stored.succeed(None)

    def _board_all(
        self, keys: Iterable[Any], flight: Any, current: Flight | None
    ) -> tuple[list[Any], list[Any], dict[Any, Any]]:
        """Which keys a new flight is for, which must run though they are in flight, and which flights to wait for."""
        with self.lock:
            table = self._here()
            others: dict[Any, list[Any]] = {}
            mine = []
            for key in keys:
                other = self._in(table, key)
                if other is None:
                    table[key] = flight
                    mine.append(key)
                else:
                    others.setdefault(other, []).append(key)
                    if isinstance(other, ThreadFlight):
                        other.followers += 1
        through = [other for other in others if not other.enter(current)]
        for waited in [flight, *(other for other in others if other not in through)]:
            if isinstance(waited, TaskFlight):
                waited.claims += 1
        return mine, [key for other in through for key in others.pop(other)], others


class ThreadFlights(Flights):
    """Flights that threads share: the first of concurrent callers runs the function, the others wait for it."""

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._flights: dict[Any, ThreadFlight] = {}

    def _all(self) -> Iterable[dict[Any, Any]]:
        return (self._flights,)

    @property
    def busy(self) -> bool:
        """As above, spelled out: every write to a cache asks."""
        return bool(self._flights or self._alone or self._storing)

    def make(self, batch: bool = False) -> ThreadFlight:
        return ThreadFlight(batch)

    def _here(self) -> dict[Any, Any]:
        return self._flights

    def share(self, key: Any, work: Work, patience: float | None = None) -> Any:
        """Run the work, or wait (at most `patience` seconds, then LoadTimeout) for who is running it."""
        if self.lock._is_owned():  # type: ignore[attr-defined]
            # In an __eq__ or a __del__ that ran while this thread held the lock: to wait would be for ever.
            return work.run()
        current = inside.get()
        need_frames()
        while True:
            flight, leads = None, False
            try:
                with self.lock:
                    value = work.look()  # it may have been stored since the miss
                    if value is not ABSENT:
                        work.joined()
                        return value
                    flight = self._in(self._flights, key)
                    if flight is None:
                        flight, leads = ThreadFlight(), True
                        self._flights[key] = flight
                    else:
                        flight.followers += 1
                if leads:
                    return self.lead((key,), flight, work)
                if not flight.enter(current):
                    # Inside a flight of the same key, or one that waits for us: to wait would be for ever.
                    value = work.run()
                    _gone = self._store(key, flight, work, value)
                    return value
                try:
                    _wait(flight, patience)
                finally:
                    flight.leave(current)
                if not flight.handed_over:
                    work.joined()
                    return flight.result_for(key) if flight.batch else flight.result()
            finally:
                if leads and flight is not None and not flight.done:  # a KeyboardInterrupt before the run began
                    self.discard((key,), flight)

    def share_many(self, keys: Iterable[Any], work: Callable[[list[Any], Any], Work], patience: float | None) -> Any:
        """Run `work(keys, flights)` for the keys that are in no flight, wait for the others; a dict of what there is."""
        results: dict[Any, Any] = {}
        todo = list(keys)
        if self.lock._is_owned():  # type: ignore[attr-defined]
            return work(todo, dict.fromkeys(todo)).run()  # as in `share`
        current = inside.get()
        need_frames()
        while todo:
            flight = self.make(batch=True)
            others: dict[Any, list[Any]] = {}
            try:
                mine, through, others = self._board_all(todo, flight, current)
                if mine or through:
                    belongs = {**dict.fromkeys(mine, flight), **{key: self._flights.get(key) for key in through}}
                    results.update(self.lead(mine, flight, work([*mine, *through], belongs)))
                for other in others:
                    _wait(other, patience)
            finally:
                if not flight.done:  # interrupted before the run began, or there was none to begin
                    self.discard(todo, flight)
                for other in others:
                    other.leave(current)
            todo = [key for other, theirs in others.items() if other.handed_over for key in theirs]
            for other, theirs in others.items():
                if not other.handed_over:
                    results.update({key: other.result_for(key) for key in theirs})
        return results

    def lead(self, keys: Iterable[Any], flight: ThreadFlight, work: Work) -> Any:
        """Run the work in this thread, as the flight of these keys."""
        current = inside.get()
        flight.enter(current)
        _gone = None  # released last, when nobody waits for this flight any more: a __del__ may wait for who did
        try:
            inside.set(flight)
            value = work.run()
            try:
                _gone = [self._store(key, flight, work, value) for key in keys]
            finally:
                try:
                    self.drop(keys, flight)
                finally:
                    flight.succeed(value)
        except BaseException as error:
            if flight.done:
                raise  # the result could not be stored (a key's __eq__ failed), but it is there for the others
            try:
                self.drop(keys, flight)
            finally:
                if isinstance(error, Exception) and flight.followers:
                    flight.fail(error)
                else:
                    # Nobody to tell; or this thread's own end (SystemExit, KeyboardInterrupt), no answer for the others.
                    flight.hand_over()
            raise
        finally:
            flight.leave(current)
            inside.set(current)  # not reset(token): on 3.11 a collection in the middle of it may undo what set() did
        return value

    def _store(self, key: Any, flight: ThreadFlight, work: Work, value: Any) -> Any:
        with self.lock:
            return work.store(value) if self._flights.get(key) is flight else None


def _wait(flight: ThreadFlight, patience: float | None) -> None:
    if not flight.wait(patience):
        raise LoadTimeout(f"no result within {patience:g} s of another caller's load of the same key (hard_timeout)")


# In a child process the threads that led flights are gone, and a lock may be held by one of them.
_all_flights: WeakSet[Flights] = WeakSet()


def _after_fork_in_child() -> None:
    for flights in list(_all_flights):
        flights._start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
