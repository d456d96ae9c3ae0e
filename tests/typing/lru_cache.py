"""What type checkers are to make of `lru_cache` and `cache`. Checked by mypy and pyright, never run."""

from collections.abc import Callable
from typing import assert_type

from fastcache import CacheInfo, cache, lru_cache


@lru_cache
def bare(x: int, y: str = "") -> float:
    return float(x)


@lru_cache()
def called(x: int) -> str:
    return str(x)


@lru_cache(maxsize=None, typed=True)
def unbounded(*numbers: int, flag: bool = False) -> list[int]:
    return list(numbers)


@lru_cache(1000, key=lambda x, y: x)
def keyed(x: int, y: object) -> int:
    return x


@cache
def for_good(x: bytes, /, *, times: int) -> bytes:
    return x * times


@lru_cache
async def coroutine(x: int) -> str:
    return str(x)


def plain(x: int) -> str:
    return str(x)


# Results

assert_type(bare(1), float)
assert_type(bare(1, y="a"), float)
assert_type(called(x=1), str)
assert_type(unbounded(1, 2, flag=True), list[int])
assert_type(keyed(1, "b"), int)
assert_type(for_good(b"x", times=2), bytes)
assert_type(lru_cache(plain)(1), str)
assert_type(lru_cache(plain, typed=True)(1), str)
assert_type(cache(plain)(1), str)


async def awaiting() -> None:
    assert_type(await coroutine(1), str)


# Wrong arguments are still wrong.

bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bare()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
called(1, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
for_good(b"x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
unbounded(flag=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
lru_cache(maxsize="big")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
lru_cache(key=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# The methods of the wrapper

assert_type(bare.cache_info(), CacheInfo)
assert_type(bare.cache_info().hits, int)
assert_type(bare.cache_info().maxsize, int | None)
assert_type(bare.cache_parameters()["maxsize"], int | None)
assert_type(bare.cache_parameters()["typed"], bool)
assert_type(bare.cache_clear(), None)
assert_type(bare.cache_contains(1, y="a"), bool)
assert_type(bare.cache_invalidate(1), bool)
assert_type(bare.__wrapped__(1, "a"), float)
assert_type(bare.__name__, str)
bare.cache_invalidate("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bare.cache_contains()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bare.cache_forget(1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

# A cached function goes where a function of that signature goes.

as_callable: Callable[[int], str] = called
assert_type(list(map(called, [1, 2])), list[str])
wrong_callable: Callable[[str], str] = called  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
