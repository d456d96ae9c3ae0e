"""Where the work of a loading engine runs: worker threads of its own, or tasks of the running event loop.

`Threads` and `Tasks` have the same methods, so the engine's plans need not know which it is: run a plan, share or start one
in the background, call a loader within a time, wait for a flight. Background work has an empty context (it outlives the
request that started it), is bounded, and what it raises goes to `sys.unraisablehook` at the latest.
This file must never decide what is loaded, stored or served.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

from fastcache.errors import LoadTimeout
from fastcache.events import report_unraisable
from fastcache.flight import inside
from fastcache.flights import ThreadFlights, Work
from fastcache.plan import Plan, arun, run
from fastcache.taskflights import TaskFlights
from fastcache.workers import MOST, QUEUE, Workers, start_thread

if TYPE_CHECKING:
    import asyncio

__all__ = ["CLOSE_SECONDS", "MOST", "Tasks", "Threads", "Workers"]

CLOSE_SECONDS = 5.0
"""`close()` waits at most so long for background work: a loader that hangs must not keep a program from ending."""

_timed_already: contextvars.ContextVar[bool] = contextvars.ContextVar("fastcache.timed", default=False)
"""Whether the current code is part of a loader that has a time limit, of whatever cache."""


class Threads:
    """Plans run in the caller's thread, background work in worker threads."""

    asynchronous = False

    def __init__(self) -> None:
        self.flights = ThreadFlights()
        self._background = Workers("background")
        self._timed = Workers("loader")
        self._stopped = threading.Event()

    def work(self, make_plan: Callable[[Work], Plan[Any]]) -> Work:
        """A work whose run drives the plan that it is the argument of."""
        work = Work(lambda: run(make_plan(work)))
        return work

    def spawn(self, make_plan: Callable[[], Plan[Any]]) -> bool:
        """Run a plan in the background. False: there is too much to do already."""
        return self._background.submit(lambda: run(make_plan()))

    def spawn_flight(self, keys: list[Any], flight: Any, work: Work) -> bool:
        """Run a work in the background, as the flight of these keys. Those who wait for the flight get what it raises."""

        def job() -> None:
            try:
                self.flights.lead(keys, flight, work)
            except Exception:
                return  # said already: the work reports its errors, and the flight has them

        return self._background.submit(job)

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """What a loader returns."""
        value = function(argument)
        if type(value).__name__ == "coroutine" and hasattr(value, "cr_code"):
            value.close()
            raise TypeError(f"{function!r} is an async def: use it with the Async form of this cache or pattern")
        return value

    def save(self, function: Callable[[Any, Any], Any], key: Any, value: Any) -> None:
        """Run a saver."""
        self.call(lambda _: function(key, value), None)

    def call_within(self, seconds: float, function: Callable[[Any], Any], argument: Any, key: Hashable) -> Any:
        """The same in a worker thread, in a copy of this context; LoadTimeout if it takes longer.

        A loader that asks for another key holds a worker while it waits: what it asks for gets a thread of its own, not a
        place in a queue behind loaders that wait like itself. There are as many of these at a time as such loaders ask.
        """
        nested = _timed_already.get()
        context = contextvars.copy_context()
        context.run(_timed_already.set, True)
        ended = threading.Event()
        outcome: list[Any] = []

        def job() -> None:
            if not late:
                try:
                    outcome.append((context.run(self.call, function, argument), None))
                except BaseException as error:
                    outcome.append((None, error))
                ended.set()

        late: list[bool] = []
        if not (nested and start_thread(job, "fastcache-inner-loader")) and not self._timed.submit(job):
            raise LoadTimeout(f"{key!r}: not loaded: {MOST} loaders are running and {QUEUE} wait for their turn")
        if not ended.wait(seconds):
            late.append(True)
            raise LoadTimeout(f"{key!r}: the loader took longer than {seconds:g} s (hard_timeout)")
        value, error = outcome.pop()
        if error is not None:
            try:
                raise error
            finally:
                del error, outcome
        return value

    def finish(self, make_plan: Callable[[], Plan[Any]]) -> Any:
        """Run a plan that must not be left half done."""
        return run(make_plan())

    def wait(self, flight: Any, seconds: float) -> bool:
        """Wait for a flight to end, at most so long; whether it has."""
        return bool(flight.wait(seconds))

    def pause(self, seconds: float) -> None:
        """Do nothing for so long, or until the cache is closed."""
        self._stopped.wait(seconds)

    def place(self) -> Any:
        """Where a plan runs that is kept: what it does is done there alone, and ends with it."""
        return None

    def keep(self, plan: Plan[None]) -> bool:
        """Run a plan that pauses a lot, beside the workers. False: there is no thread to spare, or no event loop."""
        return start_thread(lambda: contextvars.Context().run(run, plan), "fastcache-outbox")

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def drain(self, timeout: float | None = None) -> bool:
        return self._background.drain(timeout)

    def close(self) -> None:
        self._stopped.set()
        self.drain(CLOSE_SECONDS)


class Tasks:
    """Plans run in the caller's task, background work in tasks of its event loop."""

    asynchronous = True

    def __init__(self) -> None:
        self.flights = TaskFlights()
        self._running: dict[asyncio.Task[Any], Plan[Any] | None] = {}
        self._kept: dict[asyncio.Task[Any], Plan[Any] | None] = {}
        self._loop: Callable[[], asyncio.AbstractEventLoop | None] = _no_loop
        self.stopped = False

    def work(self, make_plan: Callable[[Work], Plan[Any]]) -> Work:
        self._look_around()
        work = Work(lambda: arun(make_plan(work)))
        return work

    def spawn(self, make_plan: Callable[[], Plan[Any]]) -> bool:
        self._look_around()
        if len(self._running) >= QUEUE:
            return False
        plan = make_plan()
        self._start(arun(plan), contextvars.Context(), self._running, plan)
        return True

    def spawn_flight(self, keys: list[Any], flight: Any, work: Work) -> bool:
        if len(self._running) >= QUEUE:
            return False
        flight.detached = True
        context = contextvars.Context()
        context.run(inside.set, flight)
        flight.task = self._start(self.flights.lead(keys, flight, work), context, self._running)
        return True

    def _start(
        self,
        coroutine: Any,
        context: contextvars.Context,
        running: dict[asyncio.Task[Any], Plan[Any] | None],
        plan: Plan[Any] | None = None,
    ) -> asyncio.Task[Any]:
        import asyncio

        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine, context=context)
        self._hold(task, running, plan)
        task.add_done_callback(_report)
        return task

    def _hold(
        self,
        task: asyncio.Task[Any],
        running: dict[asyncio.Task[Any], Plan[Any] | None],
        plan: Plan[Any] | None = None,
    ) -> None:
        running[task] = plan  # the loop itself holds tasks weakly

        def ended(task: asyncio.Task[Any]) -> None:
            _end(running.pop(task, None))

        task.add_done_callback(ended)

    def _look_around(self) -> None:
        """In an event loop that is new here, let go of what those that were closed have left undone."""
        import asyncio

        loop = asyncio.get_running_loop()
        if self._loop() is loop:
            return
        self._loop = ref(loop)
        for running in (self._running, self._kept):
            for task in list(running):
                if task.get_loop().is_closed():
                    _end(running.pop(task, None))

    async def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """What a loader returns, awaited if that can be: a loader may be a plain function, too."""
        self._look_around()
        value = function(argument)
        return await value if hasattr(type(value), "__await__") else value

    async def save(self, function: Callable[[Any, Any], Any], key: Any, value: Any) -> None:
        """Run a saver."""
        await self.call(lambda _: function(key, value), None)

    async def call_within(self, seconds: float, function: Callable[[Any], Any], argument: Any, key: Hashable) -> Any:
        """The same in a task, which is cancelled after so long: LoadTimeout, also where it doesn't heed that at once."""
        import asyncio

        task = asyncio.get_running_loop().create_task(self.call(function, argument))
        try:
            await asyncio.wait([task], timeout=seconds)
        except asyncio.CancelledError:
            task.cancel()
            self._leave(task)
            raise
        if task.done():
            return task.result()
        task.cancel()
        self._leave(task)
        raise LoadTimeout(f"{key!r}: the loader took longer than {seconds:g} s (hard_timeout)")

    def _leave(self, task: asyncio.Task[Any]) -> None:
        self._hold(task, self._kept)
        task.add_done_callback(_take_note)

    async def finish(self, make_plan: Callable[[], Plan[Any]]) -> Any:
        """Run a plan to its end, also when the caller is cancelled meanwhile."""
        import asyncio

        self._look_around()
        task = asyncio.get_running_loop().create_task(arun(make_plan()), context=contextvars.copy_context())
        self._hold(task, self._running)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                task.add_done_callback(_report)
            raise

    async def wait(self, flight: Any, seconds: float) -> bool:
        import asyncio

        try:
            async with asyncio.timeout(seconds):
                await flight.wait()
        except TimeoutError:
            self.flights.end_stranded()
            return False
        return True

    async def pause(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)

    def place(self) -> Any:
        import asyncio

        return asyncio._get_running_loop()

    def keep(self, plan: Plan[None]) -> bool:
        if self.place() is None:  # the collector closes what a loop that has ended left behind
            return False
        self._look_around()
        self._start(arun(plan), contextvars.Context(), self._kept, plan)
        return True

    async def drain(self, timeout: float | None = None) -> bool:
        import asyncio

        limit = math.inf if timeout is None else monotonic() + timeout
        loop = asyncio.get_running_loop()
        while True:
            here = [task for task in list(self._running) if task.get_loop() is loop and task is not asyncio.current_task()]
            if not here:
                return True
            left = limit - monotonic()
            if left <= 0:
                return False
            await asyncio.wait(here, timeout=None if left == math.inf else left)

    async def close(self) -> None:
        import asyncio

        self.stopped = True
        await self.drain(CLOSE_SECONDS)
        loop = asyncio.get_running_loop()
        for task in [*self._running, *self._kept]:
            if task.get_loop() is loop:
                task.cancel()


def _no_loop() -> None:
    return None


def _end(plan: Any) -> None:
    """Have a plan that its driver left clean up after itself: one that never began is begun, for it has no `finally` yet."""
    if plan is None or plan.gi_frame is None or plan.gi_running:
        return
    with suppress(Exception):  # nothing was asked of it
        if plan.gi_suspended or next(plan, None) is not None:
            plan.close()


def _take_note(task: asyncio.Task[Any]) -> None:
    """A loader that was cancelled may take its time, and may raise: nobody is there to hear it."""
    if not task.cancelled():
        task.exception()


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        report_unraisable(error, task, "Exception ignored in the background")
