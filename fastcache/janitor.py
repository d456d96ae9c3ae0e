"""The janitor: one daemon thread that sweeps all caches of the process which asked for it.

It holds weak references only, so a dropped cache is collected as if it weren't there. The thread starts with the first cache
that has something to expire, ends with the last, and starts anew in a forked child. It must never keep the interpreter
from exiting, and nothing that a cache's callback raises may end it.
"""

from __future__ import annotations

import atexit
import os
import threading
from time import monotonic, sleep
from weakref import ref

from fastcache._lru import report_unraisable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Sweepable(Protocol):
        def _sweep(self, most: int) -> int: ...
        def _counters(self) -> tuple[int, int, int, int]: ...


__all__ = ["Janitor", "janitor"]

STEP = 1000  # entries removed at a time, some 0.2 ms: other threads get their turn in between


EXIT_PATIENCE = 1.0  # seconds that the end of the interpreter waits for a sweep under way; without a backlog it takes none


class Janitor:
    """Removes the expired entries of each of its caches every so many seconds.

    Thread-safe. `clock` tells the time in seconds; `sweep_due` is what the thread does, and can be called without it.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._ended = False
        self._start_afresh()

    def _start_afresh(self) -> None:
        # A plain lock would do, but garbage collection may run `forget` in the very thread that holds it.
        self._changed = threading.Condition(threading.RLock())
        self._charges: dict[int, tuple[ref[Sweepable], float, float]] = {}  # by id: cache, interval, when it is due
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the thread exists."""
        return self._thread is not None and self._thread.is_alive()

    def take_on(self, cache: Sweepable, interval: float) -> None:
        """Sweep a cache every `interval` seconds from now on, until it is collected or given up."""
        if self._ended:
            return
        identity = id(cache)
        charge = ref(cache, lambda _: self.forget(identity))
        with self._changed:
            self._charges[identity] = (charge, interval, self._clock() + interval)
            self._start()
            self._changed.notify()

    def give_up(self, cache: Sweepable) -> None:
        """Sweep a cache no more."""
        self.forget(id(cache))

    def forget(self, identity: int) -> None:
        if self._ended:
            return
        with self._changed:
            self._charges.pop(identity, None)
            if not self._charges:
                self._changed.notify()  # the thread may end

    def sweep_due(self) -> float | None:
        """Sweep the caches whose time has come. Returns the seconds until the next is due, None without any."""
        now = self._clock()
        with self._changed:
            # Of a copy: a garbage collection on the way may run `forget` in this thread, lock or no lock.
            due = [identity for identity, (_, _, when) in self._charges.copy().items() if when <= now]
        for identity in due:
            with self._changed:
                charge = self._charges.get(identity)
                cache = charge[0]() if charge else None
                if charge is None:
                    continue
                if cache is None:  # and its callback failed, as it may at the recursion limit
                    del self._charges[identity]
                    continue
                self._charges[identity] = (charge[0], charge[1], now + charge[1])
            _sweep(cache)
            del cache, charge
        with self._changed:
            return self._seconds_left()

    def _seconds_left(self) -> float | None:
        times = [when for _, _, when in self._charges.copy().values()]
        return max(0.0, min(times) - self._clock()) if times else None

    def _start(self) -> None:
        if self.running:
            return
        thread = threading.Thread(target=self._work, name="fastcache-janitor", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return  # the interpreter is shutting down, or has no thread to spare: the next cache to be taken on tries again
        self._thread = thread

    def _work(self) -> None:
        while True:
            self.sweep_due()
            with self._changed:
                if not self._charges:
                    self._thread = None
                    return
                # Worked out under the lock: a cache taken on in between would else wait as long as the others.
                wait = self._seconds_left()
                if wait:
                    self._changed.wait(min(wait, threading.TIMEOUT_MAX))

    def end(self) -> None:
        """End the thread for good, as the interpreter exits.

        Were it left to run, it would be frozen at some point, perhaps with the lock held; and the finalizer of a cache, or
        any code that runs later and drops one, would wait for that lock for ever.
        """
        with self._changed:
            self._ended = True
            self._charges.clear()
            self._changed.notify()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(EXIT_PATIENCE)

    def _after_fork_in_child(self) -> None:
        charges = self._charges
        self._start_afresh()
        self._charges = charges
        if charges:
            self._start()


def _sweep(cache: Sweepable) -> None:
    removed = STEP
    while removed >= STEP:
        before = cache._counters()[3]
        try:
            removed = cache._sweep(STEP)
        except BaseException as error:
            # Of on_evict: what expired is gone all the same, so go on. Of the cache's timer: nothing is, and won't be.
            report_unraisable(error, cache)
            removed = STEP if cache._counters()[3] > before else 0
        sleep(0)


janitor = Janitor()
atexit.register(janitor.end)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=janitor._after_fork_in_child)
