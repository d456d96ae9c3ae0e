"""The pools of connections that `from_url` makes: redis-py's blocking pools, with defaults that fail fast.

Owns the defaults, the merging of options (checked when the cache is made, not at its first command), and an asyncio
pool that no cancellation can drain. Callers beyond the pool's size wait, they don't fail. This file must never send a
command.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Any, cast
from urllib.parse import urlsplit

import redis.asyncio.connection as aio
import redis.asyncio.retry
import redis.connection as sio
import redis.exceptions as rexc
from redis.backoff import NoBackoff
from redis.retry import Retry

from fastcache.breaker import FAILURES_TO_OPEN
from fastcache.connection import LINES, Lines
from fastcache.errors import ConfigurationError
from fastcache.outage import PoolExhausted, pool_was_full

__all__ = ["DEFAULTS", "async_pool", "sync_pool"]

DEFAULTS: dict[str, Any] = {
    # Seconds. A reply over a local network takes 0.1 to 1 ms, a slow command some 10; a server that hasn't answered in
    # 0.25 s is worse than no cache. A connection attempt and a reply together stay under 0.6 s.
    "socket_timeout": 0.25,
    "socket_connect_timeout": 0.25,
    # redis-py's BlockingConnectionPool has 50, and enough for any number of callers: they wait for each other.
    "max_connections": 50,
    # Seconds a caller waits for a free connection; redis-py's own. Only a server that is slow, not away, gets there.
    "timeout": 20.0,
}


MOST_CONNECTING = FAILURES_TO_OPEN
"""In asyncio. So few that their handshakes are done in some milliseconds, enough for the breaker to learn from the first
that fail at once."""


class _SyncPool(sio.BlockingConnectionPool):
    """redis-py's, with an error that says what happened when no connection became free."""

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        try:
            pool: Any = super()
            return pool.get_connection(*args, **kwargs)
        except rexc.ConnectionError as error:
            if pool_was_full(error):
                raise PoolExhausted(_exhausted(self)) from error
            raise

    def release(self, connection: Any) -> None:
        if self.connection_kwargs["lines"].closed:
            connection.disconnect()
        pool: Any = super()
        pool.release(connection)


def _exhausted(pool: Any) -> str:
    return f"no connection became free in {pool.timeout:g} s (max_connections={pool.max_connections})"


class _AsyncPool(aio.BlockingConnectionPool):
    """redis-py's asyncio pool, with a queue of futures in place of its condition and lock.

    In redis-py's, giving a connection back awaits a lock; a task cancelled there loses the connection for the pool,
    and fifty of them stop the program. Here neither taking nor giving back has a point at which it could be cancelled.
    Callers are served in the order they came. It belongs to one event loop, like the original.

    Only so many connections are being made at a time; who comes later waits for one of these, or for one that another
    caller gives back. A burst of callers would otherwise each make one: fifty handshakes keep the loop, and the server,
    busy for longer than the timeouts allow for, and a server that is there passes for one that is away.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._connecting: set[Any] = set()

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        connection = await self._wait() if self._waiting or not self._may_take() else self._take()
        try:
            await self.ensure_connection(connection)
            if connection.lost:
                await connection.disconnect(nowait=True)
                await connection.connect()
            self.connection_kwargs["lines"].refuse_if_closed()
        except BaseException:
            if self.connection_kwargs["lines"].closed:
                await connection.disconnect(nowait=True)
            self._give_back(connection)
            raise
        if connection in self._connecting:
            self._connecting.discard(connection)
            self._serve()
        return connection

    def _may_take(self) -> bool:
        idle = self._available_connections
        if idle and idle[-1].is_connected:
            return True
        return bool(self.can_get_connection()) and len(self._connecting) < MOST_CONNECTING

    def _take(self) -> Any:
        take: Any = self.get_available_connection
        return self._handed_out(take())

    def _handed_out(self, connection: Any) -> Any:
        if not connection.is_connected:
            self._connecting.add(connection)
        return connection

    def _serve(self) -> None:
        """Hand out what can be to those who wait."""
        while self._waiting and self._may_take():
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(self._take())

    async def _wait(self) -> Any:
        turn: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self.timeout):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._give_back(turn.result())  # it came in the same moment
            else:
                turn.cancel()  # `_give_back` passes over it
            if isinstance(error, TimeoutError):
                raise PoolExhausted(_exhausted(self)) from error
            raise

    async def release(self, connection: Any) -> None:
        try:
            closed = self.connection_kwargs["lines"].closed
            if closed or getattr(connection, "should_reconnect", bool)():  # the latter since redis-py 7
                await connection.disconnect(nowait=True)
        finally:
            self._give_back(connection)

    def _give_back(self, connection: Any) -> None:
        self._connecting.discard(connection)
        self._in_use_connections.discard(connection)
        self._available_connections.append(connection)
        self._serve()


def _check_readable(url: object) -> None:
    """Refuse a URL that is split in the midst of its password, before a message or a connection shows a part of it."""
    if not isinstance(url, str):
        return  # redis-py says so
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError
    except ValueError:
        unreadable = True
    else:
        unreadable = "@" in parts.path + parts.query + parts.fragment
        unreadable = unreadable and (parts.scheme != "unix" or bool(parts.netloc))  # a socket's path may have one
    if unreadable:
        raise ConfigurationError(
            "the URL can't be read: / ? # and @ in a password must be percent-encoded (%2F %3F %23 %40), and a port is a "
            "number, as in redis://:password@host:6379/0"
        ) from None


def _options(url: str, lines: Lines, options: dict[str, Any], connection: Any, retry: type) -> dict[str, Any]:
    """All options of the pool and its connections: the defaults, then the caller's, then what the URL says."""
    try:
        named = connection.parse_url(url)
    except (ValueError, TypeError, AttributeError) as error:  # its message quotes no password
        raise ConfigurationError(
            f"the URL can't be used: {str(error).rstrip('.')}. It begins with redis://, rediss:// (TLS) or unix://"
        ) from error
    database = urlsplit(url).path.strip("/")
    if database and "path" not in named and not database.isdecimal():
        raise ConfigurationError(
            f"the URL can't be used: {database!r} is no number of a database, as in redis://host/0"
        )
    merged = {"retry": retry(NoBackoff(), 0), **DEFAULTS, **options, **named}
    if "connection_class" in options or "connection_pool" in options:
        raise ConfigurationError(
            "from_url makes its own connections; give a client of yours to the constructor instead"
        )
    merged["connection_class"] = LINES[merged.get("connection_class", connection.Connection)]
    merged["lines"] = lines
    for name in ("socket_timeout", "socket_connect_timeout", "timeout"):
        seconds = merged[name]
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (number and 0 < seconds < math.inf):
            raise ConfigurationError(
                f"{name}={seconds!r}: must be a number of seconds above 0, or None to wait for ever"
            )
    size = merged["max_connections"]
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigurationError(f"max_connections={size!r}: must be an int of 1 or more")
    try:
        # Maintenance notifications (redis-py 7) cost a round trip at connect, and with them the pools no longer refuse
        # a connection that has an unread reply. A cache has no use for them.
        from redis.maint_notifications import MaintNotificationsConfig

        merged.setdefault("maint_notifications_config", MaintNotificationsConfig(enabled=False))
    except ImportError:  # pragma: no cover (redis-py 6)
        pass
    return merged


def _checked(pool: Any) -> Any:
    """Make (and drop) one connection without connecting: a wrong option is found here, not at the first command."""
    try:
        pool.connection_class(**pool.connection_kwargs)
    except Exception as error:  # TypeError, ValueError, RedisError; versions differ
        raise ConfigurationError(f"redis-py refuses an option: {error}") from error
    return pool


def sync_pool(url: str, lines: Lines, options: dict[str, Any]) -> Any:
    """A pool of blocking connections to the server at `url`. Connects to nothing yet."""
    _check_readable(url)
    try:
        pool = cast(Any, _SyncPool)(**_options(url, lines, options, sio, Retry))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    return _checked(pool)


def async_pool(url: str, lines: Lines, options: dict[str, Any]) -> Any:
    """A pool of asyncio connections to the server at `url`, for one event loop. Connects to nothing yet."""
    _check_readable(url)
    try:
        pool = _AsyncPool(**_options(url, lines, options, aio, cast(type, redis.asyncio.retry.Retry)))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    return _checked(pool)
