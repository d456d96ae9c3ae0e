"""Worker threads: daemons, started when there is work, gone when there has been none for some time.

This file must never know what a job is for.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from weakref import WeakSet

from fastcache.events import report_unraisable

__all__ = ["MOST", "QUEUE", "Workers", "start_thread"]

MOST = 32
"""Worker threads of one cache at a time, or background tasks; concurrent.futures' own default on 28 cores and more."""

QUEUE = 1000
"""Background jobs that may wait for a worker; a further refresh is skipped, and the stale value served for longer."""

IDLE_SECONDS = 5.0
"""A worker thread without work ends after so long."""


def start_thread(job: Callable[[], object], name: str) -> bool:
    """Run a job in a thread of its own. False: there is none to spare, or the interpreter is shutting down."""
    try:
        threading.Thread(target=job, name=name, daemon=True).start()
    except (RuntimeError, MemoryError):
        return False
    return True


class Workers:
    """At most `most` daemon threads, started when there is work. (The threads of concurrent.futures are joined when the
    interpreter exits: a loader that hangs would hang the program.)
    """

    def __init__(self, name: str, most: int = MOST) -> None:
        self._name = name
        self._most = most
        self._start_afresh()
        _all_workers.add(self)

    def _start_afresh(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], object]] = deque()
        self._threads = 0
        self._idle = 0
        self.pending = 0

    def submit(self, job: Callable[[], object], most_waiting: int = QUEUE) -> bool:
        """Have a job run in an empty context. False: too many are waiting."""
        with self._changed:
            if len(self._jobs) >= most_waiting:
                return False
            if self._idle <= len(self._jobs) and self._threads < self._most:
                thread = threading.Thread(target=self._work, name=f"fastcache-{self._name}", daemon=True)
                try:
                    thread.start()
                    self._threads += 1
                except RuntimeError:  # no thread to spare, or the interpreter is shutting down
                    if not self._threads:
                        return False
            self._jobs.append(job)
            self.pending += 1
            self._changed.notify_all()
            return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                arrived = self._changed.wait_for(lambda: self._jobs, IDLE_SECONDS)
                self._idle -= 1
                if not arrived:
                    self._threads -= 1
                    return
                job = self._jobs.popleft()
            try:
                contextvars.Context().run(job)
            except BaseException as error:
                report_unraisable(error, job, "Exception ignored in the background")
            del job
            with self._changed:
                self.pending -= 1
                self._changed.notify_all()

    def drain(self, timeout: float | None) -> bool:
        """Wait until no job is left; whether that is so."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: not self.pending, timeout))


_all_workers: WeakSet[Workers] = WeakSet()


def _after_fork_in_child() -> None:
    for workers in list(_all_workers):
        workers._start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
