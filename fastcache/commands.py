"""The plans of a Redis cache: what each operation sends and what it makes of the replies, written once for both faces.

Owns the counters of hits and misses. After a failed command a plan sends no other one. How a command is sent is in
`sending.py`. This file must never send KEYS or FLUSHDB, never wait, and never know whether it runs in a thread or in a task
(that is `plan.py`'s).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from fastcache.arguments import check_mapping, check_values
from fastcache.background import Tasks, Threads
from fastcache.entries import Entries, Key
from fastcache.envelope import HEADER_SIZE, Malformed, glance, is_enveloped, is_stale
from fastcache.errors import CacheMiss, ConfigurationError
from fastcache.events import OnEvent, Reporter
from fastcache.flights import ABSENT
from fastcache.keys import escape_glob, glob_matcher
from fastcache.loading import Loading
from fastcache.plan import Call
from fastcache.policy import Policy
from fastcache.remote import RemoteStore
from fastcache.replies import batches
from fastcache.sending import AnyLink, Sending, Steps
from fastcache.serializers import Serializer

__all__ = ["Commands"]

_SCAN_COUNT = 1000  # entries that one SCAN looks at: under a millisecond of the server's time
_UNLINK_BATCH = 500  # keys per UNLINK, for the same reason

T = TypeVar("T")


class Commands(Sending[AnyLink]):
    """What `RedisCache` and `AsyncRedisCache` are made of. Not public."""

    def _set_up(
        self,
        link: AnyLink,
        prefix: str,
        ttl: float | None,
        serializer: str | Serializer,
        type: Any,
        policy: Policy | None,
        on_event: OnEvent | None,
    ) -> None:
        super().__init__(link)
        self._entries = Entries(prefix, ttl, serializer, type, link.bytes_keys)
        self._hits = 0
        self._misses = 0
        driver = Tasks() if link.asynchronous else Threads()
        self._flights = driver.flights
        reporter = Reporter(f"{prefix} at {link.breaker.server}", on_event)
        self._loading = Loading(RemoteStore(self), driver, policy, reporter)

    def __repr__(self) -> str:
        name, entries = self.__class__.__name__, self._entries
        server = self._link.breaker.server
        return f"<{name} prefix={entries.prefix!r} server={server!r} serializer={entries.serializer!r}>"

    @property
    def prefix(self) -> str:
        """What the names of this cache's keys in Redis begin with, before a colon."""
        return self._entries.prefix

    @property
    def ttl(self) -> float | None:
        """Seconds an entry lives when `set` names no ttl; None if `set` has to."""
        return self._entries.ttl

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
            "breaker": self._link.state(),
            **self._loading.reporter.counters(),
        }

    # -- the operations --------------------------------------------------------------------------------------------

    def _get_plan(self, key: Key, default: Any, type: Any) -> Steps[Any]:
        name = self._entries.name(key)
        data = yield from self._execute_plan("GET", name)
        if data is None:
            self._misses += 1
            return default
        envelope = self._entries.opened(key, data, type)
        if envelope is not None:
            data = envelope.payload
            if envelope.missing or (
                envelope.stale_for and is_stale((yield from self._execute_plan("PTTL", name)), envelope.stale_for)
            ):
                self._misses += 1
                return default
        value = self._entries.decode(key, name, data, type)
        self._hits += 1
        return value

    def _item_plan(self, key: Key) -> Steps[Any]:
        value = yield from self._get_plan(key, ABSENT, None)
        if value is ABSENT:
            raise CacheMiss(key)
        return value

    def _set_plan(self, key: Key, value: Any, ttl: float | None) -> Steps[None]:
        check_values([value])
        lifetime = self._entries.lifetime(ttl)
        name = self._entries.name(key)
        data = self._entries.encode(key, name, value)
        marks = self._loading.outbox.marks([name])
        yield from self._writing_plan([name], self._execute_plan("SET", name, data, *lifetime))
        self._loading.outbox.done(marks)

    def _delete_plan(self, key: Key) -> Steps[bool]:
        name = self._entries.name(key)
        return bool((yield from self._writing_plan([name], self._execute_plan("UNLINK", name))))

    def _writing_plan(self, names: Iterable[bytes], plan: Steps[T]) -> Steps[T]:
        """Write, and let nothing that is being loaded for these keys be stored afterwards."""
        names = list(names)
        if self._flights.busy:
            for name in names:
                yield from self._loading.forget_plan(name)
        try:
            return (yield from plan)
        finally:
            if self._flights.busy:
                for name in names:
                    self._flights.forget(name)

    def _exists_plan(self, key: Key) -> Steps[bool]:
        return (yield from self._remaining_plan(key)) is not None

    def _remaining_plan(self, key: Key) -> Steps[float | None]:
        """Seconds until a key expires; None where there is no value, or a stale one. One round trip."""
        name = self._entries.name(key)
        left, head = yield from self._pipeline_plan([("PTTL", name), ("GETRANGE", name, 0, HEADER_SIZE - 1)])
        if isinstance(left, Exception):
            raise self._failure("PTTL", left, self._link) from left
        if left == -2:
            return None
        stale_for = 0
        if isinstance(head, bytes) and is_enveloped(head):
            try:
                missing, stale_for = glance(head)
            except Malformed:
                pass  # there is something, as `get` says in its own way
            else:
                if missing:
                    return None
        if left == -1:
            return math.inf
        return None if is_stale(left, stale_for) else (left - stale_for) / 1000

    def _get_many_plan(self, keys: Iterable[Key], type: Any) -> Steps[dict[Any, Any]]:
        names = self._entries.names(keys)
        replies = yield from self._bulk_plan(list(dict.fromkeys(names.values())))
        envelopes = {key: self._entries.opened(key, replies[name], type) for key, name in names.items() if replies[name]}
        doubtful = [names[key] for key, envelope in envelopes.items() if envelope is not None and envelope.stale_for]
        lives: dict[bytes, Any] = {}
        if doubtful:
            left = yield from self._pipeline_plan([("PTTL", name) for name in doubtful])
            lives = dict(zip(doubtful, left, strict=True))
        found: dict[Any, Any] = {}
        for key, name in names.items():
            data, envelope = replies[name], envelopes.get(key)
            if data is None:
                continue
            if envelope is not None:
                if envelope.missing or (name in lives and is_stale(lives[name], envelope.stale_for)):
                    continue
                data = envelope.payload
            found[key] = self._entries.decode(key, name, data, type)
        self._hits += len(found)
        self._misses += len(names) - len(found)
        return found

    def _bulk_plan(self, names: Sequence[bytes]) -> Steps[dict[bytes, Any]]:
        """The stored bytes of each name, None where there are none. One round trip per 10,000 (per node in a cluster)."""
        found: dict[bytes, Any] = {}
        for batch in batches(names):
            if self._link.cluster:
                replies = yield from self._pipeline_plan([("GET", name) for name in batch])
                replies = [self._bulk(reply) for reply in replies]
            else:
                replies = yield from self._execute_plan("MGET", *batch)
            self._expect(replies, batch)
            found.update(zip(batch, replies, strict=True))
        return found

    def _bulk(self, reply: Any) -> Any:
        """A reply to GET in a pipeline as MGET would say it: a key that holds something else than a string is None."""
        if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
            return None
        if isinstance(reply, Exception):
            raise self._failure("GET", reply, self._link) from reply
        return reply

    def _set_many_plan(self, mapping: Mapping[Any, Any], ttl: float | None) -> Steps[None]:
        check_mapping(mapping)
        check_values(mapping.values())
        lifetime = self._entries.lifetime(ttl)
        names = self._entries.names(mapping)
        data = {key: self._entries.encode(key, names[key], mapping[key]) for key in names}
        marks = self._loading.outbox.marks(names.values())
        yield from self._writing_plan(names.values(), self._store_many_plan(names, data, lifetime))
        self._loading.outbox.done(marks)

    def _store_many_plan(self, names: dict[Any, bytes], data: dict[Any, bytes], lifetime: tuple[Any, ...]) -> Steps[None]:
        for batch in batches(list(names)):
            replies = yield from self._pipeline_plan([("SET", names[key], data[key], *lifetime) for key in batch])
            self._expect(replies, batch)
            failed = [(key, reply) for key, reply in zip(batch, replies, strict=True) if isinstance(reply, Exception)]
            if failed:
                key, error = failed[0]
                raise self._failure(
                    f"SET ({len(failed)} of {len(batch)} not stored, the first is {key!r})", error, self._link
                ) from error

    def _delete_many_plan(self, keys: Iterable[Key]) -> Steps[int]:
        names = list(self._entries.names(keys).values())
        return (yield from self._writing_plan(names, self._unlink_plan(names)))

    def _unlink_plan(self, names: Sequence[bytes]) -> Steps[int]:
        deleted = 0
        for batch in batches(names, _UNLINK_BATCH):
            if self._link.cluster:
                replies = yield from self._pipeline_plan([("UNLINK", name) for name in batch])
                error = next((reply for reply in replies if isinstance(reply, Exception)), None)
                if error is not None:
                    raise self._failure("UNLINK", error, self._link) from error
                deleted += sum(replies)
            else:
                deleted += yield from self._execute_plan("UNLINK", *batch)
        return deleted

    def _delete_pattern_plan(self, glob: Key) -> Steps[int]:
        if not isinstance(glob, str | bytes):
            raise TypeError(f"a pattern is a str (or bytes), not {glob.__class__.__name__}: {glob!r}")
        try:
            mine = glob.encode() if isinstance(glob, str) else glob
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"pattern {glob!r} has no UTF-8 form: {error}") from error
        # Of what is being loaded, too: by its text, since that is what a pattern of str means.
        matches = glob_matcher(mine.decode("utf-8", "surrogateescape"))
        skip = len(self._entries.prefix_bytes)
        yield from self._loading.await_plan(
            self._flights.forget_where(lambda name: matches(name[skip:].decode("utf-8", "surrogateescape")))
        )
        return (yield from self._sweep_all_plan(mine))

    def _sweep_all_plan(self, mine: Key) -> Steps[int]:
        """Remove all keys that match."""
        mine = mine.encode() if isinstance(mine, str) else mine
        pattern = escape_glob(self._entries.prefix_bytes.decode()).encode() + mine
        return (yield from self._sweep_nodes_plan({pattern: self._unlink_plan}))

    def _sweep_nodes_plan(self, removals: Mapping[bytes, Callable[[Sequence[bytes]], Steps[int]]]) -> Steps[int]:
        """SCAN for each pattern, and remove what was found, in turns: a million keys pass through in handfuls."""
        nodes = (yield from self._primaries_plan()) if self._link.cluster else [None]
        deleted = 0
        for node in nodes:
            for pattern, remove_plan in removals.items():
                deleted += yield from self._sweep_plan(pattern, node, remove_plan)
        return deleted

    def _primaries_plan(self) -> Steps[list[Any]]:
        client = self._link.client
        if self._link.asynchronous:  # an asyncio cluster client knows no nodes before its first command
            self._admit("SCAN", self._link)
            try:
                yield Call(client.initialize)
            except Exception as error:
                raise self._failure("SCAN", error, self._link) from error
        return list(client.get_primaries())

    def _sweep_plan(
        self, pattern: bytes, node: Any, remove_plan: Callable[[Sequence[bytes]], Steps[int]]
    ) -> Steps[int]:
        options = {} if node is None else {"target_nodes": node}
        target = self._link if node is None else self._link.node(node)
        cursor: Any = 0
        deleted = 0
        while True:
            reply = yield from self._execute_plan(
                "SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN_COUNT, target=target, **options
            )
            cursor, names = reply
            if isinstance(cursor, dict):  # a cluster client says it for each node that was asked
                (cursor,) = cursor.values()
            if names:
                deleted += yield from remove_plan(names)
            if int(cursor) == 0:
                return deleted
