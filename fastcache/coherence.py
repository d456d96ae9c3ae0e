"""Hearing what other processes write: who listens, on which lines, and until when copies may be relied on.

There is one `Hub` for each server that a process has two-level caches on, with a line to it; of a cluster, or of a master
that Sentinels watch, one for each client, with a line to each primary that the client knows. A hub starts with the first
cache that needs it and ends with the last; its lines run in daemon threads, or in tasks of the event loop that needed them
first, and of another one when that ends. A forked child begins with none.

A cache's gate is open while it is heard on all lines, until the first of them may have missed something. What is done about
what is heard is in `listener.py`. This file must never touch a value.
"""

from __future__ import annotations

import contextvars
import math
import os
import threading
from collections.abc import Generator, Hashable
from time import monotonic
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from fastcache.events import report_unraisable
from fastcache.line import TRUST, Line
from fastcache.listener import Listener
from fastcache.loops import finishes_in
from fastcache.plan import Call, arun, run
from fastcache.sidekeys import ANCHORS, beat_name
from fastcache.wires import wire_to
from fastcache.workers import start_thread

__all__ = ["Hub", "hub_of"]


class Hub:
    """The lines to one server, and who is heard on them."""

    def __init__(self, asynchronous: bool, tracking: bool) -> None:
        self._asynchronous = asynchronous
        self._tracking = tracking
        self._lock = threading.RLock()
        self._listeners: WeakSet[Listener] = WeakSet()
        self.lines: dict[str | None, Line] = {}
        self._runners: dict[Line, Any] = {}
        self._discovery: Any = None

    def take_on(self, listener: Listener) -> None:
        """Listen for a cache, too."""
        if listener.link.closed:
            return
        with self._lock:
            new = listener not in self._listeners
            self._listeners.add(listener)
            self._attend()
            lines = list(self.lines.values()) if new else []
        for line in lines:
            self._wake(line)

    def _wake(self, line: Line) -> None:
        """Have a line look whom it listens for: by an answer, if it is waiting for one."""
        if not self._asynchronous:
            self._ask(line, None)
            return
        runner = self._runners.get(line)
        if runner is not None and runner.get_loop().is_running():
            import asyncio

            asyncio.run_coroutine_threadsafe(self._ask_there(line, None), runner.get_loop())

    def let_go(self, listener: Listener) -> None:
        """Listen for it no more. Without any, the lines end within half a second."""
        with self._lock:
            self._listeners.discard(listener)
            listener.heard = False
            if not self._listeners:
                self._end()

    def _end(self) -> None:
        for line in list(self.lines.values()):
            self._drop(line)

    def _drop(self, line: Line) -> None:
        line.stopped = True
        self.lines.pop(line.node, None)
        runner = self._runners.pop(line, None)
        if self._asynchronous and runner is not None and not runner.done() and not runner.get_loop().is_closed():
            runner.get_loop().call_soon_threadsafe(runner.cancel)

    def _ears(self) -> list[Listener]:
        return list(self._listeners)

    def _attend(self) -> None:
        """Have a line to each node, and somebody who listens on it.

        In a cluster they come and go with the primaries, as far as the client knows these. Where an anchor moved, both its
        old and its new node get a new line.
        """
        link = self._link()
        places = _places(link)
        if not places:
            self._discover()
            return
        before = dict(self.lines)
        for name, line in before.items():
            if name not in places or line.anchors != places[name][1] or not self._is_running(line):
                self._drop(line)
        for name, (node, anchors) in places.items():
            if name not in self.lines:
                self._start(link, name, node, anchors)
        if self.lines != before:
            self._changed()

    def _discover(self) -> None:
        """An asyncio client of a cluster knows no nodes before its first command."""
        if self._discovery is None or self._discovery.done():
            import asyncio

            self._discovery = asyncio.get_running_loop().create_task(arun(self._renew_plan()), context=contextvars.Context())
            self._discovery.add_done_callback(_take_note)

    def _is_running(self, line: Line) -> bool:
        runner = self._runners.get(line)
        if runner is None or not self._asynchronous:
            return runner is not None and not line.stopped
        return not runner.done() and runner.get_loop().is_running()

    def _start(self, link: Any, name: str | None, node: Any, anchors: tuple[int, ...]) -> None:
        slot = None if name is None else anchors[0] if anchors else link.slot_of(name)
        probe = None if slot is None else beat_name(slot)
        pause = threading.Event().wait if not self._asynchronous else _sleep
        line = Line(
            lambda: self._wire(node), self._ears, name, anchors, probe, self._tracking, pause, self._changed,
            self._look_around, self._renew_plan,
        )  # fmt: skip
        if self._asynchronous:
            import asyncio

            task = asyncio.get_running_loop().create_task(arun(line.plan()), context=contextvars.Context())
            task.add_done_callback(_take_note)
            self._runners[line] = task
        elif start_thread(lambda: self._run(line), "fastcache-listener"):
            self._runners.setdefault(line, True)
        else:
            return
        self.lines[name] = line

    def _run(self, line: Line) -> None:
        try:
            contextvars.Context().run(run, line.plan())
        finally:
            with self._lock:
                self._runners[line] = None
                if self.lines.get(line.node) is line:
                    self._drop(line)

    def _wire(self, node: Any) -> Any:
        # In a cluster, too: by RESP2, one who has subscribed can't ask whether the node is still the primary of its slots.
        return wire_to(self._link(), node, resp3=self._tracking or node is not None)

    def _link(self) -> Any:
        for listener in list(self._listeners):
            if not listener.link.closed:
                return listener.link
        raise ConnectionError("no cache is left to listen for")

    def _look_around(self) -> None:
        """In a cluster, nodes come and go."""
        if self._link().cluster:
            with self._lock:
                self._attend()

    def _renew_plan(self) -> Generator[Call, Any, None]:
        """A line was lost. In a cluster that may be news to the client, which would hear of it by its next command only."""
        try:
            link = self._link()
            if link.cluster:
                yield Call(link.client.nodes_manager.initialize)
                self._look_around()
        except Exception:
            pass  # nobody to ask: again after the next attempt to connect

    def _changed(self) -> None:
        """Something happened on a line: see until when each cache can rely on its copies."""
        with self._lock:
            lines = list(self.lines.values())
            for listener in list(self._listeners):
                heard = bool(lines) and all(listener in line.heard_by for line in lines)
                listener.trust(min(line.until for line in lines) if heard else -math.inf)

    def sync_plan(self, driver: Any) -> Generator[Call, Any, None]:
        """Wait until all has been heard that was published before. At most TRUST seconds: then no copy is relied on."""
        flights = []
        for line in list(self.lines.values()):
            flight = driver.flights.make()
            flights.append(flight)
            yield Call(self._ask, line, flight)
        for flight in flights:
            yield Call(driver.wait, flight, TRUST)

    def _ask(self, line: Line, flight: Any) -> Any:
        if not self._asynchronous:
            try:
                run(line.ask_plan(flight))
            except Exception:
                self._give_up(line, flight)
            return None
        return self._ask_there(line, flight)

    async def _ask_there(self, line: Line, flight: Any) -> None:
        """In the event loop of the line."""
        import asyncio

        runner = self._runners.get(line)
        if runner is None or not runner.get_loop().is_running():
            self._give_up(line, flight)
            return
        loop = runner.get_loop()
        if loop is asyncio.get_running_loop():
            try:
                await arun(line.ask_plan(flight))
            except Exception:
                self._give_up(line, flight)
        elif not await finishes_in(loop, lambda: arun(line.ask_plan(flight)), TRUST):
            self._give_up(line, flight)

    def _give_up(self, line: Line, flight: Any) -> None:
        """A line can't be asked. It is down, though who listens may not know yet, so no copy is relied on from now on."""
        line.until = -math.inf
        self._changed()
        if flight is not None and not flight.done:
            flight.succeed(None)

    def state(self) -> str:
        """In words, for `explain`."""
        errors = [str(line.error) for line in self.lines.values() if line.error is not None]
        if errors:
            return f"not listening: {errors[0]}"
        now = monotonic()
        silent = sum(line.until <= now for line in self.lines.values())
        return f"listening on {len(self.lines)} lines" + (f", {silent} of which didn't answer in time" if silent else "")


def _places(link: Any) -> dict[str | None, tuple[Any, tuple[int, ...]]]:
    """Where to listen: the nodes by name, each with its anchors."""
    if not link.cluster:
        return {None: (None, ())}
    homes = [(anchor, link.primary_of(anchor)) for anchor in ANCHORS]
    return {
        node.name: (node, tuple(anchor for anchor, home in homes if home == node.name))
        for node in link.client.get_primaries()
    }


async def _sleep(seconds: float) -> None:
    import asyncio

    await asyncio.sleep(seconds)


def _take_note(task: Any) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        report_unraisable(error, task, "Exception ignored in the listener")


_hubs: WeakValueDictionary[Hashable, Hub] = WeakValueDictionary()
_register_lock = threading.Lock()


def hub_of(listener: Listener) -> Hub:
    """The hub of a cache's server. (To watch names, each prefix needs a connection of its own: they must not overlap.)

    Where a client finds its servers by itself, caches share a hub only with the client: one that reads from a server that is
    no longer the primary must not go by what is heard from the new one.
    """
    link = listener.link
    key = (link.finder, link.asynchronous, listener.tracked[0] if listener.tracking else None)
    with _register_lock:
        hub = _hubs.get(key)
        if hub is None:
            hub = _hubs[key] = Hub(link.asynchronous, listener.tracking)
        return hub


def _after_fork_in_child() -> None:
    global _register_lock
    _register_lock = threading.Lock()
    _hubs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
