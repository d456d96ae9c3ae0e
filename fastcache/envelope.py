"""The envelope: what the loading engine keeps beside a value in Redis, byte by byte (docs/envelope.md).

A value that needs nothing beside it is stored plain; so is everything that other programs write. An envelope begins with
bytes that no JSON, UTF-8 text or MessagePack begins with. This file must never trust what it reads, nor know a serializer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["HEADER_SIZE", "Envelope", "Malformed", "is_enveloped", "is_stale", "seal", "unseal"]

MAGIC = b"\xc1fc"
"""0xC1 is no first byte of UTF-8 (so of no JSON either) and the one byte that MessagePack never uses. The two letters after
it are for raw bytes of other programs, of which one in 16 million begins like this."""

VERSION = 1
VALUE, MISSING = 0, 1  # the kinds
_HEADER = struct.Struct(">3sBBQI")
HEADER_SIZE = _HEADER.size  # 17
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


def is_enveloped(data: bytes) -> bool:
    return data.startswith(MAGIC)


def seal(payload: bytes, stale_for: float = 0.0, load_seconds: float = 0.0, missing: bool = False) -> bytes:
    """Put a payload into an envelope. O(payload)."""
    load = min(int(load_seconds * 1_000_000), _MOST_LOAD)
    return _HEADER.pack(MAGIC, VERSION, MISSING if missing else VALUE, int(stale_for * 1000), load) + payload


def unseal(data: bytes) -> Envelope:
    """Take an envelope apart. Raises Malformed, saying what is wrong."""
    if len(data) < HEADER_SIZE:
        raise Malformed(f"an envelope of {len(data)} bytes, at least {HEADER_SIZE} expected")
    _, version, kind, stale_for, load = _HEADER.unpack_from(data)
    if version != VERSION:
        raise Malformed(f"an envelope of version {version}, this program reads {VERSION}")
    if kind not in (VALUE, MISSING):
        raise Malformed(f"an envelope of kind {kind}, expected {VALUE} (a value) or {MISSING} (nothing)")
    if kind == MISSING and len(data) > HEADER_SIZE:
        raise Malformed(f"an envelope that says there is no value, with {len(data) - HEADER_SIZE} bytes of one")
    return Envelope(kind == MISSING, stale_for, load / 1e6, data[HEADER_SIZE:])


def is_stale(left: int, stale_for: int) -> bool:
    """Whether a key with so many milliseconds left (PTTL's reply) is past its ttl."""
    return left == -2 or (0 <= left <= stale_for and stale_for > 0)
