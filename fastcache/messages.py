"""What the processes that share a two-level cache tell each other: a message, and its bytes.

Each says what is no longer to be relied on, so that applying one twice, late, or for nothing does no harm. This file must
never apply one.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["Message", "Operation", "decode", "encode"]

Operation: TypeAlias = Literal["key", "tag", "glob"]


class Message(msgspec.Struct, array_like=True, frozen=True):
    operation: Operation
    """"key": a value was written or invalidated. "tag": a tag, or by its empty name the namespace, has a new token. "glob":
    all keys that match a pattern were invalidated."""
    subject: bytes
    """The name in Redis, the tag, or the pattern."""
    version: int
    """How many messages of its origin came before it."""
    origin: bytes
    """Who sent it: he has applied it himself."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes) -> Message | None:
    """The message, or None where it is none that this version can read."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
