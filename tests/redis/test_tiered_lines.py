"""The lines on which a two-level cache hears of changes, when something is wrong with them: `sync()` keeps its word."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from typing import Any

import msgspec
import pytest
from test_tiered import heard, inner, trusted, until

from fastcache import AsyncRedisCache, AsyncTieredCache, MemoryCache, RedisCache, TieredCache
from fastcache.background import Threads
from fastcache.line import Line
from fastcache.plan import run
from fastcache.wires import wire_to


@pytest.fixture
def quick(monkeypatch):
    """Lines are tried again sooner."""
    monkeypatch.setattr("fastcache.line.RETRY", 0.05)


@pytest.fixture
def unraisable(monkeypatch):
    """What was reported because nobody could catch it."""
    reports: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    return reports


def line_of(cache):
    (line,) = inner(cache)._listener.hub.lines.values()
    return line


def hold_up(face, cache):
    """Have who listens stand still. Returns what lets him go on."""
    wire = line_of(cache)._wire
    receive, reached, go_on = wire.receive, threading.Event(), threading.Event()

    def held(seconds):
        reached.set()
        assert go_on.wait(10)
        return receive(seconds)

    async def aheld(seconds):
        reached.set()
        assert await asyncio.to_thread(go_on.wait, 10)
        return await receive(seconds)

    wire.receive = held if face.name == "sync" else aheld
    assert reached.wait(10)
    return go_on


def test_sync_on_a_line_that_is_down_relies_on_no_copy(face, server, quick):
    """Who listens hasn't noticed yet. The line stays down until he has: a new connection has no subscriptions."""
    one = heard(face.tiered(server.url))
    one.set("k", 1)
    assert one.get("k") == 1
    go_on = hold_up(face, one)
    face.run(line_of(one)._wire._connection.disconnect)
    with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60), coherence=None) as two:
        two.set("k", 2)
        begun = time.monotonic()
        one.sync()
        assert time.monotonic() - begun < 1
        assert not trusted(one)
        assert "not relied on: listening on 1 lines, 1 of which didn't answer in time" in one.explain("k")
        assert one.get("k") == 2
        assert one.stats().coherence_lost == 1
        go_on.set()
        until(lambda: (one.get("k"), trusted(one))[1])
        two.set("k", 3)
        one.sync()
        assert one.get("k") == 3


def test_sync_ends_with_the_line(face, server, proxy, monkeypatch):
    """What was asked on a line that is lost is never answered, and needn't be."""
    monkeypatch.setattr("fastcache.coherence.TRUST", 60)
    cache = heard(face.tiered(proxy.url))
    line = line_of(cache)
    proxy.mode = "silent"
    syncing = threading.Thread(target=cache.sync)
    syncing.start()
    until(lambda: any(question.flight is not None for question in list(line._questions)))
    proxy.reset_all()
    syncing.join(10)
    assert not syncing.is_alive()
    assert not trusted(cache)
    proxy.mode = "pass"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not MessagePack",
        msgspec.msgpack.encode(["later", b"p:k", 1, b"somebody"]),
        msgspec.msgpack.encode(["key", b"p:k", "one", b"somebody"]),
        msgspec.msgpack.encode(["key"]),
        b"\x94\xa3\xff\xff\xff\xc4\x01k\x01\xc4\x01o",
    ],
)
def test_message_that_cannot_be_read_may_mean_anything(face, server, other, data):
    """All copies go, for a later version may have said so; the line goes on."""
    cache = heard(face.tiered(server.url))
    for key in "kl":
        cache.set(key, 1)
        assert cache.get(key) == 1
    line = line_of(cache)
    for number in (2, 3):
        other.mset({"p:k": number, "p:l": number})
        assert cache.get_many(["k", "l"]) == {"k": number - 1, "l": number - 1}
        assert other.publish(inner(cache)._listener.channels(())[0][0], data) >= 1
        cache.sync()
        assert cache.get_many(["k", "l"]) == {"k": number, "l": number}
    assert line_of(cache) is line
    assert cache.stats().coherence_lost == 0


def test_answer_to_nothing_ends_the_line(face, server, quick):
    """From then on it isn't known what is the answer to what."""
    cache = heard(face.tiered(server.url))
    cache.set("k", 1)
    wire = line_of(cache)._wire
    face.run(wire.send, "PING")
    until(lambda: cache.stats().coherence_lost == 1)
    until(lambda: (cache.get("k"), trusted(cache))[1])
    assert line_of(cache)._wire is not wire


@pytest.mark.parametrize("how", ["key", "pattern", "tag", "tracking"])
def test_callback_that_fails_while_a_change_is_heard_is_reported(face, server, unraisable, how):
    """Nobody is there to catch it; the line goes on, and the copy is gone."""
    gone = []

    def note(key, value, cause):
        gone.append(key)
        raise ZeroDivisionError

    coherence = "tracking" if how == "tracking" else "pubsub"
    one = heard(face.tiered(server.url))
    two = heard(face.tiered(server.url, memory={"on_evict": note}, coherence=coherence))
    one.set("k", 1, tags=["t"])
    two.sync()
    assert two.get("k") == 1
    assert gone == []
    if how == "pattern":
        one.delete_pattern("k*")
    elif how == "tag":
        one.invalidate_tags("t")
    else:
        one.delete("k")
    two.sync()
    assert two.get("k") is None
    assert gone == ["k"]
    assert [type(report.exc_value) for report in unraisable] == [ZeroDivisionError]
    assert "on_evict" in unraisable[0].err_msg
    assert two.stats().coherence_lost == 0


@pytest.mark.parametrize("how", ["invalidate", "set", "load", "tag", "pattern", "writing"])
def test_callback_that_fails_keeps_no_change_from_redis(face, server, other, unraisable, how):
    """It is no failure of Redis, which is told at once; so are the others."""

    def fail(key, value, cause):
        raise ZeroDivisionError

    one = heard(face.tiered(server.url, memory={"on_evict": fail}))
    two = heard(face.tiered(server.url))
    one.set("k", "old", tags=["t"])
    assert two.get("k") == "old"
    match how:
        case "invalidate":
            assert one.delete("k")
        case "set":
            one.set("k", "new")
        case "load":
            two.invalidate("k")
            one.sync()
            assert one.get_or_load("k", lambda key: "new") == "new"
            one.set("k", "new")
        case "tag":
            one.invalidate_tags("t")
        case "pattern":
            assert one.delete_pattern("k*") == 1
        case "writing":
            face.write(one, "k")
    two.sync()
    assert two.get("k") == one.get("k") == ("new" if how in {"set", "load"} else None)
    assert unraisable
    assert {report.exc_type for report in unraisable} == {ZeroDivisionError}
    assert one.stats().backend_errors == 0
    assert not inner(one)._loading.outbox


def test_two_caches_that_begin_on_one_line_are_watched_for_once(face, server, proxy, quick):
    """Redis would refuse to watch the same names twice, and the line would never come up."""
    proxy.refuse()
    caches = [face.tiered(proxy.url, coherence="tracking", redis={"socket_timeout": 0.2}) for _ in range(2)]
    for cache in caches:
        cache.get("k")
    assert line_of(caches[0]) is line_of(caches[1])
    proxy.listen()
    until(lambda: all(trusted(cache) for cache in caches))
    assert proxy.accepted >= 1
    with server.client() as client:
        until(lambda: [cache.get("k") for cache in caches] == [None, None])
        client.set("p:k", 1)
        for cache in caches:
            cache.sync()
            assert cache.get("k") == 1
            assert trusted(cache)
            assert cache.stats().coherence_lost == 0


def test_without_a_thread_to_listen_nothing_is_relied_on(server, other, monkeypatch):
    """The cache works all the same, and the next operation looks for a thread again."""
    with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as cache:
        with monkeypatch.context() as patch:
            patch.setattr("fastcache.coherence.start_thread", lambda *arguments: False)
            for number in range(3):
                other.set("p:k", number)
                assert cache.get("k") == number
            cache.sync()
            assert "not relied on: listening on 0 lines" in cache.explain("k")
        assert trusted(heard(cache))


def test_line_whose_end_fails_is_reported_and_succeeded(server, unraisable, monkeypatch):
    """In asyncio: the task ends with an error, and the next operation starts another one."""
    events = []

    async def main():
        remote = AsyncRedisCache.from_url(server.url, "p", ttl=60)
        async with AsyncTieredCache(MemoryCache(), remote, on_event=lambda event: events.append(event.kind)) as cache:
            await cache.get("k")
            await until_trusted(cache)
            wire = line_of(cache)._wire
            close = wire.close

            async def fail():
                await close()
                raise ZeroDivisionError

            wire.close = fail
            await wire.send("PING")
            while "coherence_lost" not in events:
                await asyncio.sleep(0)
            await until_trusted(cache)
            assert line_of(cache)._wire is not wire

    asyncio.run(main())
    assert [type(report.exc_value) for report in unraisable] == [ZeroDivisionError]
    assert "in the listener" in unraisable[0].err_msg


async def until_trusted(cache):
    async with asyncio.timeout(10):
        while not trusted(cache):
            await cache.get("-")
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("face", ["asyncio"], indirect=True)
def test_sync_from_another_loop(face, server):
    """Asks on the line where it is."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    for number in range(10):
        two.set("k", number)
        asyncio.run(one.cache.sync())
        assert trusted(one)
        assert one.get("k") == number == one.get("k")
    assert one.stats().l1_hits >= 10
    assert one.stats().coherence_lost == 0


def test_sync_while_the_loop_that_listens_stands_still_relies_on_no_copy(server):
    """It runs in turns, so it hears nothing meanwhile; the next operation elsewhere listens anew."""
    loop = asyncio.new_event_loop()
    cache = AsyncTieredCache(MemoryCache(), AsyncRedisCache.from_url(server.url, "p", ttl=60))
    loop.run_until_complete(until_trusted(cache))
    loop.run_until_complete(cache.set("k", 1))
    assert loop.run_until_complete(cache.get("k")) == 1

    async def elsewhere():
        with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60), coherence=None) as two:
            two.set("k", 2)
        await cache.sync()
        assert await cache.get("k") == 2
        await until_trusted(cache)
        assert await cache.get("k") == 2

    asyncio.run(elsewhere())
    loop.run_until_complete(cache.close())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.parametrize("face", ["asyncio"], indirect=True)
def test_sync_does_not_wait_for_a_loop_that_is_busy(face, server, monkeypatch):
    """It takes as long as copies may be relied on, and no longer."""
    for module in ("line", "coherence"):
        monkeypatch.setattr(f"fastcache.{module}.TRUST", 0.6)
    cache = heard(face.tiered(server.url))
    cache.set("k", 1)
    assert cache.get("k") == 1
    busy, go_on = threading.Event(), threading.Event()

    async def block():
        busy.set()
        assert go_on.wait(10)

    blocked = asyncio.run_coroutine_threadsafe(block(), face._runner._loop)
    assert busy.wait(10)

    async def elsewhere():
        with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60), coherence=None) as two:
            two.set("k", 2)
        async with asyncio.timeout(5):
            await cache.cache.sync()
        assert await cache.cache.get("k") == 2

    try:
        asyncio.run(elsewhere())
    finally:
        go_on.set()
        blocked.result(10)


def test_line_that_is_left_by_its_driver_knows_nothing_any_more(server):
    """At any of its steps, as when its event loop is closed: there is no copy to be relied on, nor anybody to wait for."""
    with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as cache:
        ear, flights = cache._listener, Threads().flights
        changes: list[float] = []
        line = Line(
            lambda: wire_to(ear.link, None, resp3=False), lambda: [ear], None, (), None, False, lambda seconds: None,
            lambda: changes.append(line.until), lambda: None, lambda: iter(()),
        )  # fmt: skip
        plan = line.plan()
        step = next(plan)
        while line.until == -math.inf:
            step = plan.send(step.function(*step.args, **step.kwargs))
        assert ear in line.heard_by
        wire, flight = line._wire, flights.make()
        run(line.ask_plan(flight))
        assert not flight.done
        plan.close()
        wire.close()
        assert (line.until, changes[-1], len(line.heard_by)) == (-math.inf, -math.inf, 0)
        assert flight.done
        late = flights.make()
        run(line.ask_plan(late))
        assert late.done
