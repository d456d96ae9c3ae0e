"""The two drivers: what a plan may do, and that both treat it alike."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from fastcache.plan import Call, Join, arun, run


def double(number):
    return number * 2


async def adouble(number):
    await asyncio.sleep(0)
    return number * 2


def fail():
    raise LookupError("inside")


async def afail():
    await asyncio.sleep(0)
    raise LookupError("inside")


class Flight:
    """What a single-flight engine hands to threads: any number of them wait, all get the outcome."""

    def __init__(self):
        self._done = threading.Event()
        self.waiters = 0
        self.value = self.error = None

    def land(self, value=None, error=None):
        self.value, self.error = value, error
        self._done.set()

    def wait(self):
        self.waiters += 1
        assert self._done.wait(10)
        if self.error is not None:
            raise self.error
        return self.value


def both(make_plan, sync, other):
    """What `run` and `arun` return for the same plan, given the same function for either world."""
    return run(make_plan(sync)), asyncio.run(arun(make_plan(other)))


def test_a_plan_gets_what_its_calls_return():
    """Positional and keyword arguments pass through, several calls one after the other."""

    def plan(function):
        first = yield Call(function, 1)
        second = yield Call(function, number=first)
        return first, second

    assert both(plan, double, adouble) == ((2, 4), (2, 4))


def test_a_plan_may_call_nothing_at_all():
    """It returns at once, whatever it returns."""

    def plan(_):
        return 5
        yield

    assert both(plan, None, None) == (5, 5)


def test_a_call_may_have_a_keyword_named_function():
    """`Call`'s own parameter is positional only."""

    def take(**keywords):
        return keywords

    def plan():
        return (yield Call(take, function=1, self=2))

    assert run(plan()) == {"function": 1, "self": 2}


def test_an_error_of_a_call_arrives_in_the_plan():
    """By an ordinary except; what the plan does next is its own business."""

    def plan(function):
        try:
            yield Call(function)
        except LookupError as error:
            return str(error)

    assert both(plan, fail, afail) == ("inside", "inside")


def test_an_error_that_the_plan_lets_pass_reaches_the_caller():
    """After the plan's finally, with the plan's own frame in the traceback."""
    steps = []

    def plan(function):
        try:
            yield Call(function)
        finally:
            steps.append("finally")

    with pytest.raises(LookupError) as caught:
        run(plan(fail))
    assert "plan" in [entry.name for entry in caught.traceback]
    with pytest.raises(LookupError):
        asyncio.run(arun(plan(afail)))
    assert steps == ["finally"] * 2


def test_an_error_of_the_plan_itself_reaches_the_caller():
    """Before the first step and after one."""

    def early(_):
        raise ValueError("early")
        yield

    def late(function):
        yield Call(function, 1)
        raise ValueError("late")

    for plan, message in ((early, "early"), (late, "late")):
        with pytest.raises(ValueError, match=message):
            run(plan(double))
        with pytest.raises(ValueError, match=message):
            asyncio.run(arun(plan(adouble)))


def test_a_stop_iteration_of_a_call_is_an_error_not_an_end():
    """PEP 479: it comes out as RuntimeError, never as a silent return."""

    def stop():
        raise StopIteration(7)

    def plan():
        yield Call(stop)
        return "unreachable"

    with pytest.raises(RuntimeError):
        run(plan())


def test_nested_plans_need_no_driver():
    """`yield from` passes steps out and outcomes in."""

    def inner(function, number):
        return (yield Call(function, number)) + 1

    def outer(function):
        return (yield from inner(function, 1)) + (yield from inner(function, 2))

    assert both(outer, double, adouble) == (8, 8)


def test_threads_wait_for_a_flight_and_share_its_outcome():
    """Join in `run` is the flight's own wait()."""
    flight, outcomes = Flight(), []

    def plan():
        return (yield Join(flight))

    threads = [threading.Thread(target=lambda: outcomes.append(run(plan()))) for _ in range(5)]
    for thread in threads:
        thread.start()
    flight.land("landed")
    for thread in threads:
        thread.join()
    assert outcomes == ["landed"] * 5
    assert flight.waiters == 5


def test_an_error_of_a_flight_arrives_in_the_plan():
    """As one of a call does."""
    flight = Flight()
    flight.land(error=LookupError("crashed"))

    def plan():
        try:
            yield Join(flight)
        except LookupError as error:
            return str(error)

    assert run(plan()) == "crashed"


def test_tasks_wait_for_a_future_and_one_that_is_cancelled_leaves_it_to_the_others():
    """The shield: awaiting a shared future directly would cancel it for all."""

    async def main():
        flight = asyncio.get_running_loop().create_future()
        cleaned = []

        def plan():
            try:
                return (yield Join(flight))
            finally:
                cleaned.append(True)

        tasks = [asyncio.create_task(arun(plan())) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert not flight.cancelled()
        flight.set_result("landed")
        assert await asyncio.gather(*tasks[1:]) == ["landed"] * 2
        assert len(cleaned) == 3

    asyncio.run(main())


def test_tasks_wait_for_any_other_awaitable():
    """A flight with an __await__ of its own is awaited as it is."""

    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "landed"

    def plan():
        return (yield Join(Awaitable()))

    assert asyncio.run(arun(plan())) == "landed"


def test_cancellation_reaches_the_plan_and_the_caller():
    """As an error at the `yield`, so `finally` runs; the plan can't mistake it for an Exception."""

    async def main():
        seen = []

        def plan():
            try:
                yield Call(asyncio.sleep, 60)
            except Exception:
                seen.append("exception")
            finally:
                seen.append("finally")

        task = asyncio.create_task(arun(plan()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["finally"]

    asyncio.run(main())


def test_a_driver_that_is_closed_closes_its_plan():
    """A coroutine dropped in the middle (a loop that ends) still runs the plan's finally."""
    seen = []

    def plan():
        try:
            yield Call(asyncio.sleep, 60)
        finally:
            seen.append("finally")

    async def main():
        driver = arun(plan())
        driver.send(None)
        driver.close()

    asyncio.run(main())
    assert seen == ["finally"]


def test_importing_plan_does_not_import_asyncio():
    """A program that never awaits doesn't pay for it."""
    code = "import sys, fastcache.plan; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_steps_say_what_they_are():
    """In a debugger, a plan that is stuck shows on what."""
    assert repr(Call(double, 1, number=2)).startswith("Call(<function double")
    assert repr(Join("flight")) == "Join('flight')"
