"""`lru_cache` against a model, an OrderedDict, under any sequence of calls, with arguments that make trouble."""

from collections import OrderedDict

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fastcache import lru_cache


class Trouble(Exception):
    pass


class Argument:
    """Few hashes for many arguments. While `busy`, comparing runs an action, once."""

    busy = None

    def __init__(self, n):
        self.n = n

    def __hash__(self):
        return self.n % 3

    def __eq__(self, other):
        action, Argument.busy = Argument.busy, None
        if action is not None:
            action()
        return isinstance(other, Argument) and self.n == other.n

    def __repr__(self):
        return f"Argument({self.n})"


plain = st.one_of(st.integers(-2, 5), st.sampled_from(["a", "ä", 2.0, None, (1, "a"), True, 1.0, 2**61, b"a"]))
arguments = st.one_of(plain, st.integers(0, 8).map(Argument), st.integers(0, 8).map(lambda n: (n, Argument(n))))
calls = st.tuples(
    st.lists(arguments, max_size=2).map(tuple), st.dictionaries(st.sampled_from(["a", "self"]), arguments, max_size=2)
)


class MemoMachine(RuleBasedStateMachine):
    """The model's keys are what functools documents; its entries go from least to most recently used."""

    @initialize(maxsize=st.sampled_from([None, 0, 1, 2, 5, 128]), typed=st.booleans())
    def start(self, maxsize, typed):
        self.runs, self.action = 0, None
        self.maxsize, self.typed = maxsize, typed
        self.model, self.hits, self.misses = OrderedDict(), 0, 0
        Argument.busy = None

        @lru_cache(maxsize, typed)
        def function(*args, **kwargs):
            self.runs += 1
            action, self.action = self.action, None
            if action is not None:
                action()
            return self.runs

        self.function = function

    def key(self, args, kwargs):
        if len(args) == 1 and not kwargs and type(args[0]) in (int, str):
            return ("single", args[0])
        key = ("several", args, tuple(kwargs.items()))
        return (*key, tuple(map(type, (*args, *kwargs.values())))) if self.typed else key

    @rule(call=calls)
    def call(self, call):
        args, kwargs = call
        key = self.key(args, kwargs)
        before = self.runs
        result = self.function(*args, **kwargs)
        if key in self.model:
            self.hits += 1
            assert (result, self.runs) == (self.model[key], before)
            if self.maxsize is not None:
                self.model.move_to_end(key)
            return
        self.misses += 1
        assert result == self.runs == before + 1
        self.insert(key, result)

    def insert(self, key, result):
        if self.maxsize == 0 or key in self.model:
            return
        if len(self.model) == self.maxsize:
            self.model.popitem(last=False)
        self.model[key] = result

    @rule(call=calls)
    def contains(self, call):
        args, kwargs = call
        assert self.function.cache_contains(*args, **kwargs) == (self.key(args, kwargs) in self.model)

    @rule(call=calls)
    def invalidate(self, call):
        args, kwargs = call
        assert self.function.cache_invalidate(*args, **kwargs) == (
            self.model.pop(self.key(args, kwargs), None) is not None
        )

    @rule()
    def clear(self):
        self.function.cache_clear()
        self.model.clear()
        self.hits = self.misses = 0

    @rule(call=calls)
    def fail(self, call):
        """A run that raises is a miss and stores nothing."""
        args, kwargs = call
        if self.key(args, kwargs) in self.model:
            return

        def action():
            raise Trouble

        self.action = action
        with pytest.raises(Trouble):
            self.function(*args, **kwargs)
        self.misses += 1

    @rule(call=calls)
    def unhashable(self, call):
        if self.maxsize == 0:
            return
        args, kwargs = call
        for call in (self.function, self.function.cache_contains, self.function.cache_invalidate):
            with pytest.raises(TypeError, match="unhashable"):
                call(*args, [], **kwargs)

    @rule(call=calls, inner=calls)
    def call_while_running(self, call, inner):
        """The function calls itself; an entry that appeared meanwhile stays."""
        args, kwargs = call
        if self.key(args, kwargs) in self.model:
            return
        self.misses += 1
        self.action = lambda: self.call(inner)
        before = self.runs
        result = self.function(*args, **kwargs)
        assert result == self.runs >= before + 1
        self.insert(self.key(args, kwargs), result)

    @rule(call=calls, inner=calls, n=st.integers(0, 2))
    def change_while_comparing(self, call, inner, n):
        """Whatever __eq__ does to the function meanwhile: the table stays whole. The model starts afresh."""
        (args, kwargs), (inner_args, inner_kwargs) = call, inner
        Argument.busy = [
            lambda: self.function(*inner_args, **inner_kwargs),
            lambda: self.function.cache_invalidate(*inner_args, **inner_kwargs),
            lambda: self.function.cache_clear(),
        ][n]
        self.function(*args, **kwargs)
        Argument.busy = None
        self.function._check()
        if self.maxsize != 0:
            assert self.function.cache_contains(*args, **kwargs) or self.maxsize is not None or n == 2
        self.clear()

    @rule()
    def fail_while_comparing(self):
        """An error of __eq__ changes nothing, not even the counters."""

        def fail():
            raise Trouble

        for key in self.model:
            if key[0] == "several" and len(key[1]) == 1 and not key[2] and isinstance(key[1][0], Argument):
                Argument.busy = fail
                with pytest.raises(Trouble):
                    self.function(Argument(key[1][0].n))
                break

    @invariant()
    def agree(self):
        if not hasattr(self, "function"):
            return
        self.function._check()
        assert self.function.cache_info() == (self.hits, self.misses, self.maxsize, len(self.model))


TestMemo = MemoMachine.TestCase
