"""What those get who share a load of the two-level cache: objects of their own with `isolate=True`, each of his type."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest
from loaders import SECONDS, start, waiting
from test_tiered import heard, inner, slow, until
from test_tiered_stored import hold_back

from fastcache import MISSING, Policy


@dataclass
class One:
    x: int


@dataclass
class Other:
    x: int


def share(face, cache, value, *types):
    """What callers get who want these types: the first of them loads, while the others wait for him."""
    entered, finish = threading.Event(), threading.Event()

    def load(key):
        entered.set()
        assert finish.wait(SECONDS)
        return value

    calls = []
    for type in types:
        calls.append(start(cache.get_or_load, "k", slow(face, load), MISSING, type=type))
        assert entered.wait(SECONDS)
    until(lambda: waiting(inner(cache)) == len(types) - 1, SECONDS)
    finish.set()
    return [call() for call in calls]


def test_isolated_callers_who_share_a_load_get_objects_of_their_own(face, server):
    """A change of one is nobody else's."""
    cache = heard(face.tiered(server.url, isolate=True))
    results = share(face, cache, [1], None, None, list[int], tuple[int])
    assert results == [[1], [1], [1], (1,)]
    results[0].append(2)
    results[1].append(3)
    assert results[1:] == [[1, 3], [1], (1,)]
    assert cache.get("k") == [1]


@pytest.mark.parametrize("isolate", [True, False])
def test_callers_who_share_a_load_get_each_what_he_wants(face, server, isolate):
    """As if he had read it from Redis."""
    cache = heard(face.tiered(server.url, isolate=isolate))
    assert share(face, cache, One(1), One, Other, None, One) == [One(1), Other(1), {"x": 1}, One(1)]
    cache.delete("k")
    assert share(face, cache, MISSING, One, Other) == [MISSING, MISSING]


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize("value", [object(), "text"], ids=["no form", "another type"])
def test_callers_who_share_a_load_get_what_there_is(face, server, isolate, value):
    """Where it can't be made what somebody wants, as he gets what a loader of his own returns."""
    cache = heard(face.tiered(server.url, isolate=isolate))
    assert share(face, cache, value, None, One) == [value, value]


def test_types_of_a_redis_cache_are_kept_apart_too(face, server):
    """Those who want the same share one object."""
    cache = face.from_url(server.url, "p", ttl=60)
    results = share(face, cache, One(1), One, Other, One)
    assert results == [One(1), Other(1), One(1)]
    assert results[0] is results[2]


@pytest.mark.parametrize("isolate", [True, False])
def test_value_on_its_way_into_redis_is_what_each_wants(face, server, isolate):
    """It can be had before Redis has it."""
    cache = heard(face.tiered(server.url, isolate=isolate, policy=Policy(60, store="background", jitter=0)))
    runs: list[Any] = []

    def load(key):
        runs.append(key)
        return One(1)

    go_on = hold_back(face, cache)
    first, second = (cache.get_or_load("k", slow(face, load), type=One) for _ in range(2))
    assert first == second == One(1)
    assert (first is second) is not isolate
    assert cache.get_or_load("k", slow(face, load), type=Other) == Other(1)
    go_on()
    assert runs == ["k"]
