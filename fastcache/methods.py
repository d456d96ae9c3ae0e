"""How the methods of caches are declared: the keywords they take, and those that begin with a lookup in compiled code.

This file must never decide what a method does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar

from fastcache._gate import LookupFirst
from fastcache.memoize import mark_async
from fastcache.memory import Entry
from fastcache.runs import ready

__all__ = ["declare_keywords", "lookup_first"]

F = TypeVar("F", bound=Callable[..., Any])


def declare_keywords(function: Any) -> None:
    """Say of a `get_or_load` what its overloads say: that its options are given by keyword."""
    signature = inspect.signature(function)
    function.__signature__ = signature.replace(
        parameters=[
            each.replace(kind=each.KEYWORD_ONLY) if each.name in ("ttl", "policy", "type", "tags") else each
            for each in signature.parameters.values()
        ]
    )


def lookup_first(arguments: int) -> Callable[[F], F]:
    """For a method that returns what `self._gated` has at hand for its key: have compiled code return it, where it can.

    arguments: as many as must be given by position. The method stays as it is, and does the same by itself.
    """

    def decorate(method: Any) -> Any:
        asynchronous = inspect.iscoroutinefunction(method)
        first = LookupFirst(method, arguments, Entry, ready if asynchronous else None)
        update_wrapper(first, method)
        if asynchronous:
            mark_async(first)
        return first

    return decorate
