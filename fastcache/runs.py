"""What a miss of `lru_cache` does where calls of one key share a run.

Who runs and who waits is decided in `flights.py` (threads) and `taskflights.py` (event loops); this file says what such a
run is, and how its result is stored. `forget` during a run: it goes on for those who wait for it, but its result is not
stored (the flight is no longer the one in the table), and the next call starts a new one.
"""

from __future__ import annotations

import threading
from functools import partial

from fastcache._memo import Memo  # its methods are called on the class: a function's attributes may hide them
from fastcache.flights import ABSENT, ThreadFlights, Work
from fastcache.taskflights import TaskFlights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from fastcache._memo import CallKey

__all__ = ["AsyncRuns", "Runs", "SeparateAsyncRuns", "WithInstance", "ready"]


class _CallWork(Work):
    """One call's miss, as the tables see it. (The memo's methods are called on the class.)"""

    __slots__ = ("_key", "_memo")

    def __init__(self, memo: Memo, key: CallKey, run: Callable[[], Any]) -> None:
        super().__init__(run)
        self._memo = memo
        self._key = key

    def look(self) -> Any:
        return Memo.peek(self._memo, self._key, ABSENT)

    def store(self, value: Any) -> Any:
        return Memo.add(self._memo, self._key, value)

    def joined(self) -> None:
        Memo.joined(self._memo, self._key)


class Runs(ThreadFlights):
    """The runs of a `def`: the first of concurrent callers runs the function, the others wait for it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def __call__(self, memo: Memo, key: CallKey, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # A partial, not a closure: every frame of Python counts against how deep a function may call itself.
        return self.share(key, _CallWork(memo, key, partial(self._function, *args, **kwargs)))


class AsyncRuns(TaskFlights):
    """The runs of an `async def`: each is a task of its own, for which all concurrent callers wait."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        super().__init__()
        self._function = function
        self._name = getattr(function, "__qualname__", None) or repr(function)

    def __call__(self, memo: Memo, key: CallKey, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        coroutine: Any = self.share(key, _CallWork(memo, key, partial(self._function, *args, **kwargs)))
        coroutine.__qualname__ = self._name  # what Python says of it where it is never awaited, and of its task
        return coroutine  # type: ignore[no-any-return]


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
    """Puts an instance, held weakly, before the arguments of a run.

    (Without `forget_all`: who clears the method's memory drops those of the instances, runs and all.)
    """

    def __init__(self, reference: Callable[[], Any], runs: Any) -> None:
        self._reference = reference
        self._runs = runs

    def forget(self, key: CallKey) -> None:
        self._runs.forget(key)

    def __call__(self, memo: Memo, key: CallKey, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._runs(memo, key, (self._reference(), *args), kwargs)


async def ready(value: Any) -> Any:
    """What a hit of a cached `async def` returns, called: the quickest coroutine there is for a value at hand.

    A compiled awaitable that keeps a StopIteration of its own would be half as dear, but no coroutine to
    `inspect.iscoroutine`, so that anyio's task groups would refuse it: on hits only.
    """
    return value
