"""How shared runs and background work end: with a caller, with an event loop, with a full queue."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext

import pytest

from fastcache import AsyncMemoryCache, Policy, background
from fastcache.background import Tasks, Threads
from fastcache.errors import BackendError
from fastcache.events import Reporter
from fastcache.loading import Loading
from fastcache.plan import Call, arun, run
from fastcache.storing import Found
from fastcache.workers import QUEUE

BACKGROUND = Policy(60, store="background")


class SlowStore:
    """A store outside the process, whose writes begin only where a loop goes round once more, and end when told to."""

    local = False
    leases = False
    closed = False
    ttl = 60

    def __init__(self):
        self.values = {}
        self.away = False
        self.writing = False
        self.hangs = True

    def identity(self, key):
        return key

    def section(self):
        return nullcontext()

    def unreachable(self, error):
        return self.away

    def read_plan(self, keys, type, policy):
        return {key: Found(self.values[key]) for key in keys if key in self.values}
        yield

    def write_plan(self, values, errand, lives):
        yield Call(self._reach)
        self.values.update(values)
        return []

    def remove_plan(self, identities):
        if self.away:
            raise BackendError("away")
        yield Call(asyncio.sleep, 0)
        for identity in identities:
            self.values.pop(identity, None)

    def rescue(self, keys, type, policy):
        return {}

    def salvage(self, values, errand, lives):
        pass

    async def _reach(self):
        self.writing = True
        if self.hangs:
            await asyncio.Event().wait()


@pytest.fixture
def engine():
    return Loading(SlowStore(), Tasks(), None, Reporter("test", None))


def load(engine, value):
    async def loader(key):
        return value

    return arun(engine.one_plan("k", loader, None, None, BACKGROUND, None))


def in_a_loop_that_is_just_closed(make, rounds=0):
    """Run a coroutine and so many rounds of the loop, then close it, without the cancellations of `asyncio.run`."""
    loop = asyncio.new_event_loop()

    async def main():
        value = await make()
        for _ in range(rounds):
            await asyncio.sleep(0)
        return value

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def check_nothing_is_left(engine):
    """A new loop loads anew, writes and invalidates without waiting for a store that never ends."""

    async def main():
        engine.store.hangs = False
        assert await load(engine, "new") == "new"
        await asyncio.wait_for(arun(engine.put_plan({"k": "newer"}, Policy(60))), 5)
        assert await load(engine, "unused") == "newer"
        await asyncio.wait_for(arun(engine.invalidate_plan("k")), 5)
        assert await engine.driver.drain(5)

    asyncio.run(main())
    assert not len(engine.flights)
    assert not engine.flights.landed
    assert not engine.driver._running


@pytest.mark.parametrize("rounds", range(4))
def test_a_background_store_that_a_loop_cancels_as_it_ends_is_over(engine, rounds):
    """`asyncio.run` ends before, while or after the store's task begins: nobody waits for it, nor reads its value."""

    async def main():
        assert await load(engine, "old") == "old"
        for _ in range(rounds):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert not len(engine.flights)
    assert not engine.flights.landed
    assert not engine.driver._running
    check_nothing_is_left(engine)


@pytest.mark.parametrize("rounds", range(4))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_background_store_of_a_loop_that_was_closed_is_over(engine, rounds):
    """A loop closed in mid-store, with tasks pending, leaves no store that a later loop waits for or reads from."""
    assert in_a_loop_that_is_just_closed(lambda: load(engine, "old"), rounds) == "old"
    check_nothing_is_left(engine)


def test_value_on_its_way_into_the_store_is_there_already(engine, monkeypatch):
    """A call that comes while it is being stored gets it, and runs no loader."""
    monkeypatch.setattr(background, "CLOSE_SECONDS", 0)

    async def main():
        assert await load(engine, "v1") == "v1"
        await asyncio.sleep(0)
        assert engine.store.writing
        assert not engine.store.values
        assert await load(engine, "unused") == "v1"
        await engine.driver.close()

    asyncio.run(main())


def test_background_stores_beyond_the_queue_are_waited_for(engine, monkeypatch):
    """The caller stores himself what finds no place."""
    monkeypatch.setattr(background, "CLOSE_SECONDS", 0)

    async def main():
        async def loader(key):
            return key

        async def get(key):
            return await arun(engine.one_plan(key, loader, None, None, BACKGROUND, None))

        for key in range(QUEUE):
            assert await get(key) == key
        late = asyncio.create_task(get(QUEUE))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not late.done()
        late.cancel()
        await engine.driver.close()

    asyncio.run(main())


def test_writes_alone_get_past_the_store_of_a_closed_loop(engine):
    """`set` and `delete` in a new loop don't wait for a store of a closed one, though nothing is loaded there."""
    in_a_loop_that_is_just_closed(lambda: load(engine, "old"), 2)
    engine.store.hangs = False

    async def main():
        await asyncio.wait_for(arun(engine.invalidate_plan("k")), 5)
        await asyncio.wait_for(arun(engine.put_plan({"k": "new"}, Policy(60))), 5)

    asyncio.run(main())
    assert engine.store.values == {"k": "new"}


@pytest.mark.parametrize("end", [asyncio.run, lambda coroutine: in_a_loop_that_is_just_closed(lambda: coroutine)])
@pytest.mark.parametrize("rounds", range(3))
def test_the_outbox_is_kept_again_after_its_loop_has_ended(engine, end, rounds):
    """An outbox whose task ended with its loop, begun or not, gets a task in the next loop that posts to it."""
    engine.store.away = True

    async def first():
        await arun(engine.invalidate_plan("k"))
        for _ in range(rounds):
            await asyncio.sleep(0)

    async def second():
        await engine.driver.finish(lambda: engine.invalidate_plan("k"))
        assert engine._flushing
        assert [task.get_loop() for task in engine.driver._kept] == [asyncio.get_running_loop()]

    end(first())
    asyncio.run(second())
    assert not engine._flushing


@pytest.mark.parametrize("start", ["spawn", "keep"])
def test_a_plan_whose_task_is_cancelled_before_it_begins_cleans_up(engine, start):
    """The `finally` of a background plan runs, and nothing it would call does, though its task never got a turn."""
    ended = []
    called = []

    def plan():
        try:
            yield Call(called.append, 1)
        finally:
            ended.append(True)

    async def main():
        engine.driver.spawn(plan) if start == "spawn" else engine.driver.keep(plan())
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(main())
    assert ended == [True]
    assert not called


def test_draining_bears_a_table_that_another_thread_changes(engine):
    """While `drain` looks through what runs, another loop's task may begin and end."""
    running = engine.driver._running

    class Elsewhere:
        def get_loop(self):
            running.pop(self)
            running["later"] = None
            return

    running[Elsewhere()] = None
    running[Elsewhere()] = None
    assert asyncio.run(engine.driver.drain(5))
    assert list(running) == ["later"]


def test_a_batch_outlives_the_cancellation_of_a_caller_whose_load_it_joined() -> None:
    """`get_or_load_many` that hasn't come to wait for another caller's load yet keeps it from being cancelled."""

    async def main() -> None:
        cache = AsyncMemoryCache(ttl=60)
        loading, go_on, batching, batch_on = (asyncio.Event() for _ in range(4))
        calls = []

        async def slow(key: str) -> str:
            calls.append(key)
            loading.set()
            await go_on.wait()
            return key

        async def batch(keys: list[str]) -> dict[str, str]:
            batching.set()
            await batch_on.wait()
            return {key: key for key in keys}

        single = asyncio.create_task(cache.get_or_load("x", slow))
        await loading.wait()
        many = asyncio.create_task(cache.get_or_load_many(["x", "y"], batch))
        await batching.wait()
        single.cancel()
        await asyncio.gather(single, return_exceptions=True)
        batch_on.set()
        go_on.set()
        assert await asyncio.wait_for(many, 5) == {"x": "x", "y": "y"}
        assert calls == ["x"]

    asyncio.run(main())


def test_a_batch_that_waits_for_two_loads_keeps_both() -> None:
    """The second of the loads that a batch joined isn't cancelled while the batch waits for the first."""

    async def main() -> None:
        cache = AsyncMemoryCache(ttl=60)
        go_on = {key: asyncio.Event() for key in "xy"}
        started = {key: asyncio.Event() for key in "xy"}

        async def slow(key: str) -> str:
            started[key].set()
            await go_on[key].wait()
            return key

        singles = {key: asyncio.create_task(cache.get_or_load(key, slow)) for key in "xy"}
        for event in started.values():
            await event.wait()
        many = asyncio.create_task(cache.get_or_load_many(["x", "y"], lambda keys: {}))
        await asyncio.sleep(0)
        singles["y"].cancel()
        await asyncio.gather(singles["y"], return_exceptions=True)
        go_on["x"].set()
        go_on["y"].set()
        assert await asyncio.wait_for(many, 5) == {"x": "x", "y": "y"}

    asyncio.run(main())


def test_the_last_caller_to_leave_still_ends_the_run() -> None:
    """A load that a single caller and a batch shared is cancelled when both have gone."""

    async def main() -> None:
        cache = AsyncMemoryCache(ttl=60)
        loading, ended = asyncio.Event(), asyncio.Event()

        async def slow(key: str) -> str:
            loading.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return key

        single = asyncio.create_task(cache.get_or_load("x", slow))
        await loading.wait()
        many = asyncio.create_task(cache.get_or_load_many(["x"], lambda keys: {}))
        await asyncio.sleep(0)
        for caller in (single, many):
            assert not ended.is_set()
            caller.cancel()
            await asyncio.gather(caller, return_exceptions=True)
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(main())


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_an_outbox_without_a_thread_is_left_to_the_next_operation(monkeypatch, error):
    """An invalidation succeeds though no thread can be started for the outbox, which may have one later."""
    engine = Loading(SlowStore(), Threads(), None, Reporter("test", None))
    engine.store.away = True

    def spare_none(thread):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", spare_none)
        run(engine.invalidate_plan("k"))
    assert not engine._flushing
    assert len(engine.outbox) == 1
