"""Leases of the two-level cache between processes: kept as long as the loader runs, and worth nothing once lost."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from loaders import overtake, start
from test_tiered import heard, inner, slow, until
from test_tiered_stored import hold_back

from fastcache import AsyncRedisCache, AsyncTieredCache, MemoryCache, Policy, RedisCache, TieredCache
from fastcache.envelope import seal
from fastcache.leasing import leased_plan
from fastcache.plan import Call
from fastcache.scripts import FILL, LEASE
from fastcache.sidekeys import guard_name
from fastcache.storing import Errand


@pytest.fixture
def tiers(server) -> Iterator[Callable[..., Any]]:
    """Blocking caches, for tests in which one comes between two steps of another."""
    caches = []

    def make(**options: Any) -> Any:
        caches.append(TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60), **options))
        return heard(caches[-1])

    yield make
    for cache in caches:
        cache.close()


@pytest.fixture
def renewed_often(monkeypatch):
    """Leases are renewed all the time."""
    monkeypatch.setattr("fastcache.guards.RENEW_EVERY", 0.05)


@pytest.fixture
def short_leases(monkeypatch, renewed_often):
    """A lease of 0.3 s."""
    monkeypatch.setattr("fastcache.guards.Guards.lease_life", 300)


def test_lease_is_renewed_while_the_loader_runs(face, server, renewed_often):
    """A slow leader isn't taken for a dead one."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    begun, finish = threading.Event(), threading.Event()
    results: list[Any] = []

    def load(key):
        begun.set()
        assert finish.wait(10)
        return "slow"

    leader = threading.Thread(target=lambda: results.append(one.get_or_load("k", slow(face, load))))
    follower = threading.Thread(target=lambda: results.append(two.get_or_load("k", lambda key: "second run")))
    leader.start()
    assert begun.wait(10)
    follower.start()
    with server.client() as client:
        guard = guard_name(b"p:k")
        lives = []
        until(lambda: lives.append(client.pttl(guard)) or sum(b > a for a, b in pairwise(lives)) >= 8)
    finish.set()
    leader.join()
    follower.join()
    assert min(lives) > 0
    assert results == ["slow", "slow"]


@pytest.mark.parametrize("how", ["gone", "another's"])
def test_lost_lease_stores_nothing(face, server, how):
    """A leader that stood still for too long can't overwrite what its successor stores."""
    cache = heard(face.tiered(server.url))

    def load(key):
        with server.client() as client:
            if how == "gone":
                client.delete(guard_name(b"p:k"))
            else:
                client.set(guard_name(b"p:k"), b"Lsuccessor", px=60_000)
        return "late"

    assert cache.get_or_load("k", slow(face, load)) == "late"
    assert cache.get("k") is None
    assert cache.stats().lease_refused == 1
    with server.client() as client:
        assert not client.exists("p:k")
        assert client.get(guard_name(b"p:k")) == (None if how == "gone" else b"Lsuccessor")


def test_lease_that_finds_something_unreadable_looks_again(tiers, other, monkeypatch):
    """What another program put there after this one had looked is replaced, and the lease is this one's."""
    cache = tiers()
    commands = cache._store._commands
    scripts_plan = commands._scripts_plan
    asked = []

    def late(script, calls):
        if script is LEASE:
            asked.append(calls)
            if len(asked) == 1:
                other.set("p:k", "{")
        return scripts_plan(script, calls)

    monkeypatch.setattr(commands, "_scripts_plan", late)
    assert cache.get_or_load("k", lambda key: "loaded") == "loaded"
    assert len(asked) == 2
    assert cache.stats().lease_refused == 0
    assert b"loaded" in other.get("p:k")


@pytest.mark.parametrize("single", [True, False])
def test_load_without_a_lease_looks_again(tiers, monkeypatch, single):
    """Who found nothing, and comes after another caller's load, takes what that one stored."""
    cache = tiers(policy=Policy(60, lease=False, jitter=0))
    store, runs = cache._store, []
    read = store.read_plan

    def load(key):
        runs.append(threading.current_thread().name)
        return "value"

    def late(*arguments):
        found = yield from read(*arguments)
        if threading.current_thread().name != "first":
            assert found == {}
            first = threading.Thread(target=cache.get_or_load, args=("k", load), name="first")
            first.start()
            first.join()
        return found

    monkeypatch.setattr(store, "read_plan", late)
    if single:
        assert cache.get_or_load("k", load) == "value"
    else:
        assert cache.get_or_load_many(["k", "l"], lambda keys: dict.fromkeys(keys, "many")) == {"k": "value", "l": "many"}
    assert runs == ["first"]


@pytest.mark.parametrize("lease", [True, False])
def test_copy_is_refreshed_ahead(face, server, other, lease):
    """In Redis, too; the caller gets the value that is still fresh, and who looks next the new one."""
    cache = heard(face.tiered(server.url, policy=Policy(60, refresh_ahead=1, lease=lease, jitter=0)))
    other.set("p:k", seal(b'"old"', 0, 10.0), px=50_000)
    runs = []

    def load(key):
        runs.append(key)
        return f"new {len(runs)}"

    inner(cache)._loading.random = lambda: math.exp(-4.9)  # 49 s ahead
    for _ in range(2):
        assert cache.get_or_load("k", load) == "old"
        assert cache.drain(10)
    assert runs == []
    inner(cache)._loading.random = lambda: math.exp(-5.1)
    assert cache.get_or_load("k", load) == "old"
    assert cache.drain(10)
    assert runs == ["k"]
    assert cache.stats().lease_refused == 0
    assert cache.get_or_load("k", load) == "new 1" == cache.get("k")
    assert b'"new 1"' in other.get("p:k")


@pytest.mark.parametrize("lease", [True, False])
def test_copy_that_ends_before_the_value_is_read_again(face, server, other, lease):
    """What has a long life in Redis isn't loaded anew because a copy of it has a short one."""
    policy = Policy(60, refresh_ahead=1, lease=lease, jitter=0)
    cache = heard(face.tiered(server.url, policy=policy, memory={"ttl": 5}))
    other.set("p:k", seal(b'"old"', 0, 1.0), px=50_000)
    inner(cache)._loading.random = lambda: math.exp(-10)  # 10 s ahead
    runs = []
    for _ in range(3):
        assert cache.get_or_load("k", runs.append) == "old"
        assert cache.drain(10)
    assert runs == []
    assert cache.stats().l1_hits > 0


@pytest.mark.parametrize("copy", [True, False])
def test_early_refresh_does_not_wait_for_another_process(face, server, other, copy):
    """The value is still fresh, and the one who has the lease is about to store a new one."""
    cache = heard(face.tiered(server.url, policy=Policy(60, refresh_ahead=1, jitter=0)))
    other.set("p:k", seal(b'"old"', 0, 10.0), px=50_000)
    other.set(guard_name(b"p:k"), b"Lanother", px=60_000)
    runs = []
    if copy:
        inner(cache)._loading.random = lambda: 1.0  # not ahead at all
        assert cache.get_or_load("k", runs.append) == "old"
    inner(cache)._loading.random = lambda: 0.0  # as early as can be
    assert cache.get_or_load("k", runs.append) == "old"
    assert cache.drain(1)
    assert runs == []
    other.delete(guard_name(b"p:k"))
    assert cache.get_or_load("k", lambda key: "new") == "old"
    assert cache.drain(10)
    assert cache.get("k") == "new"


@pytest.mark.parametrize("held", [False, True])
def test_early_refresh_that_finds_an_invalidated_value_loads(tiers, other, held):
    """It is joined by those who miss meanwhile: they are to get a value, and the one that is right. Who has the lease is
    waited for then."""
    cache = tiers(policy=Policy(60, refresh_ahead=1, jitter=0))
    other.set("p:k", seal(b'"old"', 0, 10.0), px=50_000)
    assert cache.get("k") == "old"
    other.set("p:k", seal(b'"old"', 0, 10.0, False, {b"t": bytes(8)}), px=50_000)
    if held:
        other.set(guard_name(b"p:k"), b"Lanother", px=200)
    cache._loading.random = lambda: 0.0
    assert cache.get_or_load("k", lambda key: "new") == "old"
    assert cache.drain(10)
    assert cache.get("k") == "new"


def test_load_without_a_thread_to_renew_its_lease_is_stored_if_it_is_short(face, server, other, monkeypatch):
    """And the next load finds out whether there are threads again."""
    cache = heard(face.tiered(server.url))
    guards, driver = inner(cache)._store._guards, inner(cache)._loading.driver
    keep = driver.keep

    def refuse(plan):
        plan.close()
        return False

    monkeypatch.setattr(driver, "keep", refuse)
    assert cache.get_or_load("k", lambda key: 1) == 1
    assert other.exists("p:k")
    asked = []
    monkeypatch.setattr(driver, "keep", lambda plan: (asked.append(plan), keep(plan))[1])
    assert cache.get_or_load("l", slow(face, lambda key: (len(guards._held), len(asked)))) == (1, 1)


def test_value_on_its_way_into_redis_is_not_loaded_again(tiers, monkeypatch):
    """A caller that missed before another's load ended finds its value, though a slow store has yet to take it."""
    cache = tiers(policy=Policy(60, store="background", jitter=0))
    runs = []
    loading, load_on, hold = (threading.Event() for _ in range(3))

    def load(key):
        runs.append(key)
        loading.set()
        assert load_on.wait(10)
        return "value"

    def slowly(script, calls):
        if script is FILL:
            assert hold.wait(10)
        return scripts_plan(script, calls)

    commands = cache._store._commands
    scripts_plan = commands._scripts_plan
    monkeypatch.setattr(commands, "_scripts_plan", slowly)
    results = overtake(cache._loading.flights, lambda: cache.get_or_load("k", load), loading, load_on)
    hold.set()
    assert cache.drain(10)
    assert runs == ["k"]
    assert results == ["value", "value"]
    assert cache.get("k") == "value"


def test_load_of_a_loop_that_was_closed_is_succeeded(server, other, monkeypatch):
    """Nothing can be asked for any more in that loop: its lease ends by itself, and the next one loads and stores."""
    monkeypatch.setattr("fastcache.guards.Guards.lease_life", 300)
    reports: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    cache = AsyncTieredCache(MemoryCache(), AsyncRedisCache.from_url(server.url, "p", ttl=60), coherence=None)

    async def begin():
        started = asyncio.Event()

        async def load(key):
            started.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(cache.get_or_load("k", load))
        await started.wait()
        await cache.remote.client.connection_pool.disconnect()
        return task

    async def again():
        async with cache:
            assert await cache.get_or_load("k", lambda key: "value") == "value"
            tasks.clear()
            gc.collect()  # Redis could be asked from this loop, but nothing awaited by what is thrown away here
            assert not [report for report in reports if "GeneratorExit" in str(report.exc_value)]

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # it says that tasks were pending
    tasks = [loop.run_until_complete(begin())]
    assert other.exists(guard_name(b"p:k"))
    loop.close()
    del loop
    asyncio.run(again())
    assert other.exists("p:k")
    assert cache.stats().lease_refused == 0


def test_load_that_is_left_by_its_driver_has_its_lease_end(tiers, other, short_leases):
    """As when its event loop is closed. Nothing can be sent then, nor is the lease kept for one who stores no more."""
    cache = tiers(policy=Policy(60, jitter=0))
    assert cache.get_or_load("another", lambda key: 1) == 1

    def wait():
        raise AssertionError("not called")

    def load(identities):
        yield Call(wait)

    name = guard_name(b"p:k")
    errand = Errand({b"p:k": "k"}, None, cache._loading.policy, None, True)
    plan = leased_plan(cache._loading, errand, [b"p:k"], load)
    step = next(plan)
    while step.function is not wait:
        step = plan.send(step.function(*step.args, **step.kwargs))
    assert other.exists(name)
    plan.close()
    until(lambda: not other.exists(name))
    assert cache.get_or_load("k", lambda key: 1) == 1
    assert cache.stats().lease_refused == 0


@pytest.mark.parametrize("lease", [True, False])
def test_key_that_waits_in_the_outbox_is_not_taken_from_redis(face, server, other, lease):
    """What Redis has of it is out of date, though it could be asked: the loader is, and what it returns isn't stored."""
    cache = heard(face.tiered(server.url, policy=Policy(60, lease=lease, jitter=0)))
    other.mset({"p:k": '"old"', "p:l": '"kept"'})
    outbox = inner(cache)._loading.outbox
    inner(cache)._loading._flush_after = math.inf  # it could not be delivered just now
    outbox.add(b"p:k")
    for _ in range(2):
        assert cache.get_or_load("k", lambda key: "new") == "new"
        assert cache.get_or_load_many(["k", "l"], lambda keys: dict.fromkeys(keys, "new")) == {"k": "new", "l": "kept"}
    assert other.get("p:k") == b'"old"'
    assert cache.get("k") is None
    outbox.done(outbox.marks([b"p:k"]))


def test_key_that_comes_into_the_outbox_is_waited_for_no_longer(face, server, other):
    """What another process stores of it may be out of date."""
    cache = heard(face.tiered(server.url))
    outbox = inner(cache)._loading.outbox
    inner(cache)._loading._flush_after = math.inf
    other.set(guard_name(b"p:b"), b"Lanother", px=60_000)

    def load(keys):
        outbox.add(b"p:b")
        other.set("p:b", '"old"')
        return dict.fromkeys(keys, "new")

    assert cache.get_or_load_many(["a", "b"], slow(face, load)) == {"a": "new", "b": "new"}
    assert other.exists("p:a")
    assert other.get("p:b") == b'"old"'
    assert cache.stats().lease_refused == 1
    outbox.done(outbox.marks([b"p:b"]))


@pytest.mark.parametrize("store", ["foreground", "background"])
def test_tokens_are_those_of_before_the_load_though_more_is_loaded_later(face, server, other, store):
    """A value that is still to be stored when another key's load begins has a tag that was invalidated in between."""
    policy = Policy(60, store=store, jitter=0)
    one, two = face.tiered(server.url, coherence=None), heard(face.tiered(server.url))
    truth = {"a": "old", "b": "old"}
    other.set(guard_name(b"p:b"), b"Lanother", px=60_000)
    go_on = hold_back(face, one) if store == "background" else lambda: None

    def load(keys):
        found = {key: truth[key] for key in keys}
        if "a" in keys:
            truth.update(a="new", b="new")
            two.invalidate_tags("t")
            other.delete(guard_name(b"p:b"))
        return found

    assert one.get_or_load_many(["a", "b"], slow(face, load), policy=policy, tags=["t"]) == {"a": "old", "b": "new"}
    go_on()
    assert two.get_many(["a", "b"]) == {"b": "new"}


def test_callers_wait_as_long_as_the_one_who_waits_for_another_process(face, server, other, monkeypatch):
    """A hard_timeout is the loader's: it doesn't run while the lease of one who died is waited for."""
    monkeypatch.setattr("fastcache.loading.SLACK", -9.9)
    cache = heard(face.tiered(server.url, policy=Policy(60, hard_timeout=10, jitter=0)))
    other.set(guard_name(b"p:k"), b"Ldead", px=600)
    outcomes = [start(cache.get_or_load, "k", lambda key: "value") for _ in range(3)]
    assert [outcome() for outcome in outcomes] == ["value"] * 3
