"""The two-level cache when Redis answers with an error, has something else than it should, or takes no value."""

from __future__ import annotations

import math
import threading

import pytest
from test_tiered import heard, inner, trusted, until

from fastcache import MISSING, BackendError, Policy, SerializationError
from fastcache.plan import Call
from fastcache.scripts import FILL
from fastcache.sidekeys import guard_name


def test_guard_of_another_kind_is_said_and_the_loader_asked(face, server, other):
    """A script fails that reads it. What is loaded goes to the callers; what is written isn't read from Redis again."""
    events = []
    cache = heard(face.tiered(server.url, on_event=events.append))
    assert cache.get_or_load_many(["a", "b"], lambda keys: dict.fromkeys(keys, 0)) == {"a": 0, "b": 0}
    for key in "kl":
        other.rpush(guard_name(f"p:{key}".encode()), "not a guard")
    loaded = cache.get_or_load_many(["k", "l"], lambda keys: dict.fromkeys(keys, 1))
    assert loaded == {"k": 1, "l": 1}
    failed = [event for event in events if event.kind == "backend_error"]
    assert [event.key for event in failed] == [("k", "l")]
    assert "EVALSHA" in str(failed[0].error)
    assert "WRONGTYPE" in str(failed[0].error)
    assert cache.get_many(["k", "l"]) == {}
    assert cache.stats().breaker == "closed"
    cache.set_many({"k": 2, "l": 2})
    assert cache.get_many(["k", "l"]) == {}
    assert not other.exists("p:k", "p:l")


@pytest.mark.parametrize("data", [b"\xc1fc", b"\xc1fc\x09" + bytes(30), b"\xc1fc\x02" + bytes(13) + b"\0\5", b"{", b"\xff"])
def test_value_that_cannot_be_read_is_an_error_for_get_and_replaced_by_a_load(face, server, other, data):
    """Of one key and of many, with a report. It isn't remembered as a copy."""
    events = []
    cache = heard(face.tiered(server.url, on_event=events.append))
    other.set("p:k", data)
    other.set("p:good", "1")
    for call in (lambda: cache.get("k"), lambda: cache.get_many(["good", "k"]), lambda: cache["k"]):
        with pytest.raises(SerializationError, match="k'"):
            call()
    assert not events[1:]
    assert cache.get_or_load_many(["k", "good"], lambda keys: dict.fromkeys(keys, 2)) == {"k": 2, "good": 1}
    errors = [event for event in events if event.kind == "backend_error"]
    assert {event.key for event in errors} == {"k"}
    assert all(isinstance(event.error, SerializationError) for event in errors)
    assert cache.get("k") == 2
    other.set("p:k", data)
    other.delete("p:good")
    cache.clear()
    assert cache.get_or_load("k", lambda key: 3) == 3 == cache.get("k")


def test_value_that_cannot_be_stored_gives_its_lease_back(face, server, other):
    """The caller gets it, and nobody waits for the end of a lease."""
    events = []
    cache = heard(face.tiered(server.url, on_event=events.append))
    made = object()
    assert cache.get_or_load("k", lambda key: made) is made
    assert [type(event.error) for event in events if event.kind == "store_error"] == [SerializationError]
    assert not other.exists(guard_name(b"p:k"), "p:k")
    assert cache.get_or_load("k", lambda key: 1) == 1 == cache.get("k")


def test_token_that_is_gone_at_once_stores_nothing(face, server, other, monkeypatch):
    """A Redis that drops what it has just stored, for want of memory, say: values under no token would outlive a clear."""
    events = []
    cache = face.tiered(server.url, on_event=events.append)
    store = inner(cache)._store
    ask = store._ask_plan

    def emptied(asked):
        if asked[0][0] != "SET":
            return (yield from ask(asked))
        done = yield from ask(asked[::2])
        other.flushall()
        there = yield from ask(asked[1::2])
        return [reply for pair in zip(done, there, strict=True) for reply in pair]

    monkeypatch.setattr(store, "_ask_plan", emptied)
    assert cache.get_or_load("k", lambda key: 1, tags=["t"]) == 1
    cache.set("k", 2, tags=["t"])
    errors = [str(event.error) for event in events if event.kind == "backend_error"]
    assert len(errors) == 2
    assert all("a token that was just stored is gone" in error for error in errors)
    assert not other.exists("p:k")
    monkeypatch.undo()
    assert cache.get("k") is None
    assert cache.get_or_load("k", lambda key: 3, tags=["t"]) == 3


def test_stale_value_of_what_is_no_more_is_removed(face, server, other):
    """A loader that finds nothing, without a `missing_ttl`: the old value isn't served for ever."""
    cache = heard(face.tiered(server.url, policy=Policy(0.1, stale_for=60, jitter=0)))
    assert cache.get_or_load("k", lambda key: 1) == 1
    while cache.exists("k"):
        pass
    assert other.exists("p:k")
    assert cache.get_or_load("k", lambda key: MISSING, 7) == 1
    assert cache.drain(10)
    assert not other.exists("p:k")
    assert cache.get_or_load("k", lambda key: MISSING, 7) == 7


@pytest.mark.parametrize(
    ("ttl", "value", "kept"), [(60, 1, True), (math.inf, 1, False), (60, MISSING, False), (60, object(), False)],
    ids=["value", "for ever", "missing", "not to be stored"],
)  # fmt: skip
def test_loaded_value_that_redis_does_not_take(face, own_server, ttl, value, kept):
    """Is served, as a stale one, while the loader fails, if the policy likes it so; not for ever, and not a missing one."""
    policy = Policy(ttl, stale_for=60, missing_ttl=30, jitter=0)
    cache = heard(face.tiered(own_server.url, policy=policy, isolate=True))

    def load(key):
        own_server.kill()
        return value

    def fail(key):
        raise KeyError(key)

    assert cache.get_or_load("k", load, None) is (None if value is MISSING else value)
    if kept:
        assert cache.get_or_load("k", fail) == value
        assert cache.drain(10)
    else:
        with pytest.raises(KeyError):
            cache.get_or_load("k", fail)


@pytest.mark.parametrize("isolate", [False, True])
def test_value_that_cannot_be_stored_is_served_with_redis_away(face, own_server, isolate):
    """Nothing can be kept of it where every reader gets a copy of his own; the caller has it all the same."""
    cache = heard(face.tiered(own_server.url, policy=Policy(60, stale_for=60, jitter=0), isolate=isolate))
    own_server.kill()
    made = object()
    assert cache.get_or_load("k", lambda key: made) is made
    again = object()
    assert cache.get_or_load("k", lambda key: again) is (again if isolate else made)
    assert cache.drain(10)


def test_failed_loader_is_heard_though_its_lease_cannot_be_given_back(face, own_server):
    """Redis went away meanwhile: the caller is told what the loader raised, and the lease ends by itself."""
    cache = heard(face.tiered(own_server.url))

    def fail(key):
        own_server.kill()
        raise KeyError(key)

    with pytest.raises(KeyError):
        cache.get_or_load("k", fail)
    own_server.start()
    assert cache.get_or_load("k", lambda key: 1) == 1


@pytest.mark.parametrize("coherence", ["pubsub", "tracking", None])
def test_value_that_redis_did_not_take_is_not_relied_on(face, own_server, coherence):
    """Who invalidates it doesn't find it in Redis, and what isn't there isn't watched. With Redis away it may be served."""
    policy = Policy(60, stale_for=60, jitter=0)
    one, two = (face.tiered(own_server.url, policy=policy, coherence=coherence) for _ in range(2))
    if coherence is not None:
        heard(one), heard(two)
    one.set("another", 1)  # the namespace's token is new: that is heard, too
    one.sync()
    with own_server.client() as client:
        client.rpush(guard_name(b"p:k"), "not a guard")
        assert one.get_or_load("k", lambda key: "old") == "old"
        assert "Redis didn't take it" in one.explain("k")
        client.delete(guard_name(b"p:k"))
    two.invalidate("k")
    hits = one.stats().l1_hits
    assert one.get("k") is None
    assert one.get_many(["k"]) == {}
    assert not one.exists("k")
    assert one.stats().l1_hits == hits
    own_server.kill()
    if coherence == "pubsub":
        until(lambda: not trusted(one))
    assert one.get_or_load("k", lambda key: "new") == ("new" if coherence == "pubsub" else "old")


@pytest.mark.parametrize("how", ["invalidate", "set", "tag", "clear", "pattern"])
def test_value_that_redis_did_not_take_is_dropped_like_any_other(face, server, other, how):
    """What other processes write is heard, so a copy that only this process has isn't served after a change."""
    two = heard(face.tiered(server.url))
    cache = heard(face.tiered(server.url, policy=Policy(60, stale_for=60, jitter=0)))
    other.rpush(guard_name(b"p:k"), "not a guard")
    assert cache.get_or_load("k", lambda key: "old", tags=["t"]) == "old"
    other.delete(guard_name(b"p:k"))
    match how:
        case "invalidate":
            two.invalidate("k")
        case "set":
            two.set("k", "new")
        case "tag":
            two.invalidate_tags("t")
        case "clear":
            two.clear()
        case "pattern":
            two.delete_pattern("k*")
    cache.sync()
    assert cache.get("k") == ("new" if how == "set" else None)
    assert cache.get_or_load("k", lambda key: "new", tags=["t"]) == "new"


def test_value_that_was_invalidated_while_it_could_not_be_stored_is_not_kept(face, server, monkeypatch):
    """In the background, when the load is long over: what is heard then is against the value, too."""
    two = heard(face.tiered(server.url))
    cache = heard(face.tiered(server.url, policy=Policy(60, stale_for=60, store="background", jitter=0)))
    store = inner(cache)._store
    commands, driver = store._commands, inner(cache)._loading.driver
    scripts_plan, storing, go_on = commands._scripts_plan, threading.Event(), threading.Event()

    def refuse(script, calls):
        if script is not FILL:
            return (yield from scripts_plan(script, calls))
        storing.set()
        while not go_on.is_set():
            yield Call(driver.pause, 0.005)
        raise BackendError("refused")

    monkeypatch.setattr(commands, "_scripts_plan", refuse)
    assert cache.get_or_load("k", lambda key: "old") == "old"
    assert storing.wait(10)
    two.invalidate("k")
    cache.sync()
    go_on.set()
    assert cache.drain(10)
    assert cache.get("k") is None


@pytest.mark.parametrize("data", [b"\xff{", b"\xc1fc\x09"], ids=["not JSON", "no envelope"])
def test_value_that_cannot_be_read_is_there_all_the_same(face, server, other, data):
    """As `RedisCache` says, which doesn't look at it."""
    tiers, redis = heard(face.tiered(server.url)), face.from_url(server.url, "p", ttl=60)
    other.set("p:k", data, px=50_000)
    other.set("p:forever", data)
    for cache in (redis, tiers):
        assert cache.exists("k")
        assert 40 < cache.remaining("k") <= 50
        assert cache.remaining("forever") == math.inf
    with pytest.raises(SerializationError):
        tiers.get("k")


@pytest.mark.parametrize("at_once", [False, True], ids=["forgotten", "forgotten again"])
def test_script_that_redis_forgot_is_taught_once(face, server, other, monkeypatch, at_once):
    """For many keys at a time, one call teaches it, and the rest goes in one round trip; unless it forgets all the time."""
    cache = heard(face.tiered(server.url))
    commands = inner(cache)._store._commands
    script_plan, taught = commands._script_plan, []

    def teach(script, *call):
        taught.append(script)
        outcome = yield from script_plan(script, *call)
        if at_once:
            other.script_flush()
        return outcome

    values = {f"k{number}": number for number in range(5)}
    cache.set_many(dict.fromkeys(values))
    monkeypatch.setattr(commands, "_script_plan", teach)
    other.script_flush()
    cache.set_many(values)
    assert len(taught) == (5 if at_once else 1)
    assert cache.stats().backend_errors == 0
    monkeypatch.undo()
    assert heard(face.tiered(server.url)).get_many(values) == values
