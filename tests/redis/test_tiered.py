"""The two-level cache: the protocol, on both faces, against a real server. Two caches stand for two processes."""

from __future__ import annotations

import inspect
import math
import threading
import time
from typing import Any

import pytest

from fastcache import (
    MISSING,
    AsyncTieredCache,
    CacheAside,
    CacheMiss,
    ConfigurationError,
    MemoryCache,
    Policy,
    RedisCache,
    SerializationError,
    TieredCache,
)
from fastcache.scripts import LEASE
from fastcache.sidekeys import guard_name


def until(condition, seconds=10.0):
    """Wait for something that another thread brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def trusted(cache):
    """Whether copies are relied on."""
    return inner(cache)._front.gate.is_open()


def inner(cache):
    return getattr(cache, "cache", cache)


def heard(cache):
    """A cache that hears what others write."""
    cache.get("-")
    until(lambda: trusted(cache))
    return cache


@pytest.fixture
def one(face, server):
    return heard(face.tiered(server.url))


@pytest.fixture
def two(face, server):
    return heard(face.tiered(server.url))


def test_protocol_of_single_keys(one, two):
    """Set, get, exists, remaining, delete, and the item access."""
    assert one.get("k") is None
    assert one.get("k", 5) == 5
    assert not one.exists("k")
    assert one.remaining("k") is None
    one.set("k", {"a": [1, None]}, ttl=30)
    assert one.get("k") == {"a": [1, None]} == two.get("k") == two["k"]
    assert one.exists("k")
    assert two.exists("k")
    assert 29 < two.remaining("k") <= 30
    one.set("none", None, ttl=math.inf)
    assert two.get("none", 5) is None
    assert two["none"] is None
    assert two.remaining("none") == math.inf
    assert two.delete("k") is True
    assert two.delete("k") is False
    one.sync()
    assert one.get("k") is None
    with pytest.raises(CacheMiss):
        one["k"]


def test_protocol_of_many_keys(one, two):
    """The bulk forms, patterns and clear."""
    one.set_many({"a:1": 1, "a:2": 2, "b": 3})
    assert two.get_many(["a:1", "b", "c"]) == {"a:1": 1, "b": 3} == two.get_many(["a:1", "b", "c"])
    assert two.delete_many(["b", "c"]) == 1
    one.sync()
    assert one.get_many(["a:1", "a:2", "b"]) == {"a:1": 1, "a:2": 2}
    assert one.delete_pattern("a:?") == 2
    two.sync()
    assert two.get_many(["a:1", "a:2"]) == {}
    one.set("x", 1)
    assert two.get("x") == 1
    two.clear()
    one.sync()
    assert one.get("x") is None
    assert two.get("x") is None
    one.set("x", 2)
    assert two.get("x") == 2


def test_copy_under_a_type_is_no_key(one):
    """A tuple is a mistake like any other key that isn't a str, whatever has been asked for before."""
    assert one.get_or_load("k", lambda key: 5, type=int) == 5 == one.get("k", type=int)
    with pytest.raises(TypeError, match="a key is a str"):
        one.get(("k", int))


def test_types_are_kept_apart(one):
    """What was decoded into one type is not served as another."""
    one.set("n", "7")
    assert one.get("n", type=str) == "7" == one.get("n", type=str)
    with pytest.raises(SerializationError):
        one.get("n", type=int)
    one.set("l", [1, 2])
    assert one.get("l", type=tuple[int, int]) == (1, 2) == one.get("l", type=tuple[int, int])
    assert one.get("l") == [1, 2]
    one.set("l", [3, 4])
    copy = one.get("l", type=tuple[int, int])
    assert copy == (3, 4)
    assert one.get_or_load("l", lambda key: (5, 6), type=tuple[int, int]) is copy


def test_isolated_readers_get_objects_of_their_own(face, server):
    """isolate=True decodes anew for each; a change of one is nobody else's."""
    cache = heard(face.tiered(server.url, isolate=True))
    cache.set("k", [1])
    cache.get("k").append(2)
    assert cache.get("k") == [1]
    assert cache.get("k", type=tuple[int]) == (1,)
    assert cache.stats().l1_hits >= 2
    with pytest.raises(SerializationError):
        cache.get("k", type=int)
    assert cache.get_or_load("k", lambda key: 7, type=int) == 7 == cache.get("k", type=int)


@pytest.mark.parametrize("coherence", ["pubsub", "tracking"])
def test_writes_are_seen_after_sync(face, server, coherence):
    """Each way of changing a key reaches the copies of another process."""
    one, two = (heard(face.tiered(server.url, coherence=coherence)) for _ in range(2))
    changes = [
        lambda: one.set("k", 1),
        lambda: one.set_many({"k": 2}),
        lambda: one.delete("k"),
        lambda: one.set("k", 3, tags=["t"]),
        lambda: one.invalidate_tags("t"),
        lambda: one.set("k", 4),
        lambda: one.clear(),
        lambda: one.set("k", 5),
        lambda: one.delete_pattern("k*"),
    ]
    for change, expected in zip(changes, [1, 2, None, 3, None, 4, None, 5, None], strict=True):
        two.get("k")
        change()
        two.sync()
        assert two.get("k") == expected == one.get("k")


def test_tracking_sees_foreign_writers(face, server):
    """Programs that know nothing of this package, expiry and FLUSHALL."""
    cache = heard(face.tiered(server.url, coherence="tracking"))
    with server.client() as other:
        for value in (b"1", b"2"):
            other.set("p:k", value)
            until(lambda value=value: cache.get("k") == int(value))
        other.flushall()
        until(lambda: cache.get("k") is None)
    assert "copy" in cache.explain("k")


def test_copies_cost_no_round_trip_and_redis_one(face, server, proxy):
    """Counted on the wire."""
    writer = heard(face.tiered(server.url))
    cache = heard(face.tiered(proxy.url))
    writer.set("k", 1)
    cache.sync()
    cache.get("other")  # the scripts and the namespace's token are known from now on
    hub = inner(cache)._listener.hub
    hub.let_go(inner(cache)._listener)  # no heartbeat in between; the gate stays open for two seconds
    inner(cache)._front.gate.until = time.monotonic() + 60
    turns = proxy.turns
    assert cache.get("k") == 1
    assert proxy.turns - turns == 1
    assert cache.get("k") == 1 == cache.get_or_load("k", lambda key: 2)
    assert proxy.turns - turns == 1


def test_loader_runs_once_for_two_processes(face, server):
    """The second one waits for what the first one stores."""
    caches = [heard(face.tiered(server.url)) for _ in range(2)]
    runs: list[str] = []

    def load(key):
        runs.append(key)
        time.sleep(0.2)
        return len(runs)

    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda cache=cache: results.append(cache.get_or_load("k", slow(face, load))))
        for cache in caches
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs == ["k"]
    assert results == [1, 1]


def slow(face, function):
    """A loader that blocks its thread; in asyncio, one that leaves the loop alone."""
    if face.name == "sync":
        return function

    async def load(key):
        import asyncio

        return await asyncio.to_thread(function, key)

    return load


def test_failed_loader_gives_its_lease_back(one, server):
    """Nobody has to wait for the end of it."""

    def fail(key):
        raise KeyError(key)

    with pytest.raises(KeyError):
        one.get_or_load("k", fail)
    assert one.get_or_load("k2", lambda key: MISSING, 7) == 7
    with server.client() as client:
        assert not client.keys("fastcache-guard*")
    assert one.get_or_load("k", lambda key: 1) == 1


def test_dead_leader_is_succeeded(one, server):
    """Its lease ends by itself, and one who waits takes over."""
    with server.client() as client:
        client.set(guard_name(b"p:k"), b"Ldeadbeef", px=300)
        begun = time.monotonic()
        assert one.get_or_load("k", lambda key: 1) == 1
        assert 0.25 < time.monotonic() - begun < 2
        assert client.exists("p:k")


def test_patience_ends(one, server, monkeypatch):
    """Then the loader runs, and nothing is stored."""
    monkeypatch.setattr("fastcache.leasing.PATIENCE", 0.1)
    with server.client() as client:
        client.set(guard_name(b"p:k"), b"Lsomebody", px=30_000)
        assert one.get_or_load("k", lambda key: 1) == 1
        assert not client.exists("p:k")
        assert one.get("k") is None
    assert one.stats().lease_refused == 1


@pytest.mark.parametrize("how", ["invalidate", "set", "clear", "tag", "pattern", "writing"])
def test_nothing_old_is_stored_after_a_change_elsewhere(face, one, two, how):
    """A value that was loaded before another process changed the key goes to its callers, and nowhere else."""

    def change() -> None:
        match how:
            case "invalidate":
                two.invalidate("k")
            case "set":
                two.set("k", "new")
            case "clear":
                two.clear()
            case "tag":
                two.invalidate_tags("t")
            case "pattern":
                two.delete_pattern("k*")
            case "writing":
                face.write(two, "k")

    def load(key):
        change()
        return "old"

    assert one.get_or_load("k", slow(face, load), tags=["t"]) == "old"
    expected = "new" if how == "set" else None
    assert two.get("k") == expected
    if how in ("clear", "tag"):
        one.sync()  # only by being heard do they end a copy; of the others Redis tells who stores
    assert one.get("k") == expected


def test_slow_reading_leaves_no_old_copy(one, two, monkeypatch):
    """What is heard between the answer of Redis and the keeping of a copy spoils it."""
    two.set("k", 1)
    one.sync()
    store = inner(one)._store
    judge = store._judge_plan

    def late(*args):
        two.set("k", 2)
        until(lambda: not args[3][b"p:k"].clean)
        return (yield from judge(*args))

    if not hasattr(one, "_runner"):  # a blocking call inside the event loop would stop it
        monkeypatch.setattr(store, "_judge_plan", late)
        assert one.get("k") == 1
        monkeypatch.setattr(store, "_judge_plan", judge)
        assert one.get("k") == 2 == one.get("k")


def test_patterns_hold_the_key_while_they_save(server):
    """So that a process that dies in between leaves nothing old."""
    seen = []
    with server.client() as client, TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as cache:

        def save(key, value):
            seen.append((client.get(guard_name(b"p:k")) or b"")[:1])
            seen.append(cache.get_or_load("k", lambda key: "during"))
            seen.append(client.exists("p:k"))

        users = CacheAside(cache, lambda key: "loaded", save)
        users.update("k", 1)
        assert seen == [b"W", "during", 0]
        assert not client.exists(guard_name(b"p:k"))
        assert users.get("k") == "loaded"
        assert cache.stats().lease_refused == 1
        with pytest.raises(ZeroDivisionError), cache.writing("k"), cache.writing("k"):  # noqa: PT012
            assert client.get(guard_name(b"p:k")).count(b",") == 2
            raise ZeroDivisionError
        assert not client.exists(guard_name(b"p:k"))
        assert cache.get("k") is None


def test_signatures_of_both_faces_are_equal():
    """One is the other with `await`."""
    for name, function in inspect.getmembers(TieredCache, inspect.isfunction):
        if not name.startswith("_"):
            ours = [str(each.replace(annotation=each.empty)) for each in inspect.signature(function).parameters.values()]
            twin = inspect.signature(getattr(AsyncTieredCache, name)).parameters.values()
            assert ours == [str(each.replace(annotation=each.empty)) for each in twin], name


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda cache: cache.set("k", 1, ttl=0), ConfigurationError),
        (lambda cache: cache.set("k", 1, ttl=math.nan), ConfigurationError),
        (lambda cache: cache.set("k", 1, ttl=True), ConfigurationError),
        (lambda cache: cache.set(7, 1), TypeError),
        (lambda cache: cache.get(7), TypeError),
        (lambda cache: cache.set("k", MISSING), TypeError),
        (lambda cache: cache.set("k", object()), SerializationError),
        (lambda cache: cache.set("k", 1, tags="t"), TypeError),
        (lambda cache: cache.set("k", 1, tags=[1]), TypeError),
        (lambda cache: cache.set("k", 1, tags=[""]), ConfigurationError),
        (lambda cache: cache.get_or_load("new", None), TypeError),
        (lambda cache: cache.get_or_load("new", len, ttl=-1), ConfigurationError),
        (lambda cache: cache.get_many("abc"), TypeError),
        (lambda cache: cache.set_many([1]), TypeError),
        (lambda cache: cache.delete_pattern(7), TypeError),
        (lambda cache: cache.delete_pattern("\ud800*"), ConfigurationError),
        (lambda cache: cache.set("k", 1, tags=["\ud800"]), ConfigurationError),
        (lambda cache: cache.set("k", 1, tags=["t" * 1025]), ConfigurationError),
        (lambda cache: cache.set("k", 1, tags=map(str, range(1001))), ConfigurationError),
        (lambda cache: cache.get_or_load("new", len, tags=map(str, range(1001))), ConfigurationError),
        (lambda cache: cache.invalidate_tags("\ud800"), ConfigurationError),
    ],
)
def test_mistakes_are_refused_and_change_nothing(one, call, error):
    """The errors are the documented ones."""
    one.set("k", "kept")
    with pytest.raises(error):
        call(one)
    assert one.get("k") == "kept"


@pytest.mark.parametrize("tags", ["t", b"t", 5, None])
def test_tags_that_are_no_sequence_are_refused_with_an_example(one, tags):
    """The error says what is expected."""
    with pytest.raises(TypeError, match=r"tags must be a sequence of str, such as \('users',\), not "):
        one.set("k", 1, tags=tags)
    assert one.get("k") is None


def test_a_thousand_tags_are_taken(one, two):
    """Named as often as one likes; each of them invalidates the value."""
    one.set("k", 1, tags=[*map(str, range(1000)), "0"])
    assert two.get("k") == 1
    one.invalidate_tags("999")
    two.sync()
    assert two.get("k") is None


def test_without_a_ttl_a_set_has_to_name_one(face, server):
    """The error says how to mean "for ever"; nothing is stored."""
    cache = face.tiered(server.url, redis={"ttl": None})
    for call in (lambda: cache.set("k", 1), lambda: cache.set_many({"k": 1})):
        with pytest.raises(ConfigurationError, match=r"no ttl: .*math\.inf"):
            call()
    assert not cache.exists("k")
    cache.set("k", 1, ttl=math.inf)
    assert cache.remaining("k") == math.inf


def test_repr_names_both_tiers(face, server):
    """And how they are kept coherent."""
    cache = face.tiered(server.url, "app", coherence="tracking")
    name, tiers = type(inner(cache)).__name__, inner(cache)
    assert repr(cache) == f"<{name} of {tiers.local!r} and {tiers.remote!r}, coherence='tracking'>"
    assert "prefix='app'" in repr(cache)


def test_repr_of_a_script_is_short():
    """Its text has no place in a traceback or a log."""
    assert repr(LEASE) == "<Script lease>"


def test_constructor_refuses_what_does_not_fit(server):
    """With the name of what does."""
    remote = RedisCache.from_url(server.url, "p", ttl=60)
    used: MemoryCache[str, int] = MemoryCache()
    used.set("k", 1)
    for arguments, options in (
        ((remote, remote), {}),
        ((MemoryCache(), MemoryCache()), {}),
        ((MemoryCache(), remote), {"coherence": "none"}),
        ((used, remote), {}),
    ):
        with pytest.raises(ConfigurationError):
            TieredCache(*arguments, **options)
    remote.close()


def test_stale_and_missing_policies_work_over_both_tiers(face, server):
    """Stale values, remembered misses and batches, as in the other caches."""
    cache = heard(face.tiered(server.url, policy=Policy(60, missing_ttl=30, stale_for=60, jitter=0)))
    runs: list[Any] = []

    def load(key):
        runs.append(key)
        return MISSING if key == "gone" else key.upper()

    assert cache.get_or_load("gone", load, 5) == 5 == cache.get_or_load("gone", load, 5)
    assert runs == ["gone"]
    assert cache.get("gone") is None
    assert not cache.exists("gone")
    assert cache.get_or_load("a", load) == "A" == cache.get_or_load("a", load) == cache.get("a")
    assert cache.get_or_load_many(["a", "b"], lambda keys: {key: key.upper() for key in keys}) == {"a": "A", "b": "B"}
    assert runs == ["gone", "a"]
