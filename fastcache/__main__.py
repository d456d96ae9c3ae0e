"""`python -m fastcache`: the main jobs shown on this machine, with input that every Python has.

It owns what the demonstration prints. Each part is a function in `PARTS` that prints one table. Nothing here needs a package
beyond the standard library, or is imported by the rest; the part about Redis is shown where the extra is installed and a
server answers at REDIS_URL or can be started.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from time import perf_counter, perf_counter_ns, sleep
from typing import Any, Protocol

import fastcache

CHUNK = 2_000  # words per turn of a timed loop: some 50 microseconds, and the two caches take turns
PASSES = 15  # the best of as many passes counts: what a busy machine adds is never negative


class CachedFunction(Protocol):
    def __call__(self, word: str, /) -> int: ...
    def cache_info(self) -> Any: ...


def table(head: list[str], rows: Iterable[list[str]]) -> None:
    """Print aligned columns: the first to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        print("  " + "   ".join(cells).rstrip())


# Part 1: a slow function over real text


def manual_words() -> list[str]:
    """The words of the Python manual's topics, in reading order: real text, and part of the standard library."""
    from pydoc_data.topics import topics

    return re.findall(r"\w+", "\n".join(topics.values()))


def distance(word: str) -> int:
    """The edit distance of a word from "fastcache", computed the slow way: the expensive function of this demo."""
    previous = list(range(10))
    for i, letter in enumerate(word, 1):
        row = [i]
        for j, other in enumerate("fastcache", 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (letter != other)))
        previous = row
    return previous[-1]


def timed_sum(function: Callable[[str], int], words: list[str]) -> tuple[int, float]:
    """The sum of the function over the words, and the seconds it took."""
    start = perf_counter()
    total = sum(map(function, words))
    return total, perf_counter() - start


def hit_times(functions: list[Callable[[str], int]], words: list[str]) -> list[float]:
    """Nanoseconds per call of each function when all words are hits: in turns, the loop's own cost subtracted."""

    def turn(function: Callable[[str], int], part: list[str]) -> int:
        start = perf_counter_ns()
        for word in part:
            function(word)
        return perf_counter_ns() - start

    def empty(part: list[str]) -> int:
        start = perf_counter_ns()
        for _word in part:
            pass
        return perf_counter_ns() - start

    sums = [0.0] * len(functions)
    for start in range(0, len(words), CHUNK):
        part = words[start : start + CHUNK]
        best = [float("inf")] * len(functions)
        loop = float("inf")
        for _ in range(PASSES):
            loop = min(loop, empty(part))
            for i, function in enumerate(functions):
                best[i] = min(best[i], turn(function, part))
        for i, time in enumerate(best):
            sums[i] += time - loop
    return [total / len(words) for total in sums]


def words() -> None:
    """The same text through a slow function: plain, under functools' cache, under fastcache's."""
    text = manual_words()
    caches: dict[str, CachedFunction] = {
        "functools.lru_cache": functools.lru_cache(maxsize=None)(distance),
        "fastcache.lru_cache": fastcache.lru_cache(maxsize=None)(distance),
    }
    print(f"{len(text):,} words of the Python manual, {len(set(text)):,} different, through a slow function\n")
    expected, seconds = timed_sum(distance, text)
    rows = [["plain", f"{len(text):,}", "0", "0.0 %", f"{seconds:.3f} s", "", ""]]
    results = {}
    for name, function in caches.items():
        total, seconds = timed_sum(function, text)
        if total != expected:
            raise AssertionError(f"{name}: {total} instead of {expected}")
        results[name] = (function.cache_info(), seconds)
    per_hit = hit_times(list(caches.values()), text)
    for (name, (info, seconds)), ns in zip(results.items(), per_hit, strict=True):
        ratio = info.hits / (info.hits + info.misses)
        counts = [f"{len(text):,}", f"{info.hits:,}", f"{100 * ratio:.1f} %"]
        rows.append([name, *counts, f"{seconds:.3f} s", f"{ns:.1f}", f"{per_hit[0] / ns:.2f}"])
    table(["", "calls", "hits", "hit ratio", "time", "ns per hit", "ratio"], rows)


# Part 2: entries that expire


def time_to_live() -> None:
    """A TTLCache under a clock of its own: entries appear, expire and are reclaimed."""
    now = 0.0
    gone: list[str] = []

    def note(key: str, value: object, cause: str) -> None:
        gone.append(f"{key} {cause}")

    cache = fastcache.TTLCache(100, 60, timer=lambda: now, on_evict=note)
    print("A TTLCache: entries live 60 s, one of them 10 s (the clock is the demo's own, so nothing waits)\n")
    rows = []

    def line(what: str) -> None:
        left = {key: cache.remaining(key) for key in ("home", "news")}
        cells = ["-" if seconds is None else f"{seconds:.0f} s" for seconds in left.values()]
        rows.append([f"{now:3.0f} s  {what}", str(len(cache)), *cells, ", ".join(gone)])
        gone.clear()

    cache["home"] = "<h1>home</h1>"
    cache.set("news", "<h1>news</h1>", ttl=10)
    line("home and news stored, news for 10 s")
    now = 9.0
    line("both are there")
    now = 11.0
    line("news is over: no longer served or counted")
    cache.expire()
    line("expire() reclaims it")
    now = 30.0
    cache["home"] = "<h1>home, again</h1>"
    line("home stored again: a new life")
    now = 95.0
    cache["about"] = "<h1>about</h1>"
    line("storing about reclaims what is over")
    table(["", "entries", "home", "news", "left the cache"], rows)


# Part 3: the mapping


def mapping() -> None:
    """LRUCache in the place of cachetools', step by step; beside it, where that is installed."""
    caches: dict[str, Any] = {"fastcache.LRUCache": fastcache.LRUCache(maxsize=3)}
    if importlib.util.find_spec("cachetools"):
        cachetools = importlib.import_module("cachetools")
        caches["cachetools.LRUCache"] = cachetools.LRUCache(maxsize=3)
    print("LRUCache(maxsize=3), a mapping that replaces cachetools.LRUCache\n")

    def store(cache: Any) -> object:
        cache.update(a=1, b=2, c=3)
        return ""

    def evict(cache: Any) -> object:
        cache["d"] = 4
        return ""

    steps: list[tuple[str, Callable[[Any], object]]] = [
        ("cache.update(a=1, b=2, c=3)", store),
        ('cache["a"]', lambda cache: cache["a"]),
        ('cache["d"] = 4', evict),
        ('cache.get("b")', lambda cache: cache.get("b")),
        ("cache.popitem()", lambda cache: cache.popitem()),
    ]
    rows = []
    for code, step in steps:
        cells = [(str(step(cache)), " ".join(sorted(cache))) for cache in caches.values()]
        rows.append([code, *chain.from_iterable(cells)])
    table(["", *chain.from_iterable((name, "keys") for name in caches)], rows)


# Part 4: Redis, and what happens when it goes away


@contextlib.contextmanager
def redis_server() -> Iterator[tuple[str, subprocess.Popen[bytes] | None]]:
    """The URL of a server: the one at REDIS_URL, else one of the demo's own, which is given, too, so it can be stopped."""
    if os.environ.get("REDIS_URL"):
        yield os.environ["REDIS_URL"], None
        return
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise LookupError("no server at REDIS_URL, and no redis-server to start")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                sleep(0.05)
            yield f"redis://127.0.0.1:{port}", server
        finally:
            server.kill()
            server.wait()


def redis_tier() -> None:
    """RedisCache: values that other programs can read, and calls that fail fast when the server is gone."""
    try:
        connect = fastcache.RedisCache.from_url
    except ImportError as error:
        print(f"Redis is left out: {error}")
        return

    def timed(what: str, call: Callable[[], object], times: int = 1) -> list[str]:
        best, result = float("inf"), None
        for _ in range(times):
            start = perf_counter()
            try:
                result = call()
            except fastcache.BackendError as error:
                result = type(error).__name__
            best = min(best, perf_counter() - start)
        shown = f"{len(result)} values" if isinstance(result, dict) and len(result) > 2 else str(result)
        return [what, f"{best * 1e6:,.0f} us", shown]

    text = sorted(set(manual_words()))[:100]
    try:
        with redis_server() as (url, server), connect(url, f"fastcache-demo-{os.getpid()}", ttl=60) as cache:
            cache.set_many({word: distance(word) for word in text})  # connects, too
            word = text[-1]
            print("RedisCache: the same words in Redis, as JSON under prefix:key; the best of 20 calls\n")
            rows = [
                timed(f"cache.set({word!r}, {{...}})", lambda: cache.set(word, {"distance": distance(word)}), 20),
                timed(f"cache.get({word!r})", lambda: cache.get(word), 20),
                timed("cache.get_many(100 words)", lambda: cache.get_many(text), 20),
                timed(f"cache.remaining({word!r})", lambda: f"{cache.remaining(word):.0f} s", 20),
                timed("cache.delete_pattern('*')", lambda: cache.delete_pattern("*")),
            ]
            if server is not None:
                server.kill()
                server.wait()
                rows.append(timed("the server is killed; cache.get", lambda: cache.get(word)))
                for _ in range(5):
                    timed("", lambda: cache.get(word))
                rows.append(timed("after five failures, cache.get", lambda: cache.get(word), 20))
            table(["", "time", "result"], rows)
    except (fastcache.BackendError, LookupError) as error:
        print(f"Redis is left out: {error}")


PARTS: list[Callable[[], None]] = [words, time_to_live, mapping, redis_tier]


def main() -> int:
    version = importlib.metadata.version("fastcache-tiers")
    print(f"fastcache {version} on {platform.python_implementation()} {platform.python_version()}")
    for part in PARTS:
        print()
        part()
    return 0


if __name__ == "__main__":
    sys.exit(main())
