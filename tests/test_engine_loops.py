"""What one event loop leaves undone in the loading engine when it ends or stops, and how another one goes on with it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from test_engine_endings import SlowStore, load

from fastcache import Policy, background
from fastcache.background import Tasks
from fastcache.events import Reporter
from fastcache.loading import Loading
from fastcache.plan import arun


@pytest.fixture
def engine():
    return Loading(SlowStore(), Tasks(), None, Reporter("test", None))


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_write_gets_past_the_store_of_a_stopped_loop(engine, monkeypatch, when):
    """It isn't closed, and may be run again or not: `set` and `delete` in another loop don't wait for that."""
    monkeypatch.setattr("fastcache.writing.LOOK", 0.05, raising=False)
    monkeypatch.setattr(background, "CLOSE_SECONDS", 0)
    stopped = asyncio.new_event_loop()
    waits = threading.Event()

    async def begin():
        assert await load(engine, "old") == "old"
        while not engine.store.writing:
            await asyncio.sleep(0)
        ready.set()
        if when == "meanwhile":
            assert await asyncio.to_thread(waits.wait, 10)

    async def main():
        assert await asyncio.to_thread(ready.wait, 10)
        writing = asyncio.ensure_future(arun(engine.invalidate_plan("k")))
        if when == "meanwhile":
            await asyncio.sleep(0.1)
            assert not writing.done()
            waits.set()
        await asyncio.wait_for(writing, 10)
        engine.store.hangs = False
        await asyncio.wait_for(arun(engine.put_plan({"k": "new"}, Policy(60))), 10)

    ready = threading.Event()
    thread = threading.Thread(target=stopped.run_until_complete, args=(begin(),))
    thread.start()
    if when == "before":
        thread.join()
    try:
        asyncio.run(main())
    finally:
        waits.set()
        thread.join()
    assert engine.store.values == {"k": "new"}
    assert not len(engine.flights)
    stopped.run_until_complete(engine.driver.close())
    stopped.run_until_complete(asyncio.sleep(0))  # for what was cancelled
    stopped.run_until_complete(stopped.shutdown_default_executor())
    stopped.close()


def test_loops_that_were_closed_are_not_kept_for_the_outbox(engine):
    """The next that posts to it lets go of them, whatever else is done there."""
    engine.store.away = True
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(arun(engine.invalidate_plan("k")))
        loop.close()
        assert engine._flushing == {loop} == {task.get_loop() for task in engine.driver._kept}
    asyncio.run(arun(engine.invalidate_plan("k")))
    assert not engine._flushing


@pytest.mark.parametrize("write", ["put", "invalidate"])
def test_the_next_write_has_the_outbox_delivered_in_its_loop(engine, write):
    """The store is back, and the task that would have noticed ended with its loop."""
    engine.store.away = True
    asyncio.run(arun(engine.invalidate_plan("k")))
    assert engine.outbox
    engine.store.away = engine.store.hangs = False

    async def second():
        await arun(engine.put_plan({"l": 1}, Policy(60)) if write == "put" else engine.invalidate_plan("l"))
        while engine.outbox:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(second(), 10))
    assert not engine._flushing


def test_an_invalidation_that_its_loop_left_waits_in_the_outbox(engine):
    """Its coroutine is closed where no loop runs, as by the collector: the next loop delivers it."""
    invalidating = arun(engine.invalidate_plan("k"))

    async def begin():
        invalidating.send(None)

    asyncio.run(begin())
    invalidating.close()
    assert "k" in engine.outbox
    assert not engine._flushing

    async def again():
        await arun(engine.invalidate_plan("l"))
        while engine.outbox:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(again(), 10))
