"""What `explain` says of every state that a key can be in, in memory and in Redis, and that a `get` does just that."""

from __future__ import annotations

import pytest
from test_tiered import heard, inner, trusted, until

from fastcache import MISSING, MemoryCache, Policy, RedisCache, TieredCache
from fastcache.sidekeys import guard_name

STALE = Policy(0.3, stale_for=60, missing_ttl=30, jitter=0)


@pytest.fixture
def one(face, server):
    return heard(face.tiered(server.url, policy=STALE))


def said(cache, where):
    """The line that `explain("k")` has of one place."""
    (line,) = (line for line in cache.explain("k").splitlines() if line.startswith(where))
    return line


def until_stale(other):
    until(lambda: 0 < other.pttl("p:k") < 60_000)


def test_copy(one):
    """None, a fresh one, a stale one, and a remembered miss."""
    assert said(one, "memory:") == "memory: no copy; one may be kept"
    assert one.get_or_load("k", lambda key: 1) == 1
    assert "a copy, fresh for 0." in said(one, "memory:")
    assert said(one, "memory:").endswith("it may be relied on")
    until(lambda: "a copy, stale" in said(one, "memory:"))
    one.delete("k")
    assert one.get_or_load("k", lambda key: MISSING, 7) == 7
    assert "remembered as missing for " in said(one, "memory:")
    assert 29 < float(said(one, "memory:").split(" for ")[1].split()[0]) <= 30


def test_nobody_listens(face, server):
    """Before the first operation, and where a cache was left on purpose; the next operation has somebody listen."""
    cache = face.tiered(server.url)
    assert said(cache, "memory:") == "memory: no copy; not relied on: nobody listens yet"
    heard(cache)
    assert said(cache, "memory:") == "memory: no copy; one may be kept"


def test_value_in_redis(one, face, server, other):
    """None, a fresh one, a stale one (a miss for `get`, served by `get_or_load`), and a remembered miss."""
    two = face.tiered(server.url, policy=STALE)
    assert said(two, "redis:") == "redis: no value; get_or_load would call the loader"
    one.get_or_load("k", lambda key: 1)
    assert "redis: a value, fresh for 0." in said(two, "redis:")
    until_stale(other)
    assert said(two, "redis:").startswith("redis: a stale value; get misses, get_or_load serves it under stale_for")
    assert two.get("k") is None
    assert two.get_or_load("k", lambda key: 2) == 1
    assert two.drain(10)
    one.delete("k")
    one.get_or_load("k", lambda key: MISSING, None)
    assert "redis: remembered as missing for " in said(two, "redis:")
    assert 29 < float(said(two, "redis:").split(" for ")[1].split()[0]) <= 30
    assert two.get_or_load("k", lambda key: 3, 7) == 7


@pytest.mark.parametrize("how", ["tag", "clear", "envelope", "serializer"])
def test_value_that_does_not_hold(face, server, other, how):
    """Its tag or everything was invalidated, or it isn't what this cache reads: the loader's turn."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    one.set("k", 1, tags=["t"])
    if how == "tag":
        one.invalidate_tags("t")
    elif how == "clear":
        one.clear()
    else:
        other.set("p:k", b"\xc1fc\x09 an envelope of a later version" if how == "envelope" else b"{")
    assert said(two, "redis:") == "redis: a value that can't be read, or was invalidated by its tags or by clear(); a miss"
    assert two.get_or_load("k", lambda key: 2) == 2 == two.get("k")


@pytest.mark.parametrize("who", ["loader", "writer"])
def test_guard(face, server, one, other, who):
    """Who holds the key, and for how long: the loader and the writer are told apart."""
    name = guard_name(b"p:k")

    def look() -> None:
        seen.append(said(one, "guard:"))
        left = float(seen[0].split(" for ")[1].split()[0])
        assert 0.9 * other.pttl(name) / 1000 <= left <= {"loader": 1.5, "writer": 10}[who]

    seen: list[str] = []
    with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as two:
        if who == "writer":
            with two.writing("k"):
                look()
        else:
            two.get_or_load("k", lambda key: look())
    wanted = {"loader": "is being loaded: others wait", "writer": "is being written: nothing is stored"}[who]
    assert seen[0].startswith(f"guard: the key {wanted}, for ")
    assert "guard:" not in one.explain("k")


def test_tier_that_was_closed_behind_the_cache(face, server):
    """Who closes the second tier by itself ends the listening, too: no copy is relied on, and `explain` says why."""
    cache = heard(face.tiered(server.url))
    cache.set("k", 1)
    assert cache.get("k") == 1
    if face.name == "sync":
        inner(cache).remote.close()
    else:
        cache._runner.run(inner(cache).remote.close())
    until(lambda: not trusted(cache))
    until(lambda: "no cache is left to listen for" in said(cache, "memory:"))
    assert "not relied on: not listening" in said(cache, "memory:")
    assert said(cache, "redis:").startswith("redis: away: ")
    assert cache.get("k", "nothing") == "nothing"
    assert cache.get_or_load("k", lambda key: 2) == 2
