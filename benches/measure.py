"""How time and memory are measured here: two sides of one question, in one process, fairly.

The speed of a shared machine changes by half for seconds at a time, and long repeats of one side and then of the
other gave 0.84 to 1.46 for functools against itself. So: turns of about 0.1 ms, one side after the other, 150 turns of
each; the minimum of a side's turns, minus what the empty loop takes; the median of three such rounds, each with fresh
loops. That gives 0.97 to 1.01 for functools against itself. Only ratios within one call of `compare` mean anything.

This file knows no cache. It must never measure two sides in separate runs.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from time import perf_counter_ns
from typing import Any

TURN_SECONDS = 100e-6  # short against the seconds for which the machine keeps its speed, long against the clock's 50 ns
TURNS = 150
ROUNDS = 3
UNROLL = 10  # statements per pass of the loop, where all of them are the same: the loop itself is then a small part


@dataclass(frozen=True)
class Side:
    """One statement to time, and the names it uses.

    keys: where given, the statement runs once for each of these, named `k`; the turns walk through them, over and over.
    asynchronous: the statement contains `await`.
    prepare: called once before the first turn.
    """

    statement: str
    names: dict[str, Any] = field(default_factory=dict)
    keys: Sequence[Any] | None = None
    asynchronous: bool = False
    prepare: Callable[[], object] | None = None


class Turns:
    """The timed loop of one side; calling `turn` runs it once and returns nanoseconds."""

    def __init__(self, side: Side, statement: str, unroll: int) -> None:
        body = "\n".join(f"        {statement}" for _ in range(unroll))
        prefix = "async " if side.asynchronous else ""
        source = f"{prefix}def run(keys):\n    t = clock()\n    for k in keys:\n{body}\n    return clock() - t\n"
        names: dict[str, Any] = {**side.names, "clock": perf_counter_ns}
        exec(compile(source, "<turn>", "exec"), names)
        self.run = names["run"]
        self.side = side
        self.unroll = unroll
        self.set_passes(1)

    def set_passes(self, passes: int) -> None:
        self.passes = passes
        keys = self.side.keys
        if keys is None:
            self.parts = cycle([[None] * passes])
        else:
            starts = range(0, max(1, len(keys) - passes + 1), passes)
            self.parts = cycle([keys[start : start + passes] for start in starts])

    async def turn(self) -> int:
        part = next(self.parts)
        return await self.run(part) if self.side.asynchronous else self.run(part)

    async def calibrate(self, seconds: float) -> None:
        """Find the number of passes that makes a turn last about that long."""
        best = 1
        for _ in range(12):
            elapsed = min([await self.turn() for _ in range(3)])
            best = max(1, round(self.passes * seconds * 1e9 / max(elapsed, 1)))
            if elapsed * 2 > seconds * 1e9:
                break
            limit = len(self.side.keys) if self.side.keys is not None else 10**7
            self.set_passes(min(limit, best, self.passes * 8))
        limit = len(self.side.keys) if self.side.keys is not None else 10**7
        self.set_passes(min(limit, best))


async def _round(sides: Sequence[Side], turns: int, seconds: float) -> list[float]:
    loops = []
    for side in sides:
        unroll = UNROLL if side.keys is None else 1
        loop, empty = Turns(side, side.statement, unroll), Turns(side, "pass", unroll)
        await loop.calibrate(seconds)
        empty.set_passes(loop.passes)
        loops.append((loop, empty))
    times = [float("inf")] * len(loops)
    overheads = [float("inf")] * len(loops)
    for _ in range(turns):
        for i, (loop, empty) in enumerate(loops):
            overheads[i] = min(overheads[i], await empty.turn())
            times[i] = min(times[i], await loop.turn())
    return [
        (time - overhead) / (loop.passes * loop.unroll)
        for time, overhead, (loop, _) in zip(times, overheads, loops, strict=True)
    ]


def compare(
    sides: Sequence[Side], *, turns: int = TURNS, rounds: int = ROUNDS, seconds: float = TURN_SECONDS
) -> list[float]:
    """Nanoseconds per statement of each side, measured in turns. The collector is off meanwhile."""
    for side in sides:
        if side.prepare is not None:
            side.prepare()

    async def all_rounds() -> list[list[float]]:
        return [await _round(sides, turns, seconds) for _ in range(rounds)]

    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        results = asyncio.run(all_rounds())
    finally:
        if enabled:
            gc.enable()
    return [statistics.median(column) for column in zip(*results, strict=True)]


def least(functions: Sequence[Callable[[], int]], repeats: int) -> list[float]:
    """The minimum of what each function returns (nanoseconds it measured itself), called in turns."""
    best = [float("inf")] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            best[i] = min(best[i], function())
    return best


def resident() -> int:
    """Bytes of memory this process holds now (elsewhere than on Linux: the most it ever held)."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_per_entry(setup: str, n: int) -> float:
    """Bytes of resident memory that n entries cost, in a process of their own.

    `setup` is source that makes a function `fill(keys)`, which stores `None` under each key. The keys exist before, so
    what is counted is the cache's own. Unlike tracemalloc this sees what Rust and C allocate, how allocators round up
    (functools' entries ask for 56 bytes and get 64), and what growing a table left behind.
    """
    source = f"""
import gc, sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
from measure import resident
{setup}
keys = [i + 1_000_000_000 for i in range({n})]
gc.collect()
before = resident()
fill(keys)
gc.collect()
print((resident() - before) / {n})
"""
    return float(subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True).stdout)


def import_seconds(statements: Sequence[str], repeats: int = 60) -> list[float]:
    """Wall-clock seconds of an interpreter that runs each statement and ends: minimum, in turns."""

    def run(statement: str) -> Callable[[], int]:
        def once() -> int:
            t = perf_counter_ns()
            subprocess.run([sys.executable, "-c", statement], check=True)
            return perf_counter_ns() - t

        return once

    return [t / 1e9 for t in least([run(statement) for statement in statements], repeats)]
