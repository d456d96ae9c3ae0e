"""Who loads, among the processes that share a cache: one of them, by a lease; the others wait for what he stores.

What a leader among the callers of its own process does with a store that has leases: ask for the lease, load and store with
it; else wait for the one who has it, for so long and no longer, and then load without storing. This file must never talk to
a backend but through the plans of its `LeaseStore`, nor know what a lease is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from fastcache.plan import Call, Plan
from fastcache.storing import Errand, Found, Store, Storing, giving_back_plan

__all__ = ["PATIENCE", "LeaseStore", "leased_plan", "longest_wait"]

PATIENCE = 2.0
"""Seconds for which the lease of another process is waited for: longer than its life, so that one who dies is succeeded by
one who waits, and about as long as a user waits for a page."""

MOST_HOLDERS = 2  # one who holds the lease, and one who takes over when he dies; then nobody waits any longer

POLL_FIRST, POLL_LONGEST = 0.004, 0.05
"""Seconds between two looks: at first a round trip or two, then at most 20 looks a second from each process."""


def longest_wait() -> float:
    """Seconds for which a load may wait for those of other processes before it begins."""
    return MOST_HOLDERS * PATIENCE


class LeaseStore(Store, Protocol):
    """A store that processes share and in which they agree on who loads."""

    def prepare(self, errand: Errand, identities: list[Any]) -> None:
        """A load is about to begin: from now on is noticed what would speak against keeping it."""

    def lease_plan(self, errand: Errand, identities: list[Any]) -> Plan[tuple[dict[Any, Found], dict[Any, Any]]]:
        """Ask for the leases of keys. Returns what was there after all, and who has the lease of which other ones.

        The rest may be loaded; those among them that may not be stored are added to `errand.unstored`. Who is to load `anew`
        waits for nobody, and takes the leases of others away.
        """
        ...

    def retire_plan(self, errand: Errand, identities: Iterable[Any]) -> Plan[None]:
        """Remove what there was of keys when they were to be loaded anew, but nothing that is newer."""
        ...

    def release_plan(self, errand: Errand, identities: Iterable[Any]) -> Plan[None]:
        """Give back what leases the errand has still of these keys. Raises nothing."""
        ...

    def abandon(self, errand: Errand, identities: Iterable[Any]) -> None:
        """Have them end by themselves."""

    def dismiss(self, errand: Errand, identities: Iterable[Any]) -> None:
        """The load of these keys is over, and stored if it was to be: what is noticed from now on isn't about it."""


class _Patience:
    """How long each key has been waited for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waits: dict[Any, tuple[Any, float, int]] = {}  # holder, until when, how many there were

    def is_over(self, identity: Any, holder: Any) -> bool:
        now = self._clock()
        last, until, holders = self._waits.get(identity, (None, now, 0))
        if holder != last and holders < MOST_HOLDERS:
            until = now + PATIENCE
            self._waits[identity] = holder, until, holders + 1
        return now >= until


def leased_plan(
    engine: Storing, errand: Errand, identities: list[Any], load: Callable[[list[Any]], Plan[dict[Any, Any]]]
) -> Plan[dict[Any, Any]]:
    """Values for keys that this process is to load, unless another one does."""
    store: Any = engine.store
    store.prepare(errand, identities)
    plan = _leased_plan(engine, store, errand, identities, load)

    def unstored() -> list[Any]:  # what the loader says there is nothing of, or what isn't to be stored
        return [identity for identity in identities if identity not in errand.storing]

    return (yield from giving_back_plan(store, errand, unstored, plan))


def _leased_plan(
    engine: Storing,
    store: LeaseStore,
    errand: Errand,
    identities: list[Any],
    load: Callable[[list[Any]], Plan[dict[Any, Any]]],
) -> Plan[dict[Any, Any]]:
    values: dict[Any, Any] = {}
    patience = _Patience(engine._clock)
    delay = POLL_FIRST
    todo = list(identities)
    while todo:
        for identity in () if errand.early or errand.anew else todo:
            landed = engine.landed(errand, identity, values)
            if landed is not values:
                values[identity] = landed
        todo = [identity for identity in todo if identity not in values]
        waiting: dict[Any, Any] = {}
        asked = [identity for identity in todo if identity not in engine.outbox]
        errand.unstored.update(set(todo).difference(asked))  # the backend has yet to hear that what it has is out of date
        if errand.alive and asked:
            try:
                found, waiting = yield from store.lease_plan(errand, asked)
            except engine._failures as error:
                engine._failed(errand, asked, error)
                found = {}
            if errand.early:  # who has the lease is about to store a newer one
                there = {identity: errand.found[identity] for identity in waiting}
                values.update({identity: one.value for identity, one in there.items() if not one.broken})
                waiting = {identity: waiting[identity] for identity in waiting if identity not in values}
            for identity, one in found.items():
                copy = errand.early and errand.found[identity].token is None
                again = copy and engine.is_early_too(one, errand.found[identity], errand.policy)
                errand.found[identity] = one
                if one.stale or one.broken or errand.anew or again:
                    waiting[identity] = one.token  # another one than was seen: look again, but not for ever
                else:
                    values[identity] = one.value
        for identity, holder in list(waiting.items()):
            if patience.is_over(identity, holder) or engine.driver.stopped:
                errand.unstored.add(identity)
                del waiting[identity]
        mine = [identity for identity in todo if identity not in values and identity not in waiting]
        if mine:
            values.update((yield from load(mine)))
        todo = list(waiting)
        if todo:
            yield Call(engine.driver.pause, delay)
            delay = min(2 * delay, POLL_LONGEST)
    return values
