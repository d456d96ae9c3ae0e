"""A replica set under Sentinels, and a real failover: the cache follows the new master by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis.asyncio.sentinel
import redis.exceptions
import redis.sentinel
import servers
from redis.backoff import NoBackoff
from redis.retry import Retry
from test_clients import exercise

from fastcache.errors import BackendError


@pytest.fixture
def replicas() -> Iterator[servers.ReplicaSet]:
    replicas = servers.ReplicaSet()
    yield replicas
    replicas.destroy()


def sentinel_of(face: Any, replicas: servers.ReplicaSet) -> Any:
    module = redis.sentinel if face.name == "sync" else redis.asyncio.sentinel
    retry = (Retry if face.name == "sync" else redis.asyncio.retry.Retry)(NoBackoff(), 0)
    options = {"socket_timeout": 0.25, "socket_connect_timeout": 0.25, "retry": retry}
    return module.Sentinel(replicas.addresses, sentinel_kwargs=options, **options)


def test_failover(face, replicas, note):
    """The master is killed; errors while there is none, then the former replica takes the writes."""
    sentinel = sentinel_of(face, replicas)
    master = sentinel.master_for(replicas.name)
    look = face.redis().Redis(port=replicas.master.port)
    exercise(face, face.on(master, "app", ttl=60, serializer="msgpack"), look)
    cache = face.on(master, "app", ttl=60)
    assert "mymaster" in repr(cache)
    cache.set("a", "before")
    with replicas.master.client() as writer:
        writer.wait(1, 5000)
    replicas.master.kill()
    start = time.monotonic()
    failures = 0
    while True:
        try:
            cache.set("b", "after")
            break
        except BackendError:
            failures += 1
            assert time.monotonic() - start < 30
            time.sleep(0.05)
    seconds = time.monotonic() - start
    note.say(f"failover on the {face.name} face: {seconds:.2f} s, {failures} calls failed meanwhile")
    assert cache.get("a") == "before"
    assert cache.get("b") == "after"
    with replicas.replica.client() as new:
        assert new.role()[0] == b"master"
    assert cache.stats().breaker == "closed"
    _close(face, sentinel, master, look)


def test_a_demoted_master_is_left_for_the_new_one(face, replicas):
    """SENTINEL FAILOVER: the old master lives on as a replica and refuses writes, which never opens the breaker."""
    sentinel = sentinel_of(face, replicas)
    master = sentinel.master_for(replicas.name)
    cache = face.on(master, "app", ttl=60)
    cache.set("a", "before")
    with replicas.sentinels[0].client() as admin:
        admin.execute_command("SENTINEL", "FAILOVER", replicas.name)
    end = time.monotonic() + 60
    while (_ask(replicas.replica, "ROLE") or [None])[0] != b"master":
        assert time.monotonic() < end
        time.sleep(0.05)
    while _ask(replicas.replica, "GET", "app:a") != b'"after"':
        try:
            cache.set("a", "after")
        except BackendError:
            time.sleep(0.05)
        assert time.monotonic() < end
    assert cache.get("a") == "after"
    assert cache.stats().breaker == "closed"
    _close(face, sentinel, master)


def _ask(server, *command):
    """What a server replies, None while it drops its connections to change its role."""
    with server.client() as client:
        try:
            return client.execute_command(*command)
        except redis.exceptions.ConnectionError:
            return None


def _close(face, sentinel, *clients):
    for client in (*clients, *sentinel.sentinels):
        face.run(client.close if face.name == "sync" else client.aclose)
        pool = client.connection_pool
        face.run(pool.disconnect)
