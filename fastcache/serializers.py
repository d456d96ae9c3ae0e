"""Serializers: how a value becomes the bytes in Redis, and back.

Owns `Json` (the default), `MsgPack`, `Raw` and `SignedPickle`, and the `Serializer` protocol for a program's own.
Each turns every failure of its codec into `SerializationError`. Nothing here may run code out of a payload before the
payload proved that it comes from somebody with the secret: pickle exists only behind an HMAC.
This file must never talk to Redis. msgspec is imported when a `Json` or `MsgPack` is made, not before.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol, get_origin, is_typeddict, runtime_checkable

from fastcache.compression import Compression
from fastcache.errors import ConfigurationError, SerializationError

__all__ = ["Compression", "Json", "MsgPack", "Raw", "Serializer", "SignedPickle", "resolve"]

_PATH = re.compile(r" - at `(.*)`$")  # how msgspec ends the message of a ValidationError
_MAX_TYPES = 256  # decoders kept per serializer; a program that makes types in a loop must not grow this for ever


@runtime_checkable
class Serializer(Protocol):
    """What a cache asks of a serializer: two methods, called from any thread, that raise when they can't.

    `key` is the whole name in Redis ("fastcache:user:1"), for a serializer that binds a payload to its place.
    An exception of any sort is passed on as `SerializationError` with the key. `dumps` returns bytes.
    """

    def dumps(self, value: Any, key: str) -> bytes: ...

    def loads(self, data: bytes, key: str, type: Any = None) -> Any:
        """Decode; `type` is what the caller asked for, None for whatever the data says by itself."""


def _compression(compression: Compression | bool | None) -> Compression | None:
    if compression is None or isinstance(compression, Compression):
        return compression
    if isinstance(compression, bool):
        return Compression() if compression else None
    raise ConfigurationError(f"compression={compression!r}: must be True, False, None or a Compression(...)")


def _refusal(what: str, key: str, type: Any, error: Exception) -> SerializationError:
    reason = str(error) or error.__class__.__name__
    path = _PATH.search(reason)
    return SerializationError(f"{key!r}: {what}: {reason}", key, type, path[1] if path else "")


def _describe(type: Any) -> str:
    return getattr(type, "__qualname__", None) or repr(type)


class _Msgspec:
    """What Json and MsgPack share: one encoder, one decoder per type, one place for msgspec's errors."""

    _name = ""
    __slots__ = ("_compression", "_decode", "_decoders", "_encode", "_make")

    def __init__(self, *, compression: Compression | bool | None = None) -> None:
        try:
            import msgspec
        except ImportError as error:
            raise ImportError(
                f"the {self._name} serializer needs msgspec: pip install 'fastcache-tiers[redis]'"
            ) from error
        codec = getattr(msgspec, self._name)
        self._compression = _compression(compression)
        self._encode = codec.Encoder().encode
        self._make = codec.Decoder
        self._decode = codec.Decoder().decode
        self._decoders: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(compression={self._compression!r})"

    def dumps(self, value: Any, key: str) -> bytes:
        """Encode. Raises `SerializationError` for what the format has no form for."""
        try:
            data: bytes = self._encode(value)
        except Exception as error:  # TypeError, OverflowError, RecursionError, UnicodeEncodeError, a property's own ...
            raise _refusal(f"can't encode {_describe(type(value))}", key, type(value), error) from error
        return data if self._compression is None else self._compression.pack(data)

    def loads(self, data: bytes, key: str, type: Any = None) -> Any:
        """Decode, and validate when a type is given. Raises `SerializationError` with the path of what didn't fit.

        A type that nothing can be decoded into is a `ConfigurationError`: the program's mistake, not the data's.
        """
        decode = self._decode
        if type is not None:
            try:
                decode = self._decoders[type]
            except (KeyError, TypeError):  # TypeError: no hash, as an Annotated with a list may have none
                decode = self._decoder(type)
        try:
            if self._compression is not None:
                data = self._compression.unpack(data)
            return decode(data)
        except Exception as error:  # ValidationError, DecodeError, UnicodeDecodeError (msgpack), RecursionError ...
            into = "" if type is None else f" into {_describe(type)}"
            raise _refusal(f"stored {self._name} doesn't decode{into}", key, type, error) from error

    def _decoder(self, type: Any) -> Any:
        if len(self._decoders) >= _MAX_TYPES:
            self._decoders.clear()
        try:
            decode = self._make(type).decode
        except Exception as error:
            raise ConfigurationError(f"type={type!r}: {self._name} can't be decoded into it: {error}") from error
        try:
            self._decoders[type] = decode
        except TypeError:
            pass
        return decode


class Json(_Msgspec):
    """JSON by msgspec: readable by every program. What JSON has no form for comes back as JSON's nearest.

    Without a type, tuples and sets come back as lists, keys of dicts as str, datetimes, UUIDs, Decimals and enums as
    their text, bytes as base64, NaN as None. With a type (`get(key, type=User)`) they come back as themselves.
    """

    _name = "json"
    __slots__ = ()


class MsgPack(_Msgspec):
    """MessagePack by msgspec: smaller than JSON and quicker to decode; bytes stay bytes. Ints are 64 bits at most."""

    _name = "msgpack"
    __slots__ = ()


class Raw:
    """Bytes in, bytes out. A str is stored as UTF-8; `type=str` gives it back as one. No other type exists here."""

    __slots__ = ("_compression",)

    def __init__(self, *, compression: Compression | bool | None = None) -> None:
        self._compression = _compression(compression)

    def __repr__(self) -> str:
        return f"Raw(compression={self._compression!r})"

    def dumps(self, value: Any, key: str) -> bytes:
        if isinstance(value, str):
            try:
                data = value.encode()
            except UnicodeEncodeError as error:
                raise _refusal("can't encode str", key, str, error) from error
        elif isinstance(value, bytes | bytearray | memoryview):
            data = bytes(value)
        else:
            raise SerializationError(
                f"{key!r}: raw stores bytes or str, not {_describe(type(value))}", key, type(value)
            )
        return data if self._compression is None else self._compression.pack(data)

    def loads(self, data: bytes, key: str, type: Any = None) -> Any:
        if type is not None and type is not bytes and type is not str and type is not Any:
            raise SerializationError(f"{key!r}: raw decodes into bytes or str, not {_describe(type)}", key, type)
        try:
            if self._compression is not None:
                data = self._compression.unpack(data)
            return data.decode() if type is str else data
        except ValueError as error:  # UnicodeDecodeError is one
            raise _refusal("stored bytes don't decode", key, type, error) from error


class SignedPickle:
    """Pickle behind HMAC-SHA256, for values that no data format holds. The only way to pickle in this package.

    A payload is loaded only if somebody who knows the secret made it for this very key: the MAC covers the whole name
    in Redis (prefix and key), so a payload copied to another key or namespace is refused, like a forged, truncated or
    changed one. The algorithm is fixed in the code and never read from the payload; comparing takes constant time.

    `secret` is at least 16 bytes and the same in all processes. To change it, put the new one first and the former
    ones into `old_secrets`: they are accepted when reading and never used for writing.
    A `type` asked of `get` is checked with `isinstance` (the outer type of `list[User]`); pickle already says the rest.
    """

    __slots__ = ("_compression", "_old_secrets", "_secret")

    _DOMAIN = b"fastcache signed pickle 1\x00"  # so that a MAC made with this secret for something else isn't one here
    _PROTOCOL = 5  # readable from Python 3.8 on; fixed, so that processes on different versions can share a cache
    _MAC_SIZE = 32

    def __init__(
        self, secret: bytes, old_secrets: Iterable[bytes] = (), *, compression: Compression | bool | None = None
    ) -> None:
        if isinstance(old_secrets, bytes | bytearray | str):
            raise ConfigurationError("old_secrets must be a sequence of secrets, such as [b'...'], not one of them")
        self._secret = self._check(secret, "secret")
        self._old_secrets = tuple(self._check(old, "each of old_secrets") for old in old_secrets)
        self._compression = _compression(compression)

    @staticmethod
    def _check(secret: object, name: str) -> bytes:
        """Never puts the value into the message, against the house's habit: it is a secret."""
        if not isinstance(secret, bytes | bytearray):
            raise ConfigurationError(f"{name} must be bytes, not {type(secret).__name__}")
        if len(secret) < 16:
            raise ConfigurationError(f"{name} must be at least 16 bytes long, not {len(secret)}")
        return bytes(secret)

    def __repr__(self) -> str:
        return f"SignedPickle(secret=..., old_secrets={len(self._old_secrets)}, compression={self._compression!r})"

    def _mac(self, secret: bytes, key: str, body: bytes) -> bytes:
        name = key.encode("utf-8", "surrogateescape")
        signed = hmac.new(secret, self._DOMAIN, hashlib.sha256)
        signed.update(len(name).to_bytes(8, "big"))  # the length first: no key can pretend to be part of a payload
        signed.update(name)
        signed.update(body)
        return signed.digest()

    def dumps(self, value: Any, key: str) -> bytes:
        try:
            body = pickle.dumps(value, self._PROTOCOL)
        except Exception as error:  # a __reduce__ or __getstate__ may raise anything
            raise _refusal(f"can't pickle {_describe(type(value))}", key, type(value), error) from error
        if self._compression is not None:
            body = self._compression.pack(body)
        return self._mac(self._secret, key, body) + body

    def loads(self, data: bytes, key: str, type: Any = None) -> Any:
        mac, body = data[: self._MAC_SIZE], data[self._MAC_SIZE :]
        genuine = hmac.compare_digest(mac, self._mac(self._secret, key, body))
        for old in self._old_secrets:
            genuine |= hmac.compare_digest(mac, self._mac(old, key, body))
        if not genuine:
            raise SerializationError(f"{key!r}: the signature doesn't match: not made for this key", key, type)
        try:
            if self._compression is not None:
                body = self._compression.unpack(body)
            value = pickle.loads(body)
        except Exception as error:  # a class that is gone, a __setstate__ that raises ...
            raise _refusal("stored pickle doesn't load", key, type, error) from error
        if type is not None and not _is_instance(value, type):
            raise SerializationError(
                f"{key!r}: expected {_describe(type)}, got {_describe(value.__class__)}", key, type
            )
        return value


def _is_instance(value: Any, type: Any) -> bool:
    """Shallow: `list[int]` asks for a list, `User | None` for either, a TypedDict for a dict, Any for anything."""
    import types
    import typing

    type = getattr(type, "__supertype__", type)  # a NewType
    type = getattr(type, "__value__", type)  # an alias by PEP 695
    if type is Any:
        return True
    if type is float:
        return isinstance(value, int | float) and not isinstance(value, bool)  # as PEP 484 has it, and msgspec
    origin = get_origin(type)
    if origin is typing.Union or origin is types.UnionType:
        return any(_is_instance(value, choice) for choice in typing.get_args(type))
    if origin is typing.Literal:
        return value in typing.get_args(type)
    if origin is typing.Annotated:
        return _is_instance(value, typing.get_args(type)[0])
    if type is None or type is types.NoneType:
        return value is None
    if is_typeddict(origin or type):
        return isinstance(value, dict)
    try:
        return isinstance(value, origin or type)
    except TypeError as error:
        raise ConfigurationError(f"type={type!r}: nothing can be said to be of it: {error}") from error


_BY_NAME: dict[str, Callable[[], Serializer]] = {"json": Json, "msgpack": MsgPack, "raw": Raw}


def resolve(serializer: str | Serializer) -> Serializer:
    """The serializer that a cache's `serializer=` names. Raises `ConfigurationError` for anything else."""
    if isinstance(serializer, str):
        make = _BY_NAME.get(serializer)
        if make is not None:
            return make()
        if "pickle" in serializer:
            raise ConfigurationError(
                f"serializer={serializer!r}: pickle runs code out of what it reads, so it needs a signature: give"
                f" serializer=SignedPickle(secret), from fastcache.serializers"
            )
    elif not isinstance(serializer, type) and isinstance(serializer, Serializer):
        return serializer
    raise ConfigurationError(
        f"serializer={serializer!r}: must be 'json', 'msgpack', 'raw' or an object with dumps(value, key) and"
        f" loads(data, key, type=None), such as SignedPickle(secret)"
    )
