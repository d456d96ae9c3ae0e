"""LRUCache: insertions, evictions, deletions, clears, copies, errors. Exits with an error when memory grows."""

import gc

from flat import check

from fastcache import LRUCache


class Fails:
    def __init__(self, n):
        self.n = n

    def __hash__(self):
        return 1

    def __eq__(self, other):
        raise LookupError


def fail(*args):
    raise LookupError


plain = LRUCache(1000)
weighted = LRUCache(1000.0, getsizeof=lambda value: value[0] % 3 + 0.5)
listening = LRUCache(100, on_evict=lambda *args: None)
failing = LRUCache(10, on_evict=fail)


def work(n):
    for i in range(n):
        key, value = (i, str(i)), [i]
        plain[key] = value
        weighted[i % 5000] = value
        listening[str(i)] = value
        if i % 2:
            plain.pop(key)
        if i % 10 == 0:
            for operation in (plain.__getitem__, plain.__delitem__, listening.pop):
                try:
                    operation(("absent", i))
                except KeyError:
                    pass
            try:
                failing[i] = value
            except LookupError:
                pass
            try:
                plain[[]] = 1
            except TypeError:
                pass
            try:
                weighted["large"] = [2.0**60 + 2**80]
            except ValueError:
                pass
            failed = LRUCache(3)
            failed[Fails(1)] = value
            try:
                failed[Fails(2)] = value
            except LookupError:
                pass
        if i % 5000 == 0:
            list(plain.items()), repr(listening), plain == plain.copy()
            iterator = iter(plain)
            next(iterator, None), next(iterator, None)
            plain["change"] = 1
            try:
                next(iterator, None)
            except RuntimeError:
                pass
            plain.resize(10), plain.resize(1000)
        if i % 50_000 == 0:
            plain.clear(), weighted.clear(), listening.clear()
    plain.clear(), weighted.clear(), listening.clear()
    gc.collect()
    for each in (plain, weighted, listening, failing):
        each._check()


check(work, each=3)  # with the entry of each round in three caches
