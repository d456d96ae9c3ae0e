"""What `sync()` promises while nothing is heard: what is being loaded may be older than what was written before it."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
from test_tiered import heard, trusted, until

from fastcache import MemoryCache, Policy, RedisCache, TieredCache
from fastcache.scripts import FILL


@contextmanager
def two(server, **options):
    """A cache whose line went down while it was heard, what brings it up again, and another process's cache."""
    with (
        TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60), **options) as cache,
        TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60), coherence=None) as other,
    ):
        heard(cache)
        attend = cache._listener.attend
        cache._listener.leave()
        cache._listener.attend = lambda: None
        until(lambda: not any(thread.name == "fastcache-listener" for thread in threading.enumerate()))
        assert not trusted(cache)

        def bring_up():
            attend()
            until(lambda: trusted(cache))

        yield cache, bring_up, other


@pytest.mark.parametrize("again", [False, True], ids=["not heard", "heard again"])
def test_sync_shares_no_load_that_is_older(server, again):
    """A load that began before an invalidation that wasn't heard isn't what a later caller gets."""
    truth = {"k": "old"}
    reads, go_on = threading.Event(), threading.Event()

    def slow(key):
        value = truth[key]
        reads.set()
        assert go_on.wait(10)
        return value

    with two(server) as (cache, bring_up, other):
        loader = threading.Thread(target=lambda: cache.get_or_load("k", slow))
        loader.start()
        try:
            assert reads.wait(10)
            truth["k"] = "new"
            other.invalidate("k")
            if again:
                bring_up()
            cache.sync()
            answers: list[str] = []
            reader = threading.Thread(target=lambda: answers.append(cache.get_or_load("k", truth.__getitem__)))
            reader.start()
            reader.join(5)
            assert answers == ["new"]
        finally:
            go_on.set()
            loader.join()
        cache.sync()
        assert cache.get("k") in ("new", None)


def test_load_during_which_the_line_comes_up_is_stored(server):
    """Its lease says that nobody invalidated the key: what a process loads first is worth as much as what follows."""
    with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as cache:
        attend = cache._listener.attend
        cache._listener.attend = lambda: None

        def load(key):
            assert not trusted(cache)
            attend()
            until(lambda: trusted(cache))
            return "value"

        assert cache.get_or_load("k", load) == "value"
        assert cache.stats().lease_refused == 0
        with server.client() as client:
            assert client.exists("p:k")
        assert not cache._loading.flights._alone


@pytest.mark.parametrize(
    ("policy", "change"),
    [
        (None, lambda cache: cache.clear()),
        (None, lambda cache: cache.invalidate_tags("t")),
        (Policy(60, lease=False), lambda cache: cache.invalidate("k")),
    ],
    ids=["clear", "tag", "without a lease"],
)
def test_load_that_missed_an_invalidation_is_kept_nowhere(server, policy, change):
    """Not by who begins to hear again before it ends: no lease tells of tags, and without a lease nothing tells."""
    truth = {"k": "old"}
    with two(server, policy=policy) as (cache, bring_up, other):

        def load(key):
            value = truth[key]
            truth[key] = "new"
            change(other)
            bring_up()
            return value

        assert cache.get_or_load("k", load, tags=("t",)) == "old"
        assert cache.get("k") is None
        assert other.get("k") is None
        assert cache.get_or_load("k", truth.__getitem__, tags=("t",)) == "new" == cache.get("k")


def test_sync_shares_no_value_that_is_just_being_stored(server):
    """It may be older than what was invalidated meanwhile."""
    truth = {"k": "old"}
    filling, go_on = threading.Event(), threading.Event()
    with two(server) as (cache, _, other):
        commands = cache._store._commands
        scripts_plan = commands._scripts_plan

        def slowly(script, calls):
            if script is FILL and not go_on.is_set():
                filling.set()
                assert go_on.wait(10)
            return (yield from scripts_plan(script, calls))

        commands._scripts_plan = slowly
        loader = threading.Thread(target=lambda: cache.get_or_load("k", truth.__getitem__))
        loader.start()
        try:
            assert filling.wait(10)
            truth["k"] = "new"
            other.invalidate("k")
            cache.sync()
            answers: list[str] = []
            reader = threading.Thread(target=lambda: answers.append(cache.get_or_load("k", truth.__getitem__)))
            reader.start()
            until(lambda: answers or cache.stats().loads == 2)
        finally:
            go_on.set()
            loader.join()
        reader.join(10)
        assert answers == ["new"]
