"""The envelope: what the loading engine keeps beside a value in Redis, byte by byte (docs/envelope.md).

A value that needs nothing beside it is stored plain; so is everything that other programs write. An envelope begins with
bytes that no JSON, UTF-8 text or MessagePack begins with. This file must never trust what it reads, nor know a serializer.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "HEADER_SIZE",
    "LONGEST_TAG",
    "MOST_TAGS",
    "TOKEN_SIZE",
    "Envelope",
    "Malformed",
    "glance",
    "is_enveloped",
    "is_stale",
    "seal",
    "unseal",
]

MAGIC = b"\xc1fc"
"""0xC1 is no first byte of UTF-8 (so of no JSON either) and the one byte that MessagePack never uses. The two letters after
it are for raw bytes of other programs, of which one in 16 million begins like this."""

VERSION, TAGGED = 1, 2  # the versions: without and with tokens
VALUE, MISSING = 0, 1  # the kinds
TOKEN_SIZE = 8
_HEADER = struct.Struct(">3sBBQI")
HEADER_SIZE = _HEADER.size  # 17
_LENGTH = struct.Struct(">H")  # of a tag; also how many there are
MOST_TAGS, LONGEST_TAG = 1000, 1024
_MOST_LOAD = 2**32 - 1  # microseconds: 71 minutes, for anything longer


class Malformed(Exception):
    """It begins like an envelope and is none that this version can read."""


@dataclass(frozen=True, slots=True)
class Envelope:
    missing: bool
    """There is no value: the loader said so."""
    stale_for: int
    """Milliseconds, the last ones of the entry's life, in which it is stale."""
    load_seconds: float
    payload: bytes
    tokens: dict[bytes, bytes]
    """By tag, the empty one standing for the namespace: those under which the value was stored. It holds as long as they
    do."""


def is_enveloped(data: bytes) -> bool:
    return data.startswith(MAGIC)


def seal(
    payload: bytes,
    stale_for: float = 0.0,
    load_seconds: float = 0.0,
    missing: bool = False,
    tokens: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """Put a payload into an envelope. O(payload)."""
    load = min(int(load_seconds * 1_000_000), _MOST_LOAD)
    version = VERSION if tokens is None else TAGGED
    parts = [_HEADER.pack(MAGIC, version, MISSING if missing else VALUE, int(stale_for * 1000), load)]
    if tokens is not None:
        parts.append(_LENGTH.pack(len(tokens)))
        for tag, token in tokens.items():
            parts += (_LENGTH.pack(len(tag)), tag, token)
    parts.append(payload)
    return b"".join(parts)


def unseal(data: bytes) -> Envelope:
    """Take an envelope apart. Raises Malformed, saying what is wrong."""
    version, missing, stale_for, load = _header(data)
    tokens, start = _tokens(data) if version == TAGGED else ({}, HEADER_SIZE)
    if missing and len(data) > start:
        raise Malformed(f"an envelope that says there is no value, with {len(data) - start} bytes of one")
    return Envelope(missing, stale_for, load / 1e6, data[start:], tokens)


def glance(head: bytes) -> tuple[bool, int]:
    """Of the first HEADER_SIZE bytes: whether there is no value, and the milliseconds of `stale_for`. Raises Malformed."""
    _, missing, stale_for, _ = _header(head)
    return missing, stale_for


def _header(data: bytes) -> tuple[int, bool, int, int]:
    if len(data) < HEADER_SIZE:
        raise Malformed(f"an envelope of {len(data)} bytes, at least {HEADER_SIZE} expected")
    _, version, kind, stale_for, load = _HEADER.unpack_from(data)
    if version not in (VERSION, TAGGED):
        raise Malformed(f"an envelope of version {version}, this program reads {VERSION} and {TAGGED}")
    if kind not in (VALUE, MISSING):
        raise Malformed(f"an envelope of kind {kind}, expected {VALUE} (a value) or {MISSING} (nothing)")
    return version, kind == MISSING, stale_for, load


def _tokens(data: bytes) -> tuple[dict[bytes, bytes], int]:
    """The tokens after the header, and where the payload begins."""
    tokens = {}
    try:
        (count,), at = _LENGTH.unpack_from(data, HEADER_SIZE), HEADER_SIZE + _LENGTH.size
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(data, at)
            end = at + _LENGTH.size + length
            tokens[data[at + _LENGTH.size : end]] = data[end : end + TOKEN_SIZE]
            at = end + TOKEN_SIZE
    except struct.error:
        at = len(data) + 1
    if at > len(data):
        raise Malformed(f"an envelope that ends among its tokens, after {len(data)} bytes")
    return tokens, at


def is_stale(left: int, stale_for: int) -> bool:
    """Whether a key with so many milliseconds left (PTTL's reply) is past its ttl."""
    return left == -2 or (0 <= left <= stale_for and stale_for > 0)
