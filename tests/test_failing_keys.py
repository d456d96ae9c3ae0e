"""Keys whose `__eq__` raises, at whatever moment, or calls the cache: shared runs end all the same, and nothing is left."""

import threading

import pytest
from loaders import SECONDS, Loader, quiet, start, wait_until

from fastcache import AsyncSingleFlight, MemoryCache, Policy, SingleFlight

MOST = 60  # comparisons that an operation may take


class Comparisons:
    """Keys that collide, and the number of comparisons until one raises. Unarmed, none does."""

    def __init__(self):
        self.left = None
        self.before = lambda: None

    def compare(self):
        self.before()
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise LookupError("not comparable")

    def key(self):
        comparisons = self

        class Key:
            def __hash__(self):
                return 7

            def __eq__(self, other):
                comparisons.compare()
                return False

        return Key()


def each_comparison_fails(comparisons, operate, check):
    """Operate with the first comparison failing, the second, and so on until all succeed; how many failed."""
    failed = 0
    for n in range(1, MOST):
        comparisons.left = n
        try:
            operate(n)
        except LookupError:
            failed += 1
        done = comparisons.left > 0
        comparisons.left = None
        check(n)
        if done:
            return failed
    raise AssertionError("there is no end to it")


def test_failing_comparison_leaves_no_flight(face):
    """Of SingleFlight, beside a run of another key: the caller has the error, the next one a run of his own."""
    flights = face.wrap(SingleFlight() if face.name == "sync" else AsyncSingleFlight())
    comparisons, slow = Comparisons(), Loader("slow")
    first, second = comparisons.key(), comparisons.key()
    slow.open.clear()
    running = start(flights.do, first, lambda: slow("first"))
    assert slow.entered.wait(SECONDS)

    def operate(n):
        assert flights.do(second, lambda: n, timeout=SECONDS) == n

    def check(n):
        assert flights.do(second, lambda: -n, timeout=SECONDS) == -n

    assert each_comparison_fails(comparisons, operate, check) >= 2
    slow.open.set()
    assert running() == "slow"
    assert len(face.bare(flights)) == 0


@pytest.mark.parametrize("n", [1, 2, 3])
def test_result_that_could_not_be_stored_is_there_for_who_waits(n):
    """The leader has the error; those who joined him have his value, and the function isn't run again."""
    flights, comparisons, slow, runs = SingleFlight(), Comparisons(), Loader("slow"), []
    first, second = comparisons.key(), comparisons.key()
    slow.open.clear()
    running = start(flights.do, first, lambda: slow("first"))
    assert slow.entered.wait(SECONDS)
    entered = threading.Event()

    def work():
        runs.append(1)
        entered.set()
        wait_until(lambda: sum(flight.followers for flight in flights._flights._flights.values()) == 2)
        comparisons.left = n
        return "value"

    leader = start(flights.do, second, work)
    assert entered.wait(SECONDS)
    followers = [start(flights.do, second, work) for _ in range(2)]
    with pytest.raises(LookupError):
        leader()
    assert [follower() for follower in followers] == ["value", "value"]
    assert runs == [1]
    slow.open.set()
    assert running() == "slow"


def test_failing_comparison_leaves_no_load_behind(make):
    """Of a cache, beside a load of another key: the caller has the error, or the value; the next one gets it."""
    cache, comparisons, slow = make(ttl=60), Comparisons(), Loader("slow")
    first, second = comparisons.key(), comparisons.key()
    slow.open.clear()
    running = start(cache.get_or_load, first, slow)
    assert slow.entered.wait(SECONDS)

    def operate(n):
        assert cache.get_or_load_many(["plain", second], lambda keys: dict.fromkeys(keys, n)) == {"plain": n, second: n}

    def check(n):
        for key in ("plain", second):
            assert cache.get_or_load(key, lambda key: "new") in (n, "new")
            cache.delete(key)

    assert each_comparison_fails(comparisons, operate, check) >= 2
    slow.open.set()
    assert running() == "slow"
    quiet(cache)


def test_failing_comparison_leaves_no_refresh_behind(make, clock, monkeypatch):
    """Beside a refresh of another key: the next call that finds the value stale has it refreshed."""
    reports = []  # of what fails when the refresh is over
    monkeypatch.setattr("sys.unraisablehook", lambda report: reports.append(report.exc_value))
    cache = make(Policy(10, stale_for=10_000, retry_after=1e-9, jitter=0))
    comparisons, slow = Comparisons(), Loader("slow")
    first, second = comparisons.key(), comparisons.key()
    for key in (first, second, "plain"):
        cache.get_or_load(key, lambda key: "old")
    clock.now += 15
    slow.open.clear()
    assert cache.get_or_load(first, slow) == "old"
    assert slow.entered.wait(SECONDS)

    def under_way():
        return [flight for table in cache._loading.flights._all() for flight in list(table.values()) if not flight.done]

    def operate(n):
        try:
            cache.get_or_load_many(["plain", second], lambda keys: dict.fromkeys(keys, n))
        finally:
            wait_until(lambda: len(under_way()) <= 1)

    def check(n):
        clock.now += 15
        for each in (second, "plain"):
            cache.get_or_load(each, lambda key: f"after {n}")
            wait_until(lambda each=each: cache.get(each) == f"after {n}")
        clock.now += 15

    try:
        assert each_comparison_fails(comparisons, operate, check) >= 2
    finally:
        slow.open.set()
    quiet(cache)
    assert all(isinstance(error, LookupError) for error in reports)


def test_eq_under_the_lock_of_the_flights_loads_for_itself():
    """Whom it would wait for may need the lock. What it loads is not stored: another load of that key is under way."""
    cache, comparisons, slow = MemoryCache(), Comparisons(), Loader("slow")
    first, second = comparisons.key(), comparisons.key()
    got = []

    def before():
        if not got and cache._loading.flights.lock._is_owned():
            got.append(None)
            got[0] = cache.get_or_load("slow", lambda key: "own")

    slow.open.clear()
    running = [start(cache.get_or_load, key, slow) for key in ("slow", first)]
    wait_until(lambda: slow.runs == 2)
    comparisons.before = before
    assert cache.get_or_load(second, lambda key: "second") == "second"
    assert got == ["own"]
    assert cache.get("slow") is None
    slow.open.set()
    assert [finish() for finish in running] == ["slow", "slow"]
    assert cache.get("slow") == "slow"
    quiet(cache)
