"""`cached` over Redis: keys and values are shared by processes, whatever their PYTHONHASHSEED."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from fastcache import ConfigurationError, MemoryCache, TieredCache, cached
from fastcache.redis import RedisCache

SCRIPT = """
import sys
from fastcache import cached
from fastcache.redis import RedisCache
runs = []
with RedisCache.from_url(sys.argv[1], "p", ttl=60) as cache:
    @cached(cache)
    def f(x, *, names):
        runs.append(x)
        return sorted(names)
    print(f(1, names={"b", "a", "c"}), f.cache_key(1, names={"b", "a", "c"}), file=sys.stderr)
    print(len(runs))
"""


@dataclass
class User:
    id: int


def test_processes_share_keys(server):
    """The first runs the function, the second finds its result."""
    runs, said = [], set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", SCRIPT, server.url]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        runs.append(done.stdout.strip())
        said.add(done.stderr)
    assert runs == ["1", "0"]
    assert len(said) == 1


def test_tags_of_a_call_invalidate_its_result(face, server):
    """Those of templates or of a function; what `refresh` stores has them, too."""
    cache, runs = face.tiered(server.url), []

    def load(user, kind="k"):
        runs.append(user)
        return len(runs)

    async def aload(user, kind="k"):
        return load(user, kind)

    bare = getattr(cache, "cache", cache)
    function = load if face.name == "sync" else aload
    for tags in (["all", "user:{user}"], lambda user, kind="k": ["all", f"user:{user}"]):
        cached_load = cached(bare, key="f:{user}", tags=tags)(function)
        for refresh in (False, True):
            for tag, stays in (("user:2", True), ("user:1", False), ("all", False)):
                before = face.run(cached_load.refresh if refresh else cached_load, 1)
                assert face.run(cached_load, 1) == before
                cache.invalidate_tags(tag)
                assert (face.run(cached_load, 1) == before) is stays
        face.run(cached_load.invalidate, 1)


def test_type_brings_back_what_was_returned(server):
    """A hit is of the type that the function returns; a long key is taken, an absent ttl refused when decorating."""
    with RedisCache.from_url(server.url, "p", ttl=60) as cache:
        function = cached(cache, key="u:{text}", type=User)(lambda text: User(len(text)))
        for text in ("a", "a" * 5000):
            assert function(text) == function(text) == User(len(text))
        assert function.refresh("a") == User(1)
        function.invalidate("a")
        assert not cache.exists("u:a")
    with RedisCache.from_url(server.url, "p") as cache, pytest.raises(ConfigurationError, match="no ttl"):
        cached(cache)(len)


def test_refreshed_result_keeps_its_tags(server):
    """What `refresh` stores is invalidated by the tags of the call, as what a call stores is."""
    with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as cache:
        runs = []

        @cached(cache, key="u:{number}", tags=("users", "user:{number}"))
        def load(number):
            runs.append(number)
            return len(runs)

        assert load(1) == 1 == load(1)
        assert load.refresh(1) == 2 == load(1)
        cache.invalidate_tags("user:2")
        assert load(1) == 2
        cache.invalidate_tags("user:1")
        assert load(1) == 3
        assert load.refresh(1) == 4
        cache.invalidate_tags("users")
        assert load(1) == 5
