"""`TTLCache` against a model with time, and against cachetools.TTLCache, by random operations.

The model keeps, for each key, the value and the moment of its end, in the order of use. What cachetools does differently:
it removes expired entries in `len` and `currsize` (nothing that can be seen from outside), moves a key that it finds expired
to the end of the order (nothing, either: it is never served), and counts nothing.
"""

import copy
import math
import pickle

import cachetools
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastcache import TTLCache

KEYS = st.integers(0, 11)
TTL = 8


class Clock:
    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


class TTLMachine(RuleBasedStateMachine):
    """Every operation on the cache and on the model; their contents, causes and lives must agree after each."""

    @initialize(maxsize=st.sampled_from([1, 2, 3, 5, 8, None]), weighted=st.booleans())
    def start(self, maxsize, weighted):
        self.clock = Clock()
        self.latest = 0  # the model's time never goes back
        self.maxsize = maxsize
        self.size = (lambda value: value % 3) if weighted else (lambda value: 1)
        self.model = {}  # key: (value, end), least recently used first
        self.expected_gone = []
        self.gone = []
        self.value = 0
        self.cache = TTLCache(maxsize, TTL, self.clock, self.size if weighted else None, on_evict=self.note)
        len(self.cache)  # reads the clock: from now on it can't go back

    def note(self, *args):
        self.gone.append(args)

    # The model

    def sweep(self):
        dead = [(end, key) for key, (_, end) in self.model.items() if end <= self.latest]
        for _, key in dead:
            self.leave(key, "expired")

    def leave(self, key, cause):
        self.expected_gone.append((key, self.model.pop(key)[0], cause))

    def weight(self):
        return sum(self.size(value) for value, _ in self.model.values())

    def alive(self, key):
        return key in self.model and self.model[key][1] > self.latest

    def touch(self, key):
        self.model[key] = self.model.pop(key)

    def limit(self):
        return math.inf if self.maxsize is None else self.maxsize

    # Operations

    @rule(key=KEYS, ttl=st.sampled_from([None, 1, 3, TTL, 20, math.inf]))
    def set(self, key, ttl):
        self.value += 1
        value, size = self.value, self.size(self.value)
        if size > self.limit():
            return
        self.cache.set(key, value, ttl)
        self.sweep()
        if key in self.model:
            self.touch(key)
        while self.weight() + size - (self.size(self.model[key][0]) if key in self.model else 0) > self.limit():
            self.leave(next(iter(self.model)), "evicted")
        if key in self.model:
            self.expected_gone.append((key, self.model.pop(key)[0], "replaced"))
        self.model[key] = (value, self.latest + (TTL if ttl is None else ttl))

    @rule(key=KEYS)
    def get(self, key):
        if self.alive(key):
            self.touch(key)
            assert self.cache[key] == self.model[key][0]
        else:
            assert self.cache.get(key, "none") == "none"

    @rule(key=KEYS)
    def peek(self, key):
        assert (key in self.cache) == self.alive(key)
        expected = self.model[key][0] if self.alive(key) else None
        assert self.cache.peek(key) == expected

    @rule(key=KEYS)
    def pop(self, key):
        expected = self.model[key][0] if self.alive(key) else "none"
        if key in self.model:
            self.leave(key, "deleted" if self.alive(key) else "expired")
        assert self.cache.pop(key, "none") == expected

    @rule()
    def popitem(self):
        self.sweep()
        if not self.model:
            assert perform(self.cache, "popitem", None, None) == "KeyError"
            return
        key = next(iter(self.model))
        expected = (key, self.model[key][0])
        self.leave(key, "deleted")
        assert self.cache.popitem() == expected

    @rule()
    def expire(self):
        before = len(self.expected_gone)
        self.sweep()
        expected = sorted((key, value) for key, value, _ in self.expected_gone[before:])
        assert sorted(self.cache.expire()) == expected

    @rule()
    def clear(self):
        for key in list(self.model):
            self.leave(key, "cleared")
        self.cache.clear()

    @precondition(lambda self: self.maxsize is not None)
    @rule(maxsize=st.sampled_from([2, 3, 5, 8]))
    def resize(self, maxsize):
        self.maxsize = maxsize
        self.cache.resize(maxsize)
        self.sweep()
        while self.weight() > maxsize:
            self.leave(next(iter(self.model)), "evicted")

    @rule(how=st.sampled_from(["copy", "pickle"]))
    def replace_by_a_copy(self, how):
        """A copy holds what is alive; the dead stay behind without a word."""
        self.clock.now = self.latest  # a copy knows nothing of a clock that was set back
        if how == "copy":
            self.cache = self.cache.copy()
        else:
            state = self.cache.__getstate__()
            rows = pickle.loads(pickle.dumps(state["rows"]))
            twin = TTLCache.__new__(TTLCache)
            twin.__setstate__({**state, "rows": rows})
            self.cache = copy.copy(twin)
        self.model = {key: entry for key, entry in self.model.items() if entry[1] > self.latest}

    @rule(step=st.sampled_from([1, 1, 2, 4, 9, 30]))
    def wait(self, step):
        self.clock.now += step
        self.latest = max(self.latest, self.clock.now)
        # The cache learns of the time when it is used; the model at once.
        len(self.cache)

    @rule(step=st.integers(1, 10))
    def set_back_the_clock(self, step):
        self.clock.now -= step

    @invariant()
    def agrees(self):
        self.cache._check()
        alive = {key: value for key, (value, end) in self.model.items() if end > self.latest}
        assert list(self.cache.items()) == list(alive.items())
        assert len(self.cache) == len(alive)
        assert self.cache.currsize == sum(map(self.size, alive.values()))
        for key, (_, end) in self.model.items():
            assert self.cache.remaining(key) == (end - self.latest if end > self.latest else None)
        # Entries that expire at the same moment have no order of their own.
        assert sorted(self.gone) == sorted(self.expected_gone)


TestTTLMachine = TTLMachine.TestCase

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS),
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("del"), KEYS),
        st.tuples(st.just("pop"), KEYS),
        st.tuples(st.just("setdefault"), KEYS),
        st.tuples(st.just("popitem"), st.none()),
        st.tuples(st.just("expire"), st.none()),
        st.tuples(st.just("wait"), st.integers(1, 12)),
    ),
    max_size=80,
)


def perform(cache, operation, argument, value):
    """The outcome of an operation, errors included."""
    try:
        match operation:
            case "set":
                cache[argument] = value
            case "get":
                return cache[argument]
            case "del":
                del cache[argument]
            case "pop":
                return cache.pop(argument)
            case "setdefault":
                return cache.setdefault(argument, value)
            case "popitem":
                return cache.popitem()
            case "expire":
                return list(cache.expire())
    except KeyError:
        return "KeyError"
    except ValueError as error:
        return str(error)
    return None


@given(OPERATIONS, st.integers(0, 6), st.sampled_from([0, 5, 10]), st.booleans())
def test_ttl_cache_behaves_as_cachetools(operations, maxsize, ttl, weighted):
    """Same operations, same timer, same results, contents, sizes; the order of use shows in what is evicted."""
    clock = Clock()
    getsizeof = (lambda value: value % 4) if weighted else None
    ours = TTLCache(maxsize, ttl, clock, getsizeof)
    theirs = cachetools.TTLCache(maxsize, ttl, clock, getsizeof)
    for value, (operation, argument) in enumerate(operations):
        if operation == "wait":
            clock.now += argument
        else:
            assert perform(ours, operation, argument, value) == perform(theirs, operation, argument, value)
        shown = copy.copy(theirs)  # looking at theirs moves and removes
        assert (len(ours), ours.currsize) == (len(shown), shown.currsize)
        assert dict(ours.items()) == dict(shown.items())
        ours._check()
    while theirs:
        assert ours.popitem() == theirs.popitem()
