"""The two-level cache on a real cluster, with every server there is: keys of all primaries, shard channels, moving slots.

Two caches stand for two processes; what happens when a primary dies is in `test_tiered_failover.py`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import servers
from redis.cluster import key_slot
from test_cluster import cluster_client
from test_tiered import heard, inner, slow, trusted, until
from test_tiered_refresh import drive

from fastcache import MISSING, Policy
from fastcache.sidekeys import ANCHORS, guard_name

AWKWARD = ["{a}b", "a{b", "a}b", "{}a", "{}{a}", "a{}{b}c", "}{", "{{a}}", "x{y}z{w}", "ключ", "a b\n"]
SPREAD = [f"k{number}" for number in range(60)]  # on all primaries


@pytest.fixture(scope="module", params=servers.BINARIES)
def cluster(request: pytest.FixtureRequest) -> Iterator[servers.Cluster]:
    cluster = servers.Cluster(binary=servers.BINARIES[request.param])
    yield cluster
    cluster.destroy()


@pytest.fixture
def make(face: Any, cluster: servers.Cluster) -> Iterator[Callable[..., Any]]:
    """Caches on cluster clients of their own, which are closed at the end."""
    yield from maker(face, cluster)


def maker(face: Any, cluster: servers.Cluster) -> Iterator[Callable[..., Any]]:
    clients = []
    for node in cluster.nodes:
        with node.client() as look:
            if look.role()[0] == b"master":
                look.flushall()

    def make(prefix: str = "p", client: dict[str, Any] | None = None, **options: Any) -> Any:
        clients.append(cluster_client(face, cluster, **(client or {})))
        return face.tiered("", prefix, client=clients[-1], **options)

    yield make
    face.forget()
    for client in clients:
        face.run(client.close if face.name == "sync" else client.aclose)


def has_shards(cluster: servers.Cluster) -> bool:
    return servers.kind_of(cluster.nodes[0].binary)[1] >= 7


def slot_of(key: str) -> int:
    return key_slot(f"p:{key}".encode())


@pytest.mark.parametrize("decode_responses", [False, True], ids=["bytes", "str"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_every_operation_on_keys_of_all_primaries(make, cluster, protocol, decode_responses):
    """The same answers as a single server's, for keys that lie all over the place."""
    one, two = (heard(make(client={"protocol": protocol, "decode_responses": decode_responses})) for _ in range(2))
    news = listen_in(one)
    values = {key: [key, 1] for key in SPREAD + AWKWARD}
    assert {cluster.owner(slot_of(key)) for key in SPREAD} == {0, 1, 2}
    one.set_many(values, tags=["t"])
    assert two.get_many([*values, "nothing"]) == values
    assert {key: two.get(key) for key in values} == values
    assert {key: one[key] for key in values} == values
    assert all(one.exists(key) and 50 < one.remaining(key) <= 60 for key in AWKWARD)
    assert "a value, fresh" in one.explain("k1")
    assert one.delete("k1") is True
    assert one.delete_many(["k2", "k3", "nothing"]) == 2
    two.sync()
    assert two.get_many(["k1", "k2", "k3", "k4"]) == {"k4": ["k4", 1]}
    assert two.delete_pattern("k?") == 7
    assert two.delete_pattern("k5?") == 10
    until(lambda: list(news.values()).count(3) >= 2)  # by each node, the last one late: no load is stored for it
    one.sync()
    assert one.get_many(SPREAD).keys() == set(SPREAD[10:50])
    one.invalidate_tags("t")
    two.sync()
    assert two.get_many(values) == {}
    one.set_many(values)
    assert two.get_many(values) == values
    two.clear()
    one.sync()
    assert one.get_many(values) == two.get_many(values) == {}
    loads = Counter()

    def load(keys):
        loads.update(keys)
        return {key: f"loaded {key}" for key in keys}

    many = one.get_or_load_many(list(values), load)
    assert many == two.get_or_load_many(list(values), load) == {key: f"loaded {key}" for key in values}
    for key in values:
        one.invalidate(key)
        assert two.get_or_load(key, lambda key: "again") in ("again", f"loaded {key}")
    two.sync()
    assert {key: two.get_or_load(key, lambda key: "again") for key in values} == dict.fromkeys(values, "again")
    assert set(loads.values()) == {1}, (one.stats(), two.stats())
    for cache in (one, two):
        assert cache.stats().backend_errors == cache.stats().coherence_lost == 0


def test_guards_are_beside_their_values(make, cluster):
    """While each key is loaded its guard is on the node of the value, and nobody stores for a key that is being written."""
    cache = heard(make())
    seen = {}

    def load(key):
        name = f"p:{key}".encode()
        assert key_slot(guard_name(name)) == key_slot(name)
        with cluster.nodes[cluster.owner(key_slot(name))].client() as look:
            seen[key] = look.get(guard_name(name))[:1]
        return 1

    for key in [*AWKWARD, *SPREAD[:10]]:
        assert cache.get_or_load(key, load) == 1
    assert set(seen.values()) == {b"L"}
    for node in cluster.nodes:
        with node.client() as look:
            assert not look.keys("fastcache-guard:*"), "a lease was left"


def test_changes_during_a_load_take_its_lease_away(face, make):
    """For keys of all primaries, by each way of changing one: what was loaded before is stored nowhere."""
    one, two = heard(make()), heard(make())
    changes = [
        lambda key: two.invalidate(key),
        lambda key: two.delete_many([key, "other"]),
        lambda key: face.write(two, key),
        lambda key: two.delete_pattern(key),
        lambda key: two.clear(),
        lambda key: two.invalidate_tags("t"),
    ]
    for number, change in enumerate(changes):
        for key in SPREAD[8 * number : 8 * number + 8] + AWKWARD[:8]:
            result = []
            started, go_on = threading.Event(), threading.Event()

            def load(key, started=started, go_on=go_on):
                started.set()
                go_on.wait(10)
                return "old"

            loader = load
            if face.name == "asyncio":

                async def loader(key, load=load):
                    import asyncio

                    return await asyncio.to_thread(load, key)

            thread = threading.Thread(
                target=lambda key=key, loader=loader, result=result: result.append(one.get_or_load(key, loader, tags=["t"]))
            )
            thread.start()
            assert started.wait(10)
            change(key)
            go_on.set()
            thread.join(10)
            assert result == ["old"]
            assert two.get(key) is None, (number, key)
            one.sync()
            assert one.get(key) is None, (number, key)


@pytest.mark.parametrize("coherence", ["pubsub", "tracking"])
def test_changes_of_keys_of_all_primaries_are_heard(face, make, coherence):
    """Each way of changing reaches the copies of another process; what Redis then has is served, nothing older."""
    one, two = heard(make(coherence=coherence)), heard(make(coherence=coherence))

    def refresh(key):
        loader = slow(face, lambda key: "new")
        face.run(drive(face), inner(one)._loading.refresh_plan(key, loader, None, None, None, None))

    changes = [
        lambda key: one.set(key, "new"),
        lambda key: one.set_many({key: "new"}),
        refresh,
        lambda key: one.delete(key),
        lambda key: face.write(one, key),
        lambda key: one.delete_pattern(key.replace("{", "\\{")),
        lambda key: one.set(key, "new", tags=["t"]),
        lambda key: one.invalidate_tags("t"),
        lambda key: one.clear(),
    ]
    for number, change in enumerate(changes):
        keys = SPREAD[:8] + AWKWARD[:6]
        one.set_many(dict.fromkeys(keys, "old"), tags=["t"])
        two.sync()
        for key in keys:
            if two.get(key) is None:
                assert change in changes[-2:]
                one.set(key, "old", tags=["t"])
                two.sync()
            assert two.get(key) == "old" == two.get(key)
            change(key)
            two.sync()
            assert two.get(key) in ("new", None), (number, key)
    assert two.stats().l1_hits >= 8 * len(keys)
    assert one.stats().coherence_lost == two.stats().coherence_lost == 0


def listen_in(cache: Any) -> Counter[tuple[bytes, int]]:
    """How often each message reaches a cache: by origin and version."""
    messages: Counter[tuple[bytes, int]] = Counter()
    listener = inner(cache)._listener
    hear = listener.hear

    def count(message: Any) -> None:
        messages[message.origin, message.version] += 1
        hear(message)

    listener.hear = count
    return messages


def test_messages_take_the_shard_channels_and_arrive_once(make, cluster):
    """Where the server has any: each primary's line subscribes to its own, and the plain channel carries nothing."""
    one, two = heard(make()), heard(make())
    messages = listen_in(two)
    for key in SPREAD:
        one.set(key, 1)
    one.invalidate_tags("t")
    two.sync()
    assert len(messages) == len(SPREAD) + 1
    if not has_shards(cluster):
        until(lambda: set(messages.values()) == {3})  # by each node, which is harmless
        return
    assert set(messages.values()) == {1}
    for node in cluster.nodes:
        with node.client() as look:
            channels = [name for name in look.pubsub_shardchannels() if name.endswith(b"p:")]
            assert 5 <= len(channels) <= 6
            assert all(count == 2 for _, count in look.pubsub_shardnumsub(*channels))


def test_a_node_without_an_anchor_publishes_for_all(make, cluster, monkeypatch):
    """Then messages go out on the plain channel, and come by each line: which does no harm."""
    one, two = heard(make()), heard(make())
    monkeypatch.setattr("fastcache.news.ANCHORS", ANCHORS[:1])
    messages = listen_in(two)
    for number in range(3):
        for key in SPREAD:
            assert two.get(key) in (number - 1, None)
            one.set(key, number)
        two.sync()
        assert two.get_many(SPREAD) == dict.fromkeys(SPREAD, number)
    until(lambda: sum(messages.values()) > 2 * len(messages))


def test_scripts_that_a_node_forgot_are_sent_again(make, cluster):
    """After SCRIPT FLUSH everywhere, which is what a promoted replica is like: single calls and batches."""
    cache = heard(make())

    def forget():
        for node in cluster.nodes:
            with node.client() as look:
                look.script_flush()

    for call in (
        lambda: cache.set("k1", 1),
        lambda: cache.set_many(dict.fromkeys(SPREAD, 1)),
        lambda: cache.get("k1"),
        lambda: cache.delete_many(SPREAD),
        lambda: cache.get_or_load_many(SPREAD, lambda keys: dict.fromkeys(keys, 2)),
        lambda: cache.invalidate_tags("t"),
    ):
        forget()
        call()
    assert cache.get_many(SPREAD) == dict.fromkeys(SPREAD, 2)
    assert cache.stats().backend_errors == 0


def test_slots_that_move_are_followed(make, cluster):
    """Those of keys and those of the shard channels, there and back, while both processes write: all of it is heard."""
    one, two = heard(make()), heard(make())
    mine = [key for key in SPREAD if cluster.owner(slot_of(key)) == 0][:6]
    slots = [slot_of(key) for key in mine] + [anchor for anchor in ANCHORS if cluster.owner(anchor) == 0][:3]
    moved = threading.Event()

    def move():
        try:
            for source, target in ((0, 1), (1, 0)):
                for slot in slots:
                    cluster.move(slot, source, target)
        finally:
            moved.set()

    mover = threading.Thread(target=move)
    mover.start()
    rounds = 0
    while not moved.is_set() or rounds < 3:
        rounds += 1
        for key in mine:
            one.set(key, rounds)
            assert one.get(key) == rounds
        one.set_many(dict.fromkeys(SPREAD, rounds))
        assert one.get_or_load_many(SPREAD, lambda keys: {}) == dict.fromkeys(SPREAD, rounds)
        two.get_many(SPREAD)
    mover.join()
    until(lambda: two.get("k0") == rounds and trusted(one) and trusted(two))
    for key in SPREAD:
        two.sync()
        assert two.get(key) == rounds
        one.set(key, "at last")
        two.sync()
        assert two.get(key) == "at last"
    assert one.stats().backend_errors == two.stats().backend_errors == 0


def test_anchors_that_moved_are_listened_to_at_their_new_node(make, cluster):
    """Nobody sends a command that would tell the client; still the line to the new node subscribes to the channel."""
    if not has_shards(cluster):
        pytest.skip("this server has no shard channels")
    one, two = heard(make()), heard(make())
    mine = [anchor for anchor in ANCHORS if cluster.owner(anchor) == 0]
    for anchor in mine:
        cluster.move(anchor, 0, 1)
    try:
        for cache in (one, two):
            hub = inner(cache)._listener.hub
            until(lambda hub=hub: sorted(len(line.anchors) for line in list(hub.lines.values())) == [0, 5, 11])
            until(lambda cache=cache: trusted(cache))
        one.set_many(dict.fromkeys(SPREAD, 1))
        assert two.get_many(SPREAD) == dict.fromkeys(SPREAD, 1)
        for number in range(20):
            one.set_many(dict.fromkeys(SPREAD, number))
            two.sync()
            assert two.get_many(SPREAD) == dict.fromkeys(SPREAD, number)
    finally:
        for anchor in mine:
            cluster.move(anchor, 1, 0)


def test_policies_work_on_all_primaries(make):
    """Stale values are refreshed in the background, what isn't there is remembered."""
    cache = heard(make())
    stale = Policy(0.2, stale_for=60, missing_ttl=30, jitter=0)
    calls = Counter()

    def load(key):
        calls[key] += 1
        return MISSING if key.endswith("0") else calls[key]

    keys = SPREAD[:21]
    for key in keys:
        assert cache.get_or_load(key, load, "none", policy=stale) in ("none", 1)
    until(lambda: not cache.get_many(keys))
    for key in keys:
        assert cache.get_or_load(key, load, "none", policy=stale) in ("none", 1)
    assert cache.drain(20)
    assert all(calls[key] == (1 if key.endswith("0") else 2) for key in keys)
    assert cache.stats().lease_refused == cache.stats().backend_errors == 0


def test_late_news_of_a_tag_is_not_taken_for_the_latest(make):
    """Two invalidate a tag at once: who hears of the other's after having done his own doesn't go back to its token."""
    one, two = heard(make()), heard(make())
    listener = inner(one)._listener
    hear, late = listener.hear, []
    listener.hear = late.append
    two.invalidate_tags("t")
    two.set("k1", "old", tags=["t"])
    one.invalidate_tags("t")
    one.sync()
    assert late[0].operation == "tag"
    hear(late[0])
    assert one.get("k1") is None
    two.sync()
    assert two.get("k1") is None
