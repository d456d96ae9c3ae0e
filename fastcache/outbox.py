"""The outbox: keys whose invalidation the backend didn't take, kept until it does.

While a key waits here it is read from the loader, never from the cache, whatever that may hold.
This file must never talk to a backend.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterable
from weakref import WeakSet

__all__ = ["MOST_KEYS", "Outbox"]

MOST_KEYS = 10_000
"""A few megabytes. Beyond it the whole namespace is cleared when the backend is back: dearer, and as right."""


class Outbox:
    """The waiting keys. Thread-safe; O(1) for each key."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._lock = threading.Lock()
        _outboxes.add(self)
        self._waiting: dict[Hashable, int] = {}
        self._serial = 0
        self.overflowed = 0
        """Not 0: keys were lost, and every key counts as waiting until the namespace has been cleared."""
        self.thorough = False
        """The keys that were lost may be any, also of values that another program stored; not just those of a tag."""

    def __bool__(self) -> bool:
        return bool(self._waiting or self.overflowed)

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: Hashable) -> bool:
        return bool(self.overflowed) or key in self._waiting

    def add(self, key: Hashable) -> None:
        """Have a key wait. One that waits already begins anew: what is under way for it doesn't count."""
        with self._lock:
            self._serial += 1
            if self.overflowed or (len(self._waiting) >= self._most and key not in self._waiting):
                self._waiting.clear()
                self.overflowed = self._serial
                self.thorough = True
            else:
                self._waiting[key] = self._serial

    def overflow(self, thorough: bool) -> None:
        """Have all keys wait, until the namespace has been cleared."""
        with self._lock:
            self._serial += 1
            self.thorough = self.thorough or thorough or bool(self._waiting)
            self._waiting.clear()
            self.overflowed = self._serial

    def marks(self, keys: Iterable[Hashable]) -> dict[Hashable, int]:
        """Those of the keys that wait, each with a mark. To be taken before writing them, and given to `done` after."""
        if not self._waiting:
            return {}
        with self._lock:
            return {key: self._waiting[key] for key in keys if key in self._waiting}

    def batch(self, most: int) -> dict[Hashable, int]:
        """The keys that have waited longest, and a mark for each."""
        with self._lock:
            return dict(list(self._waiting.items())[:most])

    def done(self, marks: dict[Hashable, int]) -> None:
        """These were written or invalidated; those that were added again meanwhile wait on."""
        if not marks:
            return
        with self._lock:
            for key, serial in marks.items():
                if self._waiting.get(key) == serial:
                    del self._waiting[key]

    def cleared(self, serial: int) -> None:
        """The namespace was cleared on behalf of an overflow; a later one waits on."""
        with self._lock:
            if self.overflowed == serial:
                self.overflowed = 0
                self.thorough = False


_outboxes: WeakSet[Outbox] = WeakSet()


def _after_fork_in_child() -> None:
    for outbox in list(_outboxes):
        outbox._lock = threading.Lock()  # a thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
