"""The patterns over Redis: with Redis gone the program is right, and after a write nobody reads the older value."""

from __future__ import annotations

import time

import pytest

from fastcache import (
    AsyncCacheAside,
    AsyncSingleFlightCache,
    AsyncWriteThroughCache,
    CacheAside,
    Policy,
    SingleFlightCache,
    WriteThroughCache,
)
from fastcache.outbox import Outbox

FIRST = 2.0  # the timeout of 0.25 s, and a busy machine
OPEN = 0.005
RECOVERY = 6.0  # the breaker's second, the outbox's second, and a busy machine


@pytest.fixture
def rows():
    return {"a": "1", "b": "2"}


@pytest.fixture
def make(face, rows):
    twins = {
        CacheAside: AsyncCacheAside,
        WriteThroughCache: AsyncWriteThroughCache,
        SingleFlightCache: AsyncSingleFlightCache,
    }

    def make(kind, cache, **options):
        functions = [rows.get] if kind is SingleFlightCache else [rows.get, rows.__setitem__]
        return face.pattern(kind, twins[kind], cache, *functions, **options)

    return make


@pytest.mark.parametrize("kind", [CacheAside, WriteThroughCache, SingleFlightCache])
@pytest.mark.parametrize("fault", ["refused", "silent", "garbage"])
def test_patterns_serve_with_redis_away(face, proxy, make, rows, note, kind, fault):
    """From the loader, within the promised times; writes take no longer, and are read back at once."""
    cache = face.from_url(proxy.url, "p", ttl=60)
    pattern = make(kind, cache, policy=Policy.hot(60))
    pattern.get("a")
    write = {CacheAside: "update", WriteThroughCache: "set"}.get(kind)
    proxy.refuse() if fault == "refused" else setattr(proxy, "mode", fault)
    times = []
    for number in range(30):
        begun = time.perf_counter()
        if write is not None:
            getattr(pattern, write)("a", str(number))
            times.append(time.perf_counter() - begun)
            begun = time.perf_counter()
        assert pattern.get("a") == rows["a"]
        times.append(time.perf_counter() - begun)
    note.time("slowest call", max(times), "served by the loader")
    assert max(times) < FIRST
    assert min(times[-10:]) < OPEN


@pytest.mark.parametrize("kind", [CacheAside, WriteThroughCache])
def test_older_value_is_not_read_after_redis_is_back(face, proxy, make, rows, kind):
    """The key waits in the outbox: read from the loader, not from Redis, which has the older value still; then sent."""
    cache = face.from_url(proxy.url, "p", ttl=60)
    pattern = make(kind, cache)
    assert pattern.get("a") == "1"
    proxy.refuse()
    pattern.update("a", "new") if kind is CacheAside else pattern.set("a", "new")
    outbox = pattern._loading.outbox
    assert len(outbox) == 1
    assert pattern.get("a") == "new"
    rows["a"] = "newest"
    assert pattern.get("a") == "newest"
    proxy.listen()
    begun = time.perf_counter()
    while outbox and time.perf_counter() - begun < RECOVERY:
        assert pattern.get("a") == "newest"
        time.sleep(0.02)
    assert not outbox
    assert cache.get("a") in (None, "newest")


def test_outbox_is_flushed_without_another_operation(face, proxy, make):
    """By a background attempt each second."""
    cache = face.from_url(proxy.url, "p", ttl=60)
    pattern = make(WriteThroughCache, cache)
    pattern.get("a")
    proxy.refuse()
    pattern.set("a", "new")
    proxy.listen()
    outbox = pattern._loading.outbox
    begun = time.perf_counter()
    while outbox and time.perf_counter() - begun < RECOVERY:
        time.sleep(0.02)
    assert not outbox
    assert cache.get("a") is None


def test_write_that_redis_refuses_invalidates(face, server, make):
    """Redis says no (out of memory) and is there: the older value is removed, nothing waits."""
    cache = face.from_url(server.url, "p", ttl=60)
    pattern = make(WriteThroughCache, cache)
    pattern.get("a")
    with server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            pattern.set("a", "new")
            assert client.get("p:a") is None
            assert pattern.get("a") == "new"
        finally:
            client.config_set("maxmemory", 0)
    assert len(pattern._loading.outbox) == 0


def test_value_that_cannot_be_stored_invalidates(face, server, make, rows):
    """Too large for the cache: written, and read from the loader."""
    cache = face.from_url(server.url, "p", ttl=60)
    pattern = make(WriteThroughCache, cache)
    pattern.get("a")
    pattern.set("a", "x" * (1 << 21))
    assert cache.get("a") is None
    assert pattern.get("a") == rows["a"]


def test_other_process_reads_the_new_value(face, server, make, rows):
    """Another client sees what was written, and its load from before doesn't overwrite it."""
    writer = make(WriteThroughCache, face.from_url(server.url, "p", ttl=60))
    reading = face.from_url(server.url, "p", ttl=60)

    def load(key):
        old = rows[key]
        with server.client() as client:  # the writer's set, in the middle of this load
            rows[key] = "new"
            client.set("p:a", b'"new"', px=60_000)
        return old

    assert reading.get_or_load("a", load) == "1"
    assert reading.get("a") == "new" == writer.get("a")


def test_outbox_keeps_the_last_and_overflows_into_everything():
    """A key added again while it is sent waits on; beyond its size every key counts as waiting."""
    outbox = Outbox(most=2)
    outbox.add("a")
    sent = outbox.batch(10)
    outbox.add("a")
    outbox.done(sent)
    assert "a" in outbox
    outbox.done(outbox.batch(10))
    assert not outbox
    for key in "abc":
        outbox.add(key)
    assert outbox.overflowed
    assert "anything" in outbox
    serial = outbox.overflowed
    outbox.add("d")
    outbox.cleared(serial)
    assert outbox.overflowed != serial
    assert outbox.thorough
    outbox.cleared(outbox.overflowed)
    assert not outbox
    outbox.overflow(thorough=False)
    assert not outbox.thorough
    outbox.add("e")
    assert outbox.thorough
    outbox.cleared(outbox.overflowed)
    outbox.add("f")
    outbox.overflow(thorough=False)  # what waited is lost with the rest
    assert outbox.thorough
