"""The two-level cache for users who may not do everything: what it needs, and what happens without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import servers
from test_cluster import cluster_client
from test_tiered import heard, inner, trusted, until
from test_tiered_refresh import Function

NEEDED = [
    *("~p:*", "~fastcache-*", "&fastcache-news:*"),
    *("+@read", "+@write", "+@scripting", "+@pubsub", "+@connection", "-@dangerous"),
    *("+command", "+cluster|slots", "+client|tracking"),  # of a cluster, and of coherence="tracking"
]
"""As docs/coherence.md says."""


PLACES = [*(("single", name) for name in servers.BINARIES), ("cluster", next(iter(servers.BINARIES)))]


@pytest.fixture(params=PLACES, ids=" ".join)
def restricted(request: pytest.FixtureRequest, face: Any) -> Iterator[Callable[..., Any]]:
    """Caches of a user who may do just what is named."""
    kind, name = request.param
    binary = servers.BINARIES[name]
    place: Any = servers.Server(binary).start() if kind == "single" else servers.Cluster(binary=binary)
    clients = []

    def make(rules: list[str], **options: Any) -> Any:
        for node in [place] if kind == "single" else place.nodes:
            with node.client() as admin:
                admin.execute_command("ACL", "SETUSER", "app", "reset", "on", ">secret", "resetchannels", *rules)
        user = {"username": "app", "password": "secret"}
        if kind == "single":
            clients.append(face.redis().Redis(port=place.port, **user))
        else:
            clients.append(cluster_client(face, place, **user))
        return face.tiered("", client=clients[-1], **options)

    yield make
    face.forget()
    for client in clients:
        face.run(client.close if face.name == "sync" else client.aclose)
    place.destroy()


@pytest.mark.parametrize("coherence", ["pubsub", "tracking"])
def test_permissions_that_the_docs_name_are_enough(face, restricted, coherence):
    """For every operation, and for coherence of both kinds."""
    errors = []
    cache = heard(restricted(NEEDED, coherence=coherence, on_event=lambda event: errors.append(event.error)))
    for key in map(str, range(10)):
        cache.set(key, 1, tags=["t"])
        assert cache.get(key) == 1
        assert cache.get_or_load(f"{key}x", lambda key: 2) == 2
        face.write(cache, key)
    assert cache.delete_pattern("?x") == 10
    assert Function(face, cache, "new").refresh() == "new" == cache.get("k")
    cache.set("a", 1)
    cache.invalidate_tags("t")
    cache.clear()
    cache.sync()
    assert cache.get("a") is None
    assert trusted(cache)
    assert not any(errors)


def test_without_channels_copies_are_never_relied_on_and_all_else_works(face, restricted):
    """Redis is read and written; `explain` says why there are no copies, and each change that others missed is reported."""
    events = []
    rules = [rule for rule in NEEDED if not rule.startswith("&")]
    cache = restricted(rules, on_event=events.append)
    assert cache.get_or_load("a", lambda key: 1) == 1
    assert not events[1:], "a load tells nobody"
    changes = [
        lambda: cache.set("k", 1),
        lambda: cache.set_many({"k": 2, "l": 2}),
        lambda: cache.delete("k"),
        lambda: face.write(cache, "k"),
        lambda: cache.delete_pattern("l"),
        lambda: cache.invalidate_tags("t"),
        lambda: cache.clear(),
    ]
    for change in changes:
        events.clear()
        change()
        assert {event.kind for event in events} == {"backend_error"}
        assert all("other processes can't be told" in str(event.error) for event in events)
        assert not inner(cache)._loading.outbox
    events.clear()
    assert Function(face, cache, "new").refresh() == "new" == cache.get("k")
    assert [event.kind for event in events] == ["load", "backend_error"]
    cache.set("k", 3)
    assert cache.get("k") == 3
    assert cache.get_or_load("k", lambda key: 4) == 3
    until(lambda: "permission" in cache.explain("k"))
    assert "not relied on: not listening" in cache.explain("k")
    time.sleep(0.6)  # another attempt of the line's
    assert not trusted(cache)
    assert cache.stats().l1_hits == 0


def test_without_the_names_beside_the_values_the_loader_is_asked(restricted):
    """A user for the values alone: nothing raises, and the reason is reported."""
    events = []
    cache = restricted([rule for rule in NEEDED if rule != "~fastcache-*"], on_event=events.append)
    cache.set("k", 1)
    assert cache.get("k") is None
    assert cache.get_or_load("k", lambda key: 2) == 2
    assert any("permission" in str(event.error).lower() or "NOPERM" in str(event.error) for event in events)
