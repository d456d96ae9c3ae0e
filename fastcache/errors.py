"""What can go wrong, and the sentinel for "nothing there".

Everything that this package raises on its own account derives from `FastCacheError`; each leaf says whose fault it is.
A foreign error (of redis-py, of a serialiser) is wrapped in one of these, `from` the original. Every error pickles.
This file must never import anything else of the package.
"""

from __future__ import annotations

__all__ = [
    "MISSING",
    "BackendError",
    "BackendTimeout",
    "CacheMiss",
    "ConfigurationError",
    "FastCacheError",
    "LoadTimeout",
    "MissingType",
    "SerializationError",
]


class MissingType:
    """The type of `MISSING`: there is one instance, it is false, and it stays itself under copy and pickle."""

    __slots__ = ()
    _instance: MissingType | None = None

    def __new__(cls) -> MissingType:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "MISSING"


MISSING = MissingType()
"""What a loader returns to say that there is no value. `None` is a value."""


class FastCacheError(Exception):
    """The root of all errors of this package."""


class CacheMiss(FastCacheError, KeyError):
    """`cache[key]` found nothing. A `KeyError`, so `except KeyError` keeps working; `args[0]` is the key."""


class ConfigurationError(FastCacheError, ValueError):
    """The program asked for something that makes no sense: a negative ttl, no ttl at all where one is needed."""


class SerializationError(FastCacheError):
    """A value could not be encoded, or stored bytes could not be decoded into what was asked for.

    `key` is the cache key (None where there is none), `type` what was to be encoded or decoded into,
    `path` where in the value it went wrong ("" where that isn't known).
    """

    def __init__(self, message: str, key: object = None, type: object = None, path: str = "") -> None:
        super().__init__(message, key, type, path)
        self.key = key
        self.type = type
        self.path = path

    def __str__(self) -> str:
        return str(self.args[0])


class BackendError(FastCacheError):
    """Redis refused the command or can't be reached."""


class BackendTimeout(BackendError, TimeoutError):
    """Redis didn't answer in time."""


class LoadTimeout(FastCacheError, TimeoutError):
    """A loader took longer than its `hard_timeout`."""
