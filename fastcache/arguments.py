"""What caches refuse, all in the same words.

This file must never look into a cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from fastcache.errors import MISSING, ConfigurationError

__all__ = ["check_listener", "check_mapping", "check_maxsize", "check_values", "refuse_copy", "several"]

K = TypeVar("K")


def several(keys: Iterable[K]) -> Iterable[K]:
    """The keys; TypeError for a single one where several are meant: its characters would be taken for keys."""
    if isinstance(keys, str | bytes):
        raise TypeError(f"expected a list (or another iterable) of keys, got a single one: {keys!r}")
    return keys


def check_mapping(mapping: Any) -> None:
    """Raise TypeError for what `set_many` can't store."""
    if not isinstance(mapping, Mapping):
        raise TypeError(f"set_many takes a mapping of keys to values, not {mapping.__class__.__name__}: {mapping!r:.80}")


def check_values(values: Iterable[Any]) -> None:
    """Raise TypeError if MISSING is among them: stored, it would be a value that no loader ever replaces."""
    if any(value is MISSING for value in values):
        raise TypeError("MISSING says that there is no value: a loader returns it, a cache can't store it")


def check_maxsize(maxsize: Any) -> None:
    """Raise ConfigurationError for what is no number of entries that a cache could hold, nor None."""
    try:
        valid = maxsize is None or maxsize >= 1
    except TypeError:
        valid = False
    if not valid:
        raise ConfigurationError(f"maxsize must be at least 1, or None for no bound, not {maxsize!r}")


def check_listener(on_evict: Any) -> None:
    """Raise TypeError for what can't be called when an entry leaves."""
    if on_evict is not None and not callable(on_evict):
        raise TypeError(f"on_evict must be a function (key, value, cause) or None, not {on_evict!r}")


def refuse_copy(self: object) -> NoReturn:
    """The `__reduce__` of a cache, which copying and pickling come to: a copy would share a part of it only."""
    raise TypeError(
        f"a {type(self).__name__} can't be copied or pickled: hand on the cache itself; another process makes its own"
    )
