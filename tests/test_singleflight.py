"""SingleFlight and AsyncSingleFlight: one run per key among concurrent callers, however it ends."""

import asyncio
import gc
import os
import random
import threading
import traceback

import pytest

from fastcache import AsyncSingleFlight, LoadTimeout, SingleFlight
from fastcache.flight import TaskFlight
from fastcache.plan import Join, arun

SECONDS = 20  # for things that happen at once unless they never do


def in_threads(count, function):
    """Run a function in so many threads, all begun at once; what each returned or raised."""
    outcomes = [None] * count
    barrier = threading.Barrier(count)

    def work(place):
        barrier.wait(SECONDS)
        try:
            outcomes[place] = function()
        except BaseException as error:
            outcomes[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    return outcomes


def wait_until(condition):
    """Until a condition holds that another thread brings about."""
    pause = threading.Event()
    for _ in range(SECONDS * 1000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it didn't come to that")


class Gate:
    """A function that waits inside until it is let go."""

    def __init__(self, value="value", error=None):
        self.entered, self.go = threading.Event(), threading.Event()
        self.value, self.error, self.runs = value, error, 0

    def __call__(self, *_):
        self.runs += 1
        self.entered.set()
        assert self.go.wait(SECONDS)
        if self.error is not None:
            raise self.error
        return self.value


def followers(flights):
    table = flights._flights._flights
    return sum(flight.followers for flight in table.values())


def test_threads_share_one_run():
    """A thousand callers of one key: the function runs once, all get its value, no record stays."""
    flights, gate = SingleFlight(), Gate()
    results = []
    caller = threading.Thread(target=lambda: results.extend(in_threads(1000, lambda: flights.do("k", gate))))
    caller.start()
    wait_until(lambda: followers(flights) == 999)
    gate.go.set()
    caller.join(SECONDS)
    assert results == ["value"] * 1000
    assert gate.runs == 1
    assert len(flights) == 0


def test_repr_counts_what_is_in_flight():
    """Of either form."""
    flights, shown = SingleFlight(), []
    flights.do("k", lambda: shown.append(repr(flights)))
    assert [*shown, repr(flights)] == ["<SingleFlight with 1 in flight>", "<SingleFlight with 0 in flight>"]

    async def main():
        flights = AsyncSingleFlight()

        async def show():
            return repr(flights)

        return await flights.do("k", show), repr(flights)

    assert asyncio.run(main()) == ("<AsyncSingleFlight with 1 in flight>", "<AsyncSingleFlight with 0 in flight>")


def test_function_of_the_other_form_is_refused():
    """One coroutine can't be awaited by all; a plain function has nothing to await. The next call starts afresh."""

    async def coroutine():
        return 1

    flights = SingleFlight()
    with pytest.raises(TypeError, match=r"coroutine.* is an async def: use it with AsyncSingleFlight"):
        flights.do("k", coroutine)
    assert flights.do("k", lambda: 2) == 2

    async def main():
        flights = AsyncSingleFlight()
        with pytest.raises(TypeError, match="must be an async def, but returned 3: use it with SingleFlight"):
            await flights.do("k", lambda: 3)
        assert await flights.do("k", lambda: asyncio.sleep(0, 4)) == 4
        assert await flights.do("k", coroutine) == 1
        assert len(flights) == 0

    asyncio.run(main())


def test_error_reaches_every_thread_with_a_traceback_of_its_own():
    """Each gets an error it may raise, and the tracebacks don't grow with the number of callers."""
    flights, gate = SingleFlight(), Gate(error=LookupError("no such thing"))
    results = []
    caller = threading.Thread(target=lambda: results.extend(in_threads(8, lambda: flights.do("k", gate))))
    caller.start()
    wait_until(lambda: followers(flights) == 7)
    gate.go.set()
    caller.join(SECONDS)
    assert [str(error) for error in results] == ["no such thing"] * 8
    assert len({id(error) for error in results}) == 8
    assert max(len(traceback.extract_tb(error.__traceback__)) for error in results) < 12
    assert len(flights) == 0


def test_next_call_after_an_error_runs_again():
    """Nothing of a failed run is left behind."""
    flights = SingleFlight()
    with pytest.raises(ZeroDivisionError):
        flights.do("k", lambda: 1 // 0)
    assert flights.do("k", lambda: 5) == 5
    assert len(flights) == 0


def test_leader_that_ends_hands_over():
    """A SystemExit is the leader's own: one of those who wait runs the function."""
    flights, gate = SingleFlight(), Gate(error=SystemExit())

    def lead():
        with pytest.raises(SystemExit):
            flights.do("k", gate)

    leader = threading.Thread(target=lead)
    leader.start()
    assert gate.entered.wait(SECONDS)
    results = []
    follower = threading.Thread(target=lambda: results.append(flights.do("k", lambda: "second")))
    follower.start()
    wait_until(lambda: followers(flights) == 1)
    gate.go.set()
    leader.join(SECONDS)
    follower.join(SECONDS)
    assert results == ["second"]


def test_timeout_is_the_waiters_own():
    """The one who lost patience gets LoadTimeout; the run goes on for the others."""
    flights, gate = SingleFlight(), Gate()
    results = []
    leader = threading.Thread(target=lambda: results.append(flights.do("k", gate)))
    leader.start()
    assert gate.entered.wait(SECONDS)
    with pytest.raises(LoadTimeout, match=r"0\.01 s"):
        flights.do("k", gate, timeout=0.01)
    gate.go.set()
    leader.join(SECONDS)
    assert results == ["value"]
    assert gate.runs == 1


def test_function_that_asks_for_its_own_key_runs_through():
    """To wait would be for ever."""
    flights = SingleFlight()
    assert flights.do("k", lambda: flights.do("k", lambda: "inner") + " outer") == "inner outer"
    assert len(flights) == 0


def test_two_threads_that_cross_run_through():
    """a asks for b while b asks for a: one of them runs instead of waiting."""
    flights, barrier = SingleFlight(), threading.Barrier(2)

    def run(mine, other):
        def function():
            barrier.wait(SECONDS)
            return flights.do(other, lambda: other)

        return flights.do(mine, function)

    keys = iter([("a", "b"), ("b", "a")])
    assert set(in_threads(2, lambda: run(*next(keys)))) <= {"a", "b"}
    assert len(flights) == 0


def test_forget_starts_a_new_run():
    """The old one goes on for its callers."""
    flights, gate = SingleFlight(), Gate("old")
    results = []
    leader = threading.Thread(target=lambda: results.append(flights.do("k", gate)))
    leader.start()
    assert gate.entered.wait(SECONDS)
    flights.forget("k")
    assert flights.do("k", lambda: "new") == "new"
    gate.go.set()
    leader.join(SECONDS)
    assert results == ["old"]
    assert len(flights) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_child_starts_afresh():
    """A flight led by a thread of the parent isn't waited for in a forked child."""
    flights, gate = SingleFlight(), Gate()
    leader = threading.Thread(target=flights.do, args=("k", gate))
    leader.start()
    assert gate.entered.wait(SECONDS)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if flights.do("k", lambda: 7) == 7 and len(flights) == 0 else 1)
    gate.go.set()
    leader.join(SECONDS)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_tasks_share_one_run():
    """A thousand tasks, one run."""

    async def main():
        flights, runs = AsyncSingleFlight(), []

        async def function():
            runs.append(1)
            await asyncio.sleep(0)
            return "value"

        assert await asyncio.gather(*(flights.do("k", function) for _ in range(1000))) == ["value"] * 1000
        assert len(runs) == 1
        assert len(flights) == 0

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(5))
def test_cancelled_tasks_concern_nobody_else(seed):
    """A hundred tasks of which many are cancelled at random, the first one too: one run, the rest get its value."""
    chance = random.Random(seed)

    async def main():
        flights, runs, go = AsyncSingleFlight(), [], asyncio.Event()

        async def function():
            runs.append(1)
            await go.wait()
            return "value"

        tasks = [asyncio.create_task(flights.do("k", function)) for _ in range(100)]
        await asyncio.sleep(0)
        for task in [*chance.sample(tasks, 60), tasks[0]]:
            task.cancel()
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result == "value" or isinstance(result, asyncio.CancelledError) for result in results)
        assert results.count("value") >= 39
        assert len(runs) == 1
        assert len(flights) == 0

    asyncio.run(main())


def test_run_ends_with_the_last_who_waits():
    """With all callers cancelled the run is cancelled, and a later call starts afresh."""

    async def main():
        flights, ended = AsyncSingleFlight(), asyncio.Event()

        async def function():
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        tasks = [asyncio.create_task(flights.do("k", function)) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(ended.wait(), SECONDS)
        assert len(flights) == 0

        async def other():
            return 2

        assert await flights.do("k", other) == 2

    asyncio.run(main())


def test_async_errors_timeouts_circles_and_forget():
    """What the threads' form does, the tasks' form does."""

    async def main():
        flights = AsyncSingleFlight()

        async def fails():
            await asyncio.sleep(0)
            raise LookupError("no such thing")

        errors = await asyncio.gather(*(flights.do("k", fails) for _ in range(5)), return_exceptions=True)
        assert [str(error) for error in errors] == ["no such thing"] * 5
        assert len({id(error) for error in errors}) == 5

        async def inner():
            return "inner"

        async def outer():
            return await flights.do("k", inner) + " outer"

        assert await flights.do("k", outer) == "inner outer"

        go = asyncio.Event()

        async def slow():
            await go.wait()
            return "old"

        first = asyncio.create_task(flights.do("k", slow))
        await asyncio.sleep(0)
        with pytest.raises(LoadTimeout):
            await flights.do("k", slow, timeout=0.01)
        flights.forget("k")
        assert await flights.do("k", inner) == "inner"
        go.set()
        assert await first == "old"
        assert len(flights) == 0

    asyncio.run(main())


def test_each_event_loop_has_its_own_runs():
    """A flight of one loop isn't waited for in another."""
    flights = AsyncSingleFlight()

    async def main():
        async def function():
            await asyncio.sleep(0.01)
            return threading.get_ident()

        return await asyncio.gather(*(flights.do("k", function) for _ in range(3)))

    results = in_threads(4, lambda: asyncio.run(main()))
    assert len({tuple(result) for result in results}) == 4
    gc.collect()
    assert len(flights) == 0


def test_task_flight_can_be_joined_by_a_plan():
    """`Join(flight)` works with both kinds of flights."""

    async def main():
        flight = TaskFlight()

        def plan():
            yield Join(flight)
            return flight.result()

        task = asyncio.create_task(arun(plan()))
        await asyncio.sleep(0)
        flight.succeed(3)
        assert await task == 3

    asyncio.run(main())
