"""Any operation in the midst of any other: whatever a cache calls of the user's may do anything to that very cache.

No model says what comes out, as the order of calls isn't promised. What is: the structure stays whole, the limit holds, the
weights add up, and nothing is raised but what the operation documents.
"""

import gc
import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastcache import LRUCache, TTLCache, lru_cache

numbers = st.integers(0, 12)
plans = st.lists(st.tuples(st.integers(0, 30), numbers), max_size=3)  # which operation with which key, innermost last


class Hooks:
    """Runs what was planned, one step for each call of the user's code, every `gap` calls."""

    def __init__(self):
        self.plan, self.gap, self.calls, self.perform = [], 1, 0, None

    def __call__(self):
        self.calls += 1
        if self.plan and self.calls % self.gap == 0:
            self.perform(*self.plan.pop(0))


class Key:
    """Few hashes for many keys; hashing, comparing and dying are calls of the user's code."""

    hooks = Hooks()

    def __init__(self, n):
        self.n = n

    def __hash__(self):
        Key.hooks()
        return self.n % 3

    def __eq__(self, other):
        Key.hooks()
        return isinstance(other, Key) and self.n == other.n

    def __del__(self):
        Key.hooks()


def weigh(value):
    Key.hooks()
    return len(value) % 4 + 0.5


def note(key, value, cause):
    Key.hooks()


MAPS = {
    "lru": lambda clock: LRUCache(5),
    "lru, unbounded": lambda clock: LRUCache(None),
    "lru, listening": lambda clock: LRUCache(5, on_evict=note),
    "lru, weighted": lambda clock: LRUCache(9, weigh, on_evict=note),
    "ttl": lambda clock: TTLCache(5, 6, clock),
    "ttl, listening": lambda clock: TTLCache(7, 6, clock, on_evict=note),
    "ttl, weighted": lambda clock: TTLCache(9, 6, clock, weigh),
}


class Machine(RuleBasedStateMachine):
    """What both kinds of caches have in common: operations by number, each of which the user's code may start."""

    operations: tuple = ()

    def perform(self, number, n):
        try:
            self.operations[number % len(self.operations)](self, n)
        except KeyError:
            return
        except RuntimeError as error:
            if "changed" not in str(error):  # under an iteration, or a thousand times under a lookup
                raise
        except ValueError as error:
            if str(error) != "value too large":
                raise

    @precondition(lambda self: hasattr(self, "now"))
    @rule(number=st.integers(0, 30), n=numbers, plan=plans, gap=st.integers(1, 6))
    def operate(self, number, n, plan, gap):
        hooks = Key.hooks
        hooks.plan, hooks.gap, hooks.calls, hooks.perform = plan, gap, 0, self.perform
        self.perform(number, n)
        hooks.plan = []

    def start_afresh(self):
        gc.collect(0)
        self.now = 0.0
        Key.hooks.plan = []

    def teardown(self):
        Key.hooks.plan = []


class MapMachine(Machine):
    @initialize(kind=st.sampled_from(sorted(MAPS)))
    def start(self, kind):
        self.start_afresh()
        self.cache = MAPS[kind](self.clock)

    def clock(self):
        Key.hooks()
        return self.now

    def pass_time(self, n):
        self.now += n

    def set(self, n):
        if isinstance(self.cache, TTLCache):
            self.cache.set(Key(n), [n] * n, (None, 3, 9, math.inf)[n % 4])
        else:
            self.cache[Key(n)] = [n] * n

    def expire(self, n):
        if isinstance(self.cache, TTLCache):
            self.cache.expire() if n % 2 else self.cache._sweep(2)

    operations = (
        lambda self, n: self.cache.__setitem__(Key(n), [n] * n),
        lambda self, n: self.cache[Key(n)],
        lambda self, n: self.cache.get(Key(n)),
        lambda self, n: self.cache.peek(Key(n)),
        lambda self, n: Key(n) in self.cache,
        lambda self, n: self.cache.pop(Key(n)),
        lambda self, n: self.cache.__delitem__(Key(n)),
        lambda self, n: self.cache.popitem(),
        lambda self, n: self.cache.setdefault(Key(n), [n]),
        lambda self, n: self.cache.update({Key(i): [i] for i in range(n)}),
        lambda self, n: self.cache.clear() if n < 3 else None,
        lambda self, n: self.cache.resize((None, 0, 3, 5, 9)[n % 5]),
        lambda self, n: list(self.cache.items()),
        lambda self, n: self.cache == self.cache.copy(),
        lambda self, n: (len(self.cache), self.cache.currsize),
        lambda self, n: self.cache.__init__(5, *([6] if isinstance(self.cache, TTLCache) else [])) if n == 0 else None,
        lambda self, n: gc.collect(0),
        set,
        pass_time,
        expire,
    )

    @invariant()
    def is_whole(self):
        if not hasattr(self, "now"):
            return
        cache = self.cache
        cache._check()
        entries = list(cache.items())
        assert len(cache) == len(entries) == len({key.n for key, _ in entries})
        assert cache.maxsize is None or cache.currsize <= cache.maxsize


class MemoMachine(Machine):
    """The same for remembered functions, one of them a method with a memory for each instance."""

    @initialize(maxsize=st.sampled_from([None, 1, 3, 5]), typed=st.booleans(), ttl=st.sampled_from([None, 100]))
    def start(self, maxsize, typed, ttl):
        self.start_afresh()

        def function(*args, **kwargs):
            Key.hooks()
            return [args, kwargs]

        self.function = lru_cache(maxsize, typed, ttl=ttl)(function)
        method = lru_cache(maxsize, typed, ttl=ttl, per_instance=True)(function)
        self.kind = type("A", (), {"m": method, "__del__": lambda self: Key.hooks()})
        self.instances = [self.kind() for _ in range(3)]

    def replace_an_instance(self, n):
        self.instances[n % 3] = self.kind()

    operations = (
        lambda self, n: self.function(Key(n)),
        lambda self, n: self.function(n),
        lambda self, n: self.function(str(n), Key(n)),
        lambda self, n: self.function(a=Key(n), b=n),
        lambda self, n: self.function((n, Key(n))),
        lambda self, n: self.function.cache_invalidate(Key(n)),
        lambda self, n: self.function.cache_invalidate(a=Key(n), b=n),
        lambda self, n: self.function.cache_contains((n, Key(n))),
        lambda self, n: self.function.cache_clear() if n < 3 else None,
        lambda self, n: self.function.cache_info(),
        lambda self, n: self.instances[n % 3].m(Key(n)),
        lambda self, n: self.instances[n % 3].m(n),
        lambda self, n: self.kind.m.cache_invalidate(self.instances[n % 3], Key(n)),
        lambda self, n: self.kind.m.cache_clear() if n < 2 else None,
        lambda self, n: self.kind.m.cache_info(),
        lambda self, n: gc.collect(0),
        replace_an_instance,
    )

    @invariant()
    def is_whole(self):
        if not hasattr(self, "now"):
            return
        for each in (self.function, self.kind.m):
            each._check()
        hits, misses, maxsize, size = self.function.cache_info()
        assert hits >= 0 <= misses
        assert maxsize is None or size <= maxsize


TestReentrantMap = MapMachine.TestCase
TestReentrantMemo = MemoMachine.TestCase


def test_hooks_run_operations_in_the_midst_of_others():
    """The machines above do what they say: a step of the plan runs within the first operation, the next within that."""
    machine = MapMachine()
    machine.start("lru")
    for n in (0, 3, 6):
        machine.cache[Key(n)] = [n]
    machine.operate(0, 9, [(5, 0), (5, 3)], 1)
    assert sorted(key.n for key in machine.cache) == [6, 9]
