"""A real cluster of three primaries: keys on all of them, slots that move during calls, a primary that dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
import servers
from redis.backoff import NoBackoff
from redis.retry import Retry
from test_clients import BINARY

from fastcache.errors import BackendError
from fastcache.redis import RedisCache


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    cluster = servers.Cluster()
    yield cluster
    cluster.destroy()


def cluster_client(face: Any, cluster: servers.Cluster, **options: Any) -> Any:
    if face.name == "sync":
        nodes = [redis.cluster.ClusterNode(host, port) for host, port in cluster.startup]
        return redis.RedisCluster(startup_nodes=nodes, **options)
    nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in cluster.startup]
    return redis.asyncio.RedisCluster(startup_nodes=nodes, **options)


@pytest.fixture
def make(face, cluster) -> Iterator[Any]:
    """Caches on a cluster client of this face; the clients are closed at the end, for the cache leaves them open."""
    clients = []
    for node in cluster.nodes:
        with node.client() as look:
            look.flushall()

    def make(prefix="app", **options):
        client = cluster_client(face, cluster, **options)
        clients.append(client)
        return face.on(client, prefix, ttl=60, serializer="msgpack")

    yield make
    for client in clients:
        face.run(client.close if face.name == "sync" else client.aclose)


@pytest.mark.parametrize("decode_responses", [False, True], ids=["bytes", "str"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_every_operation_on_keys_of_all_primaries(make, cluster, decode_responses, protocol):
    """The same answers as a single server's, for keys that lie all over the place."""
    cache = make(decode_responses=decode_responses, protocol=protocol)
    cache.set("a", BINARY)
    assert cache.get("a") == BINARY
    assert cache["a"] == BINARY
    keys = {f"user:{number}": [number, BINARY] for number in range(300)}
    cache.set_many(keys, ttl=30)
    assert cache.get_many([*keys, "nothing"]) == keys
    assert 29 < cache.remaining("user:5") <= 30
    assert cache.exists("user:7") is True
    assert cache.delete("user:7") is True
    assert cache.delete("user:7") is False
    assert cache.delete_many(["user:8", "user:9", "user:9", "nothing"]) == 2
    for node in cluster.nodes:
        with node.client() as look:
            assert look.dbsize() > 50, "not all primaries hold keys"
    assert cache.delete_pattern("user:1??") == 100
    assert cache.clear() is None
    for node in cluster.nodes:
        with node.client() as look:
            assert look.dbsize() == 0
    assert cache.stats().backend_errors == 0


def test_clear_leaves_other_prefixes_alone_on_every_primary(make, cluster):
    """And a prefix with a hash tag puts a whole cache on one of them."""
    mine, other, tagged = make("app"), make("ap*"), make("{app}")
    for cache in (mine, other, tagged):
        cache.set_many({f"k{number}": number for number in range(100)})
    other.clear()
    assert len(mine.get_many([f"k{number}" for number in range(100)])) == 100
    assert len(tagged.get_many([f"k{number}" for number in range(100)])) == 100
    tagged.clear()
    mine.clear()
    for node in cluster.nodes:
        with node.client() as look:
            assert look.dbsize() == 0


def test_a_key_of_another_type_is_absent_from_get_many(make, cluster):
    """As MGET of a single server has it; GET says WRONGTYPE."""
    cache = make()
    slot = redis.cluster.key_slot(b"app:list")
    with cluster.nodes[cluster.owner(slot)].client() as look:
        look.lpush("app:list", 1)
    cache.set("a", 1)
    assert cache.get_many(["list", "a"]) == {"a": 1}
    with pytest.raises(BackendError, match="WRONGTYPE"):
        cache.get("list")


def test_slots_that_move_during_calls_are_followed(make, cluster):
    """Twenty slots go to another primary and back while the cache reads and writes keys in them: no call is lost."""
    cache = make()
    slots = {}
    number = 0
    while len(slots) < 20:
        slot = redis.cluster.key_slot(f"app:k{number}".encode())
        if cluster.owner(slot) == 0:
            slots.setdefault(slot, f"k{number}")
        number += 1
    keys = list(slots.values())
    cache.set_many({key: f"{key} at first" for key in keys})
    moved = threading.Event()

    def move():
        try:
            for slot in slots:
                cluster.move(slot, 0, 1)
            for slot in slots:
                cluster.move(slot, 1, 0)
        finally:
            moved.set()

    mover = threading.Thread(target=move)
    mover.start()
    rounds = 0
    while not moved.is_set() or rounds < 3:
        rounds += 1
        for key in keys:
            cache.set(key, f"{key} in round {rounds}")
            assert cache.get(key) == f"{key} in round {rounds}"
        assert cache.get_many(keys) == {key: f"{key} in round {rounds}" for key in keys}
        cache.set_many({key: f"{key} again" for key in keys})
        assert cache.get_many(keys) == {key: f"{key} again" for key in keys}
    mover.join()
    assert cache.delete_many(keys) == len(keys)
    assert cache.stats().breaker == "closed"


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_primary_that_is_away_fails_its_keys_and_spares_the_others(face, fault):
    """Errors in time, then at once, for a third of the keys; answers for the rest; all well again when it returns."""
    cluster = servers.Cluster()
    client = None
    try:
        retry = (redis.asyncio.retry.Retry if face.name == "asyncio" else Retry)(NoBackoff(), 0)
        options = {"socket_timeout": 0.25, "socket_connect_timeout": 0.25, "retry": retry}
        client = cluster_client(face, cluster, **options)
        cache = face.on(client, "app", ttl=60)
        keys = [f"k{number}" for number in range(100)]
        cache.set_many({key: key for key in keys})
        home = {key: cluster.owner(redis.cluster.key_slot(f"app:{key}".encode())) for key in keys}
        away = [key for key in keys if home[key] == 2]
        others = [key for key in keys if home[key] != 2]
        victim = cluster.nodes[2]
        victim.kill() if fault == "killed" else victim.freeze()
        for call in (lambda: cache.get_many(keys), lambda: cache.set_many(dict.fromkeys(keys, 1))):
            start = time.perf_counter()
            with pytest.raises(BackendError):
                call()
            assert time.perf_counter() - start < 2, "each key was tried by itself"
        for key in away:
            if cache.stats().breaker != "closed":
                break
            with pytest.raises(BackendError):
                cache.get(key)
        for key in away[:3]:
            with pytest.raises(BackendError, match="not tried"):
                cache.get(key)
        with pytest.raises(BackendError, match="not tried"):
            cache.get_many(keys)
        end = time.monotonic() + 15
        while True:  # until the PINGs to the others have cleared them
            try:
                assert all(cache.get(key) is not None for key in others)
                assert len(cache.get_many(others)) == len(others)
                break
            except BackendError:
                assert time.monotonic() < end
                time.sleep(0.05)
        with pytest.raises(BackendError, match="not tried"):
            cache.get(away[0])
        victim.start() if fault == "killed" else victim.thaw()
        while True:
            try:
                cache.set_many(dict.fromkeys(keys, "back"))
                break
            except BackendError:
                assert time.monotonic() < end + 15
                time.sleep(0.05)
        assert cache.get_many(keys) == dict.fromkeys(keys, "back")
        assert cache.stats().breaker == "closed"
    finally:
        if client is not None:
            face.run(client.close if face.name == "sync" else client.aclose)
        cluster.destroy()


def test_a_cluster_that_is_gone_opens_the_breaker_and_is_found_again():
    """All three away: errors, then at once; back: found by the probe."""
    cluster = servers.Cluster()
    try:
        nodes = [redis.cluster.ClusterNode(host, port) for host, port in cluster.startup]
        options: dict[str, Any] = {"socket_timeout": 0.25, "socket_connect_timeout": 0.25}
        client = redis.RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 0), **options)
        cache = RedisCache(client, "app", ttl=60)
        cache.set("a", 1)
        for node in cluster.nodes:
            node.kill()
        for _ in range(6):
            with pytest.raises(BackendError):
                cache.get("a")
        assert cache.stats().breaker == "open"
        with pytest.raises(BackendError, match="not tried"):
            cache.get("a")
        for node in cluster.nodes:
            node.start()
        end = time.monotonic() + 15
        while True:
            try:
                cache.set("a", 2)
                break
            except BackendError:
                assert time.monotonic() < end
                time.sleep(0.05)
        assert cache.get("a") == 2
        cache.close()
        client.close()
    finally:
        cluster.destroy()
