"""`cached`, the memory cache under it, gates and lookups behind them. Fails when memory grows."""

import gc
import time

from flat import check

from fastcache import MemoryCache, cached
from fastcache._gate import Gate, GatedLookup
from fastcache._ttl import TTLCache

cache = MemoryCache(1000, ttl=100, cleanup_interval=None)
gate, table = Gate(), TTLCache(100, 60)
look = GatedLookup(table, gate)


@cached(cache)
def function(*args, **kwargs):
    if args == ("fail",):
        raise LookupError
    return [args, kwargs]


class A:
    def __cache_key__(self):
        return "A"

    @cached(cache)
    def m(self, x):
        return [x]


a = A()


def work(n):
    for i in range(n):
        function(i), function(i), function(str(i), key=(i, None)), function(i / 2)
        table[i % 200] = [i]
        gate.until = time.monotonic() + (i % 2)
        look(i % 200, None), look(str(i), None)
        if i % 3 == 0:
            a.m(i), a.m(i), A.m(a, i)
            function.invalidate(i), a.m.invalidate(i), function.refresh(i)
        if i % 10 == 0:
            for call, error in ((function, LookupError), (look, TypeError)):
                try:
                    call("fail")
                except error:
                    pass
            cache.get_or_load_many([i, i + 1], dict.fromkeys), cache.delete_many([i]), cache.stats(), repr(function)
        if i % 1000 == 0:
            cached(MemoryCache(5, cleanup_interval=None))(lambda x: x)(1)
            cache.delete_pattern("*1*")
    cache.clear(), table.clear()
    cache._map._check(), table._check()
    gc.collect()


check(work, each=12, operations=250_000)  # most of them run Python code: ten times slower than a hit
