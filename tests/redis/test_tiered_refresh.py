"""`refresh` of the two-level cache: it wins over what was loaded before, everywhere, or leaves nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_tiered import heard, inner, until

from fastcache import MISSING, Policy, cached
from fastcache.sidekeys import guard_name


@pytest.fixture
def flush_at_once(monkeypatch):
    monkeypatch.setattr("fastcache.writing.FLUSH_INTERVAL", 0.05)


class Function:
    """A function whose result is cached under "k", and refreshed. `steps`: what its runs do, one after the other."""

    def __init__(self, face, cache, *steps, **options):
        self._run = face.run
        self._steps = iter(steps)
        self._cached = cached(inner(cache), key=lambda: "k", **options)(
            self._compute if face.name == "sync" else self._compute_elsewhere
        )

    def _compute(self):
        step = next(self._steps)
        return step() if callable(step) else step

    async def _compute_elsewhere(self):
        return await asyncio.to_thread(self._compute)

    def __call__(self):
        return self._run(self._cached)

    def refresh(self):
        return self._run(self._cached.refresh)


@pytest.mark.parametrize("coherence", ["pubsub", "tracking"])
@pytest.mark.parametrize("lease", [True, False])
def test_refresh_is_told_to_the_other_processes(face, server, coherence, lease):
    """Their copies of what it replaces are out of date."""
    one, two = (heard(face.tiered(server.url, coherence=coherence)) for _ in range(2))
    function = Function(face, one, "new", policy=Policy(60, lease=lease, jitter=0))
    one.set("k", "old")
    one.sync()
    two.sync()
    assert two.get("k") == "old" == two.get("k")
    assert two.stats().l1_hits
    assert function.refresh() == "new"
    two.sync()
    assert one.get("k") == "new" == two.get("k")


def test_refresh_is_stored_before_it_returns(face, server, other):
    """Also where loads are stored in the background: who asked for it isn't to read what was there before."""
    cache = heard(face.tiered(server.url))
    function = Function(face, cache, "old", "new", policy=Policy(60, store="background", jitter=0))
    assert function() == "old"
    assert cache.drain(10)
    assert function.refresh() == "new" == cache.get("k")
    assert b'"new"' in other.get("p:k")


def forget(cache, other):
    """As when it is heard that the key was changed, which may be an earlier change."""
    inner(cache)._loading.flights.forget(b"p:k")


def lose_the_lease(cache, other):
    other.delete(guard_name(b"p:k"))


@pytest.mark.parametrize("happening", [forget, lose_the_lease])
def test_refresh_that_is_refused_leaves_nothing(face, server, other, happening):
    """What was there is out of date, though what was loaded may be, too."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))

    def compute():
        happening(one, other)
        return "new"

    function = Function(face, one, "old", compute, "next")
    assert function() == "old" == two.get("k")
    assert function.refresh() == "new"
    assert one.stats().lease_refused == 1
    two.sync()
    assert one.get("k") is None
    assert two.get("k") is None
    assert function() == "next" == two.get("k")


def test_refresh_removes_what_was_stored_past_its_lease(face, server, other):
    """By somebody who takes none, such as a `RedisCache`: it isn't known which of the two is newer."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))

    def compute():
        other.set("p:k", b'"foreign"')
        assert two.get("k") == "foreign"
        return "new"

    function = Function(face, one, compute, "next")
    assert function.refresh() == "new"
    two.sync()
    assert one.get("k") is None
    assert two.get("k") is None
    assert function() == "next" == two.get("k")


@pytest.mark.parametrize("happening", [forget, lose_the_lease])
def test_refresh_that_is_refused_leaves_what_is_newer(face, server, other, happening):
    """A value that was written while it was loading stays."""
    cache = heard(face.tiered(server.url))

    def compute():
        happening(cache, other)
        other.set("p:k", b'"newer"')
        return "new"

    function = Function(face, cache, "old", compute)
    assert function() == "old"
    assert function.refresh() == "new"
    assert cache.get("k") == "newer"


@pytest.mark.parametrize("value", [object(), MISSING], ids=["no form", "MISSING"])
def test_refresh_that_can_not_be_stored_leaves_nothing(face, server, value):
    """Neither what there is no form of in Redis, nor what isn't there, hides that the old value is none any more."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    function = Function(face, one, "old", value)
    assert function() == "old" == two.get("k")
    assert function.refresh() == value
    two.sync()
    assert one.get("k") is None
    assert two.get("k") is None


@pytest.mark.parametrize("heard_of", [False, True], ids=["unheard", "heard"])
@pytest.mark.parametrize("when", ["before", "during"])
def test_refresh_while_redis_is_away_takes_effect_when_it_is_back(face, server, proxy, flush_at_once, when, heard_of):
    """Until then the loader is asked here, and from then on elsewhere."""
    cache = heard(face.tiered(proxy.url))
    there = heard(face.tiered(server.url))

    def compute():
        proxy.refuse()
        if heard_of:
            forget(cache, None)
        return "new"

    function = Function(face, cache, "old", compute, "again")
    assert function() == "old" == there.get("k")
    if when == "before":
        proxy.refuse()
    assert function.refresh() == "new"
    assert b"p:k" in inner(cache)._loading.outbox
    assert function() == "again"
    assert there.get("k") == "old"
    proxy.listen()
    until(lambda: there.get("k") is None)


def test_refresh_wins_over_another_process_that_is_loading(face, server):
    """It waits for nobody who began before it; what he loads goes to his callers, and is stored nowhere."""
    one, two = (heard(face.tiered(server.url)) for _ in range(2))
    refreshing = Function(face, two, "new")

    def compute():
        assert refreshing.refresh() == "new"
        return "old"

    assert Function(face, one, compute)() == "old"
    one.sync()
    assert one.get("k") == "new" == two.get("k")
    assert (one.stats().lease_refused, two.stats().lease_refused) == (1, 0)


def test_later_of_two_refreshes_is_stored(face, server):
    """They don't wait for each other."""
    cache = heard(face.tiered(server.url))

    def compute():
        assert function.refresh() == "second"
        return "first"

    function = Function(face, cache, "old", compute, "second")
    assert function() == "old"
    assert function.refresh() == "first"
    assert cache.get("k") == "second"
    assert cache.stats().lease_refused == 1


def test_refresh_that_gave_way_to_one_that_failed_leaves_nothing(face, server):
    """The first has said that what was there is out of date."""
    cache = heard(face.tiered(server.url))
    errors: list[Any] = []

    def fail():
        raise ValueError("no")

    def compute():
        try:
            function.refresh()
        except ValueError as error:
            errors.append(error)
        return "first"

    function = Function(face, cache, "old", compute, fail, "next")
    assert function() == "old"
    assert function.refresh() == "first"
    assert len(errors) == 1
    assert cache.get("k") is None
    assert function() == "next" == cache.get("k")


def test_refresh_gives_way_to_who_is_writing(face, server):
    """It isn't stored: nothing is, until the key has been written."""
    cache = heard(face.tiered(server.url))
    function = Function(face, cache, "new", "next")
    held = face.run(drive(face), inner(cache)._loading.hold_plan("k"))
    assert function.refresh() == "new"
    assert cache.get("k") is None
    face.run(drive(face), inner(cache)._loading.invalidate_plan("k", held=held))
    assert function() == "next" == cache.get("k")


def drive(face):
    from fastcache.plan import arun, run

    return run if face.name == "sync" else arun


def test_refresh_over_redis_alone_leaves_what_was_set_meanwhile(face, server):
    """A RedisCache has no leases; what the program writes while it loads is newer all the same."""
    cache = face.from_url(server.url, "p", ttl=60)

    def compute():
        cache.set("k", "newer")
        return "new"

    function = Function(face, cache, "old", compute)
    assert function() == "old"
    assert function.refresh() == "new"
    assert cache.get("k") == "newer"
