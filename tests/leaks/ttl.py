"""TTLCache: expiry by the list and by the heap, sweeps, evictions, errors. Exits with an error when memory grows."""

import gc
import math

from flat import check

from fastcache import TTLCache

now = 0.0


def fail(*args):
    raise LookupError


def timer():
    return now


plain = TTLCache(1000, 100, timer)
weighted = TTLCache(1000.0, 50, timer, getsizeof=lambda value: value[0] % 3 + 0.5)
listening = TTLCache(100, 20, timer, on_evict=lambda *args: None)
failing = TTLCache(10, 5, timer, on_evict=fail)
coarse = TTLCache(500, 60)


def work(n):
    global now
    for i in range(n):
        now += 0.5
        key, value = (i, str(i)), [i]
        plain.set(key, value, (None, 30, 300, math.inf)[i % 4])
        weighted[i % 5000] = value
        listening.set(str(i), value, i % 7 + 1)
        coarse.set(key, value, None if i % 2 else 3600)
        coarse.get(key), plain.get((i - 50, str(i - 50))), plain.remaining(key)
        if i % 10 == 0:
            for refused in (-1, math.nan, "a", None):
                try:
                    plain.set(i, value, refused)
                except ValueError:
                    pass
            try:
                failing[i] = value
            except LookupError:
                pass
            listening.expire()
        if i % 5000 == 0:
            list(plain.items()), repr(listening), plain == plain.copy(), weighted.currsize
            plain.resize(10), plain.resize(1000)
        if i % 50_000 == 0:
            plain.clear(), weighted.clear(), listening.clear()
    for each in (plain, weighted, listening, coarse):
        each._check()
        each.clear()
    gc.collect()


check(work, each=4)
