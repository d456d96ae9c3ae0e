"""The guards that this process holds in Redis: leases of what it loads, holds of what it writes; and keeping them.

A guard lives for a short time, so that one whose owner has died is soon out of everybody's way; as long as the owner lives,
a thread or task beside him renews it: in asyncio one for each event loop. This file must never decide what is loaded or
written, and never removes a value.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Mapping
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from fastcache.errors import BackendError
from fastcache.plan import Call
from fastcache.replies import SCRIPT_BATCH, batches
from fastcache.scripts import HOLD, RELEASE, RENEW
from fastcache.sidekeys import guard_name

if TYPE_CHECKING:
    from fastcache.background import Tasks, Threads
    from fastcache.sending import Sending

__all__ = ["HOLD_LIFE", "LEASE_LIFE", "Guards"]

LEASE_LIFE = 1500
"""Milliseconds, three renewals: one who waits for a lease has a patience of 2 s, and is to see the end of a dead one's."""

HOLD_LIFE = 10_000
"""Milliseconds. For so long a key isn't cached after the death of a process that was writing it. It must outlast a process
that stands still (a snapshot of its machine, a debugger) between the writing to the database and the invalidation."""

RENEW_EVERY = 0.5  # seconds
IDLE_SECONDS = 5.0  # without a guard for so long, the thread or task ends


class Guards:
    """Thread-safe. `driver` runs the renewing, `sending` the scripts."""

    lease_life = LEASE_LIFE

    def __init__(self, sending: Sending[Any], driver: Threads | Tasks) -> None:
        self._sending = sending
        self._driver = driver
        self.begin_anew()
        _all_guards.add(self)

    def begin_anew(self) -> None:
        """Also in a forked child: the guards are the parent's."""
        self._held: dict[str, tuple[Any, bytes, int, float]] = {}  # by token: where, guard, life, since when
        self._renewing: set[Any] = set()  # where there is somebody who renews

    @staticmethod
    def new() -> str:
        """A token."""
        return secrets.token_hex(8)

    def keep(self, token: str, guard: bytes, life: int) -> None:
        """Renew a guard from now on: for as long as its owner's event loop runs, since he does nothing after that."""
        place = self._driver.place()
        self._held[token] = place, guard, life, monotonic()
        self._renew(place)

    def _renew(self, place: Any) -> None:
        if place not in self._renewing and not self._driver.stopped:
            self._renewing.add(place)  # before the plan may end
            if not self._driver.keep(self._renew_plan(place)):
                # No thread to spare: a load that takes longer than the lease's life isn't stored.
                self._renewing.discard(place)

    def forget(self, token: str) -> None:
        """Renew it no more."""
        self._held.pop(token, None)

    def release_plan(self, leases: Mapping[str, bytes]) -> Generator[Any, Any, None]:
        """Give leases back: guards, by token."""
        for token in leases:
            self.forget(token)
        with suppress(BackendError):  # they end by themselves
            for batch in batches(list(leases.items()), SCRIPT_BATCH):
                yield from self._sending._scripts_plan(RELEASE, [((guard,), (token,)) for token, guard in batch])

    def hold_plan(self, identity: bytes, publication: tuple[bytes, ...]) -> Generator[Any, Any, str]:
        """Begin to write. Returns the token, to be given to the script that ends it."""
        token, guard = self.new(), guard_name(identity)
        yield from self._sending._script_plan(HOLD, [identity, guard], [token, HOLD_LIFE, *publication])
        self.keep(token, guard, HOLD_LIFE)
        return token

    def _renew_plan(self, place: Any) -> Generator[Any, Any, None]:
        """Renew what is held in an event loop, or by any thread, for as long as there is something."""
        last = now = monotonic()
        try:
            while not self._driver.stopped and monotonic() - last < IDLE_SECONDS:
                yield Call(self._driver.pause, max(RENEW_EVERY / 10, RENEW_EVERY - (monotonic() - now)))
                now = monotonic()
                due = []
                for token, (where, guard, life, since) in list(self._held.items()):
                    if where is place:
                        last = now
                        if now - since >= RENEW_EVERY:
                            due.append((token, guard, life))
                with suppress(BackendError):
                    for batch in batches(due, SCRIPT_BATCH):
                        calls = [((guard,), (token, life)) for token, guard, life in batch]
                        renewed = yield from self._sending._scripts_plan(RENEW, calls)
                        for (token, _, _), mine in zip(batch, renewed, strict=True):
                            if not mine:
                                self.forget(token)
        except BaseException:
            for token in self._held_in(place):  # its event loop ends
                self.forget(token)
            raise
        finally:
            self._renewing.discard(place)
        if self._held_in(place):
            self._renew(place)  # begun just when there had been nothing for too long

    def _held_in(self, place: Any) -> list[str]:
        return [token for token, held in list(self._held.items()) if held[0] is place]


_all_guards: WeakSet[Guards] = WeakSet()


def _after_fork_in_child() -> None:
    for guards in list(_all_guards):
        guards.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
