"""`lru_cache` and `cache`: the decorators over the compiled wrapper in `_memo`.

This file checks the options and dresses the wrapper as the function. What a hit costs is decided in `_memo`; nothing
here runs on a hit.
"""

from __future__ import annotations

from functools import update_wrapper

from fastcache._memo import CacheInfo, Memo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any, ParamSpec, Protocol, TypeVar, overload

    P = ParamSpec("P")
    R = TypeVar("R")

    class MemoDecorator(Protocol):
        def __call__(self, function: Callable[P, R], /) -> Memo[P, R]: ...
else:

    def overload(function):  # `typing` itself is a slow import
        return None


__all__ = ["CacheInfo", "cache", "lru_cache"]

DEFAULT_MAXSIZE = 128  # functools'


@overload
def lru_cache(
    maxsize: Callable[P, R], typed: bool = False, *, key: Callable[..., Hashable] | None = None
) -> Memo[P, R]: ...
@overload
def lru_cache(  # noqa: F811
    maxsize: int | None = DEFAULT_MAXSIZE, typed: bool = False, *, key: Callable[..., Hashable] | None = None
) -> MemoDecorator: ...
def lru_cache(  # noqa: F811 (ruff doesn't see through the stand-in for `overload`)
    maxsize: Any = DEFAULT_MAXSIZE, typed: bool = False, *, key: Any = None
) -> Any:
    """Remember what a function returned, for its most recent `maxsize` different calls.

    A drop-in for `functools.lru_cache`, used the same ways (`@lru_cache`, `@lru_cache(maxsize=1000)`), with the same
    keys (`f(1)` and `f(1.0)` share an entry unless `typed`; `f(a=1, b=2)` and `f(b=2, a=1)` don't), the same counters
    and the same methods on the result: `cache_info()`, `cache_clear()`, `cache_parameters()`, `__wrapped__`.
    Beyond it:

    * `f.cache_invalidate(*args, **kwargs)` forgets one call and tells whether it was remembered;
      `f.cache_contains(*args, **kwargs)` only tells. Of a method, name the instance: `A.m.cache_invalidate(a, 42)`.
    * `key`: a function of the call's arguments that returns what to remember the call by, any hashable.

    maxsize: entries; None: no bound; 0 or less: nothing is remembered, misses are counted.
    typed: arguments of different types are different calls, also where they are equal. Not together with `key`.

    A hit costs O(1) and makes no tuple of the arguments. Arguments must be hashable (TypeError otherwise) and are kept
    alive while remembered. The function runs outside any lock: threads that miss the same key at once each run it.
    Exceptions are not remembered.

    Raises TypeError for a `maxsize` that is no int, a `key` that can't be called, or both `typed` and `key`.

    >>> @lru_cache
    ... def square(x):
    ...     return x * x
    >>> square(3), square(3)
    (9, 9)
    >>> square.cache_info()
    CacheInfo(hits=1, misses=1, maxsize=128, currsize=1)
    >>> square.cache_invalidate(3)
    True
    """
    if key is not None:
        if not callable(key):
            raise TypeError(f"key must be a function of the call's arguments, not {key!r}")
        if typed:
            raise TypeError("typed has no effect together with key: let key put the types in what it returns")

    if isinstance(maxsize, int):
        maxsize = max(0, int(maxsize))  # int(): True means 1
    elif callable(maxsize):
        return _decorated(maxsize, DEFAULT_MAXSIZE, typed, key)
    elif maxsize is not None:
        raise TypeError(f"maxsize must be an int or None (or the function to decorate), not {maxsize!r}")

    def decorate(function: Callable[P, R], /) -> Memo[P, R]:
        return _decorated(function, maxsize, typed, key)

    return decorate


def cache(function: Callable[P, R], /) -> Memo[P, R]:
    """Remember every call of a function for good: `lru_cache(maxsize=None)`."""
    return lru_cache(maxsize=None)(function)


def _decorated(
    function: Callable[P, R], maxsize: int | None, typed: bool, key: Callable[..., Hashable] | None
) -> Memo[P, R]:
    if not callable(function):
        raise TypeError(f"lru_cache decorates functions, not {function!r}")
    memo = Memo(function, maxsize, bool(typed), key, None, None, None)
    update_wrapper(memo, function)
    return memo
