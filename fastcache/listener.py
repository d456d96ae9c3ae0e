"""What is done in one cache about what other processes write: copies are dropped, loads are shared no more, the gate moves.

It is told by the lines of a hub (see `coherence.py`), in their thread or task. When it begins to be heard, the front begins
anew, since nothing is known of what was written before. This file must never talk to Redis.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakMethod, WeakSet

from fastcache.events import Reporter
from fastcache.front import Front
from fastcache.keys import glob_matcher
from fastcache.messages import Message
from fastcache.news import News

__all__ = ["Listener"]


class Listener:
    """The ear (see `line.py`) of one cache: what is heard is applied to its front, and to what it is loading.

    `forget` is told which names changed: one, those for which a function is true, or None where that isn't known. Nothing
    that is being loaded for them may be shared with later callers.
    `find_hub`: who listens for it (see `coherence.py`).
    """

    def __init__(
        self,
        front: Front,
        news: News,
        link: Any,
        tracking: bool,
        forget: Callable[[Any], object],
        reporter: Reporter,
        find_hub: Callable[[Listener], Any],
    ) -> None:
        self.front = front
        self.link = link
        self.tracking = tracking
        self.heard = False
        self._news = news
        self._forget = WeakMethod(forget)
        self._reporter = reporter
        self._find_hub = find_hub
        self._hub: Any = None
        names = news.names
        self.tracked = (names.prefix, names.token_prefix)
        _listeners.add(self)

    def begin_anew(self) -> None:  # pragma: no cover (in a forked child, which ends without saving what it ran)
        """In a forked child."""
        self.heard = False
        self._hub = None
        self._news.begin_anew()
        self.front.forget_parent()

    @property
    def hub(self) -> Any:
        if self._hub is None:
            self._hub = self._find_hub(self)
        return self._hub

    def attend(self) -> None:
        """See to it that somebody listens. O(lines); called by who finds the gate shut."""
        self.hub.take_on(self)

    def leave(self) -> None:
        """Hear no more."""
        if self._hub is not None:
            self._hub.let_go(self)
        self.front.gate.close()

    # -- what a line asks ------------------------------------------------------------------------------------------

    def channels(self, anchors: Iterable[int]) -> tuple[list[bytes], list[bytes]]:
        names = self._news.names
        return [names.channel], [names.shard_channel(anchor) for anchor in anchors]

    def hear(self, message: Message) -> None:
        if message.origin == self._news.origin:
            return  # done already, in the right order
        if message.operation == "key":
            self._let_go(message.subject)
            self.front.drop([message.subject])
        elif message.operation == "tag":
            self._let_go(None)
            self.front.retag(message.subject, None)  # which one is the latest, only Redis knows
        else:
            glob = glob_matcher(message.subject.decode("utf-8", "surrogateescape"))

            def matches(name: bytes) -> object:
                return glob(name.decode("utf-8", "surrogateescape"))

            self._let_go(matches)
            self.front.drop_where(matches)

    def hear_keys(self, names: list[bytes] | None) -> None:
        if names is None:
            self._let_go(None)
            self.front.reset()
            return
        tokens = self._news.names.token_prefix
        for name in names:
            if name.startswith(tokens):
                self._let_go(None)
                self.front.retag(self._news.names.tag(name), None)
            else:
                self._let_go(name)
                self.front.drop([name])

    def _let_go(self, changed: bytes | Callable[[bytes], object] | None) -> None:
        forget = self._forget()
        if forget is not None:
            forget(changed)

    def trust(self, until: float) -> None:
        """It is heard on all lines, and nothing was missed that copies could be relied on until then; -inf: it isn't."""
        if until == -math.inf:
            self.front.gate.close()
            if self.heard:
                self.heard = False
                self.front.lost += 1
                self._reporter.tell("coherence_lost")
            return
        if not self.heard:
            self._let_go(None)  # what is being loaded may be as old as the copies
            self.front.reset()
            self.heard = True
            self._reporter.tell("coherence_back")
        self.front.gate.until = until


_listeners: WeakSet[Listener] = WeakSet()


def _after_fork_in_child() -> None:
    for listener in list(_listeners):
        listener.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
