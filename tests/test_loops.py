"""What is asked of the event loop of another thread, and whether it came to its end: `finishes_in`."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import contextmanager

import pytest

from fastcache.loops import finishes_in

LONG = 60.0  # seconds, which nobody is to wait for


class Elsewhere:
    """An event loop that runs in a thread of its own, and what it reports because nobody else is there to hear it."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.reports = []
        self.loop.set_exception_handler(lambda loop, context: self.reports.append(context))
        self._thread = None

    def start(self):
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def turn(self):
        """Wait until what it was asked before has begun."""
        self.run(asyncio.sleep(0))

    @contextmanager
    def busy(self):
        """It stands in the midst of something."""
        reached, go_on = threading.Event(), threading.Event()

        def block():
            reached.set()
            assert go_on.wait(10)

        self.loop.call_soon_threadsafe(block)
        assert reached.wait(10)
        try:
            yield
        finally:
            go_on.set()
            self.turn()


@pytest.fixture
def elsewhere():
    other = Elsewhere()
    other.start()
    yield other
    other.stop()
    other.loop.close()
    gc.collect()
    assert other.reports == []


class Held:
    """A coroutine that waits in its loop until it is let go on."""

    def __init__(self):
        self.made, self.begun, self.ended = 0, threading.Event(), threading.Event()

    def __call__(self):
        self.made += 1
        return self._work()

    async def _work(self):
        self._loop, self._go_on = asyncio.get_running_loop(), asyncio.Event()
        self.begun.set()
        await self._go_on.wait()
        self.ended.set()

    def go_on(self):
        self._loop.call_soon_threadsafe(self._go_on.set)


def asked(loop, make, seconds=LONG):
    """The answer, to one who isn't cancelled by asking and hasn't waited for long."""

    async def main():
        async with asyncio.timeout(10):
            answer = await finishes_in(loop, make, seconds)
        assert asyncio.current_task().cancelling() == 0
        return answer

    return asyncio.run(main())


def test_coroutine_that_ends(elsewhere, monkeypatch):
    """It ran in the other loop, once; the answer comes with its end, not with the next look."""
    monkeypatch.setattr("fastcache.loops.LOOK", LONG)
    ran = []

    async def work():
        await asyncio.sleep(0)
        ran.append(asyncio.get_running_loop())
        return False  # whatever it returns

    assert asked(elsewhere.loop, work) is True
    assert ran == [elsewhere.loop]


def test_coroutine_that_raises(elsewhere):
    """Its error is no error here, and isn't reported there."""

    async def work():
        raise ZeroDivisionError

    assert asked(elsewhere.loop, work) is False


@pytest.mark.parametrize("by", ["another task", "itself"])
def test_coroutine_that_is_cancelled(elsewhere, by):
    """That is none of the task that asked."""

    async def work():
        if by == "itself":
            raise asyncio.CancelledError
        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
        await asyncio.Event().wait()

    assert asked(elsewhere.loop, work) is False


def test_coroutine_that_is_too_slow(elsewhere, monkeypatch):
    """It isn't waited for any longer, and isn't stopped: it comes to its end."""
    held, looks = Held(), []

    def clock():
        looks.append(len(looks))
        return 2 * LONG if looks[-1] and held.begun.is_set() else 0.0

    monkeypatch.setattr("fastcache.loops.monotonic", clock)
    assert asked(elsewhere.loop, held) is False
    assert held.begun.is_set()
    assert not held.ended.is_set()
    held.go_on()
    assert held.ended.wait(10)
    elsewhere.turn()


def test_loop_that_is_busy_for_too_long(elsewhere):
    """What nobody waits for any more doesn't begin when it gets to it."""
    held = Held()
    with elsewhere.busy():
        assert asked(elsewhere.loop, held, 0.01) is False
    assert held.made == 0


def test_loop_that_is_closed():
    """It can't be asked, and no coroutine is made for it."""
    loop = asyncio.new_event_loop()
    loop.close()
    held = Held()
    assert asked(loop, held) is False
    assert held.made == 0


def test_loop_that_stands_still():
    """It isn't waited for; nothing begins when it runs again."""
    loop = asyncio.new_event_loop()
    held = Held()
    assert asked(loop, held) is False
    loop.run_until_complete(asyncio.sleep(0))
    assert held.made == 0
    loop.close()


def test_loop_that_stops_meanwhile(elsewhere):
    """Nobody tells of that, but it is noticed. What had begun goes on when the loop does."""
    held = Held()

    async def main():
        asking = asyncio.create_task(finishes_in(elsewhere.loop, held, LONG))
        assert await asyncio.to_thread(held.begun.wait, 10)
        assert not asking.done()
        elsewhere.stop()
        async with asyncio.timeout(10):
            assert await asking is False

    asyncio.run(main())
    elsewhere.start()
    held.go_on()
    assert held.ended.wait(10)
    elsewhere.turn()


def test_loop_that_ends_meanwhile():
    """It cancels what runs in it, but not the task that asked; nor does it wait for that one."""
    held, asking = Held(), threading.Event()
    loops = []

    async def other():
        loops.append(asyncio.get_running_loop())
        asking.set()
        assert await asyncio.to_thread(held.begun.wait, 10)

    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    assert asking.wait(10)
    assert asked(loops[0], held) is False
    thread.join(10)
    assert held.made == 1
    assert not held.ended.is_set()


def test_own_cancellation_while_the_coroutine_runs(elsewhere):
    """It is heeded at once, and doesn't reach the other loop."""
    held = Held()

    async def main():
        asking = asyncio.create_task(finishes_in(elsewhere.loop, held, LONG))
        assert await asyncio.to_thread(held.begun.wait, 10)
        asking.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([asking])
        assert asking.cancelled()
        held.go_on()
        assert await asyncio.to_thread(held.ended.wait, 10)

    asyncio.run(main())
    elsewhere.turn()  # nor is it an error there that nobody takes its outcome


def test_own_cancellation_before_the_coroutine_begins(elsewhere):
    """Then it never does."""
    held = Held()

    async def main():
        asking = asyncio.create_task(finishes_in(elsewhere.loop, held, LONG))
        await asyncio.sleep(0)
        asking.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([asking])
        assert asking.cancelled()

    with elsewhere.busy():
        asyncio.run(main())
    assert held.made == 0


def test_own_loop_that_ends_before_the_answer(elsewhere):
    """There is nobody to tell any more, which is no error in the other loop."""
    held = Held()

    async def main():
        asking = asyncio.create_task(finishes_in(elsewhere.loop, held, LONG))
        assert await asyncio.to_thread(held.begun.wait, 10)
        return asking

    assert asyncio.run(main()).cancelled()
    held.go_on()
    assert held.ended.wait(10)
    elsewhere.turn()
