"""Asks something of the event loop of another thread, which may be busy, stand still or end before it gets to it.

This file must never know what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from time import monotonic
from typing import Any

__all__ = ["finishes_in"]

LOOK = 0.05  # seconds between two looks at whether the other loop is still running: nobody tells when it stops


async def finishes_in(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, Any]], seconds: float) -> bool:
    """Run a coroutine in another thread's loop: whether it came to its end within so many seconds, without an error.

    It isn't stopped after that. A cancellation there, as of a loop that ends, is none of this task.
    """
    outcome: Future[bool] = Future()

    def begin() -> None:
        if outcome.set_running_or_notify_cancel():  # else nobody waits any more
            loop.create_task(make()).add_done_callback(_end)

    def _end(task: asyncio.Task[Any]) -> None:
        outcome.set_result(not task.cancelled() and task.exception() is None)

    try:
        loop.call_soon_threadsafe(begin)
    except RuntimeError:  # it was closed
        return False
    waiting = asyncio.wrap_future(outcome)
    end = monotonic() + seconds
    try:
        while not waiting.done() and loop.is_running() and monotonic() < end:
            await asyncio.wait([waiting], timeout=LOOK)
        return waiting.done() and waiting.result()
    finally:
        waiting.cancel()
