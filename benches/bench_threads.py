"""Throughput of one and of two threads that read a warm cache, ours beside functools: ratios of one run.

Usage: python benches/bench_threads.py

Only a free-threaded interpreter can show more than 1.0 for two threads; on others the table says so and has no bars. A turn
is some 1 ms: the threads wait at a barrier, then each makes the same number of calls, and the turn lasts from the first
start to the last end. All sides take turns, so that they share the machine's moods; what counts is each side's best turn.
Each thread stays on a core of its own, where the system lets one say so: left alone, both were often woken on one core for
the length of a turn, and then no design reaches more than 1.0.

The bound, printed beside, is what this machine allows at that moment: the same two threads with a cache each, that is with
nothing to contend for but what the cores themselves share.

What else two threads contend for: an object's reference count, where they don't share an immortal one. Small ints, None,
names and constants are immortal there; what a program caches is mostly not, hence the row with lists as values. The cached
functions are those of a module, as most are.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import fastcache

THREADS = 2
ENTRIES = 128  # functools' default maxsize
TURN_SECONDS = 0.001
TURNS = 400
MORE_THAN_ONE = 1.4  # what two threads must do of one
MORE_THAN_FUNCTOOLS = 2.0  # and of functools with two threads

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and not sys._is_gil_enabled()  # type: ignore[attr-defined]


def number(x: Any) -> Any:
    return 7


def fresh_list(x: Any) -> Any:
    return [x]


def pair(x: Any, y: Any) -> Any:
    return 7


MAKERS: dict[str, Any] = {"functools": functools, "fastcache": fastcache}
Loop = Callable[[Sequence[Any]], tuple[int, int]]


def loop_over(cached: Any, call: str) -> Loop:
    """A function of its own that calls a cached function by a global name, as programs do."""
    source = f"def run(keys):\n    start = clock()\n    for k in keys:\n        {call}\n    return start, clock()\n"
    names: dict[str, Any] = {"f": cached, "clock": perf_counter_ns}
    exec(compile(source, "<turn>", "exec"), names)
    return names["run"]  # type: ignore[no-any-return]


class Crew:
    """Threads that live as long as the measurement, and start each turn together."""

    def __init__(self, size: int) -> None:
        self._begin, self._end = threading.Barrier(size + 1), threading.Barrier(size + 1)
        self._work: Any = None
        self._spans: list[tuple[int, int]] = [(0, 0)] * size
        for i in range(size):
            threading.Thread(target=self._member, args=(i,), daemon=True).start()

    def _member(self, i: int) -> None:
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[i % len(cores)]})
        while True:
            self._begin.wait()
            loops, parts = self._work
            self._spans[i] = loops[i](parts[i])
            self._end.wait()

    def turn(self, loops: Sequence[Loop], parts: Sequence[Sequence[Any]]) -> int:
        """Nanoseconds from the first start to the last end; the first member runs the first loop over the first part."""
        self._work = loops, parts
        self._begin.wait()
        self._end.wait()
        return max(end for _, end in self._spans) - min(start for start, _ in self._spans)


@dataclass(frozen=True)
class Row:
    name: str
    function: Callable[..., Any]
    call: str
    keys: Sequence[Any]
    bars: bool = False


ROWS = [
    Row("int keys, one immortal value", number, "f(k)", range(ENTRIES), bars=True),
    Row("str keys, one immortal value", number, "f(k)", [sys.intern(f"key {n}") for n in range(ENTRIES)]),
    Row("int keys, a list each", fresh_list, "f(k)", range(ENTRIES)),
    Row("two int arguments", pair, "f(k, k)", range(ENTRIES // 2)),
]


def throughputs(row: Row, crews: dict[int, Crew]) -> dict[tuple[str, int], float]:
    """Calls per second of each side by one thread and by all; `own`: of ours with a cache for each thread."""
    shared = {name: loop_over(maker.lru_cache(row.function), row.call) for name, maker in MAKERS.items()}
    sides = {(name, size): [loop] * size for name, loop in shared.items() for size in crews}
    sides["own", THREADS] = [loop_over(fastcache.lru_cache(row.function), row.call) for _ in range(THREADS)]
    keys = list(row.keys)
    for loops in sides.values():
        for loop in loops:
            loop(keys)
    start, end = shared["functools"](keys * 50)
    passes = max(1, round(TURN_SECONDS * 1e9 * 50 / (end - start)))
    # Each thread has the keys in an order of its own: the same order would make them meet at each one.
    parts = [(keys[i * 37 :] + keys[: i * 37]) * passes for i in range(THREADS)]
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(TURNS):
        for side, loops in sides.items():
            best[side] = min(best[side], crews[side[1]].turn(loops, parts))
    return {side: len(parts[0]) * side[1] / time * 1e9 for side, time in best.items()}


def main() -> int:
    kind = "free-threaded" if FREE_THREADED else "with the GIL: two threads can't do more than one, no bars"
    print(f"Python {sys.version.split()[0]}, {kind}")
    print(f"{'million calls per second':34} {'1 thread':>9} {f'{THREADS} threads':>9}  ratio  bound  functools  ratio")
    crews = {size: Crew(size) for size in (1, THREADS)}
    short = 0
    for row in ROWS:
        speeds = throughputs(row, crews)
        one, several, theirs = speeds["fastcache", 1], speeds["fastcache", THREADS], speeds["functools", THREADS]
        bound = speeds["own", THREADS] / one
        marks = ""
        if row.bars and FREE_THREADED:
            met = several / one >= MORE_THAN_ONE and several / theirs >= MORE_THAN_FUNCTOOLS
            marks = "  ok" if met else f"  short of {MORE_THAN_ONE} and {MORE_THAN_FUNCTOOLS}"
            short += not met
        print(
            f"{row.name:34} {one / 1e6:9.1f} {several / 1e6:9.1f} {several / one:6.2f} {bound:6.2f}  "
            f"{theirs / 1e6:9.1f} {several / theirs:6.2f}{marks}"
        )
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
