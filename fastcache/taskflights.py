"""The table of flights that tasks share: see `flights.py`, whose rules hold here too.

Each run is a task of its own, so nobody's cancellation hands anything over, and there is a table for each event loop.
Importing this file must not import asyncio: it is loaded where an `async def` is decorated, which may never be called.
"""

from __future__ import annotations

from contextvars import copy_context
from weakref import WeakKeyDictionary

from fastcache.errors import LoadTimeout
from fastcache.flight import TaskFlight, inside
from fastcache.flights import ABSENT, Flights, Work, need_frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from fastcache.flight import Flight

__all__ = ["TaskFlights"]


class TaskFlights(Flights):
    """Flights that tasks share, with a table for each event loop. Each run is a task of its own."""

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._tables: WeakKeyDictionary[AbstractEventLoop, dict[Any, TaskFlight]] = WeakKeyDictionary()
        self._stores: dict[AbstractEventLoop, dict[Flight, list[Any]]] = {}  # what is being stored, and by which loop

    def _all(self) -> Iterator[dict[Any, Any]]:
        return iter(list(self._tables.values()))

    def make(self, batch: bool = False) -> TaskFlight:
        return TaskFlight(batch)

    def _here(self) -> dict[Any, Any]:
        """The flights of the running event loop. Those of a loop that was closed in mid-flight are dropped here."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        table = self._tables.get(loop)
        if table is None:
            for other in [each for each in self._tables if each.is_closed()]:
                del self._tables[other]
            table = self._tables[loop] = {}
        return table

    # -- storing: nobody waits for a loop that was closed, or stopped: what it has sent, the backend has had -----------

    @property
    def landed(self) -> dict[Any, Any]:
        if self._stores:
            self.end_stranded()
        return self._landed

    def forget(self, key: Any) -> Any:
        if self._stores:
            self.end_stranded()
        return super().forget(key)

    def begin_store(self, values: dict[Any, Any], flight_of: Callable[[Any], Flight | None]) -> tuple[Any, list[Any]]:
        from asyncio import get_running_loop

        with self.lock:
            self.end_stranded()
            stored, mine = super().begin_store(values, flight_of)
            if mine:
                self._stores.setdefault(get_running_loop(), {})[stored] = mine
        return stored, mine

    def end_store(self, keys: Iterable[Any], stored: Flight) -> None:
        with self.lock:
            for loop, stores in list(self._stores.items()):
                if stores.pop(stored, None) is not None and not stores:
                    del self._stores[loop]
        super().end_store(keys, stored)

    def end_stranded(self) -> None:
        """Have nobody wait for a store that nobody may go on with."""
        with self.lock:
            for loop in [each for each in self._stores if not each.is_running()]:
                for stored, keys in self._stores.pop(loop).items():
                    self.end_store(keys, stored)

    # -- sharing -----------------------------------------------------------------------------------------------------

    async def share(self, key: Any, work: Work, patience: float | None = None) -> Any:
        """Start the work in a task, or wait for the task that runs it: at most `patience` seconds, then LoadTimeout."""
        current = inside.get()
        need_frames()
        while True:
            with self.lock:
                value = work.look()  # it may have been stored since the miss
                if value is not ABSENT:
                    work.joined()
                    return value
                table = self._here()
                flight = self._in(table, key)
                leads = flight is None
                if flight is None:
                    flight = table[key] = TaskFlight()
            entered = False
            try:
                entered = flight.enter(current)
                flight.claims += entered
                if not entered:
                    # Inside a flight of the same key, or one that waits for us: to wait would be for ever.
                    value = await work.run()
                    self._store(key, flight, work, value)
                    return value
                if leads:
                    self.start((key,), flight, work)
                    await flight.wait()
                else:
                    await _await(flight, patience)
            finally:
                if entered:
                    flight.leave(current)
                    self._abandon((key,), flight)
                elif leads:  # pragma: no cover (there was no memory to enter it)
                    self.discard((key,), flight)
            if not flight.handed_over:
                if not leads:
                    work.joined()
                return flight.result_for(key) if flight.batch else flight.result()

    async def share_many(
        self, keys: Iterable[Any], work: Callable[[list[Any], Any], Work], patience: float | None
    ) -> Any:
        """Run `work(keys, flights)` for the keys that are in no flight, wait for the others; a dict of what there is."""
        current = inside.get()
        results: dict[Any, Any] = {}
        todo = list(keys)
        need_frames()
        while todo:
            flight = self.make(batch=True)
            try:
                mine, through, others = self._board_all(todo, flight, current)
                table = self._here()
                belongs = {**dict.fromkeys(mine, flight), **{key: table.get(key) for key in through}}
                flight.enter(current)
            except BaseException:
                self.discard(todo, flight)
                raise
            try:
                if mine:
                    self.start(mine, flight, work(mine, belongs))
                if through:
                    results.update(await work(through, belongs).run())
                if mine:
                    await flight.wait()
                for other in others:
                    await _await(other, patience)
            finally:
                flight.leave(current)
                self._abandon(mine, flight)
                for other, theirs in others.items():
                    other.leave(current)
                    self._abandon(theirs, other)
            if mine:
                results.update(flight.result())
            todo = [key for other, theirs in others.items() if other.handed_over for key in theirs]
            for other, theirs in others.items():
                if not other.handed_over:
                    results.update({key: other.result_for(key) for key in theirs})
        return results

    def start(self, keys: Iterable[Any], flight: TaskFlight, work: Work) -> None:
        """Run the work in a task, as the flight of these keys."""
        from asyncio import get_running_loop

        try:
            context = copy_context()
            context.run(inside.set, flight)
            task = get_running_loop().create_task(self.lead(keys, flight, work), context=context)
        except BaseException:
            self.discard(keys, flight)
            raise
        if not flight.done:  # as it is when the task was eager
            flight.task = task

    async def lead(self, keys: Iterable[Any], flight: TaskFlight, work: Work) -> None:
        """Run the work in this task, as the flight of these keys. What it raises is for those who wait."""
        try:
            value = await work.run()
        except BaseException as error:
            task = flight.task
            try:
                self.drop(keys, flight)
            finally:
                flight.fail(error)
            if not isinstance(error, Exception):
                if task is not None:
                    task.add_done_callback(_take_note)
                raise  # a cancellation, or what ends the loop
            del flight, task  # else the error, this frame in its traceback and the flight would keep each other alive
            return  # all who wait get it; the loop has nothing to report
        try:
            for key in keys:
                self._store(key, flight, work, value)
        finally:
            try:
                self.drop(keys, flight)
            finally:
                flight.succeed(value)

    def _abandon(self, keys: Iterable[Any], flight: TaskFlight) -> None:
        """Take back a claim, and stop a run for which nobody waits any more."""
        flight.claims -= 1
        if flight.abandoned:
            self.drop(keys, flight)  # at once: a call that comes while it winds down starts afresh
            if flight.task is not None:
                flight.task.cancel()

    def _store(self, key: Any, flight: TaskFlight, work: Work, value: Any) -> None:
        with self.lock:
            _gone = work.store(value) if self.holds(key, flight) else None  # released after the lock


def _take_note(task: Task[None]) -> None:
    """Those who wait have the exception: the loop need not report that nobody retrieved it."""
    if not task.cancelled():
        task.exception()


async def _await(flight: TaskFlight, patience: float | None) -> None:
    if patience is None:
        await flight.wait()
        return
    from asyncio import timeout

    try:
        async with timeout(patience):
            await flight.wait()
    except TimeoutError:
        raise LoadTimeout(
            f"no result within {patience:g} s of another caller's load of the same key (hard_timeout)"
        ) from None
