"""The two-level cache while a primary of a cluster dies, or hands over: no errors, no old values, and coherent again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio.retry
import servers
from redis.backoff import NoBackoff
from redis.retry import Retry
from test_tiered import heard, inner, trusted, until
from test_tiered_cluster import SPREAD, maker, slot_of

pytestmark = pytest.mark.slow

PATIENCE = 10.0  # seconds that no reader waits, on a busy machine: the times themselves are printed at the end


@pytest.fixture(params=list(servers.BINARIES)[:1])
def cluster(request: pytest.FixtureRequest) -> Iterator[servers.Cluster]:
    """With a replica for each primary, of which others know after half a second that it is gone."""
    cluster = servers.Cluster(replicas=True, binary=servers.BINARIES[request.param], cluster_node_timeout=500)
    yield cluster
    cluster.destroy()


@pytest.fixture
def make(face: Any, cluster: servers.Cluster) -> Iterator[Callable[..., Any]]:
    yield from maker(face, cluster)


def impatient(face: Any, **options: Any) -> dict[str, Any]:
    """How a client should be made: it doesn't wait for a dead node, nor try again."""
    retry = (Retry if face.name == "sync" else redis.asyncio.retry.Retry)(NoBackoff(), 0)
    return {"socket_timeout": 0.25, "socket_connect_timeout": 0.25, "retry": retry, **options}


class Load:
    """A database of numbers that grow, one who writes them and invalidates, and readers of all caches, in threads."""

    def __init__(self, face: Any, caches: list[Any], keys: list[str]) -> None:
        self._face = face
        self._caches = caches
        self.rows = dict.fromkeys(keys, 0)
        self.errors: list[BaseException] = []
        self.slowest = 0.0
        self.reads = 0
        self.writing = threading.Event()
        self.idle = threading.Event()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(self._write,))]
        self._threads += [threading.Thread(target=self._run, args=(self._read, cache)) for cache in caches]

    def read(self, cache: Any, key: str) -> Any:
        if self._face.name == "sync":
            return cache.get_or_load(key, self.rows.__getitem__)

        async def load(key: str) -> int:
            return self.rows[key]

        return cache.get_or_load(key, load)

    def _run(self, function: Callable[..., None], *args: Any) -> None:
        while not self._stopped.is_set():
            try:
                function(*args)
            except BaseException as error:
                self.errors.append(error)
                return

    def _write(self) -> None:
        for key in self.rows:
            if not self.writing.is_set():
                self.idle.set()
                self.writing.wait()
            self.rows[key] += 1
            self._caches[0].invalidate(key)
            time.sleep(0.001)

    def _read(self, cache: Any) -> None:
        for key in self.rows:
            before = time.perf_counter()
            self.read(cache, key)
            self.slowest = max(self.slowest, time.perf_counter() - before)
            self.reads += 1

    def pause(self) -> None:
        """Write no more."""
        self.idle.clear()
        self.writing.clear()
        assert self.idle.wait(20)

    def go_round(self) -> None:
        """Until each key has been written twice more: what a primary took that was one no more, without knowing, is lost."""
        last = max(self.rows.values())
        until(lambda: self.errors or min(self.rows.values()) > last + 1, 20)

    def __enter__(self) -> Load:
        self.writing.set()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self.writing.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Afterwards, with all invalidations taken: nobody serves anything old, from either tier."""
        assert not self.errors
        until(lambda: not any(inner(cache)._loading.outbox for cache in self._caches) or self._nudge(), 20)
        for cache in self._caches:
            until(lambda cache=cache: trusted(cache) or self._nudge(), 20)
        for cache in self._caches:
            cache.sync()
            assert self._all(cache) == self.rows
            # (The client of one may still have to learn who is primary, by a call of its own.)
            until(lambda cache=cache: self._all(cache) == self.rows == cache.get_many(list(self.rows)))
        for key in self.rows:
            self.rows[key] += 1
            self._caches[0].invalidate(key)
        for cache in self._caches:
            cache.sync()
            assert self._all(cache) == self.rows

    def _all(self, cache: Any) -> dict[str, Any]:
        return {key: self.read(cache, key) for key in self.rows}

    def _nudge(self) -> None:
        """Waiting invalidations are sent by who comes along."""
        for cache in self._caches:
            self.read(cache, next(iter(self.rows)))


def replicated(server: servers.Server) -> None:
    """Until the replica of a primary has what it has: what a failover loses is lost."""
    with server.client() as client:
        client.execute_command("WAIT", 1, 5000)


def survive(face: Any, make: Callable[..., Any], cluster: servers.Cluster, fault: str, coherence: str, protocol: int) -> str:
    """Take a primary away under load. Returns what was measured."""
    one, two = (heard(make(client=impatient(face, protocol=protocol), coherence=coherence)) for _ in range(2))
    victim = cluster.nodes[0]
    with Load(face, [one, two], SPREAD) as load:
        time.sleep(0.5)
        load.pause()
        replicated(victim)
        epoch, reads = max(inner(cache)._front.epoch for cache in (one, two)), load.reads
        victim.kill() if fault == "killed" else victim.freeze()
        began = time.monotonic()
        load.writing.set()
        fronts = [inner(one)._front, inner(two)._front]
        until(lambda: all(not front.gate.is_open() or front.epoch > epoch for front in fronts))
        shut = time.monotonic() - began
        until(lambda: cluster.is_primary(3), 20)
        promoted = time.monotonic() - began
        until(lambda: trusted(one) and trusted(two), 20)
        back = time.monotonic() - began
        assert f"127.0.0.1:{cluster.nodes[3].port}" in inner(one)._listener.hub.lines
        victim.start() if fault == "killed" else victim.thaw()
        until(lambda: not cluster.is_primary(0), 20)
        time.sleep(0.5)
    assert shut < (2 if fault == "killed" else 2.5)
    assert load.slowest < PATIENCE
    assert inner(two)._front.epoch > epoch
    load.check()
    return (
        f"{face.name}, {fault}, {coherence}, RESP{protocol}: shut after {shut:.3f} s, promoted {promoted:.2f}, coherent"
        f" {back:.2f}; {load.reads - reads} reads, the slowest {load.slowest:.2f} s"
    )


@pytest.mark.parametrize(
    ("fault", "coherence", "protocol"),
    [("killed", "pubsub", 2), ("killed", "tracking", 3), ("frozen", "pubsub", 3), ("frozen", "tracking", 2)],
)
def test_lost_primary_is_succeeded(face, make, cluster, fault, coherence, protocol, note):
    """Copies aren't relied on until there is a line to the new primary, and no caller notices."""
    note.say(survive(face, make, cluster, fault, coherence, protocol))


EVERYWHERE = pytest.mark.parametrize("cluster", servers.BINARIES, indirect=True)


@EVERYWHERE
def test_killed_primary_is_succeeded_on_every_server(face, make, cluster, note):
    """The same with each kind of server, with and without shard channels."""
    note.say(survive(face, make, cluster, "killed", "pubsub", 3))


@EVERYWHERE
def test_handing_over_is_not_noticed(face, make, cluster, note):
    """CLUSTER FAILOVER under load, there and back: the demoted primary lives on, and isn't listened to any more."""
    one, two = (heard(make(client=impatient(face))) for _ in range(2))
    with Load(face, [one, two], SPREAD) as load:
        time.sleep(0.3)
        for number in (3, 0):
            cluster.hand_over(number)
            name = f"127.0.0.1:{cluster.nodes[number].port}"
            hub = inner(one)._listener.hub
            until(lambda hub=hub, name=name: name in hub.lines and trusted(one) and trusted(two), 20)
            assert len(hub.lines) == 3
    note.say(f"{face.name}, handed over twice: {load.reads} reads, the slowest {load.slowest:.2f} s")
    assert load.slowest < PATIENCE
    load.check()


def test_idle_process_notices_that_a_primary_handed_over(face, make, cluster):
    """It sends no command that would tell its client; its line finds out, by its own question."""
    one, two = (heard(make(client=impatient(face))) for _ in range(2))
    keys = [key for key in SPREAD if cluster.owner(slot_of(key)) == 0]
    one.set_many(dict.fromkeys(keys, 1))
    assert two.get_many(keys) == dict.fromkeys(keys, 1)
    cluster.hand_over(3)
    name = f"127.0.0.1:{cluster.nodes[3].port}"
    until(lambda: name in inner(one)._listener.hub.lines and trusted(two), 20)
    with cluster.nodes[3].client() as new:  # no tiered cache of this process
        assert new.get(f"p:{keys[0]}") is not None
    one.set_many(dict.fromkeys(keys, 2))
    two.sync()
    assert two.get_many(keys) == dict.fromkeys(keys, 2)
