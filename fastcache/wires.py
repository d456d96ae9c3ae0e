"""A dedicated connection beside a client's pool, for one who listens: redis-py's own class, told not to be clever.

A wire that is down stays down: redis-py would connect again on its own when something is sent, and the new connection would
have no subscriptions. This file must never know what is said on a wire.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, cast

import redis.asyncio.retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError
from redis.retry import Retry

from fastcache.connection import Lines

__all__ = ["AsyncWire", "SyncWire", "database", "wire_to"]

SECONDS = 1.0
"""To connect, and for the rest of a reply that has begun. Nobody waits for this but the one who listens."""


class _Wire:
    def __init__(self, kind: Any, options: dict[str, Any]) -> None:
        self._kind = kind
        self._options = options
        self._connection: Any = None

    @property
    def speaks_resp3(self) -> bool:
        return str(self._connection.protocol) == "3"

    _handed_out: Any = None

    def _made(self) -> Any:
        return self._kind(**self._options)

    def _pin(self, connection: Any) -> None:
        def refuse(*args: object, **kwargs: object) -> Any:
            raise ConnectionError("the connection is down")

        connection.connect = connection.connect_check_health = refuse
        # Without a handler the parser swallows what tracking says; one that returns it has it come out of `receive`.
        hand_out = getattr(connection._parser, "set_invalidation_push_handler", None)
        if hand_out is not None:
            hand_out(self._handed_out)
        self._connection = connection


class SyncWire(_Wire):
    """A blocking connection. One thread receives, any thread may send."""

    def __init__(self, kind: Any, options: dict[str, Any]) -> None:
        super().__init__(kind, options)
        self._lock = threading.Lock()

    def open(self) -> None:
        """Connect. Raises what redis-py raises."""
        connection = self._made()
        connection.connect()
        self._pin(connection)

    def send(self, *command: Any, expect: deque[Any] | None = None, reply: Any = None) -> None:
        """Send a command; `reply` is what is to be noted in `expect`, in the order in which commands are sent."""
        with self._lock:
            if expect is not None:
                expect.append(reply)
            self._connection.send_command(*command)

    @staticmethod
    def _handed_out(push: Any) -> Any:
        return push

    def receive(self, seconds: float) -> Any:
        """The next reply or message; None if none came in time. Errors that the server replies are raised."""
        if not self._connection.can_read(timeout=seconds):
            return None
        return self._connection.read_response(disable_decoding=True, disconnect_on_error=False, push_request=True)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


class AsyncWire(_Wire):
    """The same for asyncio, in the event loop where it was opened."""

    async def open(self) -> None:
        connection = self._made()
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._pin(connection)

    async def send(self, *command: Any, expect: deque[Any] | None = None, reply: Any = None) -> None:
        if expect is not None:
            expect.append(reply)  # and nobody comes in between: what is sent is written before anything is awaited
        await self._connection.send_command(*command)

    @staticmethod
    async def _handed_out(push: Any) -> Any:
        return push

    async def receive(self, seconds: float) -> Any:
        return await self._connection.read_response(
            disable_decoding=True, timeout=seconds, disconnect_on_error=False, push_request=True
        )

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def wire_to(link: Any, node: Any, resp3: bool) -> Any:
    """A wire, not yet open, to a link's server; in a cluster, to a node. `resp3`: it has to speak that."""
    client = link.client
    if node is None:
        kind, given = client.connection_pool.connection_class, client.connection_pool.connection_kwargs
    elif link.asynchronous:
        kind, given = node.connection_class, node.connection_kwargs
    else:
        pool = client.get_redis_connection(node).connection_pool
        kind, given = pool.connection_class, pool.connection_kwargs
    retry: Any = cast(Any, redis.asyncio.retry.Retry) if link.asynchronous else Retry
    options = {name: value for name, value in given.items() if not name.startswith(("maint_", "orig_", "oss_"))}
    options |= {
        "retry": retry(NoBackoff(), 0),
        "socket_timeout": SECONDS,
        "socket_connect_timeout": SECONDS,
        "health_check_interval": 0,
    }
    if "lines" in options:
        options["lines"] = Lines(None)  # not the breaker's business, nor closed with the pool
    if resp3:
        options["protocol"] = 3
    try:
        from redis.maint_notifications import MaintNotificationsConfig

        options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    except ImportError:  # pragma: no cover (redis-py 6)
        pass
    return (AsyncWire if link.asynchronous else SyncWire)(kind, options)


def database(link: Any) -> int:
    """The number of the database that a link's commands go to."""
    if link.cluster:
        return 0
    return int(link.pool_options.get("db") or 0)
