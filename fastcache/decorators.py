"""`cached`: a cache, and its loading engine, on a function.

A hit is the compiled wrapper's (`_cached`), a key that of `callkeys.py`, and what a miss does the engine's. This file checks
the options, all when decorating, and says what a call, an invalidation and a refresh ask of the engine. It must never decide
whether something is loaded, stored or served.
"""

from __future__ import annotations

import inspect
from functools import update_wrapper
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from fastcache._cached import Cached
from fastcache._memo import Memo, share_between_threads
from fastcache.callkeys import KeyMaker, TagMaker
from fastcache.errors import MISSING, ConfigurationError
from fastcache.memoize import _is_async, mark_async
from fastcache.memory import Entry
from fastcache.plan import Plan, arun, run
from fastcache.runs import ready
from fastcache.storing import Unstored

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from fastcache.policy import Policy

__all__ = ["cached"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

DEFAULT_MAXSIZE = 1024
"""Entries of a cache that a function has for itself. Bounded, because what a function is called with often comes from
outside; more than lru_cache's 128, because what is worth `cached` is dear: a query, a request."""

MOST_KEYS = 10_000
"""Calls whose keys are remembered, for each function at most: some 2 MB. Calls beyond that make their key anew, 2 us."""


class _AnyCache(Protocol):
    """A cache of this package."""

    _loading: Any


class Decorator(Protocol):
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Cached[P, Coroutine[Any, Any, T], Coroutine[Any, Any, None]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Cached[P, R, None]: ...


@overload
def cached(  # type: ignore[overload-overlap]
    cache: Callable[P, Coroutine[Any, Any, T]], /
) -> Cached[P, Coroutine[Any, Any, T], Coroutine[Any, Any, None]]: ...
@overload
def cached(cache: Callable[P, R], /) -> Cached[P, R, None]: ...
@overload
def cached(
    cache: _AnyCache | None = None,
    *,
    key: str | Callable[..., str] | None = None,
    ttl: float | None = None,
    tags: Sequence[str] | Callable[..., Iterable[str]] = (),
    policy: Policy | None = None,
    condition: Callable[[Any], object] | None = None,
    type: Any = None,
) -> Decorator: ...
def cached(
    cache: Any = None,
    *,
    key: Any = None,
    ttl: float | None = None,
    tags: Any = (),
    policy: Policy | None = None,
    condition: Any = None,
    type: Any = None,
) -> Any:
    """Keep what a function returns in a cache, under a key made from the call.

    Used bare (`@cached`) or with options, on `def` (with MemoryCache, RedisCache, TieredCache) and `async def` (with the
    Async ones). Concurrent calls of one key share a run, and all that a Policy offers holds: see `get_or_load`.

    cache: where to; None: a MemoryCache of the function's own, of at most 1,024 entries.
    key: a template with the function's parameters as fields, "user:{user_id}" or "user:{user.id}"; or a function of the
        call's arguments, which returns a str. Without it the key is made from all arguments, which must have a form that is
        the same in every process (numbers, text, dates, enums, containers, dataclasses ...: `fastcache.stable.stable`;
        TypeError otherwise), and is prefixed by the function's module, name, and a version that changes with its
        parameters. Either way `f(1)` and `f(user_id=1)` are one call; `f(1)`, `f(1.0)` and `f(True)` are three. A key of
        more than 1,024 characters ends in a digest.
    ttl: seconds; policy: a Policy. As for `get_or_load`.
    tags: of caches that have tags: templates, or a function of the call's arguments that returns the tags.
    condition: a function of the result: it is stored only where this is true. Its callers get it all the same.
    type: what a cache that decodes is to decode to, as in `get`. (A dataclass that went through JSON comes back as a dict
        otherwise.)

    `None` is a value. Where the function returns MISSING, so does the call; it is stored only under a `missing_ttl`.

    The result has `cache_key(*args)`, `invalidate(*args)` and `refresh(*args)` (awaitable for an `async def`), `cache` and
    `__wrapped__`. On methods: `a.m.invalidate(42)` or `A.m.invalidate(a, 42)`. There, `self` is an argument like any other,
    so it needs a key= such as "user:{self.id}", or a method `__cache_key__()`. `@classmethod` and `@staticmethod` go above.

    A hit in memory is O(1) and runs no Python code, where all arguments that the key is made from are plain: str, bytes,
    numbers, None, tuples of these. (Those that a template doesn't name may be anything, if given by position.)

    Raises ConfigurationError or TypeError for options that don't fit the function or the cache, when decorating.

    >>> @cached(ttl=60, key="square:{x}")
    ... def square(x):
    ...     return x * x
    >>> square(3), square(x=3), square.cache_key(3)
    (9, 9, 'square:3')
    """
    if callable(cache) and not hasattr(cache, "_loading"):
        return _decorated(cache, None, key, ttl, tags, policy, condition, type)

    def decorate(function: Any, /) -> Any:
        return _decorated(function, cache, key, ttl, tags, policy, condition, type)

    if cache is not None and not hasattr(cache, "_loading"):
        raise TypeError(f"cached needs a cache of this package (MemoryCache, RedisCache ...), not {cache!r}")
    return decorate


def _decorated(
    function: Any, cache: Any, key: Any, ttl: Any, tags: Any, policy: Any, condition: Any, type: Any
) -> Cached[Any, Any, Any]:
    _check_function(function)
    is_async = _is_async(function)
    if cache is None:
        cache = _own_cache(is_async)
    elif cache._loading.driver.asynchronous is not is_async:
        name = cache.__class__.__name__
        other, what = (f"Async{name}", "an async def") if is_async else (name.removeprefix("Async"), "no async def")
        raise ConfigurationError(f"{_name(function)} is {what}, so {name} doesn't do: use {other}")
    keys = KeyMaker(function, key)
    options: dict[str, Any] = {"policy": cache._loading.policy_for(ttl, policy)}
    if type is not None:
        options["type"] = type
    tag_maker = None
    if callable(tags) or tags or isinstance(tags, str | bytes):
        if not getattr(cache.__class__, "supports_tags", False):
            raise ConfigurationError(f"tags={tags!r}: a {cache.__class__.__name__} has no tags, a TieredCache does")
        tag_maker = TagMaker(function, tags)
    if condition is not None and (not callable(condition) or _is_async(condition)):
        raise TypeError(f"condition must be a plain function of the result, not {condition!r}")

    kind: Any = _AsyncCalls if is_async else _Calls
    calls = kind(function, cache, keys, options, tag_maker, condition)
    lookup = cache._gated_lookup(type) if keys.is_plain and hasattr(cache, "_gated_lookup") else None
    memo = None
    if lookup is not None:
        most = MOST_KEYS if lookup.map.maxsize is None else min(lookup.map.maxsize, MOST_KEYS)
        memo = Memo(keys, maxsize=most, typed=True)
        share_between_threads(memo, function)
    wrapper: Any = Cached(calls, memo, lookup, Entry, ready if is_async else None, keys.unused)
    share_between_threads(wrapper, function)
    update_wrapper(wrapper, function)
    if is_async:
        mark_async(wrapper)
    return wrapper  # type: ignore[no-any-return]


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _check_function(function: Any) -> None:
    if isinstance(function, classmethod | staticmethod):
        kind = function.__class__.__name__
        raise ConfigurationError(f"put @{kind} above @cached: {_name(function)} is decorated before it becomes a {kind}")
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"cached decorates functions, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{_name(function)} is a generator, which can be read once only: let it return a list")


def _own_cache(is_async: bool) -> Any:
    if is_async:
        from fastcache.asyncmemory import AsyncMemoryCache

        return AsyncMemoryCache(DEFAULT_MAXSIZE)
    from fastcache.backends import MemoryCache

    return MemoryCache(DEFAULT_MAXSIZE)


class _Calls:
    """What calls of a `def` ask of the engine."""

    _drive = staticmethod(run)

    def __init__(
        self, function: Any, cache: Any, keys: KeyMaker, options: dict[str, Any], tags: TagMaker | None, condition: Any
    ) -> None:
        self.cache = cache
        self.key = keys
        self._function = function
        self._name = _name(function)
        self._loading = cache._loading
        self._get_or_load = cache.get_or_load
        self._options = options
        self._tags = tags
        self._condition = condition

    def load(self, key: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value of a call that was no hit in the wrapper; `key`: where it is known already."""
        if key is None:
            key = self.key(*args, **kwargs)
        return self._get_or_load(key, self._loader(args, kwargs), MISSING, **self._options_of(args, kwargs))

    def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._drive(self._invalidate_plan(self.key(*args, **kwargs)))

    def _invalidate_plan(self, key: str) -> Plan[None]:
        yield from self._loading.invalidate_plan(key)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        options = {"ttl": None, "type": None, **self._options_of(args, kwargs)}
        if self._tags is not None:
            options["tags"] = self.cache.encode_tags(options["tags"])
        key, loader = self.key(*args, **kwargs), self._loader(args, kwargs)
        return self._drive(self._loading.refresh_plan(key, loader, MISSING, **options))

    def _options_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return self._options if self._tags is None else {**self._options, "tags": self._tags(args, kwargs)}

    def _loader(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return lambda _: self._judged(self._function(*args, **kwargs))

    def _judged(self, value: Any) -> Any:
        """A result for the engine: marked where it isn't to be stored, refused where it can't be."""
        if isinstance(value, _ONCE_ONLY):
            if isinstance(value, CoroutineType):
                value.close()
            raise TypeError(
                f"{self._name} returned a {value.__class__.__name__}, which can be used once only, so it is"
                f" not cached: " + ("decorate the async def itself" if isinstance(value, CoroutineType) else "return a list")
            )
        if self._condition is None or value is MISSING or self._condition(value):
            return value
        return Unstored(value)


class _AsyncCalls(_Calls):
    """The same of an `async def`."""

    _drive = staticmethod(arun)  # type: ignore[assignment]

    def load(self, key: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        coroutine = super().load(key, args, kwargs)
        if isinstance(coroutine, CoroutineType):
            coroutine.__qualname__ = self._name  # what Python says of it where it is never awaited, and of its task
        return coroutine

    def _loader(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        async def load(_: str) -> Any:
            return self._judged(await self._function(*args, **kwargs))

        return load


_ONCE_ONLY = (CoroutineType, GeneratorType, AsyncGeneratorType)
