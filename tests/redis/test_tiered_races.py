"""The two-level cache when something goes wrong: silence, resets, a server that is away, forks, endings."""

from __future__ import annotations

import gc
import math
import threading
from typing import Any

import pytest
from test_processes import in_child
from test_tiered import heard, inner, trusted, until

from fastcache import MISSING, CacheMiss, CacheStats, MemoryCache, Policy, RedisCache, TieredCache
from fastcache.sidekeys import guard_name


@pytest.fixture
def quick(monkeypatch):
    """Trust ends sooner, so that nobody has to wait for it."""
    monkeypatch.setattr("fastcache.line.BEAT", 0.05)
    monkeypatch.setattr("fastcache.line.RETRY", 0.05)
    for module in ("line", "coherence"):
        monkeypatch.setattr(f"fastcache.{module}.TRUST", 0.3)


@pytest.fixture
def flush_at_once(monkeypatch):
    monkeypatch.setattr("fastcache.writing.FLUSH_INTERVAL", 0.05)


def copies(cache):
    return len(inner(cache)._front._map)


def listeners():
    return [thread for thread in threading.enumerate() if thread.name == "fastcache-listener"]


def test_both_spellings_of_a_key_are_one(face, server):
    """What is written under one is read under the other, at once."""
    cache = heard(face.tiered(server.url))
    cache.set("k", 1)
    assert cache.get(b"k") == 1 == cache.get(b"k")
    cache.set("k", 2)
    assert cache.get(b"k") == 2 == cache.get("k")
    cache.get_or_load_many([b"k", "new"], lambda keys: dict.fromkeys(keys, 3))
    cache.delete("new")
    both = [b"k", "k", "new", b"new"]
    assert cache.get_or_load_many(both, lambda keys: dict.fromkeys(keys, 4)) == {b"k": 2, "k": 2, "new": 4, b"new": 4}
    assert cache.get_many(both) == {b"k": 2, "k": 2, "new": 4, b"new": 4}
    cache.delete(b"k")
    assert cache.get("k") is None
    cache.set("k", 4)
    assert cache.delete_many(["k", b"k"]) == 1
    cache.set("k", 5)
    assert inner(cache)._front.find("k", None) is not None
    assert not inner(cache)._front._pending


@pytest.mark.parametrize("coherence", ["pubsub", "tracking"])
def test_silence_ends_trust(face, server, proxy, quick, coherence):
    """A half-open line says nothing of what others write: after TRUST no copy is served."""
    cache = heard(face.tiered(proxy.url, coherence=coherence, redis={"socket_timeout": 0.2}))
    cache.set("k", 1)
    cache.sync()
    assert cache.get("k") == 1
    assert copies(cache) == 1
    proxy.mode = "silent"
    with server.client() as client:
        client.delete("p:k")
    until(lambda: not trusted(cache), 2)
    assert cache.get("k") is None
    proxy.mode = "pass"
    proxy.reset_all()
    until(lambda: cache.get("-") is None and trusted(cache))
    assert cache.get("k") is None
    assert cache.stats().coherence_lost == 1


@pytest.mark.parametrize("coherence", ["pubsub", "tracking"])
def test_reset_line_drops_the_copies(face, server, proxy, quick, coherence):
    """What was written between the lines isn't known."""
    events: list[str] = []
    cache = heard(face.tiered(proxy.url, coherence=coherence, on_event=lambda event: events.append(event.kind)))
    cache.set("k", 1)
    cache.sync()
    assert cache.get("k") == 1
    assert copies(cache) == 1
    proxy.refuse()
    until(lambda: not trusted(cache))
    with server.client() as client:
        client.delete("p:k")
    proxy.listen()
    until(lambda: (cache.get("-"), trusted(cache))[1])
    assert copies(cache) == 0
    assert cache.get("k") is None
    assert cache.stats().coherence_lost == 1
    assert [kind for kind in events if kind.startswith("coherence")] == [
        "coherence_back", "coherence_lost", "coherence_back"
    ]  # fmt: skip


def test_stuck_listener_ends_trust(server, quick, monkeypatch):
    """Trust ends by the clock: it needs nobody who notices that nothing is heard."""
    with (
        TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as cache,
        TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as other,
    ):
        heard(cache).set("k", 1)
        stuck, go_on = threading.Event(), threading.Event()

        def hear(message: object) -> None:
            stuck.set()
            go_on.wait(10)

        monkeypatch.setattr(cache._listener, "hear", hear)
        other.set("k", 2)
        assert stuck.wait(10)
        until(lambda: not trusted(cache), 2)
        assert cache.get("k") == 2
        go_on.set()


def test_copies_are_not_kept_while_nothing_is_heard(face, server, proxy, quick):
    """With the line down and the server there, each reader asks Redis."""
    cache = heard(face.tiered(proxy.url))
    inner(cache)._listener.leave()
    inner(cache)._listener.attend = lambda: None
    until(lambda: not trusted(cache))
    with server.client() as client:
        for number in range(3):
            client.set("p:k", str(number))
            assert cache.get("k") == number
    assert copies(cache) == 0
    assert cache.stats().l1_hits == 0


def test_server_away_raises_nothing_and_leaves_nothing_old(face, server, proxy, quick, flush_at_once):
    """Reading finds nothing, loading loads; what was written or deleted takes effect when it is back."""
    other = heard(face.tiered(server.url))
    cache = heard(face.tiered(proxy.url, redis={"socket_timeout": 0.2}))
    other.set_many({"set": "old", "deleted": "old", "kept": "old"})
    assert cache.get_many(["set", "deleted", "kept"]) == dict.fromkeys(["set", "deleted", "kept"], "old")
    proxy.refuse()
    until(lambda: not trusted(cache))
    assert cache.get("kept", "nothing") == "nothing"
    assert cache.get_many(["kept"]) == {}
    assert not cache.exists("kept")
    assert cache.get_or_load("new", lambda key: "loaded") == "loaded"
    assert cache.get_or_load_many(["new2"], lambda keys: dict.fromkeys(keys, 1)) == {"new2": 1}
    cache.set("set", "new")
    assert cache.delete("deleted") is False
    assert "outbox" in cache.explain("deleted")
    assert "away" in cache.explain("deleted")
    cache.sync()
    assert cache.stats().backend_errors > 0
    proxy.listen()
    until(lambda: other.get_many(["set", "deleted"]) == {})
    until(lambda: cache.get("kept") == "old")
    assert cache.get("set") is None
    assert cache.get("deleted") is None
    assert cache.get_or_load("set", lambda key: "again") == "again" == other.get("set")


@pytest.mark.parametrize("how", ["clear", "tags", "pattern"])
def test_wide_invalidation_waits_for_the_server(face, server, proxy, quick, flush_at_once, how):
    """What can't be named is cleared with all else, when it is back; nobody here reads it until then."""
    other = heard(face.tiered(server.url))
    cache = heard(face.tiered(proxy.url, redis={"socket_timeout": 0.2}))
    other.set("k", "old", tags=["t"])
    assert cache.get("k") == "old"
    proxy.refuse()
    match how:
        case "clear":
            cache.clear()
        case "tags":
            cache.invalidate_tags("t")
        case "pattern":
            assert cache.delete_pattern("k*") == 0
    assert cache.get("k") is None
    assert other.get("k") == "old"
    proxy.listen()
    until(lambda: other.get("k") is None)
    assert cache.get("k") is None


@pytest.mark.parametrize("how", ["pattern", "many", "tags and many"])
def test_keys_that_cannot_be_remembered_are_removed_whoever_stored_them(face, server, proxy, quick, flush_at_once, how):
    """A `RedisCache`, say: their values have no token that could be renewed. Of tags and of `clear` that isn't expected."""
    cache = heard(face.tiered(proxy.url, redis={"socket_timeout": 0.2}))
    plain = face.from_url(server.url, "p", ttl=60)
    plain.set_many({"k": "old", "l": "old"})
    assert cache.get("k") == "old"
    inner(cache)._loading.outbox._most = 2
    proxy.refuse()
    if how == "pattern":
        cache.delete_pattern("k*")
    else:
        cache.delete("k")
        if "tags" in how:
            cache.invalidate_tags("t")
        cache.delete_many(["another", "and another"])
    proxy.listen()
    until(lambda: not inner(cache)._loading.outbox)
    assert plain.get_many(["k", "l"]) == {}
    assert cache.get("k") is None
    plain.set("k", "old")
    proxy.refuse()
    cache.clear()
    proxy.listen()
    until(lambda: not inner(cache)._loading.outbox)
    assert plain.get("k") == "old" == cache.get("k")


def test_stale_copies_are_served_while_the_server_is_away(face, server, proxy, quick):
    """Under `stale_for`, an old value is better than a loader that has to be waited for."""
    policy = Policy(60, stale_for=60, jitter=0)
    cache = heard(face.tiered(proxy.url, policy=policy, redis={"socket_timeout": 0.2}))
    assert cache.get_or_load("k", lambda key: "first") == "first"
    proxy.refuse()
    until(lambda: not trusted(cache))
    loaded = threading.Event()

    def load(key):
        loaded.set()
        return "second"

    assert cache.get_or_load("k", load) == "first"
    assert loaded.wait(10)
    assert cache.drain(10)
    assert cache.stats().stale_hits >= 1
    assert cache.get_or_load("k", load) == "second"


def test_failed_block_invalidates_all_the_same(face, server):
    """Whether the database took it isn't known. Nothing is stored within, by anybody."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    one.set("k", "old")
    assert two.get("k") == "old"

    def inside() -> None:
        two.sync()
        assert two.get("k") is None
        assert two.get_or_load("k", lambda key: "during") == "during"
        assert two.get("k") is None

    if face.name == "sync":
        with pytest.raises(ZeroDivisionError), one.writing("k"):  # noqa: PT012
            inside()
            raise ZeroDivisionError
    else:

        async def write() -> None:
            import asyncio

            async with one.cache.writing("k"):
                await asyncio.to_thread(inside)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            face._runner.run(write())
    assert two.stats().lease_refused == 1
    with server.client() as client:
        assert not client.exists(guard_name(b"p:k"))
    assert two.get_or_load("k", lambda key: "after") == "after" == two.get("k")


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 2}, {"protocol": 3}])
def test_clients_of_all_sorts_will_do(face, server, options):
    """A program's own client, whatever it decodes and speaks; it stays open."""
    client = face.redis().Redis(port=server.port, **options)
    one = heard(face.tiered(server.url, client=client))
    two = heard(face.tiered(server.url, coherence="tracking"))
    one.set("k", {"a": "é"}, tags=["t"])
    assert two.get("k") == {"a": "é"} == one.get("k")
    two.set("k", 2, tags=["t"])
    one.sync()
    assert one.get("k") == 2 == one.get_or_load("k", lambda key: 3)
    one.invalidate_tags("t")
    two.sync()
    assert two.get("k") is None
    one.set("k", 4)
    assert one.delete_pattern("k*") == 1
    two.sync()
    assert two.get_many(["k"]) == {}
    one.close()
    assert face.run(client.ping)
    face.run(client.aclose if face.name == "asyncio" else client.close)


def test_forked_child_hears_for_itself(server):
    """The parent's line isn't the child's; its copies aren't relied on until the child has one of its own."""
    cache = TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60))
    heard(cache).set("k", 1)
    assert cache.get("k") == 1

    def child() -> None:
        assert not trusted(cache)
        with server.client() as client:
            client.set("p:k", "2")
        assert cache.get("k") == 2
        assert cache.get_or_load("new", lambda key: "child's") == "child's"
        until(lambda: (cache.get("k"), trusted(cache))[1])
        cache.set("k", 3)
        assert cache.get("k") == 3
        cache.close()

    assert in_child(child) == 0
    cache.sync()
    assert cache.get("k") == 3
    assert cache.get("new") == "child's"
    assert trusted(cache)
    cache.close()


def test_line_ends_with_the_last_cache(server):
    """No thread and no connection is left, whether a cache was closed or just dropped."""
    until(lambda: not listeners())
    caches = [heard(TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60))) for _ in range(2)]
    assert len(listeners()) == 1  # one for all
    caches.pop().close()
    assert trusted(caches[0])
    caches[0].set("k", 1)
    caches[0].sync()
    assert caches[0].get("k") == 1
    assert len(listeners()) == 1
    caches.pop()
    gc.collect()
    until(lambda: not listeners())
    with server.client() as client:
        until(lambda: len(client.client_list()) == 1)


def test_closed_cache_says_so_and_can_be_closed_again(face, server):
    """`with` closes both tiers."""
    cache = heard(face.tiered(server.url))
    if face.name == "sync":
        with cache as entered:
            assert entered is cache
    else:

        async def use() -> None:
            async with cache.cache as entered:
                assert entered is cache.cache

        face._runner.run(use())
    cache.close()
    assert not trusted(cache)
    assert cache.get("k", "nothing") == "nothing"
    assert cache.get_or_load("k", lambda key: 1) == 1


def test_counters_add_up(face, server):
    """Each lookup is a hit of one tier or a miss."""
    writer, cache = (heard(face.tiered(server.url)) for _ in range(2))
    writer.set_many({"a": 1, "b": 2})
    cache.sync()
    before = cache.stats()
    assert isinstance(before, CacheStats)
    for key in ("a", "a", "none", "b"):
        cache.get(key)
    cache.get_many(["a", "b", "none"])
    cache.get_or_load("c", lambda key: 3)
    after = cache.stats()
    assert after.l1_hits - before.l1_hits == 3
    assert after.l2_hits - before.l2_hits == 2
    assert after.hits == after.l1_hits + after.l2_hits
    assert after.misses - before.misses == 3
    assert (after.loads, after.load_errors, after.breaker) == (1, 0, "closed")


def test_looking_whether_there_is_a_value_counts_nothing(face, server, monkeypatch):
    """And takes no lookup out of the count that another caller makes meanwhile."""
    cache = heard(face.tiered(server.url))
    store = inner(cache)._store
    fetch, asked = store._fetch_plan, []

    def beside(names, tokens):
        asked.append(names)
        if len(asked) == 1:
            yield from store.read_redis_plan({b"p:other": "other"}, None)
        return (yield from fetch(names, tokens))

    monkeypatch.setattr(store, "_fetch_plan", beside)
    before = cache.stats()
    assert not cache.exists("k")
    assert asked == [[b"p:k"], [b"p:other"]]
    assert cache.remaining("k") is None
    after = cache.stats()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 0)


def test_backend_is_back_when_it_answers(face, server):
    """Not when a copy is found, or a key isn't asked for since its invalidation waits."""
    events: list[Any] = []
    cache = heard(face.tiered(server.url, policy=Policy(60, refresh_ahead=1.0, jitter=0), on_event=events.append))
    assert cache.get_or_load_many(["k", "l"], lambda keys: dict.fromkeys(keys, 1)) == {"k": 1, "l": 1}
    loading = inner(cache)._loading
    loading.outbox.add(b"p:waits")
    loading._flush_after = math.inf
    loading.reporter.backend_failed("k", OSError("away"))
    assert cache.get("k") == 1 == cache.get_or_load("k", len)
    assert cache.get_or_load_many(["k", "l"], len) == {"k": 1, "l": 1}
    assert cache.get("waits") is None
    assert cache.get_many(["waits"]) == {}
    assert not cache.exists("waits")
    assert cache.remaining("waits") is None
    with pytest.raises(CacheMiss):
        cache["waits"]
    assert "backend_back" not in [event.kind for event in events]
    assert cache.get("nothing") is None
    assert [event.kind for event in events][-1] == "backend_back"
    loading.reporter.backend_failed("k", OSError("away"))
    assert cache.get_or_load("nothing", lambda key: MISSING) is None
    assert "backend_back" in [event.kind for event in events][-2:]
    loading.outbox.done(loading.outbox.marks([b"p:waits"]))


def test_many_readers_never_see_an_old_value_after_sync(face, server):
    """Writers and readers of one key, in two processes' caches: what was written before a sync is seen after it."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    stop = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        while not stop.is_set():
            two.get("k")
            two.get_or_load("k", lambda key: 0)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 25):
            one.set("k", number)
            two.sync()
            if (seen := two.get("k")) != number:
                wrong.append((number, seen))
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []


def test_redis_without_resp3_is_refused_for_tracking(face, server, proxy, quick):
    """Nothing is relied on, and `explain` says why."""
    proxy.mode = "no-hello"
    cache = face.tiered(proxy.url, coherence="tracking")
    cache.set("k", 1)
    until(lambda: "RESP3" in cache.explain("k"))
    assert cache.get("k") == 1
    assert not trusted(cache)


@pytest.mark.parametrize("isolate", [False, True])
def test_without_coherence_copies_live_by_their_ttl(face, server, isolate):
    """Nobody listens; what this process changes itself it knows at once."""
    one, two = (face.tiered(server.url, coherence=None, isolate=isolate) for _ in range(2))
    one.set("k", 1)
    assert two.get("k") == 1
    one.set("k", 2)
    two.sync()
    assert two.get("k") == 1
    two.delete("k")
    assert two.get("k") is None
    assert one.get("k") == 2
    one.clear()
    assert one.get("k") is None
