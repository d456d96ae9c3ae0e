"""The key of a call of a decorated function: from a template, from a function, or from the arguments themselves.

Calls are bound to the function's signature first, defaults included, so that `f(1)` and `f(user_id=1)` have one key.
This file must never call the decorated function, and knows no cache.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable
from string import Formatter
from types import CodeType
from typing import Any

from fastcache._cached import is_plain
from fastcache.errors import ConfigurationError
from fastcache.stable import Unstable, name_of, stable

__all__ = ["KeyMaker", "TagMaker", "shortened"]

LONGEST = 1024  # characters, as many as a RedisCache takes (entries.MAX_KEY_LENGTH)
FORM = "1"  # of keys made from arguments; to be changed when `stable` or what goes into the version changes

_FIELD = re.compile(r"([^.\[]*)((?:\.[^.\[]+|\[[^\]]+\])*)")
_STEP = re.compile(r"\.([^.\[]+)|\[([^\]]+)\]")


def shortened(key: str) -> str:
    """A key that every cache takes: of one that is too long the beginning, and a digest of the whole."""
    if len(key) <= LONGEST:
        return key
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{key[: LONGEST - 8 - len(digest)]}~sha256:{digest}"


class Binding:
    """The signature of a function: from the arguments of a call to the values of its parameters, in their order."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function_name = name
        try:
            signature = inspect.signature(function)
        except ValueError as error:
            raise ConfigurationError(f"{name} has no signature to take its arguments from; give key= a function") from error
        self.parameters = list(signature.parameters.values())
        self.names = [parameter.name for parameter in self.parameters]
        self.defaults = [each.default for each in self.parameters if each.default is not each.empty]
        # The interpreter binds arguments far quicker than `Signature.bind`, with its own messages: so have it do that.
        bare = signature.replace(
            parameters=[each.replace(annotation=each.empty, default=each.empty) for each in self.parameters],
            return_annotation=signature.empty,
        )
        bind = eval(f"lambda {str(bare)[1:-1]}: ({''.join(f'{each},' for each in self.names)})", {})
        positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        given = [each for each in self.parameters if each.default is not each.empty]
        self.positional = sum(each.kind in positional for each in self.parameters)
        bind.__defaults__ = tuple(each.default for each in given if each.kind in positional)
        bind.__kwdefaults__ = {each.name: each.default for each in given if each.kind not in positional}
        bind.__name__ = getattr(function, "__name__", name)
        bind.__qualname__ = getattr(function, "__qualname__", name)
        self.bind: Callable[..., tuple[Any, ...]] = bind

    def refuse(self, index: int, cls: type, how: str) -> TypeError:
        """The error for a value that no key can be made from."""
        return TypeError(
            f"{self.function_name}: no key can be made from the parameter {self.names[index]!r}: there is a"
            f" {cls.__module__}.{cls.__qualname__} in it, which has no form that is the same in every process; {how}"
        )


class Template:
    """A text with fields that are named after parameters: `"user:{user_id}"`, also `{user.id}`, `{ids[0]}`, `{day:%Y}`."""

    def __init__(self, template: str, binding: Binding, option: str) -> None:
        self._binding = binding
        self._parts: list[str | tuple[int, list[Callable[[Any], Any]], str | None, str]] = []
        where = f"{option}={template!r}"
        try:
            parsed = list(Formatter().parse(template))
        except ValueError as error:
            raise ConfigurationError(f"{where}: not a template: {error}") from error
        for literal, field, spec, conversion in parsed:
            if literal:
                self._parts.append(literal)
            if field is None:
                continue
            name, steps = self._read_field(where, field)
            if name not in binding.names:
                hint = "fields are named, not numbered; " if not name or name.isdigit() else ""
                raise ConfigurationError(
                    f"{where}: {hint}{binding.function_name} has no parameter {name!r}, only"
                    f" {', '.join(binding.names) or 'none at all'}"
                )
            if conversion not in (None, "r", "s", "a") or "{" in (spec or ""):
                raise ConfigurationError(f"{where}: a field has !r, !s or !a and a format without fields, or neither")
            self._parts.append((binding.names.index(name), steps, conversion, spec or ""))

    @staticmethod
    def _read_field(where: str, field: str) -> tuple[str, list[Callable[[Any], Any]]]:
        found = _FIELD.fullmatch(field)
        if found is None:
            raise ConfigurationError(f"{where}: {field!r} is no field; such are {{user}}, {{user.id}} and {{ids[0]}}")
        return found[1], [_step(attribute, item) for attribute, item in _STEP.findall(found[2])]

    @property
    def used(self) -> set[int]:
        """Which parameters it is made from."""
        return {part[0] for part in self._parts if not isinstance(part, str)}

    def __call__(self, values: tuple[Any, ...]) -> str:
        texts = []
        for part in self._parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            index, steps, conversion, spec = part
            value = values[index]
            for step in steps:
                value = step(value)
            try:
                texts.append(_text(value, conversion, spec))
            except Unstable as error:
                raise self._binding.refuse(index, error.args[0], "name an attribute of it in the template") from None
        return "".join(texts)


def _step(attribute: str, item: str) -> Callable[[Any], Any]:
    if attribute:
        return lambda value: getattr(value, attribute)
    key: Any = int(item) if item.isdecimal() else item
    return lambda value: value[key]


def _text(value: Any, conversion: str | None, spec: str) -> str:
    """The text of a field: what `str.format` makes of it, but the stable form where that were a bare `repr`."""
    cls: Any = type(value)
    shows_repr = cls.__str__ is object.__str__
    if cls is bytes or (shows_repr and (conversion is not None or cls.__format__ is object.__format__)):
        return format(stable(value), spec)
    if conversion is None:
        return format(value, spec)
    if conversion != "s" and cls.__repr__ is object.__repr__:
        raise Unstable(cls)
    convert: Any = {"r": repr, "s": str, "a": ascii}[conversion]
    return format(convert(value), spec)


class KeyMaker:
    """`maker(*args, **kwargs)` is the key of a call. `is_plain`: where the arguments are, the key is for good.

    `unused`: bit i is set where argument i, given by position, makes no difference.

    key: a template; a function of the call's arguments, which returns a str; or None. Then the key is the function's full
        name, a version, and the stable form of all arguments.

    Raises ConfigurationError for a template that doesn't fit the signature, TypeError for anything else.
    """

    def __init__(self, function: Callable[..., Any], key: Any) -> None:
        self._name = getattr(function, "__qualname__", None) or repr(function)
        self._key = key
        self.unused = 0
        self.__name__ = self.__qualname__ = "cache_key"
        if key is not None and not isinstance(key, str):
            if not callable(key):
                raise TypeError(f"key must be a template such as 'user:{{user_id}}', a function or None, not {key!r}")
            self.is_plain = False  # it may look at anything
            self._make = self._by_function
            return
        self._binding = binding = Binding(function, self._name)
        self.is_plain = all(is_plain(default) for default in binding.defaults)
        if key is not None:
            self._template = Template(key, binding, "key")
            self.unused = sum(1 << i for i in range(min(binding.positional, 32)) if i not in self._template.used)
            self._make = self._by_template
        else:
            if not hasattr(function, "__qualname__"):
                raise ConfigurationError(f"{function!r} has no name to make a key from: give key=")
            self._prefix = f"{name_of(function)}:{_version(function, binding)}"
            self._make = self._by_arguments

    def __call__(self, /, *args: Any, **kwargs: Any) -> str:
        return self._make(args, kwargs)

    def _by_function(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        key = self._key(*args, **kwargs)
        if not isinstance(key, str):
            raise TypeError(f"{self._name}: the function key= must return a str, not {key!r}")
        return shortened(key)

    def _by_template(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return shortened(self._template(self._binding.bind(*args, **kwargs)))

    def _by_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        values = self._binding.bind(*args, **kwargs)
        try:
            return shortened(f"{self._prefix}{stable(values)}")
        except Unstable:
            for index, value in enumerate(values):
                try:
                    stable(value)
                except Unstable as error:
                    how = "give cached() a key=, or the class a method __cache_key__() that returns one"
                    raise self._binding.refuse(index, error.args[0], how) from None
            raise  # pragma: no cover (it can't be all of them but none)


class TagMaker:
    """`maker(args, kwargs)` is the list of a call's tags. tags: templates, or a function of the call's arguments."""

    def __init__(self, function: Callable[..., Any], tags: Any) -> None:
        self._name = getattr(function, "__qualname__", None) or repr(function)
        self._function = tags if callable(tags) else None
        if self._function is None:
            if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
                raise ConfigurationError(f"tags={tags!r}: must be a sequence of templates, like ('users',), or a function")
            self._binding = Binding(function, self._name)
            wrong = [tag for tag in tags if not isinstance(tag, str)]
            if wrong:
                raise ConfigurationError(f"tags={tags!r}: a tag is a str, not {wrong[0]!r}")
            self._templates = [Template(tag, self._binding, "tags") for tag in tags]

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
        if self._function is not None:
            given: Any = self._function(*args, **kwargs)
            tags: list[str] = [] if isinstance(given, str | bytes) else list(given)
            if isinstance(given, str | bytes) or not all(isinstance(tag, str) for tag in tags):
                raise TypeError(f"{self._name}: the function tags= must return a sequence of str, not {given!r}")
            return tags
        values = self._binding.bind(*args, **kwargs)
        return [template(values) for template in self._templates]


def _version(function: Callable[..., Any], binding: Binding) -> str:
    """Eight digits that change with the signature, so that keys of another one aren't taken for keys of this.

    A function made inside another shares its name with its siblings: what tells them apart is what they use of the outer
    one, as far as that has a stable form and can't change. A lambda has no name at all: there the code counts, too.
    """
    parts = [FORM, *(f"{each.kind.name} {each.name}" for each in binding.parameters)]
    inner = inspect.unwrap(function)
    inner = getattr(inner, "__func__", inner)
    for cell in getattr(inner, "__closure__", None) or ():
        try:
            parts.append(_fixed(cell.cell_contents))
        except (ValueError, Unstable):  # an empty cell, as of a function that uses itself
            parts.append("?")
    code = getattr(inner, "__code__", None)
    if code is not None and code.co_name == "<lambda>":
        parts.append(_code(code))
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _fixed(value: Any) -> str:
    if isinstance(value, list | dict | set | bytearray):
        raise Unstable(type(value))
    return stable(value)


def _code(code: CodeType) -> str:
    """What a piece of code does, without where it is written."""
    constants = [_code(each) if isinstance(each, CodeType) else _fixed(each) for each in code.co_consts if each is not ...]
    return " ".join([code.co_code.hex(), *code.co_names, *code.co_varnames, *constants])
