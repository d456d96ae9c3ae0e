"""The circuit breaker of a Redis server: after five failures in a row, calls fail at once instead of waiting.

Owns the count of failures, the register of breakers (one per server, shared by all caches of the process that use it,
sync and async ones) and the probe that finds out when the server is back. It must never decide what counts as a
failure (that is `outage.is_outage`) and never sends a caller's command to a server it believes to be away, but the one
of a trial.

closed --five failures in a row--> open --each second--> half-open (a PING is out) --PONG--> closed
                                    ^------------------------no PONG------------------'

Callers are refused in half-open too: one PING finds out as much as a thousand callers. But a probe lives no longer than
its event loop or its cache, and where none lives long enough to hear from the server, nobody would ever find out. So when
no PING has come to an end for two intervals, one caller is let through as the trial, in place of a PING.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Hashable
from typing import Any

from fastcache.outage import answers_ping
from fastcache.plan import Call, arun, run

__all__ = ["FAILURES_TO_OPEN", "PROBE_INTERVAL", "Breaker", "breaker_of"]

FAILURES_TO_OPEN = 5
"""In a row: a lost packet or a restart of one connection doesn't shut everybody out, and with the default timeouts of
0.25 s a server that hangs costs a single-threaded program 1.25 s before calls stop waiting."""

PROBE_INTERVAL = 1.0
"""Seconds between PINGs: with the default timeouts a returned server is noticed within 2 s, at one packet a second."""

Ping = Callable[[], Any]
"""Asks the server for a PONG: blocks in a thread, or returns an awaitable. Raises anything for no PONG."""


class Breaker:
    """The state of one server as this process sees it. Every method is O(1), thread-safe and never waits."""

    def __init__(self, server: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.server = server
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        """Start afresh; also in a forked child, where a lock may have been copied while held, and no thread lives."""
        self._lock = threading.Lock()
        self._probe: _Probe | None = None
        self.state = "closed"
        self.failures = 0
        self.opened = 0
        self.last_error = ""
        self._heard = 0.0  # when a PING or a trial last came to an end
        self._next = 0.0  # when the next PING is due, whichever probe sends it
        self._trial: Hashable | None = None  # the caller that was let through

    @property
    def is_open(self) -> bool:
        """Whether the caller, about to send a command, is to be refused. The one that is let through is the trial."""
        return self.state != "closed" and not self._on_trial()

    def _on_trial(self) -> bool:
        if self._trial is not None and self._trial == _caller():
            return True
        if self._clock() < self._heard + 2 * PROBE_INTERVAL:
            return False
        with self._lock:
            now = self._clock()
            if now < self._heard + 2 * PROBE_INTERVAL:
                return False
            probe = self._probe
            if self.state == "half-open" and probe is not None and probe.alive():
                return False  # a PING is out, and slow
            if self.state != "closed":
                self.state = "half-open"
                self._trial = _caller()
                self._heard = now  # a trial that never tells is followed by another
                self._next = now + PROBE_INTERVAL
            return True

    def _ended(self) -> None:
        """A PING or a call came to its end without a sign of life."""
        self._heard = self._clock()
        self._next = self._heard + PROBE_INTERVAL

    def failed(self, error: BaseException) -> None:
        """Count an outage: a connection that failed or a reply that didn't come in time."""
        with self._lock:
            self.failures += 1
            self.last_error = f"{type(error).__name__}: {error}"
            if self.failures >= FAILURES_TO_OPEN and self.state == "closed":
                self.state = "open"
                self.opened += 1
                self._ended()
            elif self._trial is not None and self._trial == _caller():
                self.state = "open"
                self._trial = None
                self._ended()
            elif self.state != "closed":
                self._heard = self._clock()

    def answered(self) -> None:
        """The server replied, if only with an error: the failures before it were not in a row with the next.

        While the breaker is open only the trial's reply counts: another one may be from before.
        """
        if not self.failures:
            return
        if self.state != "closed":
            if self._trial is not None and self._trial == _caller():
                self.close()
            return
        with self._lock:
            if self.state == "closed":
                self.failures = 0

    def close(self) -> None:
        """The server sent a PONG: let callers through."""
        with self._lock:
            probe, self._probe = self._probe, None
            self.state = "closed"
            self.failures = 0
            self._trial = None
        if probe is not None:
            probe.stop()

    def reason(self) -> str:
        return (
            f"not tried: the last {self.failures} calls to this server failed, and it hasn't answered a PING since"
            f" (asked every {PROBE_INTERVAL:g} s); last failure: {self.last_error}"
        )

    def keep_probing(self, ping: Ping, asynchronous: bool) -> None:
        """See to it that somebody probes while the breaker is open. Called by each caller that is turned away.

        `ping` is a bound method, held weakly: a dropped cache doesn't go on probing. An asyncio cache probes from a
        task of the running loop, another one from a daemon thread; a probe whose loop has stopped is replaced.

        The next PING goes through the caller that was turned away last, rather than the one whose PING has just failed:
        a client that can't reach its server, say by a wrong certificate, doesn't keep out one that can.
        """
        probe = self._probe
        if probe is not None and probe.alive() and not probe.could_use(ping):
            return
        with self._lock:
            if self.state == "closed":
                return
            probe = self._probe
            if probe is not None and probe.alive():
                if self.state == "half-open" or not probe.could_use(ping):
                    return  # a PING is out
                if probe.runs_here(asynchronous):
                    probe.use(ping)
                    return
                if not probe.has_failed():
                    return  # its turn first: callers of different threads and loops don't replace each other's at once
                probe.stop()
            try:
                self._probe = _Probe(self, ping, asynchronous)
            except RuntimeError:  # no thread can be started, or the loop is being closed: the next caller tries again
                self._probe = None

    def stop_probing(self, owner: object) -> _Probe | None:
        """End the probe if it goes through `owner`, which is about to be closed. The next caller starts another."""
        with self._lock:
            probe = self._probe
            if probe is None or not probe.belongs_to(owner):
                return None
            self._probe = None
        probe.stop()
        return probe

    def _until_next(self) -> float:
        return self._next - self._clock()

    def _probing(self, probe: _Probe, state: str, ended: bool = False) -> bool:
        """Move between open and half-open on behalf of `probe`; False if that one has been replaced or ended."""
        with self._lock:
            if self._probe is not probe or self.state == "closed":
                return False
            self.state = state
            self._next = self._clock() + PROBE_INTERVAL
            if ended:
                self._ended()
            return True


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


def _caller() -> Hashable:
    return threading.get_ident(), id(_current_task())


class _Probe:
    """One PING a second until the first PONG. The loop is a plan, so a thread and a task run the same one.

    When the next one is due is for the breaker to say: a probe that takes over from another doesn't begin anew.
    """

    def __init__(self, breaker: Breaker, ping: Ping, asynchronous: bool) -> None:
        self._breaker = breaker
        self._ping = weakref.WeakMethod(ping)
        self._failed: weakref.WeakMethod[Ping] | None = None  # the last that got no PONG
        self._stopped = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        if asynchronous:
            loop = asyncio.get_running_loop()
            # In an empty context: the probe outlives the request that happened to start it.
            probing = arun(self._plan(asyncio.sleep))
            try:
                self._task = loop.create_task(probing, context=contextvars.Context())
            except RuntimeError:
                probing.close()
                raise
        else:
            self._thread = threading.Thread(
                target=lambda: run(self._plan(self._stopped.wait)), name="fastcache-probe", daemon=True
            )
            self._thread.start()

    def alive(self) -> bool:
        if self._thread is not None:
            return self._thread.is_alive()
        assert self._task is not None
        return not self._task.done() and self._task.get_loop().is_running()

    def could_use(self, ping: Ping) -> bool:
        """Whether `ping` is another one than the next and the last to fail."""
        return self._ping() != ping and (self._failed is None or self._failed() != ping)

    def use(self, ping: Ping) -> None:
        self._ping = weakref.WeakMethod(ping)

    def has_failed(self) -> bool:
        return self._failed is not None

    def runs_here(self, asynchronous: bool) -> bool:
        """Whether a caller's ping can run where this probe does: in a thread, or in the running event loop."""
        if self._task is None or not asynchronous:
            return self._task is None and not asynchronous
        return self._task.get_loop() is asyncio.get_running_loop()

    def belongs_to(self, owner: object) -> bool:
        ping = self._ping()
        return ping is None or getattr(ping, "__self__", None) is owner

    def stop(self) -> None:
        self._stopped.set()
        if self._task is not None and not self._task.done() and self._task is not _current_task():
            loop = self._task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._task.cancel)

    def join(self) -> None:
        """Wait until the thread is gone, at most the second that a PING with the default timeouts can take."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    async def ajoin(self) -> None:
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._task], timeout=1.0)
        elif self._thread is not None:
            await asyncio.to_thread(self.join)

    def _plan(self, sleep: Callable[[float], Any]) -> Generator[Call, Any, None]:
        breaker = self._breaker
        while True:
            while (left := breaker._until_next()) > 0 and not self._stopped.is_set():
                yield Call(sleep, left)
            if self._stopped.is_set() or not breaker._probing(self, "half-open"):
                return
            ping = self._ping()
            if ping is None:
                breaker._probing(self, "open")
                return
            try:
                yield Call(ping)
            except Exception as error:
                self._failed = weakref.WeakMethod(ping)
                if not breaker._probing(self, "open", ended=True):
                    return
                if answers_ping(error):
                    breaker.close()
                    return
            except BaseException:
                breaker._probing(self, "open")  # cancelled: the loop ends; the next caller starts another probe
                raise
            else:
                if breaker._probing(self, "open"):
                    breaker.close()
                return
            finally:
                del ping  # not across the sleep: it would keep a dropped cache alive


_breakers: weakref.WeakValueDictionary[Hashable, Breaker] = weakref.WeakValueDictionary()
_register_lock = threading.Lock()


def breaker_of(address: Hashable, server: str) -> Breaker:
    """The breaker of the server at `address`, made on first use and dropped with the last cache that uses it."""
    with _register_lock:
        breaker = _breakers.get(address)
        if breaker is None:
            breaker = _breakers[address] = Breaker(server)
        return breaker


def _after_fork_in_child() -> None:
    global _register_lock
    _register_lock = threading.Lock()
    for breaker in list(_breakers.values()):
        breaker._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
