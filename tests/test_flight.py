"""Flights at their worst: interrupts, the end of the stack, forks, finalizers; and the record of a flight itself.

Whatever happens to a leader, nothing is left on the table that a later caller would wait for.
"""

import asyncio
import gc
import itertools
import linecache
import os
import sys
import threading

import pytest

from fastcache import lru_cache
from fastcache.flight import Flight, TaskFlight, ThreadFlight

PATIENCE = 20  # seconds until a test gives up on threads that hang


def runs_of(function):
    """The table of a cached function's flights, by way of the garbage collector: the wrapper doesn't show it."""
    from fastcache.runs import Runs

    (runs,) = [each for each in gc.get_referents(function) if isinstance(each, Runs)]
    return runs


def flights(function):
    return len(runs_of(function)._flights)


def in_threads(n, function):
    """Run function(i) in n threads at once; results and exceptions in order. Fails where one hangs."""
    outcomes = [None] * n
    barrier = threading.Barrier(n)

    def work(i):
        barrier.wait(PATIENCE)
        try:
            outcomes[i] = function(i)
        except BaseException as error:
            outcomes[i] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "threads hang"
    return outcomes


def test_enter_refuses_what_would_close_a_circle():
    """Directly, over several flights, and not any more once the wait is over."""
    a, b, c = Flight(), Flight(), Flight()
    assert a.enter(None)
    assert b.enter(a)  # code inside a waits for b
    assert c.enter(b)
    assert not a.enter(c)
    assert not a.enter(a)
    assert not b.enter(c)
    b.leave(a)
    assert a.enter(c)


def test_enter_counts_the_waits():
    """Two waits of one flight for another: the second is still there when the first has left."""
    a, b = Flight(), Flight()
    assert b.enter(a)
    assert b.enter(a)
    b.leave(a)
    assert not a.enter(b)
    b.leave(a)
    assert a.enter(b)


def test_task_flight_that_ends_in_another_thread_wakes_who_waits():
    """In his own event loop; one that was closed meanwhile is left alone."""

    async def wait(flight):
        asyncio.get_running_loop().call_soon(entered.set)
        return await flight.wait(), flight.result()

    flight, entered, outcome = TaskFlight(), threading.Event(), []
    waiter = threading.Thread(target=lambda: outcome.append(asyncio.run(asyncio.wait_for(wait(flight), PATIENCE))))
    waiter.start()
    assert entered.wait(PATIENCE)
    flight.succeed("value")
    waiter.join(PATIENCE)
    assert outcome == [(True, "value")]

    flight, loop = TaskFlight(), asyncio.new_event_loop()
    waiting = flight.wait()

    async def begin():
        waiting.send(None)

    loop.run_until_complete(begin())
    loop.close()
    flight.succeed("value")
    waiting.close()
    assert flight.result() == "value"


def test_thread_flight_waits_until_its_end():
    """With a timeout it tells whether the flight has ended; after the end it returns at once."""
    flight = ThreadFlight()
    assert flight.wait(0.01) is False
    threading.Timer(0.01, flight.succeed, [5]).start()
    assert flight.wait(PATIENCE) is True
    assert flight.wait() is True
    assert flight.result() == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_fork_with_a_flight_in_the_air(run_script):
    """The child has no leader: its call runs the function itself, at once."""
    run_script(
        """
import os, sys, threading, warnings
from fastcache import lru_cache
warnings.simplefilter("ignore", DeprecationWarning)
started, release = threading.Event(), threading.Event()
parent = os.getpid()

@lru_cache(single_flight=True)
def f(x):
    if os.getpid() == parent:
        started.set()
        release.wait(20)
    return os.getpid()

thread = threading.Thread(target=f, args=(1,))
thread.start()
started.wait(20)
child = os.fork()
if child == 0:
    import faulthandler
    faulthandler.dump_traceback_later(15, exit=True)
    os._exit(0 if f(1) == os.getpid() else 3)
_, status = os.waitpid(child, 0)
release.set()
thread.join()
assert f(1) == parent
sys.exit(os.waitstatus_to_exitcode(status))
"""
    )


def test_interrupt_anywhere_before_the_function_leaves_no_flight():
    """A KeyboardInterrupt at any line of the package on the way to the function: the key can be called again."""
    calls = []

    def trace(frame, event, _):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(("runs.py", "flight.py")):
            return None
        # Leaving a `with` is traced as its first line, before __exit__: no signal arrives there.
        if event == "line" and not calls and "with " not in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
            lines += 1
            if lines == target:
                raise KeyboardInterrupt
        return trace

    @lru_cache(single_flight=True)
    def f(x):
        calls.append(x)
        return x

    before = sys.gettrace()
    for target in range(1, 400):
        lines = 0
        calls.clear()
        f.cache_clear()
        sys.settrace(trace)
        try:
            f(target)
        except KeyboardInterrupt:
            interrupted = True
        else:
            interrupted = False
        finally:
            sys.settrace(before)
        assert flights(f) == 0, f"a flight was left at line {target}"
        assert in_threads(1, lambda i: f(target)) == [target]  # noqa: B023
        if not interrupted:
            break
    assert target > 10


def test_recursion_error_leaves_no_flight():
    """Wherever the stack ends, every flight begun is taken off the table."""

    @lru_cache(maxsize=None, single_flight=True)
    def f(n):
        return 0 if n == 0 else 1 + f(n - 1)

    def deep(i):
        for depth in range(40):  # so that the stack ends at each place of the package once
            with pytest.raises(RecursionError):
                reach(depth)
        return flights(f)

    def reach(depth):
        return reach(depth - 1) if depth else f(10**9)

    assert in_threads(1, deep) == [0]
    assert f.cache_info().currsize == 0
    assert in_threads(1, lambda i: f(20)) == [20]


class Finalized:
    def __init__(self, function):
        self.function = function

    def __del__(self):
        self.function()


def test_evicted_values_are_released_outside_any_lock():
    """A finalizer that waits for another thread, which calls the function meanwhile, is no deadlock."""
    in_finalizer, called = threading.Event(), threading.Event()

    def finalize():
        in_finalizer.set()
        assert called.wait(5), "the other thread can't get in"

    @lru_cache(maxsize=1, single_flight=True)
    def f(x):
        return Finalized(finalize) if x == 0 else x

    def work(i):
        if i == 0:
            f(0)
            return f(1)
        assert in_finalizer.wait(PATIENCE)
        try:
            return f(2)
        finally:
            called.set()

    assert in_threads(2, work) == [1, 2]
    assert called.is_set()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there ContextVar.set itself crashes when a collection re-enters it")
def test_collector_may_run_code_that_calls_the_function():
    """With a collection at nearly every allocation, finalizers call the function too, in the middle of its tables."""
    stop = threading.Event()

    @lru_cache(maxsize=None, single_flight=True)
    def f(x):
        return inner(x)

    @lru_cache(maxsize=None, single_flight=True)
    def inner(x):
        return [x]

    def make_garbage():
        cycle = [Finalized(finalize)]
        cycle.append(cycle)

    def finalize():
        if not stop.is_set():
            key = next(fresh)
            assert f(key) == [key]
            make_garbage()

    fresh = itertools.count(1000)

    def work(i):
        make_garbage()
        for n in range(300):
            assert f(n) == [n]

    gc.set_threshold(5)
    try:
        outcomes = in_threads(4, work)
    finally:
        gc.set_threshold(700)
        stop.set()
    assert outcomes == [None] * 4
    assert (flights(f), flights(inner)) == (0, 0)
