"""Shared runs of a cached `async def` at their worst: cancellations, errors, circles, several loops."""

import asyncio
import gc
import importlib.util
import random
import threading
import weakref
from pathlib import Path

import pytest

from fastcache import lru_cache

_spec = importlib.util.spec_from_file_location("async_gate", Path(__file__).with_name("async_gate.py"))
async_gate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(async_gate)
Gate, turns, flights, run, no_tasks = (
    getattr(async_gate, name) for name in ("Gate", "turns", "flights", "run", "no_tasks")
)


@pytest.mark.parametrize("victims", [[0], [1], [2], [0, 1], [1, 2], [0, 2]])
def test_cancelled_callers_concern_nobody_else(victims):
    """Whoever is cancelled, the first included: the run goes on and the others get its result."""

    async def main():
        gate = Gate()
        f = gate.cached()
        tasks = [asyncio.create_task(f(1)) for _ in range(3)]
        await turns()
        for i in victims:
            tasks[i].cancel()
        await turns()
        gate.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for i, result in enumerate(results):
            assert isinstance(result, asyncio.CancelledError) if i in victims else result == [1, 1]
        assert (gate.calls, gate.cancelled) == ([1], 0)
        assert await f(1) == [1, 1]

    run(main)


def test_call_that_is_never_awaited_is_named_after_the_function():
    """What Python says of the coroutine of a miss, and asyncio of its task."""

    async def fetch(x):
        return x

    coroutine = lru_cache(fetch)(1)
    assert coroutine.__qualname__ == fetch.__qualname__
    coroutine.close()


def test_last_cancellation_stops_the_run():
    """With nobody left to wait, the function is cancelled, nothing is stored and nothing is left."""

    async def main():
        gate = Gate()
        f = gate.cached()
        tasks = [asyncio.create_task(f(1)) for _ in range(3)]
        await turns()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await turns()
        assert (gate.cancelled, gate.finished, flights(f), f.cache_contains(1)) == (1, 0, 0, False)
        assert no_tasks()

    run(main)


def test_call_during_a_cancelled_runs_end_starts_afresh():
    """It neither joins the dying run nor is cancelled with it; a result of the dying run isn't stored."""

    async def main():
        leaving = asyncio.Event()
        calls = []

        @lru_cache
        async def f(x):
            calls.append(x)
            n = len(calls)
            if n == 1:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    await leaving.wait()
                    return "stubborn"
            return n

        first = asyncio.create_task(f(1))
        await turns()
        first.cancel()
        await turns()
        assert await f(1) == 2
        leaving.set()
        await turns()
        assert await f(1) == 2
        assert first.cancelled()
        assert calls == [1, 1]

    run(main)


def test_exception_reaches_all_waiters_as_their_own():
    """It isn't cached; and when a waiter is gone by then, nobody complains of an exception never retrieved."""

    async def main():
        gate = Gate()
        f = gate.cached()
        gate.error = ValueError("x")
        tasks = [asyncio.create_task(f(1)) for _ in range(4)]
        await turns()
        gate.open.set()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(type(error), error.args) for error in errors] == [(ValueError, ("x",))] * 4
        assert len({id(error) for error in errors}) == 4
        assert (flights(f), f.cache_info().currsize) == (0, 0)
        gate.error = None
        assert await f(1) == [1, 2]
        gate.error = ValueError("nobody listens")
        gate.open.clear()
        lonely = asyncio.create_task(f(2))
        await turns()
        gate.open.set()
        await asyncio.sleep(0)  # the run has failed; the waiter goes before it hears of it
        lonely.cancel()
        with pytest.raises((asyncio.CancelledError, ValueError)):
            await lonely

    run(main)


def test_exception_leaves_no_cycle():
    """Once its catchers are done with it, an exception is released without the collector."""

    class Thing:
        pass

    async def main():
        @lru_cache
        async def f(x):
            thing = Thing()
            references.append(weakref.ref(thing))
            raise ValueError(x)

        for i in range(3):
            try:
                await f(i)
            except ValueError:
                continue  # pytest.raises would keep it
        await turns()

    references = []
    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
        assert [reference() for reference in references] == [None] * 3
    finally:
        gc.enable()


def test_timeouts_are_cancellations_of_one_caller():
    """wait_for gives up for itself; the run goes on for a patient caller."""

    async def main():
        gate = Gate()
        f = gate.cached()
        patient = asyncio.create_task(f(1))
        await turns()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(f(1), 0.01)
        gate.open.set()
        assert await patient == [1, 1]

    run(main)


def test_task_group_cancels_cleanly():
    """A failing sibling cancels the group's awaits; the shared run ends, and nothing else is lost."""

    async def main():
        gate = Gate()
        f = gate.cached()

        async def fail():
            await turns(2)
            raise OSError("sibling")

        async def together():
            async with asyncio.TaskGroup() as group:
                for coroutine in (f(1), f(1), fail()):
                    group.create_task(coroutine)

        with pytest.raises(ExceptionGroup):
            await together()
        await turns()
        assert (gate.cancelled, flights(f)) == (1, 0)
        gate.open.set()
        assert await f(1) == [1, 2]

    run(main)


def test_circles_run_through():
    """f(1) awaits f(2) awaits f(1): a wait for oneself would be for ever, however many tasks are between."""

    async def main():
        depth = []

        @lru_cache
        async def f(x):
            depth.append(x)
            if len(depth) >= 5:
                return x
            if x == 1:
                return await asyncio.create_task(f(2)) + 1
            return await asyncio.gather(f(1))

        with pytest.raises(TypeError):  # [..] + 1: what the innermost returns is unimportant
            await asyncio.wait_for(f(1), 10)
        assert depth == [1, 2, 1, 2, 1]
        assert flights(f) == 0

    run(main)


def test_tasks_that_cross_run_through():
    """Two tasks, each in one key and wanting the other's."""

    async def main():
        started = []

        @lru_cache
        async def f(x):
            started.append(x)
            if len(started) > 2:
                return x
            while len(started) < 2:
                await asyncio.sleep(0)
            return (x, await f(3 - x))

        results = await asyncio.wait_for(asyncio.gather(f(1), f(2)), 10)
        assert [result[0] for result in results] == [1, 2]
        assert flights(f) == 0

    run(main)


def test_run_whose_task_cannot_be_made_leaves_no_flight():
    """The caller has the error of the event loop's task factory; the next call runs the function."""

    async def main():
        gate = Gate()
        f = gate.cached()
        gate.open.set()

        def refuse(loop, coroutine, **options):
            coroutine.close()
            raise RuntimeError("no task today")

        asyncio.get_running_loop().set_task_factory(refuse)
        with pytest.raises(RuntimeError, match="no task today"):
            await f(1)
        assert flights(f) == 0
        asyncio.get_running_loop().set_task_factory(None)
        assert await f(1) == [1, 1]

    run(main)


def test_loops_in_several_threads_share_results_not_runs():
    """Each loop has flights of its own; what one stored is a hit in all."""
    calls = []
    barrier = threading.Barrier(4)

    @lru_cache
    async def f(x):
        calls.append(x)
        await asyncio.sleep(0.001)
        return x

    def work():
        async def main():
            for x in range(50):
                assert await asyncio.gather(f(x), f(x), f(x)) == [x] * 3

        barrier.wait()
        asyncio.run(main())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 50 <= len(calls) <= 200
    assert f.cache_info().currsize == 50
    assert flights(f) == 0
    f._check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_loop_closed_in_mid_flight_blocks_nobody():
    """A later loop starts its own run, and the dead loop's flights are dropped."""
    calls = []

    @lru_cache
    async def f(x):
        calls.append(x)
        if len(calls) == 1:
            await asyncio.sleep(3600)
        return x

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    task = loop.create_task(f(1))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()

    async def main():
        assert await asyncio.wait_for(f(1), 10) == 1

    asyncio.run(main())
    assert flights(f) == 0
    assert calls == [1, 1]
    task._log_destroy_pending = False
    del task, loop
    gc.collect()


def test_random_cancellations_leave_a_consistent_state():
    """A hundred tasks on five keys, cancelled at random: each gets its value or its own cancellation."""

    async def main():
        generator = random.Random(20)
        calls = []

        @lru_cache(maxsize=3)
        async def f(x):
            calls.append(x)
            for _ in range(generator.randrange(4)):
                await asyncio.sleep(0)
            if generator.random() < 0.1:
                raise OSError(x)
            return x

        for _ in range(30):
            tasks = [(x, asyncio.create_task(f(x))) for x in generator.choices(range(5), k=100)]
            cancelled = set()
            while not all(task.done() for _, task in tasks):
                x, task = generator.choice(tasks)
                if not task.done() and generator.random() < 0.7:
                    task.cancel()
                    cancelled.add(task)
                if generator.random() < 0.1:
                    f.cache_invalidate(x)
                await asyncio.sleep(0)
            for x, task in tasks:
                if task.cancelled():
                    assert task in cancelled
                elif task.exception():
                    assert task.exception().args == (x,)
                else:
                    assert task.result() == x
            await turns(10)
            assert flights(f) == 0
            assert no_tasks()
            f._check()

    run(main)


def test_system_exit_in_a_run_ends_the_loop(caplog):
    """As it would without a cache; the flight is gone."""

    @lru_cache
    async def f(x):
        raise SystemExit(7)

    async def main():
        await f(1)

    with caplog.at_level("ERROR"), pytest.raises(SystemExit) as info:
        asyncio.run(main())
    assert info.value.code == 7
    assert flights(f) == 0
    gc.collect()
    assert caplog.records == []  # no "exception was never retrieved"
