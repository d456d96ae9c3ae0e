"""A user service over SQLite with cache-aside: in memory, or in Redis where REDIS_URL names a server.

python examples/users.py
REDIS_URL=redis://localhost:6379 python examples/users.py
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcache import MISSING, CacheAside, MemoryCache, Policy

POLICY = Policy(60, stale_for=600, missing_ttl=5)
"""Fresh for a minute; for ten more an old user is better than none while the database is away; an id that doesn't exist
is asked for once in five seconds.
"""


@dataclass
class User:
    id: int
    name: str


class Users:
    """The table. Every method is a query."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.queries = 0
        with self._connect() as db:
            db.execute("CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        db.close()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path)

    def load(self, id: int) -> Any:
        self.queries += 1
        db = self._connect()
        try:
            row = db.execute("SELECT id, name FROM users WHERE id = ?", (id,)).fetchone()
        finally:
            db.close()
        return MISSING if row is None else User(*row)

    def save(self, id: int, user: User) -> None:
        self.queries += 1
        db = self._connect()
        try:
            with db:
                db.execute("INSERT OR REPLACE INTO users VALUES (?, ?)", (id, user.name))
        finally:
            db.close()


def make_cache() -> Any:
    url = os.environ.get("REDIS_URL")
    if url is None:
        return MemoryCache(maxsize=10_000)
    from fastcache import RedisCache

    return RedisCache.from_url(url, "users", ttl=60, type=User)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, make_cache() as cache:
        table = Users(str(Path(directory) / "users.db"))
        users = CacheAside(cache, table.load, table.save, policy=POLICY, key="user:{}")
        users.update(1, User(1, "Ada"))
        for _ in range(1000):
            assert users.get(1) == User(1, "Ada")
        users.update(1, User(1, "Ada Lovelace"))
        print(users.get(1))
        print("user 2:", users.get(2, "nobody"))
        print(f"{table.queries} queries for 1,002 reads and 2 writes")
        users.invalidate(1)


if __name__ == "__main__":
    main()
