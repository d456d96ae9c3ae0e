"""Keys as text: templates that make them, Redis's glob patterns on them.

Nothing here touches a cache.
"""

from __future__ import annotations

import re

from fastcache.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["escape_glob", "glob_matcher", "key_maker"]


def key_maker(key: str | Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """The function that `key=` of a pattern stands for: a template with one `{}`, a function, or None for no change.

    Raises ConfigurationError for a template without exactly one place for the key, TypeError for anything else.

    >>> key_maker("user:{}")(7)
    'user:7'
    """
    if key is None:
        return _itself
    if isinstance(key, str):
        from string import Formatter

        try:
            fields = [field for _, field, _, _ in Formatter().parse(key) if field is not None]
        except ValueError as error:
            raise ConfigurationError(f"key={key!r}: not a template with one {{}} for the key: {error}") from error
        if fields not in ([""], ["0"]):
            raise ConfigurationError(f"key={key!r}: a template has one {{}} for the key, such as 'user:{{}}'")
        return key.format
    if not callable(key):
        raise TypeError(f"key must be a template such as 'user:{{}}', a function or None, not {key!r}")
    return key


def _itself(key: Any) -> Any:
    return key


def escape_glob(text: str) -> str:
    """The pattern that matches just this text."""
    return re.sub(r"([*?\[\]^\\])", r"\\\1", text)


def glob_matcher(pattern: str) -> Callable[[str], object]:
    """A function that tells whether a whole key matches a pattern, as Redis's `KEYS` and `SCAN MATCH` would.

    `*` any run of characters, `?` one character, `[abc]`, `[a-z]` one of a set, `[^a]` none of it, `\\` the next character
    itself. Case counts. An unclosed set ends with the pattern, `[]` matches nothing. (Redis counts bytes; here `?` and a set
    stand for one character.) The source is `stringmatchlen` in Redis's util.c.

    Matching takes at most the length of the key for each star: what a star has matched is not tried again longer (an atomic
    group), which is right, because the part after a star may as well begin at its first occurrence.
    """
    parts: list[str] = [""]
    i, n = 0, len(pattern)
    while i < n:
        char = pattern[i]
        i += 1
        if char == "*":
            if parts[-1] or len(parts) == 1:
                parts.append("")
        elif char == "?":
            parts[-1] += "."
        elif char == "[":
            expression, i = _set(pattern, i)
            parts[-1] += expression
        else:
            if char == "\\" and i < n:
                char = pattern[i]
                i += 1
            parts[-1] += re.escape(char)
    first, *rest = parts
    if rest:
        *middle, last = rest
        first += "".join(f"(?>.*?{part})" for part in middle) + ".*" + last
    return re.compile(first, re.DOTALL).fullmatch


def _set(pattern: str, i: int) -> tuple[str, int]:
    """The regular expression of a set whose `[` ends before i, and where the pattern goes on."""
    n = len(pattern)
    negated = pattern.startswith("^", i)
    i += negated
    members = ""
    while i < n and pattern[i] != "]":
        if pattern[i] == "\\" and i + 1 < n:
            members += re.escape(pattern[i + 1])
            i += 2
        elif pattern.startswith("-", i + 1) and i + 2 < n:
            low, high = sorted((pattern[i], pattern[i + 2]))
            members += f"{re.escape(low)}-{re.escape(high)}"
            i += 3
        else:
            members += re.escape(pattern[i])
            i += 1
    if not members:
        return ("." if negated else "(?!)"), i + 1
    return f"[{'^' if negated else ''}{members}]", i + 1
