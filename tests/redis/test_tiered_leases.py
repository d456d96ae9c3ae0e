"""Leases of the two-level cache between processes: kept as long as the loader runs, and worth nothing once lost."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import pytest
from test_tiered import heard, slow, until

from fastcache.sidekeys import guard_name


@pytest.fixture
def short_leases(monkeypatch):
    """A lease of 0.3 s, renewed all the time."""
    monkeypatch.setattr("fastcache.guards.Guards.lease_life", 300)
    monkeypatch.setattr("fastcache.guards.RENEW_EVERY", 0.05)


def test_lease_is_renewed_while_the_loader_runs(face, server, short_leases):
    """A slow leader isn't taken for a dead one."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    begun, finish = threading.Event(), threading.Event()
    results: list[Any] = []

    def load(key):
        begun.set()
        assert finish.wait(10)
        return "slow"

    leader = threading.Thread(target=lambda: results.append(one.get_or_load("k", slow(face, load))))
    follower = threading.Thread(target=lambda: results.append(two.get_or_load("k", lambda key: "second run")))
    leader.start()
    assert begun.wait(10)
    follower.start()
    with server.client() as client:
        guard = guard_name(b"p:k")
        lives = []
        until(lambda: lives.append(client.pttl(guard)) or sum(b > a for a, b in pairwise(lives)) >= 8)
    finish.set()
    leader.join()
    follower.join()
    assert min(lives) > 0
    assert results == ["slow", "slow"]


@pytest.mark.parametrize("how", ["gone", "another's"])
def test_lost_lease_stores_nothing(face, server, how):
    """A leader that stood still for too long can't overwrite what its successor stores."""
    cache = heard(face.tiered(server.url))

    def load(key):
        with server.client() as client:
            if how == "gone":
                client.delete(guard_name(b"p:k"))
            else:
                client.set(guard_name(b"p:k"), b"Lsuccessor", px=60_000)
        return "late"

    assert cache.get_or_load("k", slow(face, load)) == "late"
    assert cache.get("k") is None
    assert cache.stats().lease_refused == 1
    with server.client() as client:
        assert not client.exists("p:k")
        assert client.get(guard_name(b"p:k")) == (None if how == "gone" else b"Lsuccessor")
