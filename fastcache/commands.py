"""The plans of a Redis cache: what each operation sends and what it makes of the replies, written once for both faces.

Owns the names of keys in Redis (`prefix:key`), the limits, the counters, and the one place through which every command
goes: `_execute_plan`, which asks the breaker, counts a failure before anyone can swallow it, and wraps it in
`BackendError`. After a failed command a plan sends no other one. This file must never send KEYS or FLUSHDB, never wait,
and never know whether it runs in a thread or in a task (that is `plan.py`'s).
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from redis.exceptions import ResponseError

from .connection import is_outage, is_timeout
from .errors import BackendError, BackendTimeout, CacheMiss, ConfigurationError, SerializationError
from .expiry import check_ttl, milliseconds
from .link import AsyncLink, SyncLink
from .plan import Call
from .serializers import Serializer, resolve

__all__ = ["MAX_KEY_LENGTH", "MAX_VALUE_SIZE", "Commands"]

MAX_KEY_LENGTH = 1024
"""Characters (bytes of a bytes key), without the prefix. Longer ones are nearly always a whole document or URL used as
a key by mistake; hashing them would hide that, and `delete_pattern` could no longer match them. Hash it yourself."""

MAX_VALUE_SIZE = 1024 * 1024
"""Bytes as stored, after compression: 1 MiB. Redis would take 512 MiB, but it serves one command at a time, and a value
that takes tens of milliseconds to send makes everybody else wait, or time out."""

_BATCH = 10_000  # keys per MGET or pipeline: one round trip for all practical calls, bounded work and memory beyond
_SCAN_COUNT = 1000  # entries that one SCAN looks at: under a millisecond of the server's time
_UNLINK_BATCH = 500  # keys per UNLINK, for the same reason
_GLOB = re.compile(rb"([\\*?\[\]])")

T = TypeVar("T")
AnyLink = TypeVar("AnyLink", bound=SyncLink | AsyncLink)
Key: TypeAlias = str | bytes
Steps: TypeAlias = Generator[Call, Any, T]


class Commands(Generic[AnyLink]):
    """What `RedisCache` and `AsyncRedisCache` are made of. Not public."""

    _link: AnyLink

    def _set_up(self, link: AnyLink, prefix: str, ttl: float | None, serializer: str | Serializer, type: Any) -> None:
        if not isinstance(prefix, str) or not prefix:
            raise ConfigurationError(
                f"prefix={prefix!r}: must be a str that isn't empty; it keeps the keys of caches apart, and clear() to"
                f" its own"
            )
        self._link = link
        self._prefix = prefix
        try:
            self._prefix_bytes = f"{prefix}:".encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"prefix={prefix!r}: has no UTF-8 form: {error}") from error
        self._ttl = None if ttl is None else check_ttl(ttl)
        self._serializer = resolve(serializer)
        self._type = type
        self._hits = 0
        self._misses = 0
        self._backend_errors = 0

    def __repr__(self) -> str:
        name = self.__class__.__name__
        return f"<{name} prefix={self._prefix!r} server={self._link.breaker.server!r} serializer={self._serializer!r}>"

    @property
    def prefix(self) -> str:
        """What the names of this cache's keys in Redis begin with, before a colon."""
        return self._prefix

    @property
    def ttl(self) -> float | None:
        """Seconds an entry lives when `set` names no ttl; None if `set` has to."""
        return self._ttl

    @property
    def client(self) -> Any:
        """The client of redis-py in use: the one given, or the cache's own (in asyncio, the running loop's)."""
        return self._link.client

    def _snapshot(self) -> dict[str, Any]:
        return {
            "hits": self._hits,
            "l2_hits": self._hits,
            "misses": self._misses,
            "backend_errors": self._backend_errors,
            "breaker": self._link.breaker.state,
        }

    # -- names, values, lifetimes ----------------------------------------------------------------------------------

    def _name(self, key: Key) -> bytes:
        """The name of `key` in Redis, as bytes: always UTF-8, whatever encoding the client was given."""
        if isinstance(key, str):
            try:
                name = self._prefix_bytes + key.encode()
            except UnicodeEncodeError as error:
                raise ConfigurationError(f"key {key!r} has no UTF-8 form: {error}") from error
        elif isinstance(key, bytes) and self._link.bytes_keys:
            name = self._prefix_bytes + key
        elif isinstance(key, bytes):
            raise TypeError(f"a key is a str where the client has decode_responses=True, not bytes: {key!r}")
        else:
            raise TypeError(f"a key is a str (or bytes), not {key.__class__.__name__}: {key!r}")
        if len(key) > MAX_KEY_LENGTH:
            raise ConfigurationError(
                f"a key has at most {MAX_KEY_LENGTH} characters, this one has {len(key)}: {key[:60]!r}...; use a digest"
                f" of it, such as hashlib.sha256(key).hexdigest()"
            )
        return name

    def _names(self, keys: Iterable[Key]) -> dict[Key, bytes]:
        """Each distinct key with its name, all checked before anything is sent."""
        if isinstance(keys, str | bytes):
            raise TypeError(f"expected a list (or another iterable) of keys, got a single one: {keys!r}")
        return {key: self._name(key) for key in keys}

    def _encode(self, key: Key, name: bytes, value: Any) -> bytes:
        try:
            data = self._serializer.dumps(value, _text(name))
        except Exception as error:
            raise _refused_value(key, value.__class__, error) from error
        if not isinstance(data, bytes):
            raise SerializationError(
                f"{key!r}: the serializer returned {data.__class__.__name__}, not bytes", key, value.__class__
            )
        if len(data) > MAX_VALUE_SIZE:
            raise SerializationError(
                f"{key!r}: the value takes {len(data)} bytes as stored, more than the {MAX_VALUE_SIZE} (1 MiB) allowed;"
                f" store a smaller one, or give the serializer compression=True",
                key,
                value.__class__,
            )
        return data

    def _decode(self, key: Key, name: bytes, data: Any, type: Any) -> Any:
        try:
            return self._serializer.loads(data, _text(name), self._type if type is None else type)
        except Exception as error:
            raise _refused_value(key, self._type if type is None else type, error) from error

    def _lifetime(self, ttl: float | None) -> tuple[Any, ...]:
        """The arguments of SET that say when the entry expires."""
        if ttl is None:
            ttl = self._ttl
            if ttl is None:
                raise ConfigurationError(
                    "no ttl: give the cache one, or this set; ttl=math.inf stores an entry that never expires"
                )
        else:
            ttl = check_ttl(ttl)
        expiry = milliseconds(ttl)
        return () if expiry is None else (b"PX", expiry)

    # -- the way to the server -------------------------------------------------------------------------------------

    def _execute_plan(self, *command: Any, **options: Any) -> Steps[Any]:
        """Send one command. `NEVER_DECODE` makes redis-py return bytes from a client that decodes, too."""
        self._admit(command[0])
        try:
            reply = yield Call(self._link.client.execute_command, *command, NEVER_DECODE=True, **options)
        except Exception as error:
            raise self._failure(command[0], error) from error
        breaker = self._link.breaker
        if breaker.failures:
            breaker.answered()
        return reply

    def _pipeline_plan(self, commands: Iterable[tuple[Any, ...]]) -> Steps[list[Any]]:
        """Send many commands in one round trip (in a cluster, one per node). Replies that are errors are returned."""
        link = self._link
        self._admit("pipeline")
        try:
            pipe = link.client.pipeline() if link.cluster else link.client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command, NEVER_DECODE=True)
            replies: list[Any] = yield Call(pipe.execute, raise_on_error=False)
        except Exception as error:
            raise self._failure("pipeline", error) from error
        outage = next((reply for reply in replies if isinstance(reply, Exception) and is_outage(reply)), None)
        if outage is not None:  # a node of the cluster
            raise self._failure("pipeline", outage) from outage
        link.breaker.answered()
        return replies

    def _admit(self, command: str) -> None:
        link = self._link
        if link.closed:
            raise BackendError(f"{command}: the cache is closed")
        breaker = link.breaker
        if breaker.is_open:
            self._backend_errors += 1
            breaker.keep_probing(link.ping, link.asynchronous)
            raise BackendError(f"Redis at {breaker.server}: {command}: {breaker.reason()}")

    def _failure(self, command: str, error: Exception) -> BackendError:
        """Count an error of redis-py and say it in this package's terms."""
        if isinstance(error, BackendError):
            return error
        link = self._link
        self._backend_errors += 1
        if is_outage(error):
            link.breaker.failed(error)
            if link.breaker.is_open:
                link.breaker.keep_probing(link.ping, link.asynchronous)
        elif isinstance(error, ResponseError):
            link.breaker.answered()
        reason = str(error) or error.__class__.__name__
        if isinstance(error, ResponseError) and ("HELLO" in reason or "NOPROTO" in reason):
            reason += " (this server doesn't speak RESP3: make the client with protocol=2, or use from_url)"
        kind = BackendTimeout if is_timeout(error) else BackendError
        return kind(f"Redis at {link.breaker.server}: {command}: {reason}")

    # -- the operations --------------------------------------------------------------------------------------------

    def _get_plan(self, key: Key, default: Any, type: Any) -> Steps[Any]:
        name = self._name(key)
        data = yield from self._execute_plan("GET", name)
        if data is None:
            self._misses += 1
            return default
        value = self._decode(key, name, data, type)
        self._hits += 1
        return value

    def _item_plan(self, key: Key) -> Steps[Any]:
        value = yield from self._get_plan(key, _ABSENT, None)
        if value is _ABSENT:
            raise CacheMiss(key)
        return value

    def _set_plan(self, key: Key, value: Any, ttl: float | None) -> Steps[None]:
        lifetime = self._lifetime(ttl)
        name = self._name(key)
        yield from self._execute_plan("SET", name, self._encode(key, name, value), *lifetime)

    def _delete_plan(self, key: Key) -> Steps[bool]:
        return bool((yield from self._execute_plan("UNLINK", self._name(key))))

    def _exists_plan(self, key: Key) -> Steps[bool]:
        return bool((yield from self._execute_plan("EXISTS", self._name(key))))

    def _remaining_plan(self, key: Key) -> Steps[float | None]:
        left = yield from self._execute_plan("PTTL", self._name(key))
        if left == -2:
            return None
        return math.inf if left == -1 else left / 1000

    def _get_many_plan(self, keys: Iterable[Key], type: Any) -> Steps[dict[Any, Any]]:
        names = self._names(keys)
        found: dict[Any, Any] = {}
        for batch in _batches(list(names)):
            wanted = [names[key] for key in batch]
            if self._link.cluster:
                replies = yield from self._pipeline_plan([("GET", name) for name in wanted])
                replies = [self._bulk(reply) for reply in replies]
            else:
                replies = yield from self._execute_plan("MGET", *wanted)
            self._expect(replies, wanted)
            for key, name, data in zip(batch, wanted, replies, strict=True):
                if data is not None:
                    found[key] = self._decode(key, name, data, type)
        self._hits += len(found)
        self._misses += len(names) - len(found)
        return found

    def _bulk(self, reply: Any) -> Any:
        """A reply to GET in a pipeline as MGET would say it: a key that holds something else than a string is None."""
        if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
            return None
        if isinstance(reply, Exception):
            raise self._failure("GET", reply) from reply
        return reply

    def _set_many_plan(self, mapping: Mapping[Any, Any], ttl: float | None) -> Steps[None]:
        lifetime = self._lifetime(ttl)
        names = self._names(mapping)
        data = {key: self._encode(key, names[key], mapping[key]) for key in names}
        for batch in _batches(list(names)):
            replies = yield from self._pipeline_plan([("SET", names[key], data[key], *lifetime) for key in batch])
            self._expect(replies, batch)
            failed = [(key, reply) for key, reply in zip(batch, replies, strict=True) if isinstance(reply, Exception)]
            if failed:
                key, error = failed[0]
                raise self._failure(f"SET ({len(failed)} of {len(batch)} not stored, the first is {key!r})", error)

    def _delete_many_plan(self, keys: Iterable[Key]) -> Steps[int]:
        return (yield from self._unlink_plan(list(self._names(keys).values())))

    def _unlink_plan(self, names: Sequence[bytes]) -> Steps[int]:
        deleted = 0
        for batch in _batches(names, _UNLINK_BATCH):
            if self._link.cluster:
                replies = yield from self._pipeline_plan([("UNLINK", name) for name in batch])
                error = next((reply for reply in replies if isinstance(reply, Exception)), None)
                if error is not None:
                    raise self._failure("UNLINK", error) from error
                deleted += sum(replies)
            else:
                deleted += yield from self._execute_plan("UNLINK", *batch)
        return deleted

    def _delete_pattern_plan(self, glob: Key) -> Steps[int]:
        """SCAN and UNLINK in turns, node by node: a million keys pass through in handfuls."""
        if not isinstance(glob, str | bytes):
            raise TypeError(f"a pattern is a str (or bytes), not {glob.__class__.__name__}: {glob!r}")
        try:
            pattern = _GLOB.sub(rb"\\\1", self._prefix_bytes) + (glob.encode() if isinstance(glob, str) else glob)
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"pattern {glob!r} has no UTF-8 form: {error}") from error
        if not self._link.cluster:
            return (yield from self._sweep_plan(pattern, None))
        deleted = 0
        for node in (yield from self._primaries_plan()):
            deleted += yield from self._sweep_plan(pattern, node)
        return deleted

    def _primaries_plan(self) -> Steps[list[Any]]:
        client = self._link.client
        if self._link.asynchronous:  # an asyncio cluster client knows no nodes before its first command
            self._admit("SCAN")
            try:
                yield Call(client.initialize)
            except Exception as error:
                raise self._failure("SCAN", error) from error
        return list(client.get_primaries())

    def _sweep_plan(self, pattern: bytes, node: Any) -> Steps[int]:
        options = {} if node is None else {"target_nodes": node}
        cursor: Any = 0
        deleted = 0
        while True:
            reply = yield from self._execute_plan("SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN_COUNT, **options)
            cursor, names = reply
            if isinstance(cursor, dict):  # a cluster client says it for each node that was asked
                (cursor,) = cursor.values()
            if names:
                deleted += yield from self._unlink_plan(names)
            if int(cursor) == 0:
                return deleted

    def _expect(self, replies: Any, asked: Sequence[Any]) -> None:
        if not isinstance(replies, list) or len(replies) != len(asked):
            raise BackendError(
                f"Redis at {self._link.breaker.server}: expected {len(asked)} replies, got {replies!r:.80}"
            )


class _Absent:
    pass


_ABSENT = _Absent()


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _batches(items: Sequence[Any], size: int = _BATCH) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _refused_value(key: Key, type: Any, error: Exception) -> SerializationError:
    """The same refusal with the caller's key in place of the name in Redis. A user's own serializer raises anything."""
    path = getattr(error, "path", "") if isinstance(error, SerializationError) else ""
    reason = str(error) or error.__class__.__name__
    return SerializationError(
        reason if isinstance(error, SerializationError) else f"{key!r}: {reason}", key, type, path
    )
