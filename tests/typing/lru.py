"""What type checkers are to make of `LRUCache`. Checked by mypy and pyright (tests/test_typing.py), never run."""

import math
from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from typing import Literal, assert_type

from fastcache import LRUCache

Cause = Literal["evicted", "expired", "replaced", "deleted", "cleared"]


def report(key: str, value: int, cause: Cause) -> None: ...


cache: LRUCache[str, int] = LRUCache(128)
weighing: LRUCache[str, bytes] = LRUCache(maxsize=1e6, getsizeof=len)
listening: LRUCache[str, int] = LRUCache(128, on_evict=report)
unbounded: LRUCache[int, int] = LRUCache(None)
infinite: LRUCache[int, int] = LRUCache(math.inf)
mapping: MutableMapping[str, int] = cache

assert_type(cache["a"], int)
assert_type(cache.get("a"), int | None)
assert_type(cache.get("a", 0), int)
assert_type(cache.get("a", "none"), int | str)
assert_type(cache.peek("a"), int | None)
assert_type(cache.peek("a", 0), int)
assert_type(cache.pop("a"), int)
assert_type(cache.pop("a", "none"), int | str)
assert_type(cache.popitem(), tuple[str, int])
assert_type(cache.setdefault("a", 1), int)
assert_type(cache.copy(), LRUCache[str, int])
assert_type(cache.maxsize, float | None)
assert_type(cache.currsize, float)
assert_type(iter(cache), Iterator[str])
assert_type(cache.keys(), KeysView[str])
assert_type(cache.values(), ValuesView[int])
assert_type(cache.items(), ItemsView[str, int])
assert_type("a" in cache, bool)
cache["a"] = 1
cache.update({"a": 1})
cache.update([("a", 1)])
cache.update(a=1)
cache.resize(None)
cache.resize(2.5)


class Sized(LRUCache[str, bytes]):
    def getsizeof(self, value: bytes) -> int:
        return len(value)

    def __missing__(self, key: str) -> bytes:
        return b""


assert_type(Sized(10)["a"], bytes)
assert_type(Sized(10).copy(), Sized)

LRUCache()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
cache[1]  # type: ignore[index]  # pyright: ignore[reportArgumentType]
cache["a"] = "b"  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
cache.maxsize = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
