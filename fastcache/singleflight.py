"""`SingleFlight` and `AsyncSingleFlight`: concurrent callers of one key run a function once. Nothing is cached.

The two faces of the tables in `flights.py` and `taskflights.py`. This file must never decide who runs what.
"""

from __future__ import annotations

from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from fastcache.flights import ThreadFlights, Work
from fastcache.taskflights import TaskFlights

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

__all__ = ["AsyncSingleFlight", "SingleFlight"]

T = TypeVar("T")


class SingleFlight:
    """Lets concurrent threads that ask for one key share one run of a function. Thread-safe; one process.

    The first caller runs the function in its own thread, the others wait and get its result, or each a copy of its
    exception. A thread that ends in mid-run (SystemExit, KeyboardInterrupt) hands over to one that waits. A wait that
    would close a circle (a function that asks for its own key, two threads crossing on two keys) runs the function
    instead. Nothing is kept: the next call after the run is over starts a new one. A forked child starts afresh.

    >>> flights = SingleFlight()
    >>> flights.do("user:1", lambda: "Ada")
    'Ada'
    """

    def __init__(self) -> None:
        self._flights = ThreadFlights()

    def do(self, key: Hashable, function: Callable[[], T], *, timeout: float | None = None) -> T:
        """Run the function, or wait for the caller that is running one for this key. O(1) beside that.

        timeout: seconds to wait for another caller's run, then LoadTimeout for this caller alone; a run of its own isn't
        interrupted.

        Raises what the function raises; TypeError for an `async def`.
        """
        value: T = self._flights.share(key, Work(partial(_result, function)), timeout)
        return value

    def forget(self, key: Hashable) -> None:
        """Let the next call of `do` start a new run, though one may be under way. That one goes on for its callers."""
        self._flights.forget(key)

    def __len__(self) -> int:
        """How many keys are in flight."""
        return len(self._flights)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self)} in flight>"


class AsyncSingleFlight:
    """`SingleFlight` for tasks: `await flights.do(key, function)`, where the function is an `async def`.

    The run is a task of its own: a caller's cancellation concerns that caller, and only with the last of them gone is
    the run cancelled. It may be used from several event loops; runs are shared within one.
    """

    def __init__(self) -> None:
        self._flights = TaskFlights()

    async def do(self, key: Hashable, function: Callable[[], Awaitable[T]], *, timeout: float | None = None) -> T:
        """See `SingleFlight.do`."""
        value: T = await self._flights.share(key, Work(partial(_awaitable, function)), timeout)
        return value

    def forget(self, key: Hashable) -> None:
        """See `SingleFlight.forget`."""
        self._flights.forget(key)

    def __len__(self) -> int:
        """How many keys are in flight."""
        return len(self._flights)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self)} in flight>"


def _result(function: Callable[[], Any]) -> Any:
    """What a function returns, for all who asked: so nothing that only one of them can await."""
    value = function()
    if isinstance(value, CoroutineType):
        value.close()
        raise TypeError(f"{function!r} is an async def: use it with AsyncSingleFlight")
    return value


def _awaitable(function: Callable[[], Any]) -> Any:
    """What an `async def` returns."""
    value = function()
    if not hasattr(type(value), "__await__"):
        raise TypeError(f"{function!r} must be an async def, but returned {value!r:.80}: use it with SingleFlight")
    return value
