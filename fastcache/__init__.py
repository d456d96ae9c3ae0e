"""Fast caches: `lru_cache`, LRU and TTL maps, and caching patterns over memory and Redis."""

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

__all__ = [
    "MISSING",
    "BackendError",
    "BackendTimeout",
    "CacheInfo",
    "CacheMiss",
    "ConfigurationError",
    "FastCacheError",
    "LRUCache",
    "LoadTimeout",
    "SerializationError",
    "TTLCache",
    "cache",
    "lru_cache",
]
