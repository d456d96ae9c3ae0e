"""`make bench`: one table of ratios, fastcache against functools and its peers, each pair in one run.

Usage: python benches/compare.py [WORD ...]    only rows whose group or name contains one of the words

Each row asks one question and has a bar where the project promises something; `measure.py` says how it is measured.
What this version doesn't have, what is not installed and traces that are not there are named, not skipped in silence.
This file must never compare numbers of two runs.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import inspect
import itertools
import operator
import platform
import random
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from time import perf_counter_ns
from typing import Any

from measure import Side, compare, import_seconds, least, memory_per_entry
from traces import KNOWN, folder, read_traces

import fastcache

LARGE = 500_000  # entries: far beyond a processor's caches, as in a busy service
SMALL = 128  # functools' default maxsize
IMPORT_MS = 15
LABELS = {"lru": "lru-dict", "moka_py": "moka-py"}  # what is imported, and what it is called
STREAM = 20_000  # different keys in a row: with SMALL entries, each is a miss


@dataclass
class Row:
    """One line of the table. `ratio`: with `at_most`, ours in terms of theirs; else how many times as fast we are."""

    name: str
    ours: float | None = None
    rival: str = ""
    theirs: float | None = None
    unit: str = "ns"
    bar: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        if self.ours is None or self.theirs is None:
            return None
        return self.ours / self.theirs if self.at_most else self.theirs / self.ours

    @property
    def mark(self) -> str:
        ratio = self.ratio
        if ratio is None or self.bar is None:
            return ""
        ratio = round(ratio, 2)  # as printed
        short = ratio - self.bar if self.at_most else self.bar - ratio
        return "ok" if short <= 0 else f"short by {short:.2f}"


class Absent(Exception):
    """A row asks for something that is not there; the message says what."""


GROUPS: list[tuple[str, Callable[[], Iterator[Row]]]] = []


def group(title: str) -> Callable[[Callable[[], Iterator[Row]]], Callable[[], Iterator[Row]]]:
    def add(function: Callable[[], Iterator[Row]]) -> Callable[[], Iterator[Row]]:
        GROUPS.append((title, function))
        return function

    return add


def optimised_interpreter() -> bool:
    """Whether the interpreter was built with profile-guided optimisation, which makes its own lru_cache faster.

    Distributions (base prefix /usr) and python.org build so, the former by other means than configure's option.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return sys.platform == "win32" or sys.base_prefix == "/usr" or "--enable-optimizations" in arguments


@functools.cache
def rival(name: str) -> Any:
    """A peer's module, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        MISSING_RIVALS.append(name)
        return None


MISSING_RIVALS: list[str] = []


def takes(option: str) -> bool:
    """Whether lru_cache has that option."""
    return option in inspect.signature(fastcache.lru_cache).parameters


def has_async() -> bool:
    async def nothing(x: object) -> object:
        return x

    return inspect.iscoroutinefunction(fastcache.lru_cache(nothing))


def need(present: bool, what: str) -> None:
    if not present:
        raise Absent(f"{what}: not in this version")


def against(name: str, ours: Side, rivals: dict[str, Side | None], bars: dict[str, float], **options: Any) -> list[Row]:
    """One row for each rival that is there, all measured together."""
    present = {label: side for label, side in rivals.items() if side is not None}
    mine, *others = compare([ours, *present.values()], **options)
    return [
        Row(name, mine, label, other, bar=bars.get(label)) for (label, _), other in zip(present.items(), others, strict=True)
    ]


def identity(x: Any) -> Any:
    return x


# lru_cache


@group("lru_cache, a hit")
def hits() -> Iterator[Row]:
    one = 1.75 if optimised_interpreter() else 2.3
    pair = (1, 2)

    def first(*args: Any) -> Any:
        return args[0]

    def named(a: Any) -> Any:
        return a

    cases: list[tuple[str, str, Callable[..., Any], dict[str, Any], float | None]] = [
        ("one int", "f(5)", identity, {}, one),
        ("one str", "f('abc')", identity, {}, one),
        ("two arguments", "f(1, 2)", first, {}, 1.8),
        ("three arguments", "f(1, 'a', pair)", first, {}, None),
        ("one keyword", "f(a=1)", named, {}, 2.0),
        ("typed, one int", "f(5)", identity, {"typed": True}, 1.8),
        ("typed, one float", "f(5.0)", identity, {"typed": True}, 1.8),
        ("a tuple", "f(pair)", identity, {}, None),
        ("a float", "f(1.5)", identity, {}, None),
        ("one int, unbounded", "f(5)", identity, {"maxsize": None}, one),
    ]
    for name, statement, function, options, bar in cases:
        sides = [
            Side(statement, {"f": decorate(**options)(function), "pair": pair})
            for decorate in (fastcache.lru_cache, functools.lru_cache)
        ]
        if name == "one int":
            sides.append(Side("d(5)", {"d": {5: 1}.get}))
            sides.append(Side("g(pair)", {"g": operator.itemgetter(0), "pair": pair}))
            mine, theirs, get, getter = compare(sides)
            yield Row(name, mine, "functools", theirs, bar=bar)
            yield Row(name, mine, "d.get(k) of a dict", get, bar=1.0, at_most=True)
            yield Row(name, mine, "an itemgetter call", getter, bar=1.25, at_most=True)
        else:
            mine, theirs = compare(sides)
            yield Row(name, mine, "functools", theirs, bar=bar)

    # Words read from a file or a socket: equal to those stored, but other objects.
    stored, read = [[f"word {i}" for i in range(100)] for _ in range(2)]
    sides = []
    for decorate in (fastcache.lru_cache, functools.lru_cache):
        function = decorate(identity)
        for word in stored:
            function(word)
        sides.append(Side("f(k)", {"f": function}, keys=read * 100))
    sides.append(Side("d(k)", {"d": dict.fromkeys(stored, 1).get}, keys=read * 100))
    mine, theirs, get = compare(sides)
    yield Row("one str, another object than stored", mine, "functools", theirs)
    yield Row("one str, another object than stored", mine, "d.get(k) of a dict", get, at_most=True)

    def method_of(decorate: Any) -> Any:
        class Thing:
            @decorate
            def method(self, x: int) -> int:
                return x

        return Thing()

    both = (fastcache.lru_cache, functools.lru_cache)
    mine, theirs = compare([Side("a.method(5)", {"a": method_of(decorate)}) for decorate in both])
    yield Row("a method", mine, "functools", theirs, bar=1.5)
    for option in ("per_instance", "single_flight"):
        if takes(option):
            extended = functools.partial(fastcache.lru_cache, **{option: True})
            sides = [Side("a.method(5)", {"a": method_of(d)}) for d in (extended(), functools.lru_cache)]
            mine, theirs = compare(sides)
            yield Row(f"a method, {option}", mine, "functools", theirs)


@group("lru_cache, at work")
def work() -> Iterator[Row]:
    both = (fastcache.lru_cache, functools.lru_cache)
    stream = list(range(STREAM))
    mine, theirs = compare([Side("f(k)", {"f": d(maxsize=SMALL)(identity)}, keys=stream) for d in both])
    yield Row("a miss, stored, one evicted", mine, "functools", theirs, bar=1.2)
    order = [random.randrange(LARGE) for _ in range(LARGE)]
    # The bar is on the cache alone; reading a value that lies anywhere in memory costs both sides the same again.
    for name, function, bar in [("", lambda k: None, 2.0), (", a value each", float, None)]:
        sides = []
        for decorate in both:
            f = decorate(maxsize=LARGE)(function)
            for k in range(LARGE):
                f(k)
            sides.append(Side("f(k)", {"f": f}, keys=order))
        mine, theirs = compare(sides, turns=60, seconds=2e-3)
        yield Row(f"{LARGE:,} entries, random hits{name}", mine, "functools", theirs, bar=bar)


@group("a decorated function, a hit")
def decorated() -> Iterator[Row]:
    cachetools, cachebox, moka_py, theine = map(rival, ("cachetools", "cachebox", "moka_py", "theine"))
    yield from against(
        "one int, LRU",
        Side("f(5)", {"f": fastcache.lru_cache(maxsize=SMALL)(identity)}),
        {
            "cachetools cached(LRUCache)": cachetools
            and Side("f(5)", {"f": cachetools.cached(cachetools.LRUCache(SMALL))(identity)}),
            "cachebox cached(LRUCache)": cachebox
            and Side("f(5)", {"f": cachebox.cached(cachebox.LRUCache(SMALL))(identity)}),
            "moka-py cached(lru)": moka_py and Side("f(5)", {"f": moka_py.cached(maxsize=SMALL, policy="lru")(identity)}),
            "theine Memoize": theine and Side("f(5)", {"f": theine.Memoize(SMALL, None)(identity)}),
        },
        {},
    )


# LRUCache


def lru_maps() -> dict[str, Any]:
    """An LRU map of each package, with its entry 5."""
    cachetools, cachebox, lru, moka_py, theine = map(rival, ("cachetools", "cachebox", "lru", "moka_py", "theine"))
    maps = {
        "fastcache": fastcache.LRUCache(SMALL),
        "cachetools": cachetools and cachetools.LRUCache(SMALL),
        "cachebox": cachebox and cachebox.LRUCache(SMALL),
        "lru-dict": lru and lru.LRU(SMALL),
        "moka-py": moka_py and moka_py.Moka(SMALL, policy="lru"),
        "theine": theine and theine.Cache(SMALL),
    }
    return {name: with_entry(each) for name, each in maps.items() if each is not None}


def with_entry(cache: Any) -> Any:
    if hasattr(type(cache), "__setitem__"):
        cache[5] = 1
    else:
        cache.set(5, 1)
    return cache


def mapping_row(name: str, maps: dict[str, Any], item: str, call: str, bars: dict[str, float], **side: Any) -> list[Row]:
    """`item` is the statement for what has `c[k]`, `call` for what only has methods ("" where it can't)."""
    sides = {
        label: Side(item if hasattr(type(cache), "__setitem__") else call, {"c": cache}, **side)
        for label, cache in maps.items()
    }
    sides = {label: each for label, each in sides.items() if each.statement}
    ours = sides.pop("fastcache")
    return against(name, ours, dict(sides), bars)


@group("LRUCache")
def lru_map() -> Iterator[Row]:
    bars = {"cachetools": 4.0, "cachebox": 1.0, "lru-dict": 1.0}
    yield from mapping_row("c[k]", lru_maps(), "c[5]", "c.get(5)", bars)
    yield from mapping_row("c.get(k)", lru_maps(), "c.get(5)", "c.get(5)", {})
    yield from mapping_row("c[k] = v, replaced", lru_maps(), "c[5] = 1", "c.set(5, 1)", {})
    yield from mapping_row("k in c", lru_maps(), "5 in c", "", {})
    stream = list(range(STREAM))
    yield from mapping_row("c[k] = v, one evicted", lru_maps(), "c[k] = 1", "c.set(k, 1)", {}, keys=stream)


# Time to live


def ttl_maps(per_entry: bool = False) -> dict[str, Any]:
    cachetools, cachebox, moka_py = map(rival, ("cachetools", "cachebox", "moka_py"))
    maps = {
        "fastcache": fastcache.TTLCache(SMALL, 60),
        "cachetools": cachetools and cachetools.TTLCache(SMALL, 60),
        "cachebox": cachebox and cachebox.TTLCache(SMALL, 60),
        "cachebox VTTL": cachebox and cachebox.VTTLCache(SMALL, ttl=60),
        "moka-py": moka_py and moka_py.Moka(SMALL, ttl=60, policy="lru"),
    }
    return {name: with_entry(each) for name, each in maps.items() if each is not None}


def theine_ttl() -> Side | None:
    theine = rival("theine")
    if theine is None:
        return None
    cache = theine.Cache(SMALL)
    cache.set(5, 1, timedelta(seconds=60))
    return Side("c.get(5)", {"c": cache})


@group("lru_cache(ttl=60), a hit")
def ttl_hits() -> Iterator[Row]:
    need(takes("ttl"), "lru_cache(ttl=)")
    timed = functools.partial(fastcache.lru_cache, ttl=60)

    def first(*args: Any) -> Any:
        return args[0]

    for name, statement, function, bar in [
        ("one int", "f(5)", identity, 1.3),
        ("one str", "f('abc')", identity, None),
        ("two arguments", "f(1, 2)", first, None),
    ]:
        mine, theirs = compare(
            [Side(statement, {"f": timed()(function)}), Side(statement, {"f": functools.lru_cache(function)})]
        )
        yield Row(name, mine, "functools, no ttl", theirs, bar=bar)
    cachetools, cachebox, moka_py, theine = map(rival, ("cachetools", "cachebox", "moka_py", "theine"))
    if cachetools:
        importlib.import_module("cachetools.func")
    yield from against(
        "one int",
        Side("f(5)", {"f": timed(maxsize=SMALL)(identity)}),
        {
            "cachetools cached(TTLCache)": cachetools
            and Side("f(5)", {"f": cachetools.cached(cachetools.TTLCache(SMALL, 60))(identity)}),
            "cachetools func.ttl_cache": cachetools and Side("f(5)", {"f": cachetools.func.ttl_cache(SMALL, 60)(identity)}),
            "cachebox cached(TTLCache)": cachebox
            and Side("f(5)", {"f": cachebox.cached(cachebox.TTLCache(SMALL, 60))(identity)}),
            "moka-py cached(ttl)": moka_py
            and Side("f(5)", {"f": moka_py.cached(maxsize=SMALL, ttl=60, policy="lru")(identity)}),
            "theine Memoize": theine and Side("f(5)", {"f": theine.Memoize(SMALL, timedelta(seconds=60))(identity)}),
        },
        {"cachetools cached(TTLCache)": 8.0, "cachebox cached(TTLCache)": 8.0},
    )


@group("TTLCache")
def ttl_map() -> Iterator[Row]:
    need(hasattr(fastcache, "TTLCache"), "TTLCache")
    bars = {"cachetools": 6.0, "cachebox": 1.0, "cachebox VTTL": 1.0}
    maps = ttl_maps()
    sides = {
        label: Side("c[5]" if hasattr(type(cache), "__setitem__") else "c.get(5)", {"c": cache})
        for label, cache in maps.items()
    }
    ours = sides.pop("fastcache")
    yield from against("c[k]", ours, {**sides, "theine": theine_ttl()}, bars)
    yield from mapping_row("c[k] = v, replaced", ttl_maps(), "c[5] = 1", "c.set(5, 1)", {})
    yield from mapping_row("c[k] = v, one evicted", ttl_maps(), "c[k] = 1", "c.set(k, 1)", {}, keys=list(range(STREAM)))


@group("MemoryCache")
def memory_cache() -> Iterator[Row]:
    need(hasattr(fastcache, "MemoryCache"), "MemoryCache")

    def mine() -> Any:
        return with_entry(fastcache.MemoryCache(SMALL, 60))

    peers = {label: cache for label, cache in ttl_maps().items() if label != "fastcache"}
    for name, own, item, call in [
        ("get(k)", "c.get(5)", "c.get(5)", "c.get(5)"),
        ("set(k, v), replaced", "c.set(5, 1)", "c[5] = 1", "c.set(5, 1)"),
    ]:
        sides: dict[str, Side | None] = {}
        for label, cache in peers.items():
            sides[f"{label} TTLCache" if label[:5] == "cache" and "VTTL" not in label else label] = Side(
                item if hasattr(type(cache), "__setitem__") else call, {"c": cache}
            )
        yield from against(name, Side(own, {"c": mine()}), sides, {})


BATCHES, EXPIRED = 12, 1_000


def sweep_times(n: int, per_entry: bool) -> Callable[[], int]:
    """A function that times `expire()` of the next 1,000 entries among n live ones."""
    cache = fastcache.TTLCache(None, 3600)
    moments = []
    keys = list(range(n + BATCHES * EXPIRED))
    random.Random(1).shuffle(keys)
    if per_entry:
        # The batches' entries lie scattered among the live ones, whose own ttls differ too.
        ttls = [10.0 * (1 + i // EXPIRED) for i in range(BATCHES * EXPIRED)]
        ttls += [3600.0 + random.random() * 3600 for _ in range(n)]
        random.Random(2).shuffle(ttls)
        start = cache.timer()
        for k, ttl in zip(keys, ttls, strict=True):
            cache.set(k, None, ttl)
        # Storing them took less than 5 s, or the batches would run together.
        moments = [start + 10.0 * (i + 1) + 5.0 for i in range(BATCHES)]
    else:
        stream = iter(keys)
        for _ in range(BATCHES):
            for k in itertools.islice(stream, EXPIRED):
                cache[k] = None
            moments.append(cache.timer() + 3600.01)
            time.sleep(0.03)  # the clock's tick is 4 ms (16 ms on Windows)
        for k in stream:
            cache[k] = None
    later = iter(moments)

    def sweep() -> int:
        moment = next(later)
        t = perf_counter_ns()
        gone = cache.expire(moment)
        t = perf_counter_ns() - t
        if len(gone) != EXPIRED:
            raise AssertionError(f"expire() returned {len(gone)} entries instead of {EXPIRED}")
        return t

    return sweep


@group("A sweep of 1,000 expired entries")
def sweeps() -> Iterator[Row]:
    need(hasattr(fastcache, "TTLCache"), "TTLCache")
    for name, per_entry, bar in [("one ttl", False, 3.0), ("ttls of their own", True, 6.0)]:
        many, few = least([sweep_times(1_000_000, per_entry), sweep_times(10_000, per_entry)], BATCHES)
        yield Row(f"among 1,000,000, {name}", many / EXPIRED, "the same among 10,000", few / EXPIRED, bar=bar, at_most=True)


# Async


@group("async def, a hit")
def awaited() -> Iterator[Row]:
    need(has_async(), "lru_cache on async def")

    async def echo(x: Any) -> Any:
        return x

    async def empty() -> None:
        pass

    async_lru = rival("async_lru")
    yield from against(
        "await f(x)",
        Side("await f(5)", {"f": fastcache.lru_cache(echo)}, asynchronous=True),
        {
            "async-lru": async_lru
            and Side("await f(5)", {"f": async_lru.alru_cache(maxsize=SMALL)(echo)}, asynchronous=True),
        },
        {"async-lru": 4.0},
    )
    mine, theirs = compare(
        [
            Side("await f(5)", {"f": fastcache.lru_cache(echo)}, asynchronous=True),
            Side("await empty()", {"empty": empty}, asynchronous=True),
        ]
    )
    yield Row("await f(x)", mine, "an empty coroutine", theirs, at_most=True)


# Memory and import


@group("Memory per entry, 500,000 int keys")
def memory() -> Iterator[Row]:
    def function(setup: str) -> str:
        return f"{setup}\n@decorate\ndef f(k): return None\ndef fill(keys):\n    for k in keys: f(k)\n"

    def mapping(setup: str, store: str = "c[k] = None") -> str:
        return f"{setup}\ndef fill(keys):\n    for k in keys: {store}\n"

    n = LARGE
    timed = f"import fastcache; decorate = fastcache.lru_cache({n}, ttl=60)"
    shared = f"import fastcache; c = fastcache.TTLCache({n}, 60)"
    ours = [
        ("lru_cache", function(f"import fastcache; decorate = fastcache.lru_cache({n})"), 0.4),
        ("LRUCache", mapping(f"import fastcache; c = fastcache.LRUCache({n})"), None),
    ]
    if takes("ttl"):
        ours.append(("lru_cache(ttl=60)", function(timed), 0.5))
    if hasattr(fastcache, "TTLCache"):
        ours.append(("TTLCache", mapping(shared), 0.5))
        ours.append(("TTLCache, ttls of their own", mapping(shared, "c.set(k, None, 30 + k % 60)"), None))
    theirs = memory_per_entry(function(f"import functools; decorate = functools.lru_cache({n})"), n)
    for name, setup, bar in ours:
        yield Row(name, memory_per_entry(setup, n), "functools lru_cache", theirs, "B", bar=bar, at_most=True)
    rivals = {
        "cachetools": mapping(f"import cachetools; c = cachetools.LRUCache({n})"),
        "cachebox": mapping(f"import cachebox; c = cachebox.LRUCache({n})"),
        "lru": mapping(f"import lru; c = lru.LRU({n})"),
        "moka_py": mapping(f"import moka_py; c = moka_py.Moka({n}, policy='lru')", "c.set(k, None)"),
        "theine": mapping(f"import theine; c = theine.Cache({n})", "c.set(k, None)"),
    }
    mine = memory_per_entry(ours[1][1], n)
    for module, setup in rivals.items():
        if rival(module):
            name = LABELS.get(module, module)
            yield Row("LRUCache", mine, name, memory_per_entry(setup, n), "B", at_most=True)
    if hasattr(fastcache, "TTLCache"):
        mine = memory_per_entry(mapping(shared), n)
        for module, setup in {
            "cachetools": mapping(f"import cachetools; c = cachetools.TTLCache({n}, 60)"),
            "cachebox": mapping(f"import cachebox; c = cachebox.TTLCache({n}, 60)"),
        }.items():
            if rival(module):
                other = memory_per_entry(setup, n)
                yield Row("TTLCache", mine, f"{module} TTLCache", other, "B", at_most=True)


@group("Import")
def imports() -> Iterator[Row]:
    ours, bare = import_seconds(["import fastcache", "pass"])
    taken = (ours - bare) * 1e3
    note = "ok" if taken <= IMPORT_MS else f"short by {taken - IMPORT_MS:.1f} ms"
    yield Row("over a bare interpreter", taken, f"a bar of {IMPORT_MS} ms", unit="ms", note=note)


# Real accesses


def replay(keys: list[int], maxsize: int) -> tuple[float, float, float, float]:
    """(ours, functools', LRUCache's ns per access, our hit ratio): chunks in turns, the best of three passes."""
    chunk = 20_000
    chunks = [keys[i : i + chunk] for i in range(0, len(keys), chunk)]

    def call(function: Any, part: list[int]) -> int:
        t = perf_counter_ns()
        for k in part:
            function(k)
        return perf_counter_ns() - t

    def look(cache: Any, part: list[int]) -> int:
        t = perf_counter_ns()
        get, absent = cache.get, fastcache.MISSING
        for k in part:
            if get(k, absent) is absent:
                cache[k] = k
        return perf_counter_ns() - t

    ours = fastcache.lru_cache(maxsize)(identity)
    theirs = functools.lru_cache(maxsize)(identity)
    best = [[float("inf")] * 3 for _ in chunks]
    for _ in range(3 if len(keys) < 2_000_000 else 1):
        ours.cache_clear()
        theirs.cache_clear()
        cache: Any = fastcache.LRUCache(maxsize)
        for times, part in zip(best, chunks, strict=True):
            times[:] = map(min, times, (call(ours, part), call(theirs, part), look(cache, part)))
    info, other = ours.cache_info(), theirs.cache_info()
    if (info.hits, info.misses) != (other.hits, other.misses):
        raise AssertionError(f"not an exact LRU: {info} against functools' {other}")
    sums = [sum(times[side] for times in best) / len(keys) for side in range(3)]
    return sums[0], sums[1], sums[2], info.hits / (info.hits + info.misses)


@group("Replay of real accesses, per access")
def traces() -> Iterator[Row]:
    if folder() is None:
        raise Absent("no traces here (set FASTCACHE_TRACES to their folder)")
    for name, keys, sizes in read_traces():
        for maxsize in sizes:
            ours, theirs, cache, ratio = replay(keys, maxsize)
            known = KNOWN.get((name, maxsize))
            note = ""
            if known is not None:
                right = abs(100 * ratio - known[0]) < 10.0 ** -known[1]  # published figures are cut off, not rounded
                note = f"known {known[0]:.{known[1]}f} %: " + ("ok" if right else "WRONG")
            yield Row(f"{name}, {maxsize:,} entries: {100 * ratio:.2f} % hits", ours, "functools", theirs, note=note)
            yield Row(f"{name}, {maxsize:,}: LRUCache get, set", cache, "functools", theirs)


# The table


def number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.1f} {unit}"


def print_table(results: Iterable[tuple[str, list[Row]]]) -> bool:
    """Print it; tells whether every check that must hold did."""
    head = f"{'':44} {'fastcache':>11}  {'against':28} {'':>11} {'ratio':>9}  {'bar':>7}  "
    print(head.rstrip())
    right = True
    for title, rows in results:
        print(f"\n{title}")
        for row in rows:
            sign = "<=" if row.at_most else ">="
            ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
            bar = "" if row.bar is None else f"{sign} {row.bar:g}"
            line = (
                f"  {row.name:42} {number(row.ours, row.unit):>11}  {row.rival:28} {number(row.theirs, row.unit):>11}"
                f" {ratio:>9}  {bar:>7}  {row.mark or row.note}"
            )
            print(line.rstrip())
            right = right and "WRONG" not in row.note
    print("\nRatio with a bar >=: how many times as fast as the other; with <= or in B: ours in terms of the other.")
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare fastcache with functools and its peers.")
    parser.add_argument("words", nargs="*", help="only rows whose group contains one of these words")
    words = [word.lower() for word in parser.parse_args().words]
    kind = "PGO build" if optimised_interpreter() else "no PGO"
    results = []
    notes = []
    start = time.perf_counter()
    for title, function in GROUPS:
        if words and not any(word in title.lower() for word in words):
            continue
        print(f"... {title}", file=sys.stderr, flush=True)
        try:
            results.append((title, list(function())))
        except Absent as absent:
            notes.append(f"{title}: {absent}" if str(absent) else title)
    print(
        f"fastcache {importlib.metadata.version('fastcache-tiers')}, CPython {platform.python_version()} ({kind}), "
        f"{platform.system()} {platform.machine()}\n"
    )
    right = print_table(results)
    for note in notes:
        print(note)
    if MISSING_RIVALS:
        print(f"not installed: {', '.join(sorted(set(MISSING_RIVALS)))}")
    print(f"{time.perf_counter() - start:.0f} s")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
