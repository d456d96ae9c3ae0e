"""What lives by time, by flight or by instance gives everything back: fresh interpreters that repeat and measure."""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="reads the size of the process from /proc or resource")

MEASURE = """
import gc, resource, sys
def size():
    gc.collect()
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
def check(rounds, turn):
    for i in range(rounds // 4):
        turn(i)
    sizes, blocks = [size()], sys.getallocatedblocks()
    for part in range(10):
        for i in range(rounds * part // 10, rounds * (part + 1) // 10):
            turn(i)
        sizes.append(size())
    # The least of each half: an allocator gives back what it has in its own time. What leaks has no way back.
    grown, more = min(sizes[6:]) - min(sizes[:6]), sys.getallocatedblocks() - blocks
    # One lost object of 50 bytes per turn would be more than the first; one of 200, or memory by malloc, than the second.
    assert more < rounds // 4 + 500, f"{more} more memory blocks"
    assert grown < max(2_000_000, rounds * 30), f"grew by {grown} bytes"
"""

CASES = {
    "ttl": """
from fastcache import TTLCache
now = 0
cache = TTLCache(100, 10, lambda: now, on_evict=lambda *args: None)
weighted = TTLCache(100, 10, lambda: now, lambda value: 1.5)
def turn(i):
    global now
    now += 0.5
    cache.set((i % 500,), [i], None if i % 2 else i % 30 + 1)
    weighted.set(i % 300, [i], i % 7 + 1)
    cache.get((i % 499,))
    if i % 100 == 0:
        cache.expire(), cache.copy(), list(cache.items()), weighted.clear(), cache.pop(next(iter(cache)), None)
    try:
        cache.set(i, i, ttl=-1)
    except ValueError:
        pass
check(60_000, turn)
cache._check(), weighted._check()
""",
    "memory cache": """
from fastcache import MemoryCache
def turn(i):
    with MemoryCache(ttl=100, cleanup_interval=100) as cache:
        cache.set_many({"a": i, "b": [i]})
        cache.get_many(["a", "b", "c"]), cache.delete_pattern("a*"), cache.stats()
check(8_000, turn)
""",
    "memo with ttl": """
from fastcache import lru_cache
@lru_cache(maxsize=50, ttl=0.001)
def f(*args):
    return [args]
def turn(i):
    f(i % 200), f(str(i % 100)), f(i, "a"), f.cache_contains(i), f.cache_invalidate(i % 7)
check(60_000, turn)
""",
    "single flight": """
from fastcache import lru_cache
@lru_cache(maxsize=50, single_flight=True)
def f(x, y=0):
    if x % 10 == 3:
        raise ValueError(x)
    return [x] if x % 10 else [f(x + 1)]
def turn(i):
    try:
        f(i, y=i)
    except ValueError:
        pass
check(30_000, turn)
""",
    "async": """
import asyncio
from fastcache import lru_cache
@lru_cache(maxsize=50)
async def f(x):
    await asyncio.sleep(0)
    if x % 10 == 3:
        raise ValueError(x)
    return [x]
async def some(i):
    tasks = [asyncio.ensure_future(f(i)) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[i % 3].cancel()
    if i % 5 == 0:
        [task.cancel() for task in tasks]
    await asyncio.gather(*tasks, return_exceptions=True)
loop = asyncio.new_event_loop()
check(5_000, lambda i: loop.run_until_complete(some(i)))
def short(i):
    other = asyncio.new_event_loop()
    other.run_until_complete(f(i * 10))
    other.close()
check(500, short)
loop.close()
""",
    "per instance": """
import asyncio
from fastcache import lru_cache
class A:
    @lru_cache(maxsize=5, per_instance=True)
    def m(self, x):
        return [x]
    @lru_cache(ttl=5, single_flight=True, per_instance=True)
    def s(self, x):
        return [x]
def turn(i):
    a = A()
    a.m(i), a.m(i, ), a.s(1), A.m.cache_contains(a, i)
    if i % 3 == 0:
        a.me = a
    if i % 100 == 0:
        A.m.cache_clear()
check(20_000, turn)
A.m._check(), A.s._check()
""",
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_grows(run_script, case):
    """Tens of thousands of turns leave neither memory blocks nor a larger process behind."""
    run_script(MEASURE + CASES[case])
