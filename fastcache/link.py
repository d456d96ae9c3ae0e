"""The link between a cache and its client: whose client it is, how many there are, and how they end.

Owns refusing what isn't a client of this face, the clients that `from_url` makes (one, or one per event loop), sending
a pipeline, and closing exactly what the cache made. It must never decide which command is sent.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.client
import redis.client
from redis.cluster import PipelineCommand

from fastcache.background import CLOSE_SECONDS
from fastcache.breaker import Breaker, breaker_of
from fastcache.connection import Lines
from fastcache.errors import BackendError, ConfigurationError
from fastcache.loops import finishes_in
from fastcache.pools import async_pool, sync_pool
from fastcache.targets import Servers, identify

__all__ = ["AsyncLink", "SyncLink"]

_SYNC = (redis.Redis, redis.RedisCluster)
_ASYNC = (redis.asyncio.Redis, redis.asyncio.RedisCluster)
_PIPELINES = (redis.client.Pipeline, redis.asyncio.client.Pipeline)


def _refuse(client: object, face: str, other_face: str, wanted: tuple[type, ...], other: tuple[type, ...]) -> None:
    if isinstance(client, str | bytes):
        raise ConfigurationError(f"{face} takes a client of redis-py; for a URL there is {face}.from_url(url)")
    if isinstance(client, other):
        raise ConfigurationError(
            f"{face} doesn't take {type(client).__module__}.{type(client).__name__}: use {other_face}"
        )
    if not isinstance(client, wanted) or isinstance(client, _PIPELINES):
        names = " or ".join(f"{type_.__module__.split('.client')[0]}.{type_.__name__}" for type_ in wanted)
        raise ConfigurationError(
            f"{face} takes a client of redis-py ({names}, or a Sentinel's master_for(...)), not {type(client).__name__}"
        )


class SyncLink(Servers):
    """One blocking client, the program's or the cache's own."""

    asynchronous = False

    def __init__(self, client: Any, breaker: Breaker, owned: bool) -> None:
        super().__init__(client, breaker)
        self.client = client
        self._owned = owned
        self._probe_pool: Any = None

    @classmethod
    def to(cls, client: Any) -> SyncLink:
        _refuse(client, "RedisCache", "AsyncRedisCache", _SYNC, _ASYNC)
        return cls(client, breaker_of(*identify(client)), owned=False)

    @property
    def pool_options(self) -> dict[str, Any]:
        """What the connections are made with. Of a single server."""
        return dict(self.client.connection_pool.connection_kwargs)

    @classmethod
    def open(cls, url: str, options: dict[str, Any]) -> SyncLink:
        """A client of the cache's own. Connects at the first command."""
        lines = Lines(None)
        client = redis.Redis(connection_pool=sync_pool(url, lines, options))
        lines.breaker = breaker_of(*identify(client))
        link = cls(client, lines.breaker, owned=True)
        link._probe_pool = sync_pool(url, Lines(None), {**options, "max_connections": 1})
        return link

    def ping(self) -> None:
        if not self._owned:
            self.client.execute_command("PING", **({"target_nodes": "random"} if self.cluster else {}))
            return
        try:
            client: Any = redis.Redis(connection_pool=self._probe_pool)
            client.execute_command("PING")
        finally:
            self._probe_pool.disconnect()

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands in one round trip (per node); replies that are errors are returned. Redirects are not followed:
        redis-py would also repeat, one by one, what a silent node didn't answer.
        """
        if not self.cluster:
            pipe = self.client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command, NEVER_DECODE=True)
            return list(pipe.execute(raise_on_error=False))
        made: Any = PipelineCommand
        stack = [made(command, {"NEVER_DECODE": True}, place) for place, command in enumerate(commands)]
        pipe = self.client.pipeline()
        return list(pipe.send_cluster_commands(stack, raise_on_error=False, allow_redirections=False))

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for probe in self._stop_probing():
            probe.join()
        if self._owned:
            self.client.connection_pool.connection_kwargs["lines"].closed = True
            self.client.close()
            self.client.connection_pool.disconnect()


class AsyncLink(Servers):
    """One asyncio client of the program's, or one of the cache's own for each event loop that uses it."""

    asynchronous = True

    def __init__(self, client: Any, breaker: Breaker, url: str = "", options: dict[str, Any] | None = None) -> None:
        super().__init__(client, breaker)
        self._given = client if options is None else None
        self._sample = client  # never connected, where the clients are the cache's own
        self._url = url
        self._options = options or {}
        self._lines = Lines(breaker)
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        self._guards: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}
        self._lock = threading.Lock()
        # Keeps the clients alive until they are closed properly, should the program drop the cache without closing it.
        self._abandoning = weakref.finalize(self, _abandon, self._guards, self._clients)
        self._abandoning.atexit = False
        _links.add(self)

    def forget(self) -> None:  # pragma: no cover (in a forked child, which ends without saving what it ran)
        """In a forked child: leave the parent's loops and sockets alone, for ever, and begin with none."""
        self._abandoning.detach()
        _inherited.append((self._clients, self._guards))  # closing or finalising them would reach into the parent
        self._clients, self._guards, self._lock = {}, {}, threading.Lock()
        self._abandoning = weakref.finalize(self, _abandon, self._guards, self._clients)
        self._abandoning.atexit = False

    @classmethod
    def to(cls, client: Any) -> AsyncLink:
        _refuse(client, "AsyncRedisCache", "RedisCache", _ASYNC, _SYNC)
        return cls(client, breaker_of(*identify(client)))

    @property
    def pool_options(self) -> dict[str, Any]:
        """See `SyncLink.pool_options`. Needs no event loop."""
        sample = self._given if self._given is not None else self._sample
        return dict(sample.connection_pool.connection_kwargs)

    @classmethod
    def open(cls, url: str, options: dict[str, Any]) -> AsyncLink:
        """Clients of the cache's own. Each connects at its first command."""
        sample = redis.asyncio.Redis(connection_pool=async_pool(url, Lines(None), options))
        return cls(sample, breaker_of(*identify(sample)), url, options)

    @property
    def client(self) -> Any:
        """The client to use in the running event loop."""
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        return self._clients.get(loop) or self._make(loop)

    def _make(self, loop: asyncio.AbstractEventLoop) -> Any:
        client = redis.asyncio.Redis(connection_pool=async_pool(self._url, self._lines, self._options))
        with self._lock:
            if self.closed:
                raise BackendError("the cache is closed")
            for stopped in [known for known in self._clients if known.is_closed()]:
                del self._clients[stopped], self._guards[stopped]
            self._clients[loop] = client
            guard = self._guards[loop] = _until_shutdown(client.connection_pool, loop, self._clients, self._guards)
        _start(guard)
        return client

    async def ping(self) -> None:
        if self._given is not None:
            await self._given.execute_command("PING", **({"target_nodes": "random"} if self.cluster else {}))
            return
        pool = async_pool(self._url, Lines(None), {**self._options, "max_connections": 1})
        try:
            client: Any = redis.asyncio.Redis(connection_pool=pool)
            await client.execute_command("PING")
        finally:
            await pool.disconnect()

    async def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `SyncLink.pipeline`."""
        pipe = self.client.pipeline() if self.cluster else self.client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command, NEVER_DECODE=True)
        options = {"allow_redirections": False} if self.cluster else {}
        return list(await pipe.execute(raise_on_error=False, **options))

    async def close(self) -> None:
        with self._lock:
            if self.closed:
                return
            self.closed = self._lines.closed = True
            guards = list(self._guards.items())
        for probe in self._stop_probing():
            await probe.ajoin()
        here = asyncio.get_running_loop()
        for loop, guard in guards:
            if loop is here:
                await guard.aclose()
            elif loop.is_running():
                # Another thread's loop: it closes its own connections. One that stands still does when it is shut down.
                await finishes_in(loop, partial(_close, guard), CLOSE_SECONDS)


async def _close(guard: AsyncGenerator[None, None]) -> None:
    await guard.aclose()


_links: weakref.WeakSet[AsyncLink] = weakref.WeakSet()
_inherited: list[Any] = []


def _after_fork_in_child() -> None:
    for link in list(_links):
        link.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _abandon(guards: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]], *_: object) -> None:
    """The cache is garbage: close its pools, each in its loop."""
    for loop, guard in list(guards.items()):
        if not loop.is_closed():
            asyncio.run_coroutine_threadsafe(_close(guard), loop)


async def _until_shutdown(
    pool: Any, loop: asyncio.AbstractEventLoop, *registers: dict[asyncio.AbstractEventLoop, Any]
) -> AsyncGenerator[None, None]:
    """Disconnect the pool when it is closed, or when its loop shuts down.

    An event loop closes its unfinished async generators before it ends (PEP 525, `loop.shutdown_asyncgens`, part of
    `asyncio.run`): the one public hook at which connections can still be closed properly.
    """
    try:
        yield
    finally:
        for register in registers:
            register.pop(loop, None)
        await pool.disconnect()


def _start(guard: AsyncGenerator[None, None]) -> None:
    """Run to the first `yield`, which awaits nothing; the running loop notes the generator as unfinished."""
    with suppress(StopIteration):
        guard.asend(None).send(None)
