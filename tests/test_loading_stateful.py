"""The engine against a model: any sequence of loads, writes, invalidations and time, and many threads and tasks at once."""

import asyncio
import random
import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from loaders import SECONDS, Clock, Loader, wait_until

from fastcache import MISSING, AsyncMemoryCache, MemoryCache, Policy, WriteThroughCache

KEYS = st.sampled_from("abc")
TTL, STALE_FOR, MISSING_TTL = 10, 20, 5


class Engine(RuleBasedStateMachine):
    """A cache with stale values and remembered misses; the model says what each key holds and since when."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        policy = Policy(TTL, stale_for=STALE_FOR, missing_ttl=MISSING_TTL, jitter=0, retry_after=1000)
        self.cache = MemoryCache(timer=self.clock, ttl=TTL, policy=policy)
        self.database = dict.fromkeys("abc", 0)
        self.model = {}  # key -> value, when it stops being fresh, when it is gone

    def held(self, key):
        value, fresh, gone = self.model.get(key, (None, 0, 0))
        if self.clock.now >= gone:
            return "nothing", None
        return ("fresh" if self.clock.now < fresh else "stale"), value

    def keep(self, key, value):
        now = self.clock.now
        if value is MISSING:
            self.model[key] = (value, now + MISSING_TTL, now + MISSING_TTL)
        else:
            self.model[key] = (value, now + TTL, now + TTL + STALE_FOR)

    @rule(key=KEYS)
    def load(self, key):
        state, value = self.held(key)
        loaded = self.cache.get_or_load(key, self.database.__getitem__, "none")
        assert self.cache.drain(SECONDS)
        expected = self.database[key] if state == "nothing" else value
        assert loaded == ("none" if expected is MISSING else expected)
        if state != "fresh":
            self.keep(key, self.database[key])

    @rule(keys=st.lists(KEYS))
    def load_many(self, keys):
        expected = {}
        for key in dict.fromkeys(keys):
            state, value = self.held(key)
            value = self.database[key] if state == "nothing" else value
            if value is not MISSING:
                expected[key] = value
        loaded = self.cache.get_or_load_many(keys, lambda missing: {key: self.database[key] for key in missing})
        assert self.cache.drain(SECONDS)
        assert loaded == expected
        for key in keys:
            if self.held(key)[0] != "fresh":
                self.keep(key, self.database[key])

    @rule(key=KEYS, error=st.just(LookupError("no")))
    def load_fails(self, key, error):
        state, value = self.held(key)

        def fail(key):
            raise error

        if state == "nothing":
            with pytest.raises(LookupError):
                self.cache.get_or_load(key, fail)
        elif state == "fresh":
            assert self.cache.get_or_load(key, fail, MISSING) == value

    @rule(key=KEYS, value=st.one_of(st.integers(0, 9), st.none(), st.just(MISSING)))
    def change_the_database(self, key, value):
        self.database[key] = value

    @rule(key=KEYS, value=st.integers(100, 109))
    def set(self, key, value):
        self.cache.set(key, value)
        self.model[key] = (value, self.clock.now + TTL, self.clock.now + TTL)

    @rule(key=KEYS)
    def delete(self, key):
        assert self.cache.delete(key) == (self.held(key)[0] != "nothing")
        self.model.pop(key, None)

    @precondition(lambda self: self.model)
    @rule()
    def clear(self):
        self.cache.clear()
        self.model.clear()

    @rule(seconds=st.sampled_from([1, 4, 6, 11, 25]))
    def time_passes(self, seconds):
        self.clock.now += seconds

    @invariant()
    def plain_reads_see_fresh_values_only(self):
        for key in "abc":
            state, value = self.held(key)
            there = state == "fresh" and value is not MISSING
            assert self.cache.get(key, "none") == (value if there else "none")
            assert self.cache.exists(key) == there
            assert (key in self.cache.get_many(["a", "b", "c"])) == there
            assert (key in list(self.cache)) == there
        assert len(self.cache) == len(list(self.cache))

    @invariant()
    def nothing_is_left_behind(self):
        assert len(self.cache._loading.flights) == 0
        assert not self.cache._loading.flights.landed
        self.cache._map._check()

    def teardown(self):
        self.cache.close()


TestEngine = Engine.TestCase


def test_a_thousand_threads_on_one_cold_key_load_once():
    """All of them get the value."""
    cache, load, results = MemoryCache(ttl=60), Loader(), []
    load.open.clear()
    threads = [threading.Thread(target=lambda: results.append(cache.get_or_load("a", load))) for _ in range(1000)]
    for thread in threads:
        thread.start()
    wait_until(lambda: cache.stats().misses == 1000)
    load.open.set()
    for thread in threads:
        thread.join(SECONDS)
    assert results == ["v1"] * 1000
    assert load.runs == 1
    assert len(cache._loading.flights) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_tasks_with_random_cancellation(seed):
    """Those who stay get the value of one run; with nobody left the loader is cancelled; no record stays."""
    chance = random.Random(seed)

    async def main():
        cache, go, runs = AsyncMemoryCache(ttl=60), asyncio.Event(), []

        async def load(key):
            runs.append(key)
            await go.wait()
            return key

        tasks = [asyncio.create_task(cache.get_or_load(chance.choice("ab"), load)) for _ in range(100)]
        for _ in range(70):
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            chance.choice(tasks).cancel()
        await asyncio.sleep(0)
        go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result in ("a", "b") or isinstance(result, asyncio.CancelledError) for result in results)
        assert sorted(set(runs)) == sorted(runs)
        assert len(cache._loading.flights) == 0
        await cache.close()

    asyncio.run(main())


def test_readers_never_see_an_older_value_after_a_write_returned():
    """Write-through under threads: what a reader gets is never older than the last write that had returned before."""
    cache, stop, wrong = MemoryCache(ttl=60), threading.Event(), []
    database, returned = {"a": 0}, [0]
    pattern = WriteThroughCache(cache, database.__getitem__, database.__setitem__)

    def read():
        while not stop.is_set():
            least = returned[0]
            if (value := pattern.get("a")) < least:
                wrong.append((value, least))

    def drop():
        while not stop.is_set():
            cache.delete("a")

    threads = [threading.Thread(target=target) for target in (read, read, read, drop)]
    for thread in threads:
        thread.start()
    for number in range(1, 1500):
        pattern.set("a", number)
        returned[0] = number
    stop.set()
    for thread in threads:
        thread.join(SECONDS)
    assert not wrong
    assert len(cache._loading.flights) == 0
