"""`stable(value)`: a text that is the same for equal values in every process and run, and different for different ones.

What keys of calls are made of. It never uses `hash()`, the `repr` of unknown objects, or the order of a set or dict, so it
depends on neither PYTHONHASHSEED nor addresses; ints too long for `str()` go as hexadecimal. Values of different types are
different, equal or not: `1`, `1.0` and `True` have three texts. Every text says where it ends, so texts side by side are as
unambiguous as each of them. This file must never guess: what it doesn't know is an error.
"""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Unstable", "name_of", "quoted", "stable"]

PLAIN_INT = 10**18  # beyond it hexadecimal, which costs linear time and has no limit (str() of an int: 4,300 digits)


class Unstable(TypeError):
    """A value has no such text. Its argument is the value's type."""


def stable(value: Any) -> str:
    """The text of a value. O(its size), and O(n log n) for the n items of a set or dict.

    Known are None, bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset, range, Decimal,
    UUID, date, time, datetime (naive, or of a `timezone` or ZoneInfo), timedelta, Path, Enum, named tuples, dataclasses (by
    the fields that are compared), msgspec's Structs, classes (by their name), and what has a method `__cache_key__()`,
    which returns one of these. Subclasses of the builtin types aren't: they may hold more than shows.

    Raises Unstable (a TypeError) for anything else, wherever it is inside.

    >>> stable([1, 1.0, True, "1", {"b": None, "a": b"x"}])
    "[1,1.0,True,'1',{'a':b'78','b':None}]"
    """
    form = _FORMS.get(type(value))
    return _of_object(value) if form is None else form(value)


def quoted(text: str) -> str:
    """A str in quotes. A lone surrogate, which has no UTF-8 form, becomes an escape."""
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}'"


def name_of(thing: Any) -> str:
    """The full name of a class or function, the same however its module was started."""
    return f"{_module_name(thing.__module__)}.{thing.__qualname__}"


def _module_name(module: str) -> str:
    """`python -m shop.jobs` calls that module `__main__`, and multiprocessing's children call their parent's
    `__mp_main__`.
    """
    if module in ("__main__", "__mp_main__"):
        import sys

        spec = getattr(sys.modules.get(module), "__spec__", None)
        return "__main__" if spec is None or (module == "__mp_main__" and spec.name == module) else spec.name
    return module


def _int(value: int) -> str:
    return str(value) if -PLAIN_INT < value < PLAIN_INT else hex(value)


def _decimal(value: Decimal) -> str:
    sign, digits, exponent = value.as_tuple()  # str() would ask the decimal context
    return f"Decimal({'-' * sign}{''.join(map(str, digits))}E{exponent})"


def _items(values: Iterable[Any]) -> str:
    return ",".join([stable(value) for value in values])


def _sorted(values: Iterable[Any]) -> str:
    return ",".join(sorted([stable(value) for value in values]))


def _dict(value: dict[Any, Any]) -> str:
    return "{" + ",".join(sorted([f"{stable(key)}:{stable(one)}" for key, one in value.items()])) + "}"


def _timed(value: datetime | time) -> str:
    zone = value.tzinfo
    return f"{type(value).__name__}({value.isoformat()},{value.fold},{None if zone is None else stable(zone)})"


def _timezone(value: timezone) -> str:
    return f"timezone({_timedelta(value.utcoffset(None))},{quoted(value.tzname(None))})"


def _timedelta(value: timedelta) -> str:
    return f"timedelta({value.days},{value.seconds},{value.microseconds})"


def _zone(value: ZoneInfo) -> str:
    if value.key is None:
        raise Unstable(ZoneInfo)
    return f"ZoneInfo({quoted(value.key)})"


_FORMS: dict[type, Callable[[Any], str]] = {
    type(None): str,
    bool: str,
    int: _int,
    float: repr,
    complex: lambda value: f"complex({value.real!r},{value.imag!r})",
    str: quoted,
    bytes: lambda value: f"b'{value.hex()}'",
    bytearray: lambda value: f"bytearray'{value.hex()}'",
    tuple: lambda value: f"({_items(value)})",
    list: lambda value: f"[{_items(value)}]",
    dict: _dict,
    set: lambda value: f"set({_sorted(value)})",
    frozenset: lambda value: f"frozenset({_sorted(value)})",
    range: lambda value: f"range({_int(value.start)},{_int(value.stop)},{_int(value.step)})",
    Decimal: _decimal,
    UUID: lambda value: f"UUID({value.hex})",
    date: lambda value: f"date({value.isoformat()})",
    time: _timed,
    datetime: _timed,
    timedelta: _timedelta,
    timezone: _timezone,
    ZoneInfo: _zone,
}


def _of_object(value: Any) -> str:
    cls = type(value)
    own = getattr(cls, "__cache_key__", None)
    if own is not None:
        return f"{name_of(cls)}<{stable(own(value))}>"
    if isinstance(value, Enum):
        if isinstance(value, Flag):
            return f"{name_of(cls)}({stable(value._value_)})"  # it may be several members at once
        return f"{name_of(cls)}.{value._name_ if value._name_.isidentifier() else quoted(value._name_)}"
    if isinstance(value, type):
        return f"class({name_of(value)})"
    if dataclasses.is_dataclass(value):
        return _fields(value, [field.name for field in dataclasses.fields(value) if field.compare])
    if isinstance(value, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return f"{name_of(cls)}({_items(value)})"
    if isinstance(value, PurePath) and cls.__module__.partition(".")[0] == "pathlib":
        return f"{cls.__name__}({quoted(str(value))})"
    if isinstance(getattr(cls, "__struct_fields__", None), tuple):  # msgspec's, without importing it
        return _fields(value, cls.__struct_fields__)
    raise Unstable(cls)


def _fields(value: Any, names: Iterable[str]) -> str:
    return f"{name_of(type(value))}({','.join([f'{name}={stable(getattr(value, name))}' for name in names])})"
