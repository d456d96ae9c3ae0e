"""Flights: one run of a function that several callers share.

This file owns the record of such a run: who waits for it, how it ended, and whether waiting for it would close a circle.
It never runs a user's function and never decides who leads; that is for the tables that keep flights (`flights.py`).

A circle. A flight's function may call something that waits for another flight, which may wait for a third ... and the last
for the first: a function that calls itself with the same key, or two threads that cross on two keys. Nobody would ever wake
up, so before anyone waits the graph is searched, and who would close a circle runs the function himself. The nodes are
flights. Which flight the current code runs inside is a context variable, so tasks and `asyncio.to_thread` inherit it; an
edge leads from a flight to each flight that code inside it waits for or leads. Code inside no flight can't close a circle.
"""

from __future__ import annotations

from _thread import allocate_lock
from contextvars import ContextVar
from copy import copy
from operator import is_

from fastcache.errors import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task
    from collections.abc import Generator
    from typing import Any

__all__ = ["Flight", "TaskFlight", "ThreadFlight", "inside"]

inside: ContextVar[Flight | None] = ContextVar("fastcache.flight", default=None)
"""The flight that the current code is part of."""


class Flight:
    """A run that is under way, and how it ended."""

    __slots__ = ("_error", "_traceback", "_value", "_waits_for", "batch", "done", "handed_over")

    def __init__(self, batch: bool = False) -> None:
        self.batch = batch
        """It is a run for several keys: its value is a mapping from them."""
        self.done = False
        self.handed_over = False
        """It ended without a result that others could use: they are to start afresh."""
        self._value: Any = None
        self._error: BaseException | None = None
        self._traceback: Any = None
        self._waits_for: list[Flight] = []  # what code inside this flight waits for or leads, once for each

    def enter(self, current: Flight | None) -> bool:
        """Note that code inside `current` now depends on this flight. False: that would close a circle.

        Without a lock, for a garbage collection may run a finalizer here that waits for a flight: the edge is added before
        the search begins, so of two who close a circle together at least one sees it.
        """
        if current is None:
            return True
        current._waits_for.append(self)
        if not current.done and self._leads_to(current):
            current._waits_for.remove(self)
            return False
        return True

    def leave(self, current: Flight | None) -> None:
        """Undo one `enter` that returned True."""
        if current is not None:
            current._waits_for.remove(self)

    def _leads_to(self, goal: Flight) -> bool:
        todo: list[Flight] = [self]
        seen: set[Flight] = set()
        while todo:
            flight = todo.pop()
            if flight is goal:
                return True
            if flight not in seen:
                seen.add(flight)
                todo.extend(flight._waits_for)
        return False

    def succeed(self, value: Any) -> None:
        self._value = value
        self._end()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._traceback = error.__traceback__
        self._end()

    def hand_over(self) -> None:
        self.handed_over = True
        self._end()

    def _end(self) -> None:
        self.done = True

    def result(self) -> Any:
        """What the run returned; what it raised is raised here, as an object of the caller's own."""
        if self._error is None:
            return self._value
        error = _duplicate(self._error)
        try:
            raise error.with_traceback(self._traceback)
        finally:
            del error  # the frame would keep itself alive through the traceback

    def result_for(self, key: Any) -> Any:
        """The result for one key; MISSING where a run for several keys left it out."""
        value = self.result()
        return value.get(key, MISSING) if self.batch else value


class ThreadFlight(Flight):
    """A flight that threads wait for.

    Each waiter brings a lock of its own, and nobody holds a lock while code runs that a garbage collection could interrupt
    with a wait for this very flight (as in threading.Event).
    """

    __slots__ = ("_waiters", "followers")

    def __init__(self, batch: bool = False) -> None:
        super().__init__(batch)
        self.followers = 0
        """How many wait, or will."""
        self._waiters: list[Any] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the flight has ended, or for so many seconds; whether it has ended."""
        waiter = allocate_lock()
        waiter.acquire()
        self._waiters.append(waiter)
        # Whoever ends the flight sets `done` first and then opens what locks there are: this one, or we see `done`.
        if not self.done:
            waiter.acquire(timeout=-1 if timeout is None else timeout)
        return self.done

    def _end(self) -> None:
        self.done = True  # not by super(), which takes memory on 3.11
        while self._waiters:
            self._waiters.pop().release()


class TaskFlight(Flight):
    """A flight that tasks of one event loop wait for. The run is a task of its own, nobody's in particular."""

    __slots__ = ("_wakers", "claims", "detached", "task")

    def __init__(self, batch: bool = False) -> None:
        super().__init__(batch)
        self.claims = 0
        """How many wait, or will: whoever boards or joins the flight adds one, and takes it back when he leaves."""
        self.detached = False
        """It is nobody's errand: it goes on when all who wait have gone."""
        self.task: Task[None] | None = None
        self._wakers: set[Future[None]] = set()

    async def wait(self) -> bool:
        """Wait until the flight has ended.

        A cancellation of this wait concerns the one who waits. With the last claim gone the run is cancelled, too.
        """
        if not self.done:
            import asyncio

            waker = asyncio.get_running_loop().create_future()
            self._wakers.add(waker)
            try:
                if not self.done:  # it may have ended in another thread
                    await waker
            finally:
                self._wakers.discard(waker)
        return True

    def __await__(self) -> Generator[Any, Any, bool]:
        return self.wait().__await__()

    @property
    def abandoned(self) -> bool:
        """It is under way and nobody waits for it any more, nor will."""
        return not self.done and not self.claims and not self.detached

    def _end(self) -> None:
        super()._end()
        self.task = None  # its context refers to this flight: nothing but the collector would part the two
        for waker in tuple(self._wakers):
            loop = waker.get_loop()
            if loop is _running_loop():
                _wake(waker)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(_wake, waker)


def _running_loop() -> AbstractEventLoop | None:
    from asyncio import _get_running_loop

    return _get_running_loop()


def _wake(waker: Future[None]) -> None:
    if not waker.done():
        waker.set_result(None)


def _duplicate(error: BaseException) -> BaseException:
    """A copy of an exception, so that raising it in several places doesn't mix up their tracebacks."""
    for make in (copy, _copy_without_init):
        try:
            twin = make(error)
            if twin is not error and _alike(twin, error):
                break
        except Exception:
            continue
    else:
        return error  # an exception that can't be copied is shared
    twin.__cause__ = error.__cause__
    twin.__context__ = error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    if hasattr(error, "__notes__"):
        twin.__notes__ = list(error.__notes__)
    return twin


def _copy_without_init(error: BaseException) -> BaseException:
    """For a class whose constructor takes other arguments than it hands on."""
    twin = type(error).__new__(type(error), *error.args)
    twin.args = error.args
    twin.__dict__.update(error.__dict__)
    return twin


def _alike(twin: BaseException, error: BaseException) -> bool:
    return (
        type(twin) is type(error)
        and len(twin.args) == len(error.args)
        and all(map(is_, twin.args, error.args))
        and str(twin) == str(error)
    )
