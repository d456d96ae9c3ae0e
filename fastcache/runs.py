"""What a miss of `lru_cache` does where calls of one key share a run: tables of flights, for threads and per event loop.

A table holds a flight only while it flies. Its lock is held to look into it and to store a result, never while the user's
function runs and never while waiting. `forget` takes a flight out of the table: the run goes on for those who wait for it,
but its result is not stored (the flight is no longer the one in the table), and the next call starts a new one.
"""

from __future__ import annotations

import os
import threading
from contextvars import copy_context
from weakref import WeakKeyDictionary, WeakSet

from fastcache._memo import Memo  # its methods are called on the class: a function's attributes may hide them
from fastcache.flight import TaskFlight, ThreadFlight, inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Awaitable, Callable
    from typing import Any

    from fastcache._memo import CallKey

__all__ = ["AsyncRuns", "Runs", "SeparateAsyncRuns", "WithInstance", "ready"]

_ABSENT = object()

FRAMES_NEEDED = 16  # calls deep that the code below goes, with room to spare


def _need_frames(n: int) -> None:
    """RecursionError here, rather than where a flight is on the table and there is no room left to take it off again."""
    if n:
        _need_frames(n - 1)


class Runs:
    """The runs of a `def`: the first of concurrent callers runs the function, the others wait for it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._start_afresh()
        _tables.add(self)

    def _start_afresh(self) -> None:
        # Re-entrant: storing a result may release another, whose __del__ may call the function again.
        self._lock = threading.RLock()
        self._flights: dict[CallKey, ThreadFlight] = {}

    def forget(self, key: CallKey) -> None:
        """Don't store the result of this key's run."""
        with self._lock:
            self._flights.pop(key, None)

    def forget_all(self) -> None:
        """Don't store the result of any run that is under way."""
        with self._lock:
            self._flights.clear()

    def __call__(self, memo: Memo, key: CallKey, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._lock._is_owned():  # type: ignore[attr-defined]
            # In an __eq__ or a __del__ that ran while this thread held the lock: to wait would be for ever.
            return self._function(*args, **kwargs)
        current = inside.get()
        _need_frames(FRAMES_NEEDED)
        while True:
            flight, leads = None, False
            try:
                with self._lock:
                    value = Memo.peek(memo, key, _ABSENT)  # it may have been stored since the miss
                    if value is not _ABSENT:
                        Memo.joined(memo, key)
                        return value
                    flight = self._flights.get(key)
                    if flight is None:
                        flight, leads = ThreadFlight(), True
                        self._flights[key] = flight
                    else:
                        flight.followers += 1
                if leads:
                    return self._lead(memo, key, flight, args, kwargs)
                if not flight.enter(current):
                    return self._run_through(memo, key, flight, args, kwargs)
                try:
                    flight.wait()
                finally:
                    flight.leave(current)
                if not flight.handed_over:
                    Memo.joined(memo, key)
                    return flight.result()
            finally:
                if leads and flight is not None and not flight.done:  # a KeyboardInterrupt before the function began
                    self._drop(key, flight)
                    flight.hand_over()

    def _lead(self, memo: Memo, key: CallKey, flight: ThreadFlight, args: Any, kwargs: Any) -> Any:
        current = inside.get()
        inside.set(flight)
        flight.enter(current)
        _gone = None  # released last, when nobody waits for this flight any more: a __del__ may wait for who did
        try:
            value = self._function(*args, **kwargs)
            try:
                _gone = self._store(memo, key, flight, value)
            finally:
                self._drop(key, flight)
                flight.succeed(value)
        except BaseException as error:
            if flight.done:
                raise  # the result could not be stored (a key's __eq__ failed), but it is there for the others
            self._drop(key, flight)
            if isinstance(error, Exception) and flight.followers:
                flight.fail(error)
            else:
                # Nobody to tell; or this thread's own end (SystemExit, KeyboardInterrupt), no answer for the others.
                flight.hand_over()
            raise
        finally:
            inside.set(current)  # not reset(token): on 3.11 a collection in the middle of it may undo what set() did
            flight.leave(current)
        return value

    def _run_through(self, memo: Memo, key: CallKey, flight: ThreadFlight, args: Any, kwargs: Any) -> Any:
        """Run the function inside a flight of the same key, or one that waits for us: to wait would be for ever."""
        value = self._function(*args, **kwargs)
        self._store(memo, key, flight, value)
        return value

    def _store(self, memo: Memo, key: CallKey, flight: ThreadFlight, value: Any) -> list[Any] | None:
        """Store the result, unless it was forgotten. Returns what had to go, to be released without the lock."""
        with self._lock:
            return Memo.add(memo, key, value) if self._flights.get(key) is flight else None

    def _drop(self, key: CallKey, flight: ThreadFlight) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]


class AsyncRuns:
    """The runs of an `async def`: each is a task of its own, for which all concurrent callers wait."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self._function = function
        self._start_afresh()
        _tables.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()
        self._tables: WeakKeyDictionary[AbstractEventLoop, dict[CallKey, TaskFlight]] = WeakKeyDictionary()

    def forget(self, key: CallKey) -> None:
        """Don't store the result of this key's runs, in any event loop."""
        with self._lock:
            for table in self._tables.values():
                table.pop(key, None)

    def forget_all(self) -> None:
        """Don't store the result of any run that is under way."""
        with self._lock:
            for table in self._tables.values():
                table.clear()

    def _table(self, loop: AbstractEventLoop) -> dict[CallKey, TaskFlight]:
        """The flights of an event loop. Those of a loop that was closed in mid-flight are dropped here."""
        table = self._tables.get(loop)
        if table is None:
            for other in [each for each in self._tables if each.is_closed()]:
                del self._tables[other]
            table = self._tables[loop] = {}
        return table

    async def __call__(self, memo: Memo, key: CallKey, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from asyncio import get_running_loop

        loop = get_running_loop()
        current = inside.get()
        _need_frames(FRAMES_NEEDED)
        while True:
            with self._lock:
                value = Memo.peek(memo, key, _ABSENT)  # it may have been stored since the miss
                if value is not _ABSENT:
                    Memo.joined(memo, key)
                    return value
                table = self._table(loop)
                flight = table.get(key)
                leads = flight is None
                if flight is None:
                    flight = table[key] = TaskFlight()
            entered = False
            try:
                entered = flight.enter(current)
                if not entered:
                    # Inside a flight of the same key, or one that waits for us: to wait would be for ever.
                    value = await self._function(*args, **kwargs)
                    self._store(memo, key, table, flight, value)
                    return value
                if leads:
                    context = copy_context()
                    context.run(inside.set, flight)
                    run = self._run(memo, key, table, flight, args, kwargs)
                    task = loop.create_task(run, context=context)
                    if not flight.done:  # as it is when the task was eager
                        flight.task = task
                    del task, context
                await flight.wait()
            finally:
                if entered:
                    flight.leave(current)
                if (entered or leads) and flight.abandoned:
                    self._drop(key, table, flight)  # at once: a call that comes while it winds down starts afresh
                    if flight.task is not None:
                        flight.task.cancel()
            if not flight.handed_over:
                if not leads:
                    Memo.joined(memo, key)
                return flight.result()

    async def _run(
        self, memo: Memo, key: CallKey, table: dict[CallKey, TaskFlight], flight: TaskFlight, args: Any, kwargs: Any
    ) -> None:
        try:
            value = await self._function(*args, **kwargs)
        except BaseException as error:
            task = flight.task
            self._drop(key, table, flight)
            flight.fail(error)
            if not isinstance(error, Exception):
                if task is not None:
                    task.add_done_callback(_take_note)
                raise  # a cancellation, or what ends the loop
            del flight, task  # else the error, this frame in its traceback and the flight would keep each other alive
            return  # all who wait get it; the loop has nothing to report
        try:
            self._store(memo, key, table, flight, value)
        finally:
            self._drop(key, table, flight)
            flight.succeed(value)

    def _store(
        self, memo: Memo, key: CallKey, table: dict[CallKey, TaskFlight], flight: TaskFlight, value: Any
    ) -> None:
        with self._lock:
            _gone = Memo.add(memo, key, value) if table.get(key) is flight else None  # released after the lock

    def _drop(self, key: CallKey, table: dict[CallKey, TaskFlight], flight: TaskFlight) -> None:
        with self._lock:
            if table.get(key) is flight:
                del table[key]


class SeparateAsyncRuns:
    """The runs of an `async def` without single flight: every miss awaits the function itself."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._forgotten = 0  # how often something was forgotten; a run during which that happened isn't stored

    def forget(self, key: CallKey) -> None:
        """Don't store the result of any run that is under way."""
        with self._lock:
            self._forgotten += 1

    def forget_all(self) -> None:
        """Don't store the result of any run that is under way."""
        with self._lock:
            self._forgotten += 1

    async def __call__(self, memo: Memo, key: CallKey, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        forgotten = self._forgotten
        value = await self._function(*args, **kwargs)
        with self._lock:
            _gone = Memo.add(memo, key, value) if self._forgotten == forgotten else None  # released after the lock
        return value


class WithInstance:
    """Puts an instance, held weakly, before the arguments of a call: of a run, or (`runs` being the function) of a call."""

    def __init__(self, reference: Callable[[], Any], runs: Any) -> None:
        self._reference = reference
        self._runs = runs

    def forget(self, key: CallKey) -> None:
        self._runs.forget(key)

    def forget_all(self) -> None:
        self._runs.forget_all()

    def __call__(self, memo: Memo, key: CallKey, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._runs(memo, key, (self._reference(), *args), kwargs)


def _take_note(task: Task[None]) -> None:
    """Those who wait have the exception: the loop need not report that nobody retrieved it."""
    if not task.cancelled():
        task.exception()


async def ready(value: Any) -> Any:
    """What a hit of a cached `async def` returns, called: the quickest awaitable there is for a value at hand."""
    return value


# In a child process the threads that led flights are gone, and a lock may be held by one of them.
_tables: WeakSet[Runs | AsyncRuns] = WeakSet()


def _after_fork_in_child() -> None:
    for table in list(_tables):
        table._start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
