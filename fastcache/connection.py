"""The connections that `from_url` makes: redis-py's own classes, made to fail fast.

Owns three decisions, each in one place: one immediate repeat, and no other, when a pooled connection turns out to have
been closed by the server; RESP2 when the server refuses HELLO (an error reply, never a timeout); and no waiting on a
server whose breaker is open. Everything else is redis-py's. A client that the program made itself is used as it is and
gets none of this. This file must never know a pool, a cache, a key or a serializer.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import redis.asyncio
import redis.asyncio.connection as aio
import redis.asyncio.retry
import redis.connection as sio
import redis.exceptions as rexc
from redis.backoff import NoBackoff
from redis.retry import Retry

from fastcache.breaker import Breaker
from fastcache.outage import Refused

__all__ = ["LINES", "Lines"]


class Lines:
    """What the connections of one cache share: their server's breaker, whether it refused HELLO, and the TLS context."""

    __slots__ = ("breaker", "closed", "hello_refused", "tls")

    def __init__(self, breaker: Breaker | None) -> None:
        self.breaker = breaker
        self.closed = False
        self.hello_refused = False
        self.tls: Any = None  # of asyncio's connections

    def refuse_if_closed(self) -> None:
        if self.closed:
            raise Refused("the cache is closed")

    def admit(self) -> None:
        self.refuse_if_closed()
        if self.breaker is not None and self.breaker.is_open:
            raise Refused(self.breaker.reason())


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
        except Exception as error:  # a socket closed under a reader raises all sorts
            line = self._line()
            if line is not None:
                line._lines.refuse_if_closed()
            if line is None or not line.reused or not _is_closed(error):
                raise
            line.reused = False
        return super().call_with_retry(do, fail, *args, **kwargs)


class _AsyncRepeat(redis.asyncio.retry.Retry):
    """`_SyncRepeat` for asyncio."""

    def __init__(self, line: Any) -> None:
        super().__init__(NoBackoff(), 0)
        self._line = weakref.ref(line)  # no cycle: a dropped connection closes its socket at once

    async def call_with_retry(
        self, do: Callable[[], Awaitable[Any]], fail: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        try:
            return await super().call_with_retry(do, fail, *args, **kwargs)
        except Exception as error:  # a socket closed under a reader raises all sorts
            line = self._line()
            if line is not None:
                line._lines.refuse_if_closed()
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
        self.reused = bool(getattr(self, "is_connected", getattr(self, "_sock", None)))  # the former since redis-py 7
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

    @property
    def lost(self) -> bool:
        """Whether asyncio has seen the connection end, though redis-py hasn't.

        Writing to it now would do harm beyond failing: since 3.12 `writelines` on a transport that was just reset
        leaves a dead entry in the event loop under the number of its socket, and the next connection that gets the
        number hangs until it times out (cpython#136234, mended late in 3.13). The pool asks just before it hands a
        connection out.
        """
        writer = getattr(self, "_writer", None)
        return writer is not None and writer.is_closing()

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
    async def connect(self) -> None:
        """With the TLS context made before the time begins in which the connection must be there."""
        with suppress(OSError):  # a file that is missing: connecting says so
            self._shared_context().get()
        await super().connect()

    def _connection_arguments(self) -> Any:
        self.ssl_context = self._shared_context()
        return super()._connection_arguments()

    def _shared_context(self) -> Any:
        """One for all connections: to make one takes 30 ms, in which the event loop stands still."""
        if self._lines.tls is None:
            self._lines.tls = self.ssl_context
        return self._lines.tls


class _AsyncUnixLine(_AsyncLine, aio.UnixDomainSocketConnection):
    pass


LINES: dict[type, type] = {
    sio.Connection: _TcpLine,
    sio.SSLConnection: _TlsLine,
    sio.UnixDomainSocketConnection: _UnixLine,
    aio.Connection: _AsyncTcpLine,
    aio.SSLConnection: _AsyncTlsLine,
    aio.UnixDomainSocketConnection: _AsyncUnixLine,
}
"""redis-py's connection classes, and what is used in place of each."""
