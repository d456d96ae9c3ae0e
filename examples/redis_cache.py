"""A cache in Redis: typed values, a pattern delete, and what a program does when Redis is away.

redis-server --port 6379 &        (or: docker run -p 6379:6379 redis)
python examples/redis_cache.py    (REDIS_URL names another server)
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

from fastcache.errors import BackendError
from fastcache.redis import AsyncRedisCache, RedisCache

URL = os.environ.get("REDIS_URL", "redis://localhost:6379")


@dataclass
class User:
    id: int
    name: str


def load_user(id: int) -> User:
    time.sleep(0.05)  # the database
    return User(id, f"user number {id}")


def get_user(cache: RedisCache, id: int) -> User:
    """The value from Redis, else from the database; with Redis away the program is slower, and right."""
    try:
        user = cache.get(f"user:{id}", type=User)
        if user is None:
            user = load_user(id)
            cache.set(f"user:{id}", user)
    except BackendError as error:
        print("  no cache:", error)
        user = load_user(id)
    return user


def main() -> None:
    with RedisCache.from_url(URL, "example", ttl=60) as cache:
        for _ in range(2):
            start = time.perf_counter()
            user = get_user(cache, 7)
            print(f"{user} in {(time.perf_counter() - start) * 1000:.1f} ms")
        cache.set_many({f"user:{id}": User(id, "someone") for id in range(3)}, ttl=5)
        print("of five:", cache.get_many([f"user:{id}" for id in range(5)], type=User))
        print("lives for", cache.remaining("user:1"), "s")
        print("deleted:", cache.delete_pattern("user:*"))
        print(cache.stats())

    with RedisCache.from_url("redis://127.0.0.1:1", "example", ttl=60) as away:
        print("where no server is:")
        for _ in range(6):
            get_user(away, 7)
        print("breaker:", away.stats().breaker)


async def amain() -> None:
    async with AsyncRedisCache.from_url(URL, "example", ttl=60) as cache:
        await asyncio.gather(*(cache.set(f"n:{number}", number**2) for number in range(200)))
        print("asyncio:", sum(await asyncio.gather(*(cache.get(f"n:{number}") for number in range(200)))))
        await cache.clear()


if __name__ == "__main__":
    main()
    asyncio.run(amain())
