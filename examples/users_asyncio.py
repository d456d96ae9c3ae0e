"""The service of users.py for asyncio: cache-aside behind FastAPI where that is installed, else called directly.

python examples/users_asyncio.py
uvicorn --app-dir examples users_asyncio:app        (pip install fastapi uvicorn)
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from users import POLICY, User, Users

from fastcache import AsyncCacheAside, AsyncMemoryCache


class Service:
    """The table behind a cache. Queries block, so each runs in a thread."""

    def __init__(self, path: str) -> None:
        self.table = Users(path)
        self.cache = make_cache()
        self.users: AsyncCacheAside[int, Any] = AsyncCacheAside(
            self.cache, self._load, self._save, policy=POLICY, key="user:{}"
        )

    async def _load(self, id: int) -> Any:
        return await asyncio.to_thread(self.table.load, id)

    async def _save(self, id: int, user: User) -> None:
        await asyncio.to_thread(self.table.save, id, user)


def make_cache() -> Any:
    url = os.environ.get("REDIS_URL")
    if url is None:
        return AsyncMemoryCache(maxsize=10_000)
    from fastcache import AsyncRedisCache

    return AsyncRedisCache.from_url(url, "users", ttl=60, type=User)


def make_app(path: str) -> Any:
    """The same over HTTP."""
    from fastapi import FastAPI, HTTPException

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = Service(path)
        yield
        await app.state.service.cache.close()

    app = FastAPI(lifespan=lifespan)

    @app.get("/users/{id}")
    async def read(id: int) -> User:
        user = await app.state.service.users.get(id)
        if user is None:
            raise HTTPException(404, "no such user")
        return user

    @app.put("/users/{id}")
    async def write(id: int, name: str) -> User:
        user = User(id, name)
        await app.state.service.users.update(id, user)
        return user

    return app


def __getattr__(name: str) -> Any:
    if name == "app":  # made when a server asks for it
        return make_app(os.environ.get("USERS_DB", "users.db"))
    raise AttributeError(name)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        service = Service(str(Path(directory) / "users.db"))
        async with service.cache:
            await service.users.update(1, User(1, "Ada"))
            found = await asyncio.gather(*(service.users.get(1) for _ in range(1000)))
            assert found == [User(1, "Ada")] * 1000
            print(found[0], "user 2:", await service.users.get(2, "nobody"))
            print(f"{service.table.queries} queries for 1,001 reads and a write")


if __name__ == "__main__":
    asyncio.run(main())
