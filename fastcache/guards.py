"""The guards that this process holds in Redis: leases of what it loads, holds of what it writes; and keeping them.

A guard lives for a short time, so that one whose owner has died is soon out of everybody's way; as long as the owner lives,
a thread or task beside him renews it. This file must never decide what is loaded or written, and never removes a value.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from fastcache.errors import BackendError
from fastcache.plan import Call
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
        self._held: dict[str, tuple[bytes, int, float]] = {}  # by token: guard, life, since when
        self._renewing = False

    @staticmethod
    def new() -> str:
        """A token."""
        return secrets.token_hex(8)

    def keep(self, token: str, guard: bytes, life: int) -> None:
        """Renew a guard from now on."""
        self._held[token] = guard, life, monotonic()
        if not self._renewing and not self._driver.stopped:
            self._renewing = True  # before the plan may end
            if not self._driver.keep(self._renew_plan()):
                self._renewing = False  # no thread to spare: a load that takes longer than the lease's life isn't stored

    def forget(self, token: str) -> None:
        """Renew it no more."""
        self._held.pop(token, None)

    def release_plan(self, token: str, guard: bytes) -> Generator[Any, Any, None]:
        """Give a lease back."""
        self.forget(token)
        try:
            yield from self._sending._script_plan(RELEASE, [guard], [token])
        except BackendError:
            pass  # it ends by itself

    def hold_plan(self, identity: bytes, publication: tuple[bytes, ...]) -> Generator[Any, Any, str]:
        """Begin to write. Returns the token, to be given to the script that ends it."""
        token, guard = self.new(), guard_name(identity)
        yield from self._sending._script_plan(HOLD, [identity, guard], [token, HOLD_LIFE, *publication])
        self.keep(token, guard, HOLD_LIFE)
        return token

    def _renew_plan(self) -> Generator[Any, Any, None]:
        last = monotonic()
        try:
            while not self._driver.stopped and monotonic() - last < IDLE_SECONDS:
                yield Call(self._driver.pause, RENEW_EVERY)
                now = monotonic()
                for token, (guard, life, since) in list(self._held.items()):
                    last = now
                    if now - since >= RENEW_EVERY:
                        try:
                            mine = yield from self._sending._script_plan(RENEW, [guard], [token, life])
                        except BackendError:
                            break
                        if not mine:
                            self.forget(token)
        finally:
            self._renewing = False


_all_guards: WeakSet[Guards] = WeakSet()


def _after_fork_in_child() -> None:
    for guards in list(_all_guards):
        guards.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
