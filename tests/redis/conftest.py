"""Fixtures of the Redis tests. The servers are real; each test gets an empty database or a server of its own."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import figures
import redis
import servers
from proxy import Proxy

from fastcache import AsyncTieredCache, MemoryCache, TieredCache
from fastcache.redis import AsyncRedisCache, RedisCache


@pytest.fixture(scope="session")
def shared_server() -> Iterator[servers.Server]:
    with servers.Server().start() as server:
        yield server


@pytest.fixture
def server(shared_server: servers.Server) -> servers.Server:
    """The common server, emptied."""
    with shared_server.client() as client:
        client.flushall()
    return shared_server


@pytest.fixture
def own_server() -> Iterator[servers.Server]:
    """A server that the test may kill."""
    with servers.Server().start() as server:
        yield server


@pytest.fixture
def other(server: servers.Server) -> Iterator[redis.Redis]:
    """Another program: a client of the server that knows nothing of caches."""
    with server.client() as client:
        yield client


@pytest.fixture
def proxy(server: servers.Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture(params=["sync", "asyncio"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    face = Face(request.param)
    yield face
    face.close()


class LoopThread:
    """An event loop that runs all the time, in a thread of its own, as a server's does."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),))
        self._thread.start()
        self._ready.wait()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._ready.set()
        await self._end.wait()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()


class Blocking:
    """An AsyncRedisCache behind blocking calls in one event loop, so that one test is written for both faces."""

    def __init__(self, runner: LoopThread, cache: Any) -> None:
        self._runner = runner
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.cache, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute
        return lambda *args, **kwargs: self._runner.run(attribute(*args, **kwargs))

    def __repr__(self) -> str:
        return repr(self.cache)

    def __getitem__(self, key: Any) -> Any:
        async def item() -> Any:
            return await self.cache[key]

        return self._runner.run(item())


class Face:
    """Makes caches of one face, closes them at the end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._runner = LoopThread() if name == "asyncio" else None
        self._caches: list[Any] = []

    @property
    def cls(self) -> type[Any]:
        return RedisCache if self._runner is None else AsyncRedisCache

    def from_url(self, *args: Any, **kwargs: Any) -> Any:
        return self._add(self.cls.from_url(*args, **kwargs))

    def on(self, client: Any, *args: Any, **kwargs: Any) -> Any:
        return self._add(self.cls(client, *args, **kwargs))

    def tiered(
        self, url: str, prefix: str = "p", *, client: Any = None, memory: dict[str, Any] | None = None,
        redis: dict[str, Any] | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """A two-level cache with a memory of its own: what other processes have."""
        options_of_redis = {"ttl": 60, **(redis or {})}
        remote = self.cls.from_url(url, prefix, **options_of_redis) if client is None else None
        if remote is None:
            remote = self.cls(client, prefix, **options_of_redis)
        kind = TieredCache if self._runner is None else AsyncTieredCache
        return self._add(kind(MemoryCache(**(memory or {})), remote, **options))

    def pattern(self, kind: Any, async_kind: Any, cache: Any, *functions: Any, **options: Any) -> Any:
        """One of the patterns over a cache of this face."""
        if self._runner is None:
            return kind(cache, *functions, **options)
        return Blocking(self._runner, async_kind(cache.cache, *functions, **options))

    def _add(self, cache: Any) -> Any:
        cache = cache if self._runner is None else Blocking(self._runner, cache)
        self._caches.append(cache)
        return cache

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of a client of this face and return what it returns in the end."""
        if self._runner is None:
            return function(*args, **kwargs)

        async def call() -> Any:
            outcome = function(*args, **kwargs)
            return await outcome if isinstance(outcome, Awaitable) else outcome

        return self._runner.run(call())

    def write(self, cache: Any, key: str) -> None:
        """`writing(key)` around nothing."""
        if self._runner is None:
            with cache.writing(key):
                return

        async def write() -> None:
            async with cache.cache.writing(key):
                pass

        self._runner.run(write())

    def redis(self) -> Any:
        import redis
        import redis.asyncio

        return redis if self._runner is None else redis.asyncio

    def forget(self) -> None:
        """Close the caches."""
        while self._caches:
            self._caches.pop().close()

    def close(self) -> None:
        self.forget()
        if self._runner is not None:
            self._runner.close()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> figures.Note:
    """Takes what the test measures, for the tables at the end."""
    return figures.Note(request.node)


pytest_runtest_logreport = figures.pytest_runtest_logreport
pytest_terminal_summary = figures.pytest_terminal_summary
