"""Optional compression of stored bytes, with a cap on what may come out again.

Owns the frame around compressed data. A payload that isn't compressed is stored as it is, so that other programs can
read it; only one that happens to begin like a frame is framed as well. This file must never trust a length it reads.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from fastcache.errors import ConfigurationError

__all__ = ["Compression"]

_PREFIX = b"\x00fcz"  # no JSON, MessagePack map/array or UTF-8 text of practice begins with a NUL and these letters
_DEFLATED = _PREFIX + b"1"
_STORED = _PREFIX + b"0"


@dataclass(frozen=True, slots=True)
class Compression:
    """Compress what is stored with zlib, from `min_size` bytes on and when it saves at least `min_saving` of them.

    Decompressing stops at `max_size` bytes, however much the data claims to hold. Sizes are bytes.
    """

    min_size: int = 2048
    """Below this a value fits into one or two network packets anyway."""
    min_saving: float = 0.1
    """A tenth: less isn't worth the time of decompressing at each read."""
    max_size: int = 64 * 1024 * 1024
    """64 MiB: zlib shrinks at most about 1,000-fold, so the 1 MiB that a cache stores could claim to be 1 GiB."""
    level: int = 1
    """zlib's quickest: 25 KB of JSON become 19 %, at the default level 18 % in twice the time (bench_redis.py)."""

    def __post_init__(self) -> None:
        for name in ("min_size", "max_size"):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int) or size < 0:
                raise ConfigurationError(f"{name}={size!r}: must be a number of bytes, 0 or more")
        if isinstance(self.min_saving, bool) or not isinstance(self.min_saving, int | float):
            raise ConfigurationError(f"min_saving={self.min_saving!r}: must be a number from 0 to 1")
        if not 0 <= self.min_saving <= 1:
            raise ConfigurationError(f"min_saving={self.min_saving!r}: must be from 0 to 1")
        if isinstance(self.level, bool) or not isinstance(self.level, int) or self.level not in range(1, 10):
            raise ConfigurationError(f"level={self.level!r}: must be an int from 1 (quickest) to 9 (smallest)")

    def pack(self, data: bytes) -> bytes:
        """Return `data` as it should be stored: compressed where that pays, else unchanged."""
        if self.min_size <= len(data) <= self.max_size:  # what is larger could never be read again
            packed = _DEFLATED + zlib.compress(data, self.level)
            if len(packed) <= len(data) * (1 - self.min_saving):
                return packed
        return _STORED + data if data.startswith(_PREFIX) else data

    def unpack(self, data: bytes) -> bytes:
        """Undo `pack`. Raises `ValueError` for a damaged frame and for one that holds more than `max_size` bytes."""
        if not data.startswith(_PREFIX):
            return data
        body = data[len(_DEFLATED) :]
        if data.startswith(_STORED):
            return body
        if not data.startswith(_DEFLATED):
            raise ValueError(f"unknown compression frame {data[: len(_DEFLATED)]!r}")
        inflate = zlib.decompressobj()
        try:
            plain = inflate.decompress(body, self.max_size + 1)
        except zlib.error as error:
            raise ValueError(f"damaged compressed data: {error}") from error
        if len(plain) > self.max_size:
            raise ValueError(f"compressed data holds more than the {self.max_size} bytes allowed")
        if not inflate.eof or inflate.unused_data:
            raise ValueError("damaged compressed data: truncated, or something follows it")
        return plain
