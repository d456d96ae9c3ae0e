"""get_or_load over a cluster: pipelines and the script that replaces a stale value go to the node of their key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis.asyncio
import redis.cluster
import servers

from fastcache import Policy

STALE = Policy(0.3, stale_for=60, jitter=0)
KEYS = [f"k{number}" for number in range(20)]  # on all nodes


@pytest.fixture
def cache(face: Any) -> Iterator[Any]:
    cluster = servers.Cluster()
    clients = redis.cluster if face.name == "sync" else redis.asyncio.cluster
    make = redis.RedisCluster if face.name == "sync" else redis.asyncio.RedisCluster
    client = make(startup_nodes=[clients.ClusterNode(host, port) for host, port in cluster.startup])
    yield face.on(client, "p", ttl=60)
    face.run(client.close if face.name == "sync" else client.aclose)
    cluster.destroy()


def test_stale_values_are_refreshed_in_a_cluster(cache):
    """Single keys and many of them, each on its node; nothing is refused."""
    calls = []

    def load(keys):
        calls.append(sorted(keys))
        return {key: f"{key} v{len(calls)}" for key in keys}

    assert len(cache.get_or_load_many(KEYS, load, policy=STALE)) == len(KEYS)
    while cache.get_many(KEYS):
        time.sleep(0.01)  # this clock is the server's
    assert cache.get_or_load_many(KEYS, load, policy=STALE) == {key: f"{key} v1" for key in KEYS}
    assert cache.drain(20)
    assert calls == [sorted(KEYS)] * 2
    assert cache.stats().lease_refused == 0
    again = Policy(60, stale_for=60)
    assert cache.get_or_load("k0", lambda key: "new", policy=again) == "k0 v2"
    assert cache.drain(20)
