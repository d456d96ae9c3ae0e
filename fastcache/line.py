"""One connection on which a process hears what others write: what is asked on it, what is heard, and until when it is good.

A line is good as long as it is known that nothing was missed: every half second it asks for a sign of life, and what was
published before the answer arrives before the answer. So an answer to what was asked at t says that all is known up to t,
and the copies may be relied on for TRUST seconds from then. This file must never know a copy or a cache but by its `Ear`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable
from time import monotonic
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from redis.exceptions import ConnectionError, NoPermissionError, ResponseError

from fastcache.messages import Message, decode
from fastcache.plan import Call

__all__ = ["BEAT", "TRUST", "Ear", "Line"]

BEAT = 0.5  # seconds between two questions: three may be lost before trust is
TRUST = 2.0
"""Seconds after a question that was answered: the bound on how old a copy can be when a line dies without a word."""

RETRY = 0.5  # seconds until the next attempt to connect

Steps = Generator[Call, Any, None]


class Ear(Protocol):
    """Who wants to hear: one cache. Nothing that it does raises."""

    tracked: tuple[bytes, ...]
    """The beginnings of the names that are to be watched instead of subscribing."""

    def channels(self, anchors: Iterable[int]) -> tuple[list[bytes], list[bytes]]:
        """What to subscribe to on the line to a node that has these anchors: plain channels, shard channels."""
        ...

    def hear(self, message: Message) -> None:
        """What another process, or this one, has published."""
        ...

    def hear_keys(self, names: list[bytes] | None) -> None:
        """Names under `tracked` that were changed; None: any may have been."""
        ...


class _Question:
    """Something that was sent and is answered in its turn."""

    __slots__ = ("asked", "beat", "flight")

    def __init__(self, asked: float, beat: bool, flight: Any = None) -> None:
        self.asked = asked
        self.beat = beat
        self.flight = flight


class Line:
    """The state of one line. `plan` is what listens; it runs in a thread or a task until nobody wants to hear any more.

    `anchors`: those of a cluster that the node has (see `sidekeys.py`). Where they move, another line is needed. `probe`: a
    name in one of the node's slots. `lost_plan` is run after a failure, before the next attempt.
    """

    def __init__(
        self,
        make_wire: Callable[[], Any],
        ears: Callable[[], Iterable[Any]],
        node: str | None,
        anchors: tuple[int, ...],
        probe: bytes | None,
        tracking: bool,
        pause: Callable[[float], Any],
        changed: Callable[[], object],
        alive: Callable[[], object],
        lost_plan: Callable[[], Steps],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._make_wire = make_wire
        self._ears = ears
        self.node = node
        self.anchors = anchors
        self._probe = probe
        self._tracking = tracking
        self._pause = pause
        self._changed = changed
        self._alive = alive
        self._lost_plan = lost_plan
        self._clock = clock
        self._sharded = True  # until the server says that it knows no shard channels (Redis 6)
        self.stopped = False
        self.error: Exception | None = None
        self._wire: Any = None
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.until = -math.inf
        # A line lives until nobody wants to hear any more, so it must not be what keeps an ear alive.
        self.heard_by: WeakSet[Any] = WeakSet()
        self._awaited: WeakKeyDictionary[Any, set[bytes]] = WeakKeyDictionary()
        self._ears_of: dict[bytes, WeakSet[Any]] = {}  # by channel
        self._questions: deque[_Question] = deque()
        self._watching = False  # tracking is on

    # -- the loop --------------------------------------------------------------------------------------------------

    def plan(self) -> Steps:
        while not self.stopped and self._ears():
            wire = None
            try:
                wire = self._make_wire()
                yield Call(wire.open)
                self._wire = wire
                yield from self._listen_plan(wire)
            except GeneratorExit:
                self._lose(None)
                raise
            except BaseException as error:
                self._lose(error if isinstance(error, Exception) else None)
                if wire is not None:
                    yield Call(wire.close)
                if not isinstance(error, Exception):
                    raise
                self._sharded = not _knows_no_shards(error)
                if not self.stopped and not isinstance(error, NoPermissionError):  # which no other node would grant
                    yield from self._lost_plan()
                if not self.stopped:
                    yield Call(self._pause, RETRY)
            else:
                self._lose(None)
                yield Call(wire.close)

    def _listen_plan(self, wire: Any) -> Steps:
        due = self._clock()
        while not self.stopped and self._ears():
            yield from self._greet_plan(wire)
            now = self._clock()
            if now >= due:
                self._alive()
                yield from self.ask_plan(None)
                due = now + BEAT
            if self._questions and now - self._questions[0].asked > TRUST:
                raise ConnectionError(f"no answer for {TRUST:g} s")
            reply = yield Call(wire.receive, max(0.001, due - now))
            if reply is not None:
                self._take(reply)

    def _greet_plan(self, wire: Any) -> Steps:
        """Subscribe for the ears that are new. (Apart, since the loop's variable would keep the last of them alive.)"""
        for ear in self._ears():
            if ear not in self._awaited and ear not in self.heard_by:
                yield from self._subscribe_plan(wire, ear)

    def ask_plan(self, flight: Any) -> Steps:
        """Ask for a sign of life. `flight` ends with the answer, when all that was published before has been heard."""
        wire = self._wire
        if wire is None:
            if flight is not None:
                flight.succeed(None)  # there are no copies that anyone relies on
            return
        command: tuple[Any, ...] = ("PING",)
        if self._probe is not None and wire.speaks_resp3:
            command = ("EXISTS", self._probe)  # to be answered only by the primary of that slot, in a cluster that works
        question = _Question(self._clock(), True, flight)
        yield Call(wire.send, *command, expect=self._questions, reply=question)

    def _subscribe_plan(self, wire: Any, ear: Any) -> Steps:
        if self._tracking:
            if not wire.speaks_resp3:
                raise ConnectionError("coherence='tracking' needs a server that speaks RESP3 (Redis 6 and later)")
            if self._watching:
                self.heard_by.add(ear)  # what is watched is the same for all ears of a line
                self._changed()
                return
            if self._awaited:
                return  # asked for already
            self._awaited[ear] = {b"OK"}
            prefixes = [part for prefix in ear.tracked for part in ("PREFIX", prefix)]
            question = _Question(self._clock(), False, ear)
            command = ("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
            yield Call(wire.send, *command, expect=self._questions, reply=question)
            return
        plain, sharded = ear.channels(self.anchors if self._sharded else ())
        self._awaited[ear] = {*plain, *sharded}
        for channel in self._awaited[ear]:
            self._ears_of.setdefault(channel, WeakSet()).add(ear)
        for channel in plain:
            yield Call(wire.send, "SUBSCRIBE", channel)
        for channel in sharded:
            yield Call(wire.send, "SSUBSCRIBE", channel)

    def _lose(self, error: Exception | None) -> None:
        """The line is down: nothing is known from now on."""
        questions = self._questions
        self._wire = None
        self.error = error
        self._start_afresh()
        self._changed()
        for question in questions:
            if question.beat and question.flight is not None:
                question.flight.succeed(None)

    # -- what is heard ---------------------------------------------------------------------------------------------

    def _take(self, reply: Any) -> None:
        kind = reply[0] if isinstance(reply, list) and reply else None
        if kind in (b"message", b"smessage"):
            self._hear(reply[1], reply[2])
        elif kind in (b"subscribe", b"ssubscribe"):
            self._confirm(reply[1])
        elif kind == b"invalidate":
            for ear in list(self.heard_by):
                ear.hear_keys(reply[1])
        elif kind in (b"sunsubscribe", b"unsubscribe"):
            raise ConnectionError(f"the server ended the subscription to {reply[1]!r}: its slot has moved")
        elif kind is None or kind == b"pong":
            self._answer(reply)

    def _hear(self, channel: bytes, data: bytes) -> None:
        message = decode(data)
        for ear in list(self._ears_of.get(channel, ())):
            if message is None:
                ear.hear_keys(None)  # of a later version, perhaps
            else:
                ear.hear(message)

    def _confirm(self, channel: bytes) -> None:
        for ear, awaited in list(self._awaited.items()):
            awaited.discard(channel)
            if not awaited:
                del self._awaited[ear]
                self.heard_by.add(ear)
                self._changed()

    def _answer(self, reply: Any) -> None:
        if not self._questions:
            raise ConnectionError(f"an answer to nothing: {reply!r:.80}")
        question = self._questions.popleft()
        if not question.beat:
            self._awaited.pop(question.flight, None)
            self._watching = True
            self.heard_by.add(question.flight)
            self._changed()
            return
        self.until = question.asked + TRUST
        self.error = None
        self._changed()
        if question.flight is not None:
            question.flight.succeed(None)


def _knows_no_shards(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, ResponseError) and "unknown command" in text and "ssubscribe" in text
