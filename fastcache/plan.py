"""Plans and their two drivers: the only file of the package that knows sync from async.

A plan is a generator that holds all decisions of an operation and yields what it must wait for: `Call(function, ...)`
or `Join(flight)`. `run` calls and blocks, `arun` awaits; the plan can't tell the difference. What a call raises is
thrown into the plan at its `yield`, so a fallback is an ordinary `try/except`, and clean-up an ordinary `finally`.
(The split is psycopg 3's, `generators.py` and `waiting.py`.)

This file must never decide anything: no retry, no timeout, no error translation. It imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol, TypeAlias, TypeVar

__all__ = ["AwaitableFlight", "Call", "Flight", "Join", "Plan", "arun", "run"]

T = TypeVar("T")


class Flight(Protocol):
    """Work that somebody else does and whose outcome a thread can wait for, any number of threads at a time."""

    def wait(self) -> Any:
        """Block until the work is done; return its value or raise its error."""


AwaitableFlight: TypeAlias = Awaitable[Any]
"""The same for asyncio: an `asyncio.Future` or `Task`, or any other awaitable that many tasks may await at once."""


class Call:
    """Ask the driver for `function(*args, **kwargs)`; `arun` awaits what the function returns."""

    __slots__ = ("args", "function", "kwargs")

    def __init__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        return f"Call({self.function!r}, args={self.args!r}, kwargs={self.kwargs!r})"


class Join:
    """Ask the driver to wait for a flight: `run` for its `wait()`, `arun` for the awaitable.

    A waiter's cancellation never reaches the flight: `arun` shields an asyncio future, because awaiting it directly
    would cancel it for everybody. Another awaitable gets no shield (there is nothing to shield without starting a task
    for each waiter): it is its author's duty that a cancelled waiter leaves it alone.
    """

    __slots__ = ("flight",)

    def __init__(self, flight: Flight | AwaitableFlight) -> None:
        self.flight = flight

    def __repr__(self) -> str:
        return f"Join({self.flight!r})"


Plan: TypeAlias = Generator[Call | Join, Any, T]


def run(plan: Plan[T]) -> T:
    """Drive a plan in this thread and return what it returns. An exception that it doesn't catch reaches the caller."""
    try:
        step = next(plan)
        while True:
            try:
                if type(step) is Call:  # noqa: SIM108  (two ways of waiting, one a line)
                    outcome = step.function(*step.args, **step.kwargs)
                else:
                    outcome = step.flight.wait()  # type: ignore[union-attr]
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(outcome)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        plan.close()


async def arun(plan: Plan[T]) -> T:
    """Drive a plan in this task. Cancellation is thrown into the plan like an error, so its `finally` blocks run."""
    try:
        step = next(plan)
        while True:
            try:
                if type(step) is Call:
                    outcome = await step.function(*step.args, **step.kwargs)
                else:
                    outcome = await _shielded(step.flight)  # type: ignore[union-attr]
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(outcome)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        plan.close()


def _shielded(flight: Any) -> Awaitable[Any]:
    import asyncio  # here, so that importing this file doesn't load asyncio into a program that never awaits

    return asyncio.shield(flight) if asyncio.isfuture(flight) else flight
