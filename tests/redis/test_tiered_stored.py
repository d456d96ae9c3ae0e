"""Between the landing of a load and the storing of its value: what is heard then counts, and nothing is left behind."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from loaders import start
from test_tiered import heard, inner, slow, trusted, until

from fastcache import MISSING, MemoryCache, Policy, RedisCache, TieredCache, cached
from fastcache.envelope import seal
from fastcache.errors import BackendError
from fastcache.plan import Call
from fastcache.sidekeys import guard_name

CHANGES = {
    "key": lambda cache: cache.invalidate("k"),
    "tag": lambda cache: cache.invalidate_tags("t"),
    "pattern": lambda cache: cache.delete_pattern("k*"),
    "clear": lambda cache: cache.clear(),
}

changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
leases = pytest.mark.parametrize("lease", [True, False], ids=["lease", "no lease"])


def hold_back(face, cache, what="spawn"):
    """Have the background begin later. Returns what lets it, and waits for its end."""
    driver = inner(cache)._loading.driver
    spawn, held = getattr(driver, what), []

    def put_off(*arguments):
        held.append(arguments)
        return True

    def go_on():
        setattr(driver, what, spawn)
        assert held
        for arguments in held:
            assert face.run(spawn, *arguments)
        assert cache.drain(10)

    setattr(driver, what, put_off)
    return go_on


def advance(plan, step):
    """Do what a plan asks for. Returns what it asks for next."""
    try:
        outcome = step.function(*step.args, **step.kwargs)
    except Exception as error:
        return plan.throw(error)
    return plan.send(outcome)


def nothing_is_left(cache):
    """No load is under way here, as far as copies and leases are concerned."""
    return not inner(cache)._front._pending and not inner(cache)._store._guards._held


@leases
@changes
def test_change_heard_before_the_background_stores(face, server, lease, change):
    """What was loaded before it isn't kept where it would be served, neither here nor in Redis."""
    policy = Policy(60, store="background", lease=lease)
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    truth = {"k": "old"}
    go_on = hold_back(face, one)
    assert one.get_or_load("k", truth.__getitem__, policy=policy, tags=["t"]) == "old"
    truth["k"] = "new"
    change(two)
    one.sync()
    go_on()
    assert one.get("k") is None
    assert two.get("k") is None
    assert one.get_or_load("k", truth.__getitem__, policy=policy, tags=["t"]) == "new"
    assert one.drain(10)
    assert one.get("k") == "new" == two.get("k")
    assert nothing_is_left(one)


@leases
@changes
def test_change_heard_before_the_foreground_stores(face, server, lease, change):
    """The same where a value of what is no more has to be removed first, which takes a round trip."""
    policy = Policy(60, store="foreground", lease=lease)
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    one.set("gone", 1, tags=["u"])
    two.invalidate_tags("u")
    one.sync()
    truth = {"k": "old"}
    driver, store = inner(one)._loading.driver, inner(one)._store
    remove_plan = store.remove_plan

    def happen(_):
        truth["k"] = "new"
        change(two)
        one.sync()

    def removing(identities):
        removed = yield from remove_plan(identities)
        yield Call(driver.call, slow(face, happen), None)
        return removed

    store.remove_plan = removing
    assert one.get_or_load_many(["gone", "k"], lambda keys: dict(truth), policy=policy, tags=["t"]) == {"k": "old"}
    assert truth == {"k": "new"}
    assert one.get("k") is None
    assert two.get("k") is None
    assert nothing_is_left(one)


@leases
@pytest.mark.parametrize("store", ["background", "foreground"])
def test_without_a_change_the_value_is_kept(face, server, lease, store):
    """Here, too: what a load does itself isn't held against it, nor what is heard of other keys."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    two.set("other", 1)
    policy = Policy(60, store=store, lease=lease)
    go_on = hold_back(face, one) if store == "background" else lambda: None
    assert one.get_or_load("k", lambda key: "value", policy=policy, tags=["t"]) == "value"
    two.delete("other")
    one.sync()
    go_on()
    hits = one.stats().l1_hits
    assert one.get("k") == "value" == two.get("k")
    assert one.stats().l1_hits == hits + 1
    assert one.stats().lease_refused == 0
    assert nothing_is_left(one)


def test_background_that_cannot_store_gives_the_lease_back(face, server, other):
    """Nobody waits for it, in this process or another one."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    one.set("k", 1, tags=["t"])
    two.invalidate_tags("t")
    one.sync()
    store = inner(one)._store

    def fail(identities):
        raise BackendError("cut off")

    store.remove_plan = fail  # of what is no more
    go_on = hold_back(face, one)
    assert one.get_or_load("k", lambda key: MISSING, "nothing", policy=Policy(60, store="background")) == "nothing"
    assert other.exists(guard_name(b"p:k"))
    go_on()
    assert not other.exists(guard_name(b"p:k"))
    assert nothing_is_left(one)
    assert two.get_or_load("k", lambda key: "stored") == "stored" == two.get("k")


def test_lease_ends_though_nobody_can_be_told(face, server, other, proxy, monkeypatch):
    """Redis is away when the background is to store, and is told nothing: it is asked to keep the lease no longer."""
    monkeypatch.setattr("fastcache.guards.Guards.lease_life", 300)
    monkeypatch.setattr("fastcache.guards.RENEW_EVERY", 0.05)
    cache = heard(face.tiered(proxy.url, redis={"socket_timeout": 0.2}))
    other.set("p:k", seal(b'"old"', 0, 1.0, False, {b"t": bytes(8)}), px=50_000)  # its tag has another token now
    go_on = hold_back(face, cache)
    assert cache.get_or_load("k", lambda key: MISSING, "nothing", policy=Policy(60, store="background")) == "nothing"
    assert not nothing_is_left(cache)
    proxy.refuse()
    go_on()
    assert nothing_is_left(cache)
    proxy.listen()
    until(lambda: not other.exists(guard_name(b"p:k")))


def test_background_that_cannot_store_keeps_the_value_for_who_prefers_it(face, server, proxy):
    """Under `stale_for`: an old value is better than a loader that has to be waited for."""
    policy = Policy(60, stale_for=60, store="background", jitter=0)
    cache = heard(face.tiered(proxy.url, policy=policy, redis={"socket_timeout": 0.2}))
    go_on = hold_back(face, cache)
    assert cache.get_or_load("k", lambda key: "first") == "first"
    proxy.refuse()
    go_on()
    until(lambda: not trusted(cache))
    assert cache.get_or_load("k", lambda key: "second") == "first"
    assert cache.drain(10)
    assert cache.get_or_load("k", lambda key: "third") == "second"
    assert cache.drain(10)
    assert nothing_is_left(cache)


@pytest.mark.parametrize("value", [MISSING, "value"], ids=["of nothing", "of a value"])
def test_storing_that_its_driver_left_lets_go(server, other, monkeypatch, value):
    """As when its event loop is closed, whatever it is waiting for. Nothing can be sent then: its lease ends by itself."""
    monkeypatch.setattr("fastcache.guards.Guards.lease_life", 100)
    monkeypatch.setattr("fastcache.guards.RENEW_EVERY", 0.02)
    held: list[Any] = []
    steps = 0
    with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as cache:
        heard(cache)._loading.driver.spawn = lambda make_plan: held.append(make_plan) or True
        while True:
            other.set("p:k", seal(b'"old"', 0, 1.0, False, {b"t": bytes(8)}), px=50_000)  # its tag has another token now
            assert cache.get_or_load("k", lambda key: value, policy=Policy(60, store="background")) in (None, "value")
            assert not nothing_is_left(cache)
            plan = held.pop()()
            step = next(plan)
            try:
                for _ in range(steps):
                    step = advance(plan, step)
            except StopIteration:
                break
            plan.close()
            assert nothing_is_left(cache)
            assert len(cache._loading.flights) == 0
            until(lambda: not other.exists(guard_name(b"p:k")))
            steps += 1
    assert steps > 0


def test_refreshed_result_that_is_not_to_be_stored_leaves_nothing(face, server):
    """What was there is out of date: it is served neither here nor elsewhere."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    results = iter(["old", "unfit"])

    def compute():
        return next(results)

    async def acompute():
        return next(results)

    function = cached(inner(one), key=lambda: "k", condition=lambda result: result != "unfit")(
        compute if face.name == "sync" else acompute
    )
    assert face.run(function) == "old" == two.get("k")
    assert face.run(function.refresh) == "unfit"
    two.sync()
    assert one.get("k") is None
    assert two.get("k") is None
    assert nothing_is_left(one)


@leases
def test_load_within_a_load_of_the_same_key(face, server, monkeypatch, lease):
    """The one runs beside the other, with a third key at once: each gives back what is its own, and both store."""
    monkeypatch.setattr("fastcache.leasing.PATIENCE", 0.1)  # the inner one waits for the lease of the outer
    events: list[Any] = []
    cache = heard(face.tiered(server.url, on_event=events.append))

    def load_many(keys):
        return {key: f"inner {key}" for key in keys}

    def load(key):
        assert cache.get_or_load_many(["a", "b"], load_many) == {"a": "inner a", "b": "inner b"}
        return "outer a"

    async def load_there(key):
        async def pause_and_load(keys):
            await asyncio.sleep(0.01)
            return load_many(keys)

        found = await cache.cache.get_or_load_many(["a", "b"], pause_and_load, policy=policy)
        assert found == {"a": "inner a", "b": "inner b"}
        return "outer a"

    policy = Policy(60, lease=lease)
    assert cache.get_or_load("a", load if face.name == "sync" else load_there, policy=policy) == "outer a"
    assert cache.drain(10)
    assert cache.get("b") == "inner b"
    assert cache.get("a") in {"inner a", "outer a"}
    assert [event for event in events if event.error is not None] == []
    assert nothing_is_left(cache)


def test_refresh_ahead_of_a_copy_and_of_another_at_once(face, server, other):
    """Without leases both are refreshed: the value that isn't here isn't taken for one that somebody else has renewed."""
    cache = heard(face.tiered(server.url, policy=Policy(60, refresh_ahead=1, lease=False, jitter=0)))
    for key in "ab":
        other.set(f"p:{key}", seal(b'"old"', 0, 10.0), px=50_000)
    runs: list[str] = []

    def load(keys):
        runs.extend(keys)
        return dict.fromkeys(keys, "new")

    inner(cache)._loading.random = lambda: 1.0  # not ahead at all
    assert cache.get_or_load_many(["b"], load) == {"b": "old"}
    inner(cache)._loading.random = lambda: math.exp(-6)  # 60 s ahead
    assert cache.get_or_load_many(["a", "b"], load) == {"a": "old", "b": "old"}
    assert cache.drain(10)
    assert sorted(runs) == ["a", "b"]
    assert cache.get_many(["a", "b"]) == {"a": "new", "b": "new"}


@leases
@pytest.mark.parametrize("renewed", [True, False])
def test_refresh_ahead_that_begins_late(face, server, other, lease, renewed):
    """What another process has renewed meanwhile isn't loaded once more; another load that ended here says nothing."""
    cache = heard(face.tiered(server.url, policy=Policy(60, refresh_ahead=1, lease=lease, jitter=0)))
    other.set("p:k", seal(b'"old"', 0, 10.0), px=50_000)
    inner(cache)._loading.random = lambda: math.exp(-6)  # 60 s ahead
    runs: list[str] = []

    def load(key):
        runs.append(key)
        return "loaded"

    go_on = hold_back(face, cache, "spawn_flight")
    assert cache.get_or_load("k", load) == "old"
    assert cache.get_or_load("another", lambda key: 1) == 1
    if renewed:
        other.set("p:k", seal(b'"renewed"', 0, 10.0), px=60_000)
    go_on()
    assert runs == ([] if renewed else ["k"])
    assert cache.drain(10)
    inner(cache)._loading.random = lambda: 1.0
    assert cache.get_or_load("k", load) == ("renewed" if renewed else "loaded")


WIDE = {
    "tag": lambda cache: cache.invalidate_tags("another"),
    "pattern": lambda cache: cache.delete_pattern("another*"),
}


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("coherence", ["pubsub", "tracking", None])
@pytest.mark.parametrize("change", WIDE.values(), ids=WIDE)
def test_change_of_others_during_a_load_does_not_concern_it(face, server, other, where, coherence, change):
    """Who invalidates tags and patterns all the time caches what takes long to load all the same."""
    one, two = (face.tiered(server.url, coherence=coherence) for _ in range(2))
    for cache in (one, two) if coherence else ():
        heard(cache)
    other.set("p:another", "1", px=50_000)
    runs: list[str] = []

    def load(key):
        runs.append(key)
        change(one if where == "here" else two)
        one.sync()
        return "value"

    assert one.get_or_load("k", slow(face, load), tags=["t"]) == "value"
    assert one.get_or_load("k", slow(face, load)) == "value" == two.get("k")
    assert runs == ["k"]
    assert one.stats().lease_refused == 0
    assert nothing_is_left(one)


@leases
@pytest.mark.parametrize(
    ("coherence", "where"),
    [*((each, where) for each in ("pubsub", "tracking") for where in ("here", "elsewhere")), (None, "here")],
)
@pytest.mark.parametrize("store", ["background", "foreground"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change_during_a_load_concerns_what_it_loads(face, server, monkeypatch, lease, where, coherence, store, change):
    """Its value is for those who waited already: it is served from nowhere, not even on its way into Redis."""
    monkeypatch.setattr("fastcache.leasing.PATIENCE", 0.05)  # who comes later waits for the lease of the one before
    one, two = (face.tiered(server.url, coherence=coherence) for _ in range(2))
    for cache in (one, two) if coherence else ():
        heard(cache)
    truth = {"k": "old"}
    go_on = hold_back(face, one) if store == "background" else None

    def load(key):
        value = truth[key]
        if value == "old":
            truth["k"] = "new"
            change(one if where == "here" else two)
            one.sync()
        return value

    policy = Policy(60, store=store, lease=lease, jitter=0)
    assert one.get_or_load("k", slow(face, load), policy=policy, tags=["t"]) == "old"
    if go_on is not None and inner(one)._loading.flights._storing:
        assert one.get_or_load("k", slow(face, load), policy=Policy(60), tags=["t"]) == "new"
        go_on()
    assert one.get("k") in {None, "new"}
    assert two.get("k") in {None, "new"}
    assert one.get_or_load("k", slow(face, load), policy=Policy(60), tags=["t"]) == "new"
    assert one.get("k") == "new" == two.get("k")
    assert nothing_is_left(one)


@leases
@pytest.mark.parametrize("change", [*CHANGES.values(), lambda cache: cache.set("k", "new")], ids=[*CHANGES, "set"])
def test_change_does_not_wait_for_a_store_that_has_not_begun(face, server, lease, change):
    """All workers may be busy for long. What was to be stored isn't any more."""
    cache = heard(face.tiered(server.url))
    policy = Policy(60, store="background", lease=lease, jitter=0)
    go_on = hold_back(face, cache)
    values = {"k": "old", "k2": "old", "another": 1}
    assert cache.get_or_load_many(list(values), lambda keys: values, policy=policy, tags=["t"]) == values
    start(change, cache)()
    go_on()
    assert cache.get("k") in {None, "new"}
    assert nothing_is_left(cache)
    assert not len(inner(cache)._loading.flights)
