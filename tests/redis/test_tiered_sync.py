"""What `sync()` promises while nothing is heard: what is being loaded may be older than what was written before it."""

from __future__ import annotations

import threading

import pytest
from test_tiered import heard, trusted, until

from fastcache import MemoryCache, RedisCache, TieredCache


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

    with (
        TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as cache,
        TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60), coherence=None) as other,
    ):
        heard(cache)
        attend = cache._listener.attend
        cache._listener.leave()
        cache._listener.attend = lambda: None
        until(lambda: not any(thread.name == "fastcache-listener" for thread in threading.enumerate()))
        assert not trusted(cache)
        loader = threading.Thread(target=lambda: cache.get_or_load("k", slow))
        loader.start()
        try:
            assert reads.wait(10)
            truth["k"] = "new"
            other.invalidate("k")
            if again:
                attend()
                until(lambda: trusted(cache))
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
