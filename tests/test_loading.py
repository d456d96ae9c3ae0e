"""get_or_load in memory, on both faces: each promise of the loading engine, with a clock and a chance of the test's own."""

import contextvars
import gc
import math
import threading
import weakref

import pytest
from loaders import SECONDS, Loader, quiet, start, wait_until

from fastcache import MISSING, AsyncMemoryCache, ConfigurationError, LoadTimeout, MemoryCache, Policy


def test_loads_once_then_hits(make):
    """The loader gets the key; the value is stored for the cache's ttl, exactly, without a policy."""
    cache, load = make(ttl=60), Loader()
    assert cache.get_or_load("a", load) == "v1"
    assert cache.get_or_load("a", load) == "v1"
    assert (load.keys, cache.get("a"), cache.remaining("a")) == (["a"], "v1", 60)
    assert (cache.stats().loads, cache.stats().hits, cache.stats().misses) == (1, 2, 1)
    quiet(cache)


def test_none_is_a_value_and_missing_is_none(make):
    """None is stored; MISSING gives the default and isn't stored."""
    cache, load = make(), Loader(None)
    assert cache.get_or_load("a", load, "default") is None
    assert cache.get_or_load("a", load, "default") is None
    load.value = MISSING
    assert cache.get_or_load("b", load, "default") == "default"
    assert cache.get_or_load("b", load) is None
    assert load.keys == ["a", "b", "b"]
    assert not cache.exists("b")


def test_missing_ttl_remembers_that_there_is_nothing(make, clock):
    """Briefly; the other operations see nothing there."""
    cache, load = make(Policy(60, missing_ttl=5, jitter=0)), Loader(MISSING)
    assert cache.get_or_load("a", load, "none") == "none"
    assert cache.get_or_load("a", load, "none") == "none"
    assert load.runs == 1
    assert cache.get("a", "d") == "d"
    assert cache.get_many(["a"]) == {}
    assert not cache.exists("a")
    assert cache.remaining("a") is None
    with pytest.raises(KeyError):
        cache["a"]
    clock.now += 5.5
    load.value = "there"
    assert cache.get_or_load("a", load) == "there"


def test_exceptions_are_never_cached(make):
    """The next call loads."""
    cache, load = make(Policy(60, missing_ttl=5)), Loader()
    load.error = LookupError("no")
    for _ in range(3):
        with pytest.raises(LookupError, match="no"):
            cache.get_or_load("a", load)
    assert load.runs == 3
    assert cache.stats().load_errors == 3
    quiet(cache)


def test_jitter_is_subtractive(make):
    """ttl stays the upper bound; the part taken off is the chance times jitter."""
    cache = make(Policy(100, jitter=0.2))
    for chance, life in ((0.0, 100), (0.5, 90), (0.999, 80.02)):
        cache._loading.random = lambda chance=chance: chance
        cache.get_or_load(chance, Loader())
        assert cache.remaining(chance) == pytest.approx(life)


def test_concurrent_callers_share_a_run(make):
    """By default, and not with single_flight=False."""
    for shared, runs in ((True, 1), (False, 5)):
        cache, load = make(Policy(60, single_flight=shared)), Loader()
        load.open.clear()
        calls = [start(cache.get_or_load, "a", load) for _ in range(5)]
        flights = cache._loading.flights
        if shared:
            assert load.entered.wait(SECONDS)
            wait_until(lambda cache=cache: cache.stats().misses == 5)
        else:
            wait_until(lambda load=load: load.runs == 5)
        load.open.set()
        assert [call() for call in calls] == ["v1"] * 5
        assert load.runs == runs
        assert len(flights) == 0


@pytest.mark.parametrize("how", ["delete", "set", "clear", "delete_many", "delete_pattern", "set_many"])
@pytest.mark.parametrize("shared", [True, False])
def test_nothing_is_stored_after_an_invalidation_during_the_load(make, how, shared):
    """The loaded value goes to its own callers; what was written meanwhile stays, and a later call loads anew."""
    cache, load = make(Policy(60, single_flight=shared)), Loader()
    load.open.clear()
    call = start(cache.get_or_load, "a", load)
    assert load.entered.wait(SECONDS)
    change = {
        "delete": lambda: cache.delete("a"),
        "set": lambda: cache.set("a", "new"),
        "clear": lambda: cache.clear(),
        "delete_many": lambda: cache.delete_many(["a", "b"]),
        "delete_pattern": lambda: cache.delete_pattern("a*"),
        "set_many": lambda: cache.set_many({"a": "new"}),
    }
    change[how]()
    load.open.set()
    assert call() == "v1"
    assert cache.get("a") == ("new" if how.startswith("set") else None)
    assert cache.stats().lease_refused == 1
    quiet(cache)


def test_loader_may_invalidate_or_set_its_own_key(face, make):
    """It is the loader's own doing: its value isn't stored."""
    cache = make()
    plain = face.bare(cache)
    if face.name == "sync":
        assert cache.get_or_load("a", lambda key: (plain.delete(key), 1)[1]) == 1
    else:

        async def load(key):
            await plain.delete(key)
            return 1

        assert face.runner.run(plain.get_or_load("a", load)) == 1
    assert cache.get("a") is None
    quiet(cache)


def test_loader_may_ask_for_its_own_key(face, make):
    """To wait would be for ever: it runs through, with a hard timeout (in another thread) as well."""
    for policy in (None, Policy(60, hard_timeout=5)):
        cache = make(policy)
        plain = face.bare(cache)
        if face.name == "sync":
            assert cache.get_or_load("a", lambda key, plain=plain: plain.get_or_load(key, lambda _: "in") + "out") == "inout"
        else:

            async def inner(key):
                return "in"

            async def outer(key, plain=plain, inner=inner):
                return await plain.get_or_load(key, inner) + "out"

            assert face.runner.run(plain.get_or_load("a", outer)) == "inout"
        quiet(cache)


def test_stale_value_is_served_while_one_refreshes(make, clock):
    """Within stale_for: many callers, one load in the background, all get the old value until the new one is there."""
    cache, load = make(Policy(10, stale_for=20, jitter=0)), Loader()
    cache.get_or_load("a", load)
    clock.now += 15
    load.value = "v2"
    load.open.clear()
    load.entered.clear()
    assert [cache.get_or_load("a", load) for _ in range(5)] == ["v1"] * 5
    assert load.entered.wait(SECONDS)
    assert (cache.get("a"), cache.exists("a"), cache.remaining("a")) == (None, False, None)
    load.open.set()
    quiet(cache)
    assert load.runs == 2
    assert cache.get_or_load("a", load) == "v2" == cache.get("a")
    assert (cache.stats().stale_hits, cache.stats().loads) == (5, 2)


def test_stale_value_ends_with_stale_for(make, clock):
    """Afterwards it is gone: the callers wait for the loader."""
    cache, load = make(Policy(10, stale_for=20, jitter=0)), Loader()
    cache.get_or_load("a", load)
    clock.now += 31
    load.value = "v2"
    assert cache.get_or_load("a", load) == "v2"


def test_failing_loader_serves_stale_and_waits_longer_each_time(make, clock):
    """retry_after, then twice that, up to 60 s; a success resets it."""
    cache, load = make(Policy(10, stale_for=1000, retry_after=10, jitter=0)), Loader()
    cache.get_or_load("a", load)
    load.error = LookupError("no")
    clock.now += 11
    for delay in (10, 20, 40, 60, 60):
        runs = load.runs
        assert cache.get_or_load("a", load) == "v1"
        assert cache.drain(SECONDS)
        assert load.runs == runs + 1
        clock.now += delay - 0.5
        assert cache.get_or_load("a", load) == "v1"
        assert cache.drain(SECONDS)
        assert load.runs == runs + 1
        clock.now += 1
    load.error = None
    load.value = "v2"
    cache.get_or_load("a", load)
    assert cache.drain(SECONDS)
    assert cache.get("a") == "v2"
    quiet(cache)


def test_soft_timeout_waits_a_little_for_the_new_value(make, clock):
    """The one who refreshes gets it if it comes in time, else the stale one; the load goes on and is stored."""
    cache, load = make(Policy(10, stale_for=100, soft_timeout=5, jitter=0)), Loader()
    cache.get_or_load("a", load)
    clock.now += 15
    load.value = "v2"
    assert cache.get_or_load("a", load) == "v2"
    clock.now += 15
    load.value = "v3"
    load.open.clear()
    quick = Policy(10, stale_for=100, soft_timeout=0.01, jitter=0)
    assert cache.get_or_load("a", load, policy=quick) == "v2"
    load.open.set()
    quiet(cache)
    assert cache.get("a") == "v3"
    clock.now += 15
    load.error = LookupError("no")
    assert cache.get_or_load("a", load) == "v3", "a refresh that fails in time is as good as one that doesn't end"
    assert cache.stats().load_errors == 1


def test_hard_timeout_is_a_load_timeout(make):
    """A FastCacheError and a TimeoutError; the late value isn't stored, the next call loads."""
    cache, load = make(Policy(60, hard_timeout=0.05)), Loader()
    load.open.clear()
    with pytest.raises(LoadTimeout, match=r"'a'.*0\.05 s") as caught:
        cache.get_or_load("a", load)
    assert isinstance(caught.value, TimeoutError)
    load.open.set()
    quiet(cache)
    assert cache.get("a") is None
    assert cache.get_or_load("a", load) == "v1"
    assert cache.stats().load_errors == 1


def test_hard_timeout_of_a_refresh_serves_stale(make, clock):
    """stale-if-error covers a loader that hangs."""
    cache, load = make(Policy(10, stale_for=100, hard_timeout=0.05, jitter=0)), Loader()
    cache.get_or_load("a", load)
    clock.now += 15
    load.open.clear()
    assert cache.get_or_load("a", load) == "v1"
    assert cache.drain(SECONDS)
    assert cache.stats().load_errors == 1
    assert cache.get_or_load("a", load) == "v1"
    load.open.set()


def test_refresh_ahead_follows_the_load_time(make, clock):
    """XFetch: early by load time times beta times -log(chance); the caller gets the value that is still fresh."""
    cache, load = make(Policy(100, refresh_ahead=2.0, jitter=0)), Loader()
    cache.get_or_load("a", load)
    entry = cache._loading.store._map.peek("a")
    assert entry.load_seconds > 0
    entry.load_seconds = 1.0
    load.value = "v2"
    cache._loading.random = lambda: math.exp(-10)  # 20 s ahead
    clock.now += 79
    assert cache.get_or_load("a", load) == "v1"
    assert cache.drain(SECONDS)
    assert load.runs == 1
    clock.now += 2
    assert cache.get_or_load("a", load) == "v1"
    assert cache.drain(SECONDS)
    assert (load.runs, cache.get("a")) == (2, "v2")
    quiet(cache)


def test_background_work_has_an_empty_context(make, clock):
    """It outlives the request that started it; a foreground load sees the caller's."""
    variable = contextvars.ContextVar("variable", default="empty")
    cache, seen = make(Policy(10, stale_for=50, jitter=0)), []

    def load(key):
        seen.append(variable.get())
        return 1

    variable.set("request")
    cache.get_or_load("a", load)
    clock.now += 15
    cache.get_or_load("a", load)
    assert cache.drain(SECONDS)
    assert seen[1] == "empty"


def test_background_errors_go_to_the_events_only(make, clock, monkeypatch):
    """Never raised into nowhere: the refresh's error is an event, and the caller has the stale value."""
    events = []
    cache = make(Policy(10, stale_for=50, jitter=0), on_event=events.append)
    load = Loader()
    cache.get_or_load("a", load)
    clock.now += 15
    load.error = LookupError("no")
    assert cache.get_or_load("a", load) == "v1"
    quiet(cache)
    kinds = [(event.kind, event.key) for event in events]
    assert sorted(kinds) == [("load", "a"), ("load_error", "a"), ("stale", "a")]
    assert next(event for event in events if event.kind == "load_error").error is load.error
    assert all(event.seconds >= 0 for event in events if event.kind.startswith("load"))


def test_errors_of_on_event_reach_no_caller(make, monkeypatch):
    """They go to sys.unraisablehook."""
    reported = []
    monkeypatch.setattr("sys.unraisablehook", reported.append)

    def broken(event):
        raise RuntimeError("observer")

    cache = make(on_event=broken)
    assert cache.get_or_load("a", Loader()) == "v1"
    assert [type(report.exc_value) for report in reported] == [RuntimeError]
    with pytest.raises(TypeError, match="on_event"):
        MemoryCache(on_event=5)


def test_wrong_arguments_are_said_where_they_are_given(make):
    """Nothing is loaded or stored."""
    cache, load = make(), Loader()
    for ttl in (0, -1, True, "5", math.nan):
        with pytest.raises(ConfigurationError, match="ttl"):
            cache.get_or_load("a", load, ttl=ttl)
    with pytest.raises(TypeError, match="loader must be a function of the key"):
        cache.get_or_load("a", 5)
    with pytest.raises(TypeError, match="loader must be a function of a list of keys"):
        cache.get_or_load_many(["a"], 5)
    with pytest.raises(TypeError):
        cache.get_or_load([], load)
    assert load.runs == 0


def test_ttl_of_the_call_wins(make):
    """Over the policy's, and that over the cache's."""
    cache = make(ttl=100)
    policy = Policy(50, jitter=0)
    cache.get_or_load("a", Loader())
    cache.get_or_load("b", Loader(), policy=policy)
    cache.get_or_load("c", Loader(), policy=policy, ttl=20)
    cache.get_or_load("d", Loader(), ttl=math.inf)
    assert [cache.remaining(key) for key in "abcd"] == [100, 50, 20, math.inf]


def test_on_evict_sees_the_value_and_may_use_the_cache(face, clock):
    """Not what the engine keeps beside it, nothing of what is remembered as missing, and outside every lock."""
    left = []

    def on_evict(key, value, cause):
        left.append((key, value, cause))
        done = threading.Event()
        threading.Thread(target=lambda: (len(cache), inner.exists("x"), done.set())).start()
        assert done.wait(SECONDS)

    kind = MemoryCache if face.name == "sync" else AsyncMemoryCache
    cache = kind(2, timer=clock, on_evict=on_evict, policy=Policy(10, stale_for=5, missing_ttl=5))
    inner = cache if face.name == "sync" else cache._cache
    wrapped = face.wrap(cache)
    wrapped.get_or_load("a", Loader(1))
    wrapped.get_or_load("none", Loader(MISSING))
    wrapped.delete("none")
    wrapped.delete("a")
    assert left == [("a", 1, "deleted")]


def test_an_async_loader_in_a_sync_cache_is_a_clear_error():
    """Instead of caching a coroutine."""

    async def load(key):
        return 1

    with pytest.raises(TypeError, match="async def"):
        MemoryCache().get_or_load("a", load)


def test_dropped_cache_is_gone_at_once():
    """Nothing of the engine keeps it in a cycle until the next garbage collection."""
    cache = MemoryCache(policy=Policy(60, stale_for=5))
    cache.get_or_load("a", Loader())
    gone = weakref.ref(cache)
    gc.disable()
    try:
        del cache
        assert gone() is None
    finally:
        gc.enable()
