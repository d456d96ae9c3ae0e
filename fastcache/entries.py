"""What one entry of a Redis cache is: the name of its key, the bytes of its value, its lifetime.

Owns the names in Redis (`prefix:key`, always UTF-8), the limits, and turning every failure of a serializer into
`SerializationError` with the caller's key. Everything is checked here before anything is sent. This file must never
talk to Redis.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from fastcache.arguments import several
from fastcache.envelope import Envelope, Malformed, is_enveloped, seal, unseal
from fastcache.errors import ConfigurationError, SerializationError
from fastcache.expiry import check_ttl, milliseconds
from fastcache.serializers import Serializer, resolve

__all__ = ["MAX_KEY_LENGTH", "MAX_VALUE_SIZE", "Entries", "Key"]

MAX_KEY_LENGTH = 1024
"""Characters (bytes of a bytes key), without the prefix. Longer ones are nearly always a whole document or URL used as
a key by mistake; hashing them would hide that, and `delete_pattern` could no longer match them. Hash it yourself."""

MAX_VALUE_SIZE = 1024 * 1024
"""Bytes as stored, after compression: 1 MiB. Redis would take 512 MiB, but it serves one command at a time, and a value
that takes tens of milliseconds to send makes everybody else wait, or time out."""

Key: TypeAlias = str | bytes


class Entries:
    """The part of a cache that needs no server. `bytes_keys`: whether the client takes bytes as keys."""

    def __init__(
        self, prefix: str, ttl: float | None, serializer: str | Serializer, type: Any, bytes_keys: bool
    ) -> None:
        if not isinstance(prefix, str) or not prefix:
            raise ConfigurationError(
                f"prefix={prefix!r}: must be a str that isn't empty; it keeps the keys of caches apart, and clear() to"
                f" its own"
            )
        try:
            self.prefix_bytes = f"{prefix}:".encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"prefix={prefix!r}: has no UTF-8 form: {error}") from error
        self.prefix = prefix
        self.ttl = None if ttl is None else check_ttl(ttl)
        self.serializer = resolve(serializer)
        self.type = type
        self.bytes_keys = bytes_keys

    def name(self, key: Key) -> bytes:
        """The name of `key` in Redis, as bytes: always UTF-8, whatever encoding the client was given."""
        if isinstance(key, str):
            try:
                name = self.prefix_bytes + key.encode()
            except UnicodeEncodeError as error:
                raise ConfigurationError(f"key {key!r} has no UTF-8 form: {error}") from error
        elif isinstance(key, bytes) and self.bytes_keys:
            name = self.prefix_bytes + key
        elif isinstance(key, bytes):
            raise TypeError(f"a key is a str where the client has decode_responses=True, not bytes: {key!r}")
        else:
            raise TypeError(f"a key is a str (or bytes), not {key.__class__.__name__}: {key!r}")
        if len(key) > MAX_KEY_LENGTH:
            text = "key" if isinstance(key, bytes) else "key.encode()"
            raise ConfigurationError(
                f"a key has at most {MAX_KEY_LENGTH} characters, this one has {len(key)}: {key[:60]!r}...; use a digest"
                f" of it, such as hashlib.sha256({text}).hexdigest()"
            )
        return name

    def names(self, keys: Iterable[Key]) -> dict[Key, bytes]:
        """Each distinct key with its name, all checked before anything is sent."""
        return {key: self.name(key) for key in several(keys)}

    def encode(self, key: Key, name: bytes, value: Any) -> bytes:
        """What `set` stores: plain, unless the payload itself begins like an envelope."""
        data = self.payload(key, name, value)
        return seal(data) if is_enveloped(data) else data

    def payload(self, key: Key, name: bytes, value: Any) -> bytes:
        text = _text(name)
        try:
            data = self.serializer.dumps(value, text)
        except Exception as error:
            raise _refused_value(key, text, value.__class__, error) from _origin(error)
        if not isinstance(data, bytes):
            raise SerializationError(
                f"{text!r}: the serializer returned {data.__class__.__name__}, not bytes", key, value.__class__
            )
        if len(data) > MAX_VALUE_SIZE:
            raise SerializationError(
                f"{text!r}: the value takes {len(data)} bytes as stored, more than the {MAX_VALUE_SIZE} (1 MiB) allowed;"
                f" store a smaller one, or give the serializer compression=True",
                key,
                value.__class__,
            )
        return data

    def opened(self, key: Key, data: bytes, type: Any = None) -> Envelope | None:
        """The envelope that stored bytes are, None where they are a plain payload."""
        if not is_enveloped(data):
            return None
        try:
            return unseal(data)
        except Malformed as error:
            text = _text(self.name(key))
            raise SerializationError(f"{text!r}: stored is {error}", key, self.type if type is None else type) from error

    def decode(self, key: Key, name: bytes, data: Any, type: Any) -> Any:
        text = _text(name)
        try:
            return self.serializer.loads(data, text, self.type if type is None else type)
        except ConfigurationError:
            raise  # of the type that was asked for: not the data's fault, and no reason to overwrite it
        except Exception as error:
            raise _refused_value(key, text, self.type if type is None else type, error) from _origin(error)

    def lifetime(self, ttl: float | None) -> tuple[Any, ...]:
        """The arguments of SET that say when the entry expires."""
        if ttl is None:
            ttl = self.ttl
            if ttl is None:
                raise ConfigurationError(
                    "no ttl: give the cache one, or this set; ttl=math.inf stores an entry that never expires"
                )
        else:
            ttl = check_ttl(ttl)
        expiry = milliseconds(ttl)
        return () if expiry is None else (b"PX", expiry)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _refused_value(key: Key, name: str, type: Any, error: Exception) -> SerializationError:
    """The same refusal with the caller's key as its `key`. A user's own serializer raises anything."""
    path = getattr(error, "path", "") if isinstance(error, SerializationError) else ""
    reason = str(error) or error.__class__.__name__
    return SerializationError(
        reason if isinstance(error, SerializationError) else f"{name!r}: {reason}", key, type, path
    )


def _origin(error: Exception) -> BaseException:
    return error.__cause__ or error if isinstance(error, SerializationError) else error
