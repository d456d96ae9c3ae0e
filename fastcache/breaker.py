"""The circuit breaker of a Redis server: after five failures in a row, calls fail at once instead of waiting.

Owns the count of failures, the register of breakers (one per server, shared by all caches of the process that use it,
sync and async ones) and the probe that finds out when the server is back. It must never decide what counts as a
failure (that is `outage.is_outage`) and never sends a caller's command to a server it believes to be away.

closed --five failures in a row--> open --each second--> half-open (a PING is out) --PONG--> closed
                                    ^------------------------no PONG------------------'

Callers are refused in half-open too: one PING finds out as much as a thousand callers.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
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

    def __init__(self, server: str) -> None:
        self.server = server
        self._reset()

    def _reset(self) -> None:
        """Start afresh; also in a forked child, where a lock may have been copied while held, and no thread lives."""
        self._lock = threading.Lock()
        self._probe: _Probe | None = None
        self.state = "closed"
        self.failures = 0
        self.opened = 0
        self.last_error = ""

    @property
    def is_open(self) -> bool:
        """Whether callers are to be refused."""
        return self.state != "closed"

    def failed(self, error: BaseException) -> None:
        """Count an outage: a connection that failed or a reply that didn't come in time."""
        with self._lock:
            self.failures += 1
            self.last_error = f"{type(error).__name__}: {error}"
            if self.failures >= FAILURES_TO_OPEN and self.state == "closed":
                self.state = "open"
                self.opened += 1

    def answered(self) -> None:
        """The server replied, if only with an error: the failures before it were not in a row with the next."""
        if self.failures and self.state == "closed":
            with self._lock:
                if self.state == "closed":
                    self.failures = 0

    def close(self) -> None:
        """The server sent a PONG: let callers through."""
        with self._lock:
            self.state = "closed"
            self.failures = 0
            self._probe = None

    def reason(self) -> str:
        return (
            f"not tried: the last {self.failures} calls to this server failed, and it hasn't answered a PING since"
            f" (asked every {PROBE_INTERVAL:g} s); last failure: {self.last_error}"
        )

    def keep_probing(self, ping: Ping, asynchronous: bool) -> None:
        """See to it that somebody probes while the breaker is open. Called by each caller that is turned away.

        `ping` is a bound method, held weakly: a dropped cache doesn't go on probing. An asyncio cache probes from a
        task of the running loop, another one from a daemon thread; a probe whose loop has stopped is replaced.
        """
        probe = self._probe
        if probe is not None and probe.alive():
            return
        with self._lock:
            if self.state == "closed" or (self._probe is not None and self._probe.alive()):
                return
            self._probe = _Probe(self, ping, asynchronous)

    def stop_probing(self, owner: object) -> _Probe | None:
        """End the probe if it goes through `owner`, which is about to be closed. The next caller starts another."""
        with self._lock:
            probe = self._probe
            if probe is None or not probe.belongs_to(owner):
                return None
            self._probe = None
        probe.stop()
        return probe

    def _probing(self, probe: _Probe, state: str) -> bool:
        """Move between open and half-open on behalf of `probe`; False if that one has been replaced or ended."""
        with self._lock:
            if self._probe is not probe or self.state == "closed":
                return False
            self.state = state
            return True


class _Probe:
    """One PING a second until the first PONG. The loop is a plan, so a thread and a task run the same one."""

    def __init__(self, breaker: Breaker, ping: Ping, asynchronous: bool) -> None:
        self._breaker = breaker
        self._ping = weakref.WeakMethod(ping)
        self._stopped = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        if asynchronous:
            loop = asyncio.get_running_loop()
            # In an empty context: the probe outlives the request that happened to start it.
            self._task = loop.create_task(arun(self._plan(asyncio.sleep)), context=contextvars.Context())
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

    def belongs_to(self, owner: object) -> bool:
        ping = self._ping()
        return ping is None or getattr(ping, "__self__", None) is owner

    def stop(self) -> None:
        self._stopped.set()
        if self._task is not None and not self._task.done():
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
            yield Call(sleep, PROBE_INTERVAL)
            if self._stopped.is_set() or not breaker._probing(self, "half-open"):
                return
            ping = self._ping()
            if ping is None:
                breaker._probing(self, "open")
                return
            try:
                yield Call(ping)
            except Exception as error:
                if not breaker._probing(self, "open"):
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
