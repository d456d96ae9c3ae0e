"""The two-level cache over a master that Sentinels watch, while it dies or is demoted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import servers
from test_sentinel import sentinel_of
from test_tiered import heard, inner, trusted, until
from test_tiered_failover import PATIENCE, Load, replicated

pytestmark = pytest.mark.slow

KEYS = [f"k{number}" for number in range(30)]
ONE_HEARD = ([(False, False), (True, True)], [(True, True), (False, False)])  # (is master, is listened to) of each server


@pytest.fixture
def replicas() -> Iterator[servers.ReplicaSet]:
    replicas = servers.ReplicaSet()
    yield replicas
    replicas.destroy()


@pytest.fixture
def make(face: Any, replicas: servers.ReplicaSet) -> Iterator[Callable[..., Any]]:
    clients = []

    def make(**options: Any) -> Any:
        sentinel = sentinel_of(face, replicas)
        master = sentinel.master_for(replicas.name, protocol=options.pop("protocol", 3))
        clients.extend((master, *sentinel.sentinels))
        return face.tiered("", client=master, **options)

    yield make
    face.forget()
    for client in clients:
        face.run(client.close if face.name == "sync" else client.aclose)
        face.run(client.connection_pool.disconnect)


def test_each_client_listens_where_it_reads(face, make):
    """Clients find the master by themselves: what one reads from the old one is none of what is heard from the new one."""
    one, two = heard(make()), heard(make())
    assert inner(one)._listener.hub is not inner(two)._listener.hub
    assert inner(one)._listener.hub is inner(heard(face.tiered("", "q", client=inner(one).remote.client)))._listener.hub


def is_master(server: servers.Server) -> bool:
    try:
        with server.client() as client:
            return client.role()[0] == b"master"
    except OSError:
        return False
    except servers.redis.exceptions.ConnectionError:
        return False


def listened_to(server: servers.Server) -> bool:
    with server.client() as client:
        return len(client.pubsub_channels("fastcache-news:*")) == 1


@pytest.mark.parametrize(("fault", "coherence"), [("killed", "tracking"), ("frozen", "pubsub")])
def test_lost_master_is_succeeded(face, make, replicas, fault, coherence, note):
    """No caller notices, copies aren't relied on before the new master is listened to, and nothing old is served."""
    one, two = heard(make(coherence=coherence)), heard(make(coherence=coherence))
    with Load(face, [one, two], KEYS) as load:
        time.sleep(0.5)
        load.pause()
        replicated(replicas.master)
        fronts = [inner(one)._front, inner(two)._front]
        epoch, reads = max(front.epoch for front in fronts), load.reads
        replicas.master.kill() if fault == "killed" else replicas.master.freeze()
        began = time.monotonic()
        load.writing.set()
        until(lambda: all(not front.gate.is_open() or front.epoch > epoch for front in fronts))
        shut = time.monotonic() - began
        until(lambda: is_master(replicas.replica), 60)
        promoted = time.monotonic() - began
        until(lambda: trusted(one) and trusted(two), 20)
        back = time.monotonic() - began
        replicas.master.start() if fault == "killed" else replicas.master.thaw()
        until(lambda: not is_master(replicas.master), 60)
        until(lambda: trusted(one) and trusted(two), 20)
        load.go_round()
    note.say(
        f"{face.name}, {fault}, {coherence}: shut after {shut:.3f} s, promoted {promoted:.2f}, coherent {back:.2f};"
        f" {load.reads - reads} reads, the slowest {load.slowest:.2f} s"
    )
    assert shut < (2 if fault == "killed" else 2.5)
    assert load.slowest < PATIENCE
    load.check()


@pytest.mark.parametrize("protocol", [2, 3])
def test_demoted_master_is_left_for_the_new_one(face, make, replicas, protocol):
    """SENTINEL FAILOVER: the old one lives on as a replica; what is written to the new one is heard.

    Until it is told that it is one, it takes writes that are lost then: nobody writes meanwhile.
    """
    one, two = heard(make(protocol=protocol)), heard(make(protocol=protocol))
    with Load(face, [one, two], KEYS) as load:
        time.sleep(0.3)
        load.pause()
        replicated(replicas.master)
        with replicas.sentinels[0].client() as admin:
            admin.execute_command("SENTINEL", "FAILOVER", replicas.name)
        until(lambda: is_master(replicas.replica) and not is_master(replicas.master), 60)
        until(lambda: trusted(one) and trusted(two), 20)
        load.writing.set()
        time.sleep(0.5)
    load.check()
    # On a machine that is busy the Sentinels may take the new one for dead and hand over once more.
    until(lambda: [(is_master(each), listened_to(each)) for each in (replicas.master, replicas.replica)] in ONE_HEARD, 20)
