"""`LRUCache` against a model, an OrderedDict, under any sequence of operations, with keys that make trouble."""

import pickle
from collections import OrderedDict

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fastcache import LRUCache


class Trouble(Exception):
    pass


class Key:
    """Few hashes for many keys. While `busy`, comparing runs an action, once, so that it can't go on for ever."""

    busy = None

    def __init__(self, n):
        self.n = n

    def __hash__(self):
        return self.n % 3

    def __eq__(self, other):
        action, Key.busy = Key.busy, None
        if action is not None:
            action()
        return isinstance(other, Key) and self.n == other.n

    def __repr__(self):
        return f"Key({self.n})"


keys = st.one_of(
    st.integers(0, 12), st.integers(0, 12).map(Key), st.sampled_from(["a", "ä", (1, "a"), (1, Key(2)), None, -1, -2])
)
values = st.integers(0, 5)


class LRUMachine(RuleBasedStateMachine):
    """The model keeps its entries from least to most recently used, and what left in `log`."""

    weigh = None

    @initialize(maxsize=st.one_of(st.none(), st.integers(0, 9)))
    def start(self, maxsize):
        self.log, self.expected_log = [], []
        self.cache = LRUCache(maxsize, self.weigh, on_evict=lambda *args: self.log.append(args))
        self.model, self.maxsize = OrderedDict(), maxsize
        Key.busy = None

    def weight(self, value):
        return 1 if self.weigh is None else value

    @property
    def total(self):
        return sum(map(self.weight, self.model.values()))

    @property
    def bound(self):
        return float("inf") if self.maxsize is None else self.maxsize

    def leave(self, key, cause):
        self.expected_log.append((key, self.model.pop(key), cause))

    def model_store(self, key, value):
        if self.weight(value) > self.bound:
            return ValueError
        old = self.weight(self.model[key]) if key in self.model else 0
        while self.total - old + self.weight(value) > self.bound:
            self.leave(next(each for each in self.model if each != key), "evicted")
        if key in self.model:
            self.expected_log.append((key, self.model[key], "replaced"))
        self.model[key] = value
        self.model.move_to_end(key)
        return None

    @rule(key=keys, value=values)
    def store(self, key, value):
        error = self.model_store(key, value)
        if error:
            with pytest.raises(error, match="value too large"):
                self.cache[key] = value
        else:
            self.cache[key] = value

    @rule(key=keys)
    def read(self, key):
        if key in self.model:
            assert self.cache[key] == self.model[key]
            self.model.move_to_end(key)
        else:
            with pytest.raises(KeyError):
                self.cache[key]

    @rule(key=keys)
    def get(self, key):
        assert self.cache.get(key, "none") == self.model.get(key, "none")
        if key in self.model:
            self.model.move_to_end(key)

    @rule(key=keys)
    def look(self, key):
        assert self.cache.peek(key, "none") == self.model.get(key, "none")
        assert (key in self.cache) == (key in self.model)

    @rule(key=keys, value=values)
    def setdefault(self, key, value):
        if key in self.model:
            assert self.cache.setdefault(key, value) == self.model[key]
            self.model.move_to_end(key)
        elif self.model_store(key, value):
            with pytest.raises(ValueError, match="value too large"):
                self.cache.setdefault(key, value)
        else:
            assert self.cache.setdefault(key, value) == value

    @rule(key=keys)
    def pop(self, key):
        assert self.cache.pop(key, "none") == self.model.get(key, "none")
        if key in self.model:
            self.leave(key, "deleted")

    @rule()
    def popitem(self):
        if self.model:
            assert self.cache.popitem() == next(iter(self.model.items()))
            self.leave(next(iter(self.model)), "deleted")
        else:
            with pytest.raises(KeyError):
                self.cache.popitem()

    @rule(maxsize=st.one_of(st.none(), st.integers(0, 9)))
    def resize(self, maxsize):
        self.cache.resize(maxsize)
        self.maxsize = maxsize
        while self.total > self.bound:
            self.leave(next(iter(self.model)), "evicted")

    @rule()
    def clear(self):
        self.cache.clear()
        while self.model:
            self.leave(next(iter(self.model)), "cleared")

    @rule()
    def copy(self):
        twin = self.cache.copy()
        assert list(twin.items()) == list(self.cache.items())
        twin._check()
        self.cache = twin

    @rule()
    def fail_while_comparing(self):
        """An error of __eq__ changes nothing."""
        for key in [each for each in self.model if isinstance(each, Key)][:1]:

            def fail():
                raise Trouble

            for operate in (self.cache.get, self.cache.peek, self.cache.pop, lambda k: self.cache.__setitem__(k, 0)):
                Key.busy = fail
                with pytest.raises(Trouble):
                    operate(Key(key.n))

    @rule(key=st.integers(0, 12).map(Key), inner=keys, n=st.integers(0, 4))
    def change_while_comparing(self, key, inner, n):
        """Whatever __eq__ does to the cache meanwhile: it stays whole, and no key is in it twice."""
        action = [
            lambda: self.cache.pop(inner, None),
            lambda: self.cache.get(inner),
            lambda: self.cache.update({inner: 0, "more": 0}) if self.bound > 1 else None,
            lambda: self.cache.clear(),
            lambda: [self.cache.pop(k, None) for k in list(self.cache)[::2]],
        ][n]
        for operate in (
            self.cache.get,
            self.cache.__contains__,
            lambda k: self.bound >= 1 and self.cache.__setitem__(k, 0),
        ):
            Key.busy = action
            operate(key)
            self.cache._check()
        Key.busy = None
        entries = list(self.cache.items())
        self.model = OrderedDict(entries)
        assert len(self.model) == len(entries)
        self.log.clear(), self.expected_log.clear()

    @invariant()
    def agree(self):
        if not hasattr(self, "cache"):
            return
        self.cache._check()
        assert list(self.cache.items()) == list(self.model.items())
        assert list(self.cache) == list(self.cache.keys()) == list(self.model)
        assert (len(self.cache), self.cache.currsize) == (len(self.model), self.total)
        assert self.total <= self.bound
        assert self.log == self.expected_log


class WeightedMachine(LRUMachine):
    """The same with getsizeof: a value weighs itself."""

    weigh = staticmethod(lambda value: value)


TestLRU = LRUMachine.TestCase
TestWeightedLRU = WeightedMachine.TestCase


def test_stateful_keys_survive_a_pickle():
    """The troublesome keys behave under pickling as others do."""
    cache = LRUCache(5)
    cache.update({Key(i): i for i in range(5)})
    twin = pickle.loads(pickle.dumps(cache))
    assert list(twin.items()) == list(cache.items())
    twin._check()
