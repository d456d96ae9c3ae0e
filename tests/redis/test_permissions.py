"""`RedisCache` for users who may not do everything: an error names the command, a load goes on without Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis.asyncio
import servers
from test_cluster import cluster_client

from fastcache import BackendError, Policy
from fastcache.envelope import seal

STALE = Policy(60, stale_for=60, jitter=0)


@pytest.fixture
def restricted(face, server) -> Iterator[Callable[..., Any]]:
    """A cache of a user who may do all but what is named."""
    with server.client() as admin:

        def make(*commands: str, **options: Any) -> Any:
            rules = ("reset", "on", ">secret", "~*", "&*", "+@all", *(f"-{command}" for command in commands))
            admin.execute_command("ACL", "SETUSER", "limited", *rules)
            return face.from_url(f"redis://limited:secret@127.0.0.1:{server.port}", "p", ttl=60, **options)

        yield make
        face.forget()
        admin.execute_command("ACL", "DELUSER", "limited")


def test_life_that_may_not_be_asked_for(restricted, other):
    """Is an error for who asks, and no reason not to load."""
    events = []
    cache = restricted("pttl", on_event=events.append)
    for call in (cache.remaining, cache.exists):
        with pytest.raises(BackendError, match=r"PTTL.*permission"):
            call("k")
    cache.set("k", 1)
    assert cache.get("k") == 1
    other.set("p:stale", seal(b"1", 60.0, 0.1), px=100_000)
    other.set("p:stale2", seal(b"1", 60.0, 0.1), px=100_000)
    for policy in (None, STALE):
        events.clear()
        assert cache.get_or_load("stale", lambda key: "loaded", policy=policy) == "loaded"
        keys = ["stale", "stale2"]
        assert cache.get_or_load_many(keys, lambda keys: dict.fromkeys(keys, 2), policy=policy) == dict.fromkeys(keys, 2)
        errors = [event.error for event in events if event.kind == "backend_error"]
        assert [type(error) for error in errors] == [BackendError] * 2
        assert all("permission" in str(error) for error in errors)
    assert cache.stats().breaker == "closed"
    assert other.get("p:stale") == seal(b"1", 60.0, 0.1)


def test_values_that_may_not_be_stored(restricted, other):
    """Are served, and reported once for a batch; a `set` is told."""
    events = []
    cache = restricted("set", on_event=events.append)
    assert cache.get_or_load_many(["k", "l"], lambda keys: dict.fromkeys(keys, 1)) == {"k": 1, "l": 1}
    errors = [event for event in events if event.kind == "backend_error"]
    assert [event.key for event in errors] == [("k", "l")]
    assert "SET" in str(errors[0].error)
    assert "permission" in str(errors[0].error)
    with pytest.raises(BackendError, match=r"2 of 2 not stored.*permission"):
        cache.set_many({"k": 1, "l": 1})
    assert other.dbsize() == 0
    assert cache.stats().breaker == "closed"


@pytest.mark.parametrize("call", [lambda cache: cache.get_many(["a", "b", "c"]), lambda cache: cache.delete_many(["abc"])])
def test_error_of_a_cluster_names_the_command(face, call):
    """Of one key of many, which are asked for in a pipeline there."""
    cluster = servers.Cluster()
    client = None
    try:
        for node in cluster.nodes:
            with node.client() as admin:
                admin.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-get", "-unlink")
        client = cluster_client(face, cluster, username="limited", password="secret")
        cache = face.on(client, "p", ttl=60)
        cache.set_many({"a": 1, "b": 2, "c": 3})
        with pytest.raises(BackendError, match=r"(GET|UNLINK): .*permission"):
            call(cache)
        assert cache.stats().breaker == "closed"
        assert cache.stats().backend_errors == 1
        assert cache.exists("a")
    finally:
        face.forget()
        if client is not None:
            face.run(client.close if face.name == "sync" else client.aclose)
        cluster.destroy()


@pytest.mark.parametrize("face", ["asyncio"], indirect=True)
def test_cluster_that_is_away_from_the_start(face):
    """An asyncio client asks for the nodes with the first command; that may be one of all nodes."""
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=servers.free_port())
    cache = face.on(client, "p", ttl=60)
    for call in (lambda: cache.delete_pattern("*"), lambda: cache.clear()):
        with pytest.raises(BackendError, match="SCAN: "):
            call()
    face.run(client.aclose)
