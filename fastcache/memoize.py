"""`lru_cache` and `cache`: the decorators over the compiled wrapper in `_memo`.

This file checks the options, tells a `def` from an `async def`, and dresses the wrapper as the function. What a hit costs is
decided in `_memo`, what calls that share a run do in `runs`; nothing here runs on a call.
"""

from __future__ import annotations

from functools import partial, update_wrapper
from types import FunctionType

from fastcache._memo import CacheInfo, Memo, share_between_threads
from fastcache._ttl import check_ttl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any, ParamSpec, Protocol, TypeVar, overload

    from fastcache._method import MethodMemo

    P = ParamSpec("P")
    R = TypeVar("R")

    class MemoDecorator(Protocol):
        def __call__(self, function: Callable[P, R], /) -> Memo[P, R]: ...
else:

    def overload(function):  # `typing` itself is a slow import
        return None


__all__ = ["CacheInfo", "cache", "lru_cache"]

DEFAULT_MAXSIZE = 128  # functools'
CO_COROUTINE = 0x80  # inspect.CO_COROUTINE, without the 10 ms that importing inspect takes


@overload
def lru_cache(
    maxsize: Callable[P, R],
    typed: bool = False,
    *,
    ttl: float | None = None,
    single_flight: bool | None = None,
    per_instance: bool = False,
    key: Callable[..., Hashable] | None = None,
) -> Memo[P, R]: ...
@overload
def lru_cache(  # noqa: F811
    maxsize: int | None = DEFAULT_MAXSIZE,
    typed: bool = False,
    *,
    ttl: float | None = None,
    single_flight: bool | None = None,
    per_instance: bool = False,
    key: Callable[..., Hashable] | None = None,
) -> MemoDecorator: ...
def lru_cache(  # noqa: F811 (ruff doesn't see through the stand-in for `overload`)
    maxsize: Any = DEFAULT_MAXSIZE,
    typed: bool = False,
    *,
    ttl: float | None = None,
    single_flight: bool | None = None,
    per_instance: bool = False,
    key: Any = None,
) -> Any:
    """Remember what a function returned, for its most recent `maxsize` different calls.

    A drop-in for `functools.lru_cache`, used the same ways (`@lru_cache`, `@lru_cache(maxsize=1000)`), with the same
    keys (`f(1, 2)` and `f(1.0, 2)` share an entry unless `typed`; `f(a=1, b=2)` and `f(b=2, a=1)` don't), the same counters
    and the same methods on the result: `cache_info()`, `cache_clear()`, `cache_parameters()`, `__wrapped__`.
    Beyond it, `f.cache_invalidate(*args, **kwargs)` forgets one call and tells whether it was remembered, and
    `f.cache_contains(*args, **kwargs)` only tells. Of a method, name the instance: `A.m.cache_invalidate(a, 42)`.

    maxsize: entries; None: no bound; 0 or less: nothing is remembered, misses are counted.
    typed: arguments of different types are different calls, also where they are equal. Not together with `key`.
    ttl: seconds until a result is forgotten, counted from when the function returned; None: not by time. Expired results
        are removed two at a time as others are stored, before any live one; `cache_info()` doesn't count them.
    single_flight: concurrent callers of one missing key run the function once, and all get its result or its exception;
        the calls that joined count as hits. A wait that would close a circle (a function that calls itself with the same
        key, two threads crossing on two keys) runs the function instead; what runs in an executor's thread belongs to the
        circle only where the context was handed on, as `asyncio.to_thread` does. None: off for a `def`, on for an
        `async def`.
    per_instance: for methods. Every instance has a memory of its own, of `maxsize` calls, that dies with it and doesn't
        keep it alive (a result that refers to the instance does). Instances are told apart by identity and may be
        unhashable, but must allow weak references. The counters are sums over all instances;
        `A.m.cache_invalidate(a, 42)` names the instance, as ever.
    key: a function of the call's arguments (with `per_instance`: those after the instance) that returns what to remember
        the call by, any hashable.

    On an `async def` the awaited result is remembered, never a coroutine. A shared run is a task of its own: a caller's
    cancellation concerns that caller alone, and only with the last of them gone is the run cancelled, too. The wrapper may
    be used from any number of event loops and threads; runs are shared within one loop.

    With shared runs, and on an `async def`, a `cache_clear` or `cache_invalidate` during a run means that its result goes to
    its callers and is not stored.

    A hit costs O(1) and makes no tuple of the arguments. Arguments must be hashable (TypeError otherwise) and are kept
    alive while remembered. The function runs outside any lock. Exceptions are not remembered.

    Raises TypeError for a `maxsize` that is no int, a `key` that can't be called, or both `typed` and `key`;
    ConfigurationError (a ValueError) for a `ttl` that isn't greater than 0.

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
    if ttl is not None:
        ttl = check_ttl(ttl)
    options: dict[str, Any] = {"typed": bool(typed), "ttl": ttl, "key": key}

    if isinstance(maxsize, int):
        options["maxsize"] = max(0, int(maxsize))  # int(): True means 1
    elif maxsize is None:
        options["maxsize"] = None
    elif callable(maxsize):
        options["maxsize"] = DEFAULT_MAXSIZE
        return _decorated(maxsize, single_flight, per_instance, options)
    else:
        raise TypeError(f"maxsize must be an int or None (or the function to decorate), not {maxsize!r}")

    def decorate(function: Callable[P, R], /) -> Memo[P, R]:
        return _decorated(function, single_flight, per_instance, dict(options))

    return decorate


def cache(function: Callable[P, R], /) -> Memo[P, R]:
    """Remember every call of a function for good: `lru_cache(maxsize=None)`."""
    return lru_cache(maxsize=None)(function)


def _decorated(
    function: Callable[P, R], single_flight: bool | None, per_instance: bool, options: dict[str, Any]
) -> Memo[P, R]:
    if not callable(function):
        raise TypeError(f"the first argument must be callable: lru_cache decorates functions, not {function!r}")
    is_async = _is_async(function)
    new_runs: Any = None
    if is_async:
        from fastcache.runs import AsyncRuns, SeparateAsyncRuns, ready

        options["ready"] = ready
        new_runs = SeparateAsyncRuns if single_flight is False else AsyncRuns
    elif single_flight:
        from fastcache.runs import Runs

        new_runs = Runs

    memo: Any
    if per_instance:
        memo = _memo_per_instance(function, new_runs, options)
    else:
        memo = Memo(function, runs=new_runs and new_runs(function), **options)
    share_between_threads(memo, function)
    update_wrapper(memo, function)
    if is_async:
        mark_async(memo)
    return memo  # type: ignore[no-any-return]


def _memo_per_instance(function: Callable[..., Any], new_runs: Any, options: dict[str, Any]) -> MethodMemo:
    from fastcache._method import MethodMemo

    def new_memo(reference: Callable[[], Any]) -> Memo:
        # Whoever calls holds the instance, so the reference is alive whenever one of these asks it.
        if new_runs is not None:
            from fastcache.runs import WithInstance

            return Memo(function, runs=WithInstance(reference, new_runs(function)), **options)

        def method(*args: Any, **kwargs: Any) -> Any:
            return function(reference(), *args, **kwargs)

        return Memo(method, **options)

    parameters = Memo(function, **options).cache_parameters()
    return MethodMemo(new_memo, {**parameters, "per_instance": True})


def _is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine, for all that Python lets one say so."""
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType) and not hasattr(function, "__code__"):
        if getattr(function, "_is_coroutine_marker", None) or getattr(function, "_is_coroutine", None):
            return True
        function = getattr(type(function), "__call__", function)  # noqa: B004 (not whether, but what is called)
    code = getattr(function, "__code__", None)
    return bool(getattr(code, "co_flags", 0) & CO_COROUTINE) or hasattr(function, "_is_coroutine_marker")


def mark_async(wrapper: Any) -> None:
    """Make `inspect.iscoroutinefunction(wrapper)` true."""
    import inspect

    mark = getattr(inspect, "markcoroutinefunction", _look_like_async)
    mark(wrapper)


def _look_like_async(wrapper: Any) -> None:  # pragma: no cover (Python 3.11)
    """The same for Python 3.11, which believes what looks like a function in every attribute."""
    function = wrapper.__wrapped__
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__code__"):
        function = type(function).__call__
    for name in ("__code__", "__defaults__", "__kwdefaults__"):
        setattr(wrapper, name, getattr(function, name, None))
    if not hasattr(wrapper, "__name__"):  # a partial has none
        wrapper.__name__ = function.__name__
