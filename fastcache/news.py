"""What a two-level cache tells the other processes, and on which channel.

A message goes out from within the script that makes the change, so this file only says what to publish and where. In a
cluster that is a shard channel of the node that runs the script, as far as the client knows the nodes. This file must never
send anything, nor know what is done about a message.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Any

from redis.crc import key_slot

from fastcache.messages import Message, Operation, encode
from fastcache.sidekeys import ANCHORS, Names

__all__ = ["News"]


class News:
    """The messages of one cache. Thread-safe."""

    def __init__(self, names: Names, link: Any) -> None:
        self.names = names
        self._link = link
        self.begin_anew()

    def begin_anew(self) -> None:
        """Be somebody else than before; in a forked child, than the parent."""
        self.origin = os.urandom(8)
        self._versions = count(1)

    def publication(self, operation: Operation, subject: bytes, name: bytes | None = None) -> tuple[bytes, bytes, bytes]:
        """Shard channel (b"" for none), channel and message, as the scripts want them. `name`: the key the script is for."""
        message = Message(operation, subject, next(self._versions), self.origin)
        return self._shard_channel(subject if name is None else name), self.names.channel, encode(message)

    def _shard_channel(self, name: bytes) -> bytes:
        if not self._link.cluster:
            return b""
        slot = key_slot(name)
        node = self._link.primary_of(slot)
        near = [anchor for anchor in ANCHORS if self._link.primary_of(anchor) == node]
        if node is None or not near:
            return b""
        return self.names.shard_channel(min(near, key=lambda anchor: abs(anchor - slot)))
