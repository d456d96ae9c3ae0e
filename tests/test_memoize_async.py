"""`lru_cache` on an `async def`: results are kept, runs are shared, and nobody's cancellation is another's."""

import asyncio
import importlib.util
import inspect
import sys
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from fastcache import lru_cache

_spec = importlib.util.spec_from_file_location("async_gate", Path(__file__).with_name("async_gate.py"))
async_gate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(async_gate)
Gate, turns, flights, run, no_tasks = (
    getattr(async_gate, name) for name in ("Gate", "turns", "flights", "run", "no_tasks")
)


async def double(x):
    return 2 * x


class CallableObject:
    async def __call__(self, x):
        return 2 * x

    async def method(self, x):
        return 2 * x


class Marked:
    """What says itself that it gives coroutines."""

    def __init__(self):
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)

    def __call__(self, x):
        return double(x)


needs_marks = pytest.mark.skipif(sys.version_info < (3, 12), reason="needs inspect.markcoroutinefunction")


@pytest.mark.parametrize(
    "function",
    [
        double,
        pytest.param(Marked(), marks=needs_marks),
        partial(double),
        partial(partial(double)),
        CallableObject(),
        CallableObject().method,
        partial(CallableObject().method),
        staticmethod(double),
        AsyncMock(return_value=4),
    ],
    ids=lambda function: type(function).__name__,
)
def test_every_kind_of_async_function_is_recognised(function):
    """inspect believes the wrapper to be one, too, and results are what is cached."""
    f = lru_cache(function)
    assert inspect.iscoroutinefunction(f)

    async def main():
        assert [await f(2), await f(2)] == [4, 4]
        assert f.cache_info() == (1, 1, 128, 1)

    run(main)


def test_async_methods_are_recognised_and_cached():
    """As a method, a class method and a static method, through class and instance."""

    class A:
        @lru_cache
        async def m(self, x):
            return (self, x)

        @classmethod
        @lru_cache
        async def c(cls, x):
            return (cls, x)

        @staticmethod
        @lru_cache
        async def s(x):
            return x

    async def main():
        a = A()
        for f in (A.m, a.m, A.c, a.c, A.s, a.s):
            assert inspect.iscoroutinefunction(f)
        assert [await a.m(1), await A.m(a, 1)] == [(a, 1)] * 2
        assert [await A.c(1), await a.c(1)] == [(A, 1)] * 2
        assert [await A.s(1), await a.s(1)] == [1, 1]
        assert A.m.cache_info().hits == A.c.cache_info().hits == A.s.cache_info().hits == 1
        assert A.m.cache_invalidate(a, 1)
        A.m.cache_clear()

    run(main)
    assert not inspect.iscoroutinefunction(lru_cache(len))


def test_concurrent_callers_share_one_run():
    """A hundred awaits of one cold key: one run, one miss, the rest hits, and the very same result."""

    async def main():
        gate = Gate()
        f = gate.cached()
        tasks = [asyncio.create_task(f(1)) for _ in range(100)]
        await turns()
        assert f.cache_contains(1) is False
        gate.open.set()
        results = await asyncio.gather(*tasks)
        assert all(result is results[0] for result in results)
        assert (gate.calls, flights(f)) == ([1], 0)
        assert f.cache_info() == (99, 1, 128, 1)
        assert await f(1) is results[0]

    run(main)


@pytest.mark.parametrize("forget", ["clear", "invalidate"])
@pytest.mark.parametrize("shared", [True, False])
def test_forgetting_during_a_run_discards_its_result(forget, shared):
    """It goes to its callers; the next call starts a run of its own; only that one's result is stored."""

    async def main():
        gate = Gate()
        f = gate.cached(single_flight=shared)
        old = asyncio.create_task(f(1))
        await turns()
        if forget == "clear":
            f.cache_clear()
        else:
            assert f.cache_invalidate(1) is False
        new = asyncio.create_task(f(1))
        await turns()
        gate.open.set()
        assert (await old, await new) == ([1, 1], [1, 2])
        assert await f(1) == [1, 2]
        assert gate.calls == [1, 1]

    run(main)


@pytest.mark.parametrize("forget", ["clear", "invalidate"])
@pytest.mark.parametrize("shared", [True, False])
def test_forgetting_during_a_run_on_an_instance_discards_its_result(forget, shared):
    """With `per_instance`, for the instance named; what others run is stored."""

    async def main():
        gates = []

        class A:
            def __init__(self):
                self.gate = Gate()
                self.gate.open = asyncio.Event()
                gates.append(self.gate)

            @lru_cache(per_instance=True, single_flight=shared)
            async def m(self, x, *, y=0):
                return await self.gate(x)

        a, b = A(), A()
        old, other = asyncio.create_task(a.m(1, y=2)), asyncio.create_task(b.m(1, y=2))
        await turns()
        if forget == "clear":
            A.m.cache_clear()
        else:
            assert A.m.cache_invalidate(a, 1, y=2) is False
        new = asyncio.create_task(a.m(1, y=2))
        await turns()
        for gate in gates:
            gate.open.set()
        assert (await old, await new, await other) == ([1, 1], [1, 2], [1, 1])
        assert await a.m(1, y=2) == [1, 2]
        assert await b.m(1, y=2) == ([1, 2] if forget == "clear" else [1, 1])

    run(main)


def test_run_sees_the_first_callers_context():
    """And what the run sets is seen by no caller."""
    var = ContextVar("var", default="default")

    async def main():
        gate = Gate()
        seen = []

        async def f(x):
            seen.append(var.get())
            var.set("inside")
            return await gate(x)

        gate.cached()
        f = lru_cache(f)

        async def call(value):
            var.set(value)
            await f(1)
            assert var.get() == value

        tasks = [asyncio.create_task(call(i)) for i in range(3)]
        await turns()
        gate.open.set()
        await asyncio.gather(*tasks)
        assert seen == [0]
        assert var.get() == "default"

    run(main)


@pytest.mark.parametrize("options", [{"maxsize": None}, {"maxsize": 0}, {"ttl": 3600}, {"key": abs}, {"typed": True}])
def test_options_work_on_async_functions(options):
    """Sharing happens with each of them; with maxsize=0 nothing is kept."""

    async def main():
        gate = Gate()
        f = gate.cached(**options)
        tasks = [asyncio.create_task(f(1)) for _ in range(3)]
        await turns()
        gate.open.set()
        assert await asyncio.gather(*tasks) == [[1, 1]] * 3
        await f(1)
        if "key" in options:
            assert await f(-1) == [1, 1]
        assert len(gate.calls) == (2 if options.get("maxsize") == 0 else 1)

    run(main)


def test_ttl_forgets_async_results():
    """After it, the function is awaited again, as async-lru's ttl does."""

    async def main():
        gate = Gate()
        f = gate.cached(ttl=0.02)
        gate.open.set()
        await f(1)
        await asyncio.sleep(0.03)
        assert not f.cache_contains(1)
        assert f.cache_info().currsize == 0
        assert await f(1) == [1, 2]

    run(main)


def test_without_single_flight_every_miss_runs():
    """single_flight=False: results are cached, runs aren't shared, and a cancellation is the function's own."""

    async def main():
        gate = Gate()
        f = gate.cached(single_flight=False)
        tasks = [asyncio.create_task(f(1)) for _ in range(3)]
        await turns()
        tasks[0].cancel()
        await turns()
        assert gate.cancelled == 1
        gate.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1:] == [[1, 2], [1, 3]]
        assert f.cache_info() == (0, 3, 128, 1)

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs eager tasks")
def test_eager_tasks_work():
    """With eager_task_factory a run starts, and may end, inside the call."""

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        calls = []

        @lru_cache
        async def f(x):
            calls.append(x)
            if x:
                await asyncio.sleep(0)
            return x

        assert await asyncio.gather(*(f(0) for _ in range(3))) == [0] * 3
        assert await asyncio.gather(*(f(1) for _ in range(3))) == [1] * 3
        assert calls == [0, 1]
        assert flights(f) == 0

    run(main)


def test_hits_are_fresh_coroutines():
    """What a call returns is awaited once, hit or miss; the result itself may be a coroutine function's anything."""

    async def main():
        f = lru_cache(double)
        await f(1)
        first, second = f(1), f(1)
        assert inspect.iscoroutine(first)
        assert first is not second
        assert await first == await second == 2

    run(main)
