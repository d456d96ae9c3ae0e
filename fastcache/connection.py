"""The connections and pools that `from_url` makes: redis-py's own classes with defaults that fail fast.

Owns four decisions, each in one place: timeouts instead of retries; one immediate repeat when a pooled connection
turns out to have been closed by the server; RESP2 when the server refuses HELLO (an error reply, never a timeout); and
no waiting on a server whose breaker is open. Everything else is redis-py's. A client that the program made itself is
used as it is and never gets any of this. This file must never know a cache, a key or a serializer.

`is_outage` says what counts as a failure of the server, for clients of either origin.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import redis.asyncio
import redis.asyncio.connection as aio
import redis.asyncio.retry
import redis.connection as sio
import redis.exceptions as rexc
from redis.backoff import NoBackoff
from redis.retry import Retry

from .breaker import Breaker
from .errors import ConfigurationError

__all__ = ["DEFAULTS", "Lines", "PoolExhausted", "async_pool", "is_outage", "is_timeout", "sync_pool"]

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


class PoolExhausted(rexc.MaxConnectionsError):
    """No connection became free in time. The callers' own doing, so it never counts against the server."""


class _Refused(rexc.ConnectionError):
    """The breaker opened while this caller waited for a connection: it must not start waiting for the server now."""


class Lines:
    """What the connections of one cache share: the breaker of their server, and whether it refused HELLO."""

    __slots__ = ("breaker", "hello_refused")

    def __init__(self, breaker: Breaker | None) -> None:
        self.breaker = breaker
        self.hello_refused = False

    def __deepcopy__(self, memo: object) -> Lines:
        return self

    def admit(self) -> None:
        if self.breaker is not None and self.breaker.is_open:
            raise _Refused(self.breaker.reason())


def is_outage(error: BaseException) -> bool:
    """Whether a failed call says that the server is away: a connection that failed or a reply that didn't come.

    Not a reply with an error (OOM, READONLY, WRONGTYPE, LOADING, NOAUTH ...), which is a sign of life, nor a pool
    without a free connection, nor a caller's cancellation.
    """
    if isinstance(error, rexc.MaxConnectionsError | _Refused) or _pool_was_full(error):
        return False
    if isinstance(error, rexc.AuthenticationError | rexc.AuthorizationError | rexc.BusyLoadingError):
        return False  # redis-py derives these replies from ConnectionError
    if isinstance(error, rexc.ConnectionError):  # a Sentinel's connection hides READONLY, a demoted master's reply, so
        return not isinstance(error.__context__, rexc.ReadOnlyError)
    if isinstance(error, rexc.RedisClusterException):
        return "cannot be connected" in str(error)  # no node of the cluster answered
    return isinstance(error, rexc.TimeoutError | rexc.InvalidResponse | OSError | EOFError | asyncio.TimeoutError)


def is_timeout(error: BaseException) -> bool:
    """Whether the caller waited for nothing: for a reply, or for a free connection."""
    if isinstance(error, rexc.MaxConnectionsError):
        return isinstance(error, PoolExhausted)
    return isinstance(error, rexc.TimeoutError | TimeoutError | asyncio.TimeoutError) or _pool_was_full(error)


def _pool_was_full(error: BaseException) -> bool:
    return (
        isinstance(error, rexc.ConnectionError) and str(error) == "No connection available."
    )  # BlockingConnectionPool


def _is_closed(error: Exception) -> bool:
    return type(error) is rexc.ConnectionError  # not its subclasses, which are replies


class _SyncRepeat(Retry):
    """Retries nothing but one case: the connection came out of the pool alive and was found closed by this command.

    The server (or a firewall) closes idle connections; the pool notices a FIN at checkout but, in asyncio, not a RST,
    and neither can notice a close that arrives between checkout and reply. Repeating is safe: each of a cache's
    commands may run twice.
    """

    def __init__(self, line: Any) -> None:
        super().__init__(NoBackoff(), 0)
        self._line = weakref.ref(line)  # no cycle: a dropped connection closes its socket at once

    def call_with_retry(self, do: Callable[[], Any], fail: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return super().call_with_retry(do, fail, *args, **kwargs)
        except rexc.ConnectionError as error:
            line = self._line()
            if line is None or not line.reused or not _is_closed(error):
                raise
            line.reused = False
        return super().call_with_retry(do, fail, *args, **kwargs)


class _AsyncRepeat(redis.asyncio.retry.Retry):
    """`_SyncRepeat` for asyncio."""

    def __init__(self, line: Any) -> None:
        super().__init__(NoBackoff(), 0)
        self._line = weakref.ref(line)  # no cycle: a dropped connection closes its socket at once

    async def call_with_retry(  # type: ignore[override]
        self, do: Callable[[], Awaitable[Any]], fail: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        try:
            return await super().call_with_retry(do, fail, *args, **kwargs)
        except rexc.ConnectionError as error:
            line = self._line()
            if line is None or not line.reused or not _is_closed(error):
                raise
            line.reused = False
        return await super().call_with_retry(do, fail, *args, **kwargs)


class _Line:
    """What a sync and an asyncio connection have in common. Mixed in before redis-py's class."""

    _repeat: Any = None
    retry: Any
    protocol: Any

    def __init__(self, *, lines: Lines, **options: Any) -> None:
        self._lines = lines
        self._options = options
        self.reused = False  # whether the pool handed it out connected
        protocol = {"protocol": 2} if lines.hello_refused else {}
        super().__init__(**{**options, **protocol})
        if self.retry.get_retries() == 0:  # else the program asked for retries of its own
            self.retry = self._repeat(self)

    def _speak_resp2(self) -> None:
        """Begin again as the connection it would have been with `protocol=2`: its parser differs too."""
        redis_class: Any = super()
        redis_class.__init__(**{**self._options, "protocol": 2})
        if self.retry.get_retries() == 0:
            self.retry = self._repeat(self)

    def _may_fall_back(self, error: rexc.ResponseError) -> bool:
        """HELLO got an error reply: unknown to an old server or a proxy, or forbidden to this user."""
        return str(self.protocol) == "3"


class _SyncLine(_Line):
    _repeat = _SyncRepeat

    def connect(self) -> None:
        line: Any = super()
        self._lines.admit()
        self.reused = self.is_connected  # type: ignore[attr-defined]
        if not self.reused:
            line.connect()

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        line: Any = super()
        try:
            line.connect_check_health(*args, **kwargs)
        except rexc.ResponseError as error:
            if not self._may_fall_back(error):
                raise
            self._speak_resp2()
            line.connect_check_health(*args, **kwargs)
            self._lines.hello_refused = True


class _AsyncLine(_Line):
    _repeat = _AsyncRepeat

    async def connect(self) -> None:
        line: Any = super()
        self._lines.admit()
        self.reused = self.is_connected  # type: ignore[attr-defined]
        if not self.reused:
            try:
                await line.connect()
            except BaseException:
                await line.disconnect(nowait=True)  # cancelled half-way through the handshake, a reply may still come
                raise

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        line: Any = super()
        try:
            await line.connect_check_health(*args, **kwargs)
        except rexc.ResponseError as error:
            if not self._may_fall_back(error):
                raise
            self._speak_resp2()
            await line.connect_check_health(*args, **kwargs)
            self._lines.hello_refused = True


class _TcpLine(_SyncLine, sio.Connection):
    pass


class _TlsLine(_SyncLine, sio.SSLConnection):
    pass


class _UnixLine(_SyncLine, sio.UnixDomainSocketConnection):
    pass


class _AsyncTcpLine(_AsyncLine, aio.Connection):
    pass


class _AsyncTlsLine(_AsyncLine, aio.SSLConnection):
    pass


class _AsyncUnixLine(_AsyncLine, aio.UnixDomainSocketConnection):
    pass


_LINES: dict[type, type] = {
    sio.Connection: _TcpLine,
    sio.SSLConnection: _TlsLine,
    sio.UnixDomainSocketConnection: _UnixLine,
    aio.Connection: _AsyncTcpLine,
    aio.SSLConnection: _AsyncTlsLine,
    aio.UnixDomainSocketConnection: _AsyncUnixLine,
}


class _SyncPool(sio.BlockingConnectionPool):
    """redis-py's, with an error that says what happened when no connection became free."""

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().get_connection(*args, **kwargs)
        except rexc.ConnectionError as error:
            if _pool_was_full(error):
                raise PoolExhausted(_exhausted(self)) from error
            raise


def _exhausted(pool: Any) -> str:
    return f"no connection became free in {pool.timeout:g} s (max_connections={pool.max_connections})"


class _AsyncPool(aio.BlockingConnectionPool):
    """redis-py's asyncio pool, with a queue of futures in place of its condition and lock.

    In redis-py's, giving a connection back awaits a lock; a task cancelled there loses the connection for the pool,
    and fifty of them stop the program. Here neither taking nor giving back has a point at which it could be cancelled.
    Callers are served in the order they came. It belongs to one event loop, like the original.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._waiting: deque[asyncio.Future[Any]] = deque()

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        if self._waiting or not self.can_get_connection():
            connection = await self._wait()
        else:
            connection = self.get_available_connection()
        try:
            await self.ensure_connection(connection)
        except BaseException:
            self._give_back(connection)
            raise
        return connection

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
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise PoolExhausted(_exhausted(self)) from error
            raise

    async def release(self, connection: Any) -> None:
        try:
            if connection.should_reconnect():
                await connection.disconnect(nowait=True)
        finally:
            self._give_back(connection)

    def _give_back(self, connection: Any) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._in_use_connections.discard(connection)
        self._available_connections.append(connection)


def _options(url: str, lines: Lines, options: dict[str, Any], connection: Any, retry: type) -> dict[str, Any]:
    """All options of the pool and its connections: the defaults, then the caller's, then what the URL says."""
    try:
        named = connection.parse_url(url)
    except (ValueError, TypeError, AttributeError) as error:  # its message quotes no password
        raise ConfigurationError(
            f"the URL can't be used: {error}. It begins with redis://, rediss:// (TLS) or unix://"
        ) from error
    merged = {"retry": retry(NoBackoff(), 0), **DEFAULTS, **options, **named}
    if "connection_class" in options or "connection_pool" in options:
        raise ConfigurationError(
            "from_url makes its own connections; give a client of yours to the constructor instead"
        )
    merged["connection_class"] = _LINES[merged.get("connection_class", connection.Connection)]
    merged["lines"] = lines
    try:
        # Maintenance notifications (redis-py 7) cost a round trip at connect, and with them the pools no longer refuse
        # a connection that has an unread reply. A cache has no use for them.
        from redis.maint_notifications import MaintNotificationsConfig

        merged.setdefault("maint_notifications_config", MaintNotificationsConfig(enabled=False))
    except ImportError:
        pass
    return merged


def _checked(pool: Any) -> Any:
    """Make (and drop) one connection without connecting: a wrong option is found here, not at the first command."""
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, rexc.RedisError) as error:
        raise ConfigurationError(f"redis-py refuses an option: {error}") from error
    return pool


def sync_pool(url: str, lines: Lines, options: dict[str, Any]) -> Any:
    """A pool of blocking connections to the server at `url`. Connects to nothing yet."""
    try:
        pool = _SyncPool(**_options(url, lines, options, sio, Retry))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    return _checked(pool)


def async_pool(url: str, lines: Lines, options: dict[str, Any]) -> Any:
    """A pool of asyncio connections to the server at `url`, for one event loop. Connects to nothing yet."""
    try:
        pool = _AsyncPool(**_options(url, lines, options, aio, cast(type, redis.asyncio.retry.Retry)))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    return _checked(pool)
