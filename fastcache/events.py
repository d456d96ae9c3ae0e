"""What the loading engine tells its observers: typed events for a callback, counters for `stats()`, lines for the log.

The logger "fastcache" is silent unless the program gives it a handler. It says when the backend goes away and when it is
back, one line each, and at most one of each every ten seconds. This file must never let an observer's error reach a caller.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias
from weakref import WeakSet

__all__ = ["Event", "EventKind", "OnEvent", "Reporter", "report_unraisable"]

EventKind: TypeAlias = Literal[
    "load", "load_error", "stale", "refused", "store_error", "backend_error", "backend_away", "backend_back",
    "coherence_lost", "coherence_back",
]

LINE_INTERVAL = 10.0  # seconds between two lines of a sort: a connection that flaps must not fill a disk


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a cache's loading engine.

    "load": a loader returned; `seconds` says how long it took. "load_error": it raised or timed out; so does `error`.
    "stale": a value past its ttl was served. "refused": a loaded value was not stored, because the key was invalidated or
    written meanwhile. "store_error": a loaded value could not be stored, with the `error`. "backend_error": the cache could
    not be read or written. "backend_away", "backend_back": the first failure after a success, and the other way round.
    "coherence_lost", "coherence_back": a two-level cache stopped hearing what other processes write, or hears it (again).
    `key` is None where an event isn't about a single key.
    """

    kind: EventKind
    key: Hashable = None
    seconds: float | None = None
    error: BaseException | None = None


OnEvent: TypeAlias = Callable[[Event], object]


class Reporter:
    """The counters and observers of one cache. Thread-safe; the callback runs in the thread or task of what it reports."""

    def __init__(self, name: str, on_event: OnEvent | None, clock: Callable[[], float] = monotonic) -> None:
        if on_event is not None and not callable(on_event):
            raise TypeError(f"on_event must be a function of one event, or None, not {on_event!r}")
        self._name = name
        self._on_event = on_event
        self._clock = clock
        self._lock = threading.Lock()
        _reporters.add(self)
        self._away = False
        self._last_line = {"away": -LINE_INTERVAL, "back": -LINE_INTERVAL}
        self.loads = 0
        self.load_errors = 0
        self.load_seconds = 0.0
        self.stale_hits = 0
        self.refused = 0
        self.degraded = 0

    @property
    def observer(self) -> OnEvent | None:
        """The callback."""
        return self._on_event

    def counters(self) -> dict[str, Any]:
        """The part of `CacheStats` that is counted here."""
        return {
            "loads": self.loads,
            "load_errors": self.load_errors,
            "load_seconds": self.load_seconds,
            "stale_hits": self.stale_hits,
            "lease_refused": self.refused,
        }

    def loaded(self, key: Hashable, seconds: float, error: BaseException | None) -> None:
        with self._lock:
            self.loads += 1
            self.load_seconds += seconds
            self.load_errors += error is not None
        self.tell("load" if error is None else "load_error", key, seconds, error)

    def served_stale(self, key: Hashable) -> None:
        with self._lock:
            self.stale_hits += 1
        self.tell("stale", key)

    def refuse(self, key: Hashable) -> None:
        with self._lock:
            self.refused += 1
        self.tell("refused", key)

    def backend_failed(self, key: Hashable, error: BaseException, away: bool = True) -> None:
        """`away`: it didn't answer; an error that it answered with says nothing about that."""
        with self._lock:
            self.degraded += 1
            first = away and not self._away
            self._away = self._away or away
        self.tell("backend_error", key, error=error)
        if first:
            self.tell("backend_away", error=error)
            self._line("away", f"{self._name}: the backend is away, loading without it: {error}")

    def backend_answered(self) -> None:
        if self._away:
            with self._lock:
                first, self._away = self._away, False
            if first:
                self.tell("backend_back")
                self._line("back", f"{self._name}: the backend is back")

    def tell(
        self, kind: EventKind, key: Hashable = None, seconds: float | None = None, error: BaseException | None = None
    ) -> None:
        if self._on_event is not None:
            try:
                self._on_event(Event(kind, key, seconds, error))
            except Exception as wrong:
                report_unraisable(wrong, self._on_event, "Exception ignored in on_event")

    def _line(self, sort: str, text: str) -> None:
        now = self._clock()
        with self._lock:
            if now - self._last_line[sort] < LINE_INTERVAL:
                return
            self._last_line[sort] = now
        import logging  # 10 ms that a cache whose backend never fails doesn't need

        logger = logging.getLogger("fastcache")
        if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            logger.addHandler(logging.NullHandler())  # else Python prints warnings of a logger without handlers
        if sort == "away":
            logger.warning(text)
        else:
            logger.info(text)


_reporters: WeakSet[Reporter] = WeakSet()


def _after_fork_in_child() -> None:
    for reporter in list(_reporters):
        reporter._lock = threading.Lock()  # a thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# The interpreter's own hook takes nothing else, and this type has no public name.
_HookArgs: Any = next((each for each in tuple.__subclasses__() if each.__name__ == "UnraisableHookArgs"), None)


def report_unraisable(error: BaseException, where: object, message: str) -> None:
    """Hand an error to `sys.unraisablehook`: there is no caller to raise it to."""
    report = (type(error), error, error.__traceback__, message, where)
    names = ("exc_type", "exc_value", "exc_traceback", "err_msg", "object")
    unraisable: Any = _HookArgs(report) if _HookArgs else SimpleNamespace(**dict(zip(names, report, strict=True)))
    sys.unraisablehook(unraisable)
