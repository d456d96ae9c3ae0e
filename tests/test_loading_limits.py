"""The loading engine where time, threads or places in a queue run out, and where a cache's own callbacks fail."""

import asyncio
import gc
import itertools
import sys
import threading

import pytest
from loaders import SECONDS, Loader, quiet, wait_until

from fastcache import AsyncMemoryCache, BackendError, CacheAside, LoadTimeout, MemoryCache, Policy
from fastcache.outbox import MOST_KEYS
from fastcache.workers import MOST, QUEUE, Workers


@pytest.mark.parametrize("error", [LookupError("no"), SystemExit(3)], ids=repr)
def test_error_of_a_loader_with_a_time_limit_is_the_callers(face, make, error):
    """It crosses over from the loader's thread or task; the next call loads."""
    if face.name == "asyncio" and isinstance(error, SystemExit):
        pytest.skip("it would end the event loop")
    cache, load = make(Policy(60, hard_timeout=SECONDS)), Loader()
    load.error = error
    with pytest.raises(type(error)) as caught:
        cache.get_or_load("a", load)
    assert caught.value.args == error.args
    load.error = None
    assert cache.get_or_load("a", load) == "v1"


def test_error_of_a_loader_with_a_time_limit_is_kept_by_nothing():
    """No cycle is left for the garbage collector."""
    cache = MemoryCache(policy=Policy(60, hard_timeout=SECONDS))

    class Error(Exception):
        alive = 0

        def __init__(self):
            Error.alive += 1

        def __del__(self):
            Error.alive -= 1

    def load(key):
        raise Error

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Error):
            cache.get_or_load("a", load)
        wait_until(lambda: not Error.alive)  # the worker's frame may take a moment
    finally:
        gc.enable()


def test_loader_with_a_time_limit_ends_with_its_last_caller():
    """A caller who is cancelled takes the loader's task along, which may take its time about it, and fail."""
    reports = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        entered, ending, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def load(key):
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                ending.set()
                await go.wait()
                raise LookupError("too late")

        cache = AsyncMemoryCache(policy=Policy(60, hard_timeout=SECONDS))
        caller = asyncio.create_task(cache.get_or_load("a", load))
        await entered.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await asyncio.wait_for(ending.wait(), SECONDS)
        go.set()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # for what is called when a task is done
        assert not cache._loading.driver._kept
        assert len(cache._loading.flights) == 0

    asyncio.run(main())
    gc.collect()
    assert reports == []


def test_error_of_a_loader_that_came_too_late_is_not_reported():
    """The caller has his LoadTimeout; the event loop doesn't complain of an error that nobody retrieved."""
    reports = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        ended = asyncio.Event()

        async def load(key):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.set()
                raise LookupError from None

        cache = AsyncMemoryCache(policy=Policy(60, hard_timeout=0.01))
        with pytest.raises(LoadTimeout):
            await cache.get_or_load("a", load)
        await asyncio.wait_for(ended.wait(), SECONDS)
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()
    assert reports == []


def test_refreshes_beyond_the_queue_are_left_to_a_later_call(face, make, clock):
    """Each caller has the stale value at once; of the refreshes only so many begin."""
    cache, load = make(Policy(10, stale_for=100, jitter=0)), Loader("old")
    keys = range(QUEUE + MOST + 50)
    cache.get_or_load_many(keys, lambda keys: dict.fromkeys(keys, "old"))
    clock.now += 15
    load.open.clear()
    load.value = "new"

    async def begin(key):
        load.keys.append(key)
        await go.wait()
        return "new"

    if face.name == "sync":
        assert {cache.get_or_load(key, load) for key in keys} == {"old"}
        load.open.set()
        most = QUEUE + MOST
    else:
        go = asyncio.Event()

        async def main():
            inner = face.bare(cache)
            assert {await inner.get_or_load(key, begin) for key in keys} == {"old"}
            go.set()

        face.runner.run(main())
        most = QUEUE
    quiet(cache)
    assert QUEUE <= len(load.keys) <= most
    assert sum(cache.get(key) == "new" for key in keys) == len(load.keys)
    assert cache.get_or_load(keys[-1], lambda key: "later") == "old"
    quiet(cache)
    assert cache.get(keys[-1]) == "later"


def call_in_threads(functions):
    """What each function returns or raises, all of them called at once."""
    outcomes = [None] * len(functions)

    def call(i, function):
        try:
            outcomes[i] = function()
        except Exception as error:
            outcomes[i] = error

    threads = [threading.Thread(target=call, args=pair, daemon=True) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    return outcomes


@pytest.mark.parametrize("caches", [1, 2])
def test_loaders_that_ask_for_another_key_do_not_starve_their_pool(caches):
    """With all workers held by outer loaders, those for the inner keys run all the same, also across two caches."""
    policy = Policy(60, hard_timeout=SECONDS / 2)
    ours = [MemoryCache(policy=policy) for _ in range(caches)]
    all_in = threading.Barrier(MOST * caches)

    def outer(cache, other, i):
        def user(key):
            all_in.wait(SECONDS)  # every worker is held
            return other.get_or_load(f"org{key}", str.upper)

        return lambda: cache.get_or_load(f"user{i}", user)

    calls = [outer(cache, ours[n - 1], f"{n}:{i}") for n, cache in enumerate(ours) for i in range(MOST)]
    assert call_in_threads(calls) == [f"ORGUSER{n}:{i}" for n in range(caches) for i in range(MOST)]


def test_an_inner_loader_has_a_time_limit_of_its_own():
    """A load within a loader ends with LoadTimeout after its own `hard_timeout`, which the outer one may handle."""
    cache = MemoryCache(policy=Policy(60, hard_timeout=SECONDS))
    hang = threading.Event()

    def outer(key):
        try:
            return cache.get_or_load("inner", lambda key: hang.wait(SECONDS), policy=Policy(60, hard_timeout=0.01))
        except LoadTimeout:
            return "in time"

    assert cache.get_or_load("outer", outer) == "in time"
    hang.set()


def test_an_inner_loader_without_a_thread_to_spare_takes_its_turn(monkeypatch):
    """Where no thread can be started for an inner loader, it waits for a worker."""
    cache = MemoryCache(policy=Policy(60, hard_timeout=SECONDS))
    start = threading.Thread.start

    def spare_none(thread):
        if thread.name == "fastcache-inner-loader":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", spare_none)
    assert cache.get_or_load("outer", lambda key: cache.get_or_load("inner", str.upper)) == "INNER"


def spare_no_threads(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


def test_loader_with_a_time_limit_needs_a_thread(monkeypatch):
    """Where none can be started the load is a LoadTimeout at once; the next one tries again."""
    cache = MemoryCache(policy=Policy(60, hard_timeout=SECONDS))
    with monkeypatch.context() as patch:
        spare_no_threads(patch)
        with pytest.raises(LoadTimeout, match="'a': not loaded"):
            cache.get_or_load("a", Loader())
    assert cache.get_or_load("a", Loader()) == "v1"


def test_jobs_take_turns_where_no_further_thread_can_be_started(monkeypatch):
    """They wait for a worker that there is; too many of them are refused."""
    workers, first, ran = Workers("test"), Loader(), []
    first.open.clear()
    assert workers.submit(lambda: first(1))
    assert first.entered.wait(SECONDS)
    with monkeypatch.context() as patch:
        spare_no_threads(patch)
        assert [workers.submit(lambda n=n: ran.append(n), 2) for n in range(3)] == [True, True, False]
    first.open.set()
    assert workers.drain(SECONDS)
    assert ran == [0, 1]


@pytest.mark.parametrize("error", [LookupError("no"), SystemExit(3)], ids=repr)
def test_worker_outlives_a_job_that_raises(monkeypatch, error):
    """What it raises is reported; the same thread does the next job."""
    reports, threads = [], []
    monkeypatch.setattr("sys.unraisablehook", lambda report: reports.append(report.exc_value))
    workers = Workers("test", most=1)

    def fail():
        threads.append(threading.current_thread())
        raise error

    assert workers.submit(fail)
    assert workers.submit(lambda: threads.append(threading.current_thread()))
    assert workers.drain(SECONDS)
    assert reports == [error]
    assert threads[0] is threads[1]


@pytest.mark.parametrize(
    ("look", "hit", "miss"),
    [
        (lambda cache: cache.get_or_load("a", lambda key: "new"), "old", "new"),
        (lambda cache: cache.get_or_load_many(["a"], lambda keys: {"a": "new"})["a"], "old", "new"),
        (lambda cache: cache.get("a"), "old", None),
        (lambda cache: cache.exists("a"), True, False),
        (lambda cache: cache.remaining("a"), 60, None),
    ],
    ids=["get_or_load", "get_or_load_many", "get", "exists", "remaining"],
)
def test_entry_that_expires_between_two_looks_is_a_miss(look, hit, miss):
    """Whichever reading of the clock is the first after its end."""
    outcomes = []
    for reading in range(10):
        times = itertools.repeat(1000.0)
        cache = MemoryCache(timer=lambda: next(times, 2000.0), policy=Policy(60, refresh_ahead=1, jitter=0))  # noqa: B023
        cache.get_or_load("a", lambda key: "old")
        times = itertools.repeat(1000.0, reading)
        outcomes.append(look(cache))
    misses = outcomes.count(miss)
    assert misses >= 2
    assert outcomes == [miss] * misses + [hit] * (10 - misses)


def test_backend_errors_of_a_timer_or_a_callback_reach_no_caller_of_a_load():
    """A BackendError is no reason not to have a value, whoever raises it: a timer or an `on_evict` that asks a server."""
    events, readings = [], []

    def timer():
        if not readings:
            raise BackendError("away")
        return readings.pop()

    cache = MemoryCache(timer=timer, on_event=events.append)
    readings[:] = [0.0, 0.0]  # of the lookups without a plan; looking again in the plan fails, and so does storing
    assert cache.get_or_load("a", Loader()) == "v1"
    assert [event.kind for event in events if event.kind != "load"] == ["backend_error"]
    readings[:] = [0.0] * 10
    assert cache.get("a") is None


def test_invalidations_whose_callback_fails_are_made_up_for_by_clearing():
    """`on_evict` raising a BackendError: each invalidation is noted, to be done again; too many, and all keys go."""
    failing = True

    def on_evict(key, value, cause):
        if failing:
            raise BackendError("away")

    cache = MemoryCache(ttl=60, on_evict=on_evict)
    table = dict.fromkeys(range(MOST_KEYS + 1), "old")
    aside = CacheAside(cache, table.__getitem__)
    cache._loading._flushing.add(None)  # not beside, by a thread: what waits is flushed by the call that comes along
    for key in table:
        assert aside.get(key) == "old"
    cache.set("another", 1)
    for key in table:
        aside.invalidate(key)
    assert cache.get("another") == 1
    failing = False
    table[0] = "new"
    assert aside.get(0) == "new"
    assert aside.get(0) == "new"
    assert cache.get("another") is None
    cache.close()


def test_errors_of_on_event_are_printed(monkeypatch, capsys):
    """By the hook that Python has where the program sets none."""
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)

    def broken(event):
        raise RuntimeError("observer")

    assert MemoryCache(on_event=broken).get_or_load("a", Loader()) == "v1"
    printed = capsys.readouterr().err
    assert printed.startswith("Exception ignored in on_event: ")
    assert printed.endswith("RuntimeError: observer\n")
