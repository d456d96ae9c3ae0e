"""Fast caches: `lru_cache`, LRU and TTL maps, and caching patterns over memory and Redis.

Public names and nothing else. What the core doesn't need is imported when it is first asked for (PEP 562), so that
`import fastcache` costs a few milliseconds and pulls in neither redis, msgspec, asyncio, dataclasses nor typing.
"""

from fastcache import interpreter as _interpreter  # noqa: F401 (first: raises ImportError in a subinterpreter)
from fastcache._lru import LRUCache
from fastcache._ttl import TTLCache
from fastcache.errors import (
    MISSING,
    BackendError,
    BackendTimeout,
    CacheMiss,
    ConfigurationError,
    FastCacheError,
    LoadTimeout,
    SerializationError,
)
from fastcache.memoize import CacheInfo, cache, lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fastcache.asyncmemory import AsyncMemoryCache
    from fastcache.asynctiered import AsyncTieredCache
    from fastcache.backends import MemoryCache
    from fastcache.decorators import cached
    from fastcache.events import Event
    from fastcache.patterns import (
        AsyncCacheAside,
        AsyncSingleFlightCache,
        AsyncWriteThroughCache,
        CacheAside,
        SingleFlightCache,
        WriteThroughCache,
    )
    from fastcache.policy import Policy
    from fastcache.redis import AsyncRedisCache, RedisCache
    from fastcache.singleflight import AsyncSingleFlight, SingleFlight
    from fastcache.stats import CacheStats
    from fastcache.tiered import TieredCache

__all__ = [
    "MISSING",
    "AsyncCacheAside",
    "AsyncMemoryCache",
    "AsyncRedisCache",
    "AsyncSingleFlight",
    "AsyncSingleFlightCache",
    "AsyncTieredCache",
    "AsyncWriteThroughCache",
    "BackendError",
    "BackendTimeout",
    "CacheAside",
    "CacheInfo",
    "CacheMiss",
    "CacheStats",
    "ConfigurationError",
    "Event",
    "FastCacheError",
    "LRUCache",
    "LoadTimeout",
    "MemoryCache",
    "Policy",
    "RedisCache",
    "SerializationError",
    "SingleFlight",
    "SingleFlightCache",
    "TTLCache",
    "TieredCache",
    "WriteThroughCache",
    "cache",
    "cached",
    "lru_cache",
]

_LAZY = {
    "AsyncCacheAside": "fastcache.patterns",
    "AsyncMemoryCache": "fastcache.asyncmemory",
    "AsyncRedisCache": "fastcache.redis",
    "AsyncSingleFlight": "fastcache.singleflight",
    "AsyncSingleFlightCache": "fastcache.patterns",
    "AsyncTieredCache": "fastcache.asynctiered",
    "AsyncWriteThroughCache": "fastcache.patterns",
    "CacheAside": "fastcache.patterns",
    "CacheStats": "fastcache.stats",
    "Event": "fastcache.events",
    "MemoryCache": "fastcache.backends",
    "Policy": "fastcache.policy",
    "RedisCache": "fastcache.redis",
    "SingleFlight": "fastcache.singleflight",
    "SingleFlightCache": "fastcache.patterns",
    "TieredCache": "fastcache.tiered",
    "WriteThroughCache": "fastcache.patterns",
    "cached": "fastcache.decorators",
}


if not TYPE_CHECKING:  # a type checker would take any name for one that there is

    def __getattr__(name: str) -> object:
        module = _LAZY.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(module), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
