"""What the tests of cached async functions share: a function that waits at a gate, and a strict way to run a test."""

import asyncio
import gc

from fastcache import lru_cache


class Gate:
    """A function to be cached: counts its runs, and each waits until the gate is opened."""

    def __init__(self):
        self.calls = []
        self.finished = 0
        self.cancelled = 0
        self.error = None

    async def __call__(self, x=1):
        self.calls.append(x)
        n = len(self.calls)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        self.finished += 1
        return [x, n]

    def cached(self, **options):
        self.open = asyncio.Event()
        return lru_cache(**options)(self)


async def turns(n=5):
    """Let everything that is ready run."""
    for _ in range(n):
        await asyncio.sleep(0)


def no_tasks():
    """Only the test itself is left."""
    return len(asyncio.all_tasks()) == 1


def flights(function):
    """How many runs are on the wrapper's tables."""
    from fastcache.runs import AsyncRuns

    (runs,) = [each for each in gc.get_referents(function) if isinstance(each, AsyncRuns)]
    return sum(map(len, runs._tables.values()))


def run(main):
    """Run a test's coroutine function in debug mode; what the loop would only log is an error."""
    problems = []

    async def wrapped():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        await main()
        await turns()
        gc.collect()
        assert no_tasks(), asyncio.all_tasks()

    asyncio.run(wrapped(), debug=True)
    gc.collect()
    assert problems == []
