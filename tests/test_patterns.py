"""The patterns in memory, on both faces: what they promise about readers after a write, and how they are called."""

import asyncio
import threading

import pytest
from faces import threaded

from fastcache import (
    MISSING,
    AsyncCacheAside,
    AsyncMemoryCache,
    AsyncSingleFlightCache,
    AsyncWriteThroughCache,
    CacheAside,
    ConfigurationError,
    MemoryCache,
    Policy,
    SingleFlightCache,
    WriteThroughCache,
)
from fastcache.keys import key_maker

SECONDS = 20


class Database:
    """A table, and how often it was read."""

    def __init__(self, **rows):
        self.rows, self.reads, self.writes = dict(rows), 0, []
        self.error = None

    def load(self, key):
        self.reads += 1
        return self.rows.get(key, MISSING)

    def save(self, key, value):
        self.rows[key] = value
        self.writes.append((key, value))
        if self.error is not None:
            raise self.error


@pytest.fixture
def database():
    return Database(a="1", b="2")


@pytest.fixture
def make(face):
    """Makes a pattern of the face on a cache of the face."""
    twins = {
        CacheAside: AsyncCacheAside,
        WriteThroughCache: AsyncWriteThroughCache,
        SingleFlightCache: AsyncSingleFlightCache,
    }

    def make(kind, *functions, cache=None, **options):
        cache = cache or (MemoryCache(ttl=60) if face.name == "sync" else AsyncMemoryCache(ttl=60))
        if face.name == "asyncio":
            kind = twins[kind]
            functions = [threaded(function, always=True) for function in functions]
        return face.wrap(kind(cache, *functions, **options))

    return make


def test_cache_aside(make, database):
    """get = cache, else loader, then store; update = saver, then invalidate."""
    users = make(CacheAside, database.load, database.save)
    assert [users.get("a"), users.get("a"), database.reads] == ["1", "1", 1]
    users.update("a", "new")
    assert database.writes == [("a", "new")]
    assert "a" not in users.cache
    assert users.get("a") == "new"
    database.rows["a"] = "newer"
    users.invalidate("a")
    assert users.get("a") == "newer"
    assert users.get("x", "default") == "default"
    assert users.get("x") is None


def test_cache_aside_needs_a_saver_for_update(make, database):
    """Said clearly, and nothing done."""
    with pytest.raises(ConfigurationError, match="saver"):
        make(CacheAside, database.load).update("a", "x")


@pytest.mark.parametrize("kind", [CacheAside, WriteThroughCache])
def test_saver_that_raises_leaves_no_old_value(make, database, kind):
    """Its error is raised; what it did before isn't known, so the next get asks the database."""
    users = make(kind, database.load, database.save)
    users.get("a")
    database.error = LookupError("after the commit")
    with pytest.raises(LookupError):
        users.update("a", "new") if kind is CacheAside else users.set("a", "new")
    assert users.get("a") == "new"


def test_write_through(make, database):
    """Saver, then cache: the next get is a hit."""
    users = make(WriteThroughCache, database.load, database.save)
    users.set("a", "new")
    assert database.writes == [("a", "new")]
    assert users.get("a") == "new"
    assert database.reads == 0


@pytest.mark.parametrize("kind", [CacheAside, WriteThroughCache])
def test_load_that_began_before_a_write_is_not_stored(make, database, kind):
    """Its callers get what it read; every later reader the new value."""
    entered, go, values = threading.Event(), threading.Event(), []

    def load(key):
        value = database.load(key)
        if not entered.is_set():
            entered.set()
            assert go.wait(SECONDS)
        return value

    users = make(kind, load, database.save)
    reader = threading.Thread(target=lambda: values.append(users.get("a")))
    reader.start()
    assert entered.wait(SECONDS)
    users.update("a", "new") if kind is CacheAside else users.set("a", "new")
    assert users.get("a") == "new"
    go.set()
    reader.join(SECONDS)
    assert values == ["1"]
    assert users.get("a") == "new"


def test_sets_of_one_key_run_one_after_the_other(make, database):
    """Those of other keys don't wait; afterwards the cache has what the database has."""
    inside, most, lock = [0], [0], threading.Lock()
    other_done = threading.Event()

    def save(key, value):
        if key == "other":
            other_done.set()
            return
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        assert other_done.wait(SECONDS)
        database.save(key, value)
        with lock:
            inside[0] -= 1

    users = make(WriteThroughCache, database.load, save)
    writers = [threading.Thread(target=users.set, args=("a", str(number))) for number in range(20)]
    for writer in writers:
        writer.start()
    users.set("other", "x")
    for writer in writers:
        writer.join(SECONDS)
    assert most == [1]
    assert len(database.writes) == 20
    assert users.get("a") == database.rows["a"]
    assert len(users._loading.writes) == 0


def test_saver_may_set_its_own_key():
    """To wait for itself would be for ever."""
    written = []

    def save(key, value):
        written.append(value)
        if value < 3:
            users.set(key, value + 1)

    users = WriteThroughCache(MemoryCache(), len, save)
    users.set("a", 1)
    assert written == [1, 2, 3]


def test_single_flight_cache(make):
    """A thousand callers of a cold key: the loader runs once."""
    entered, go, runs = threading.Event(), threading.Event(), []

    def load(key):
        runs.append(key)
        entered.set()
        assert go.wait(SECONDS)
        return key * 2

    users = make(SingleFlightCache, load)
    results = []
    threads = [threading.Thread(target=lambda: results.append(users.get("a"))) for _ in range(1000)]
    for thread in threads:
        thread.start()
    assert entered.wait(SECONDS)
    pause = threading.Event()
    while users.cache.stats().misses < 1000:
        pause.wait(0.001)
    go.set()
    for thread in threads:
        thread.join(SECONDS)
    assert results == ["aa"] * 1000
    assert runs == ["a"]
    assert len(users._loading.flights) == 0


def test_single_flight_cache_refuses_a_policy_without(make, database):
    """The name is a promise."""
    with pytest.raises(ConfigurationError, match="single_flight"):
        make(SingleFlightCache, database.load, policy=Policy(60, single_flight=False))


@pytest.mark.parametrize("key", ["user:{}", "user:{0}", "user:{:>1}", lambda key: f"user:{key}"])
def test_key_template_or_function(make, database, key):
    """The cache sees the made key, loader and saver the caller's."""
    users = make(CacheAside, database.load, database.save, key=key)
    assert users.get("a") == "1"
    assert list(users.cache) == ["user:a"]
    users.update("a", "new")
    assert database.writes == [("a", "new")]
    assert users.get("a") == "new"


@pytest.mark.parametrize("template", ["user", "{}{}", "{", "{name}", "{0[x]}", "{0.x}", "{1}", ""])
def test_template_has_one_place(template):
    """Two ids in one key, or none, is a mistake found at once."""
    with pytest.raises(ConfigurationError, match="template"):
        key_maker(template)


def test_wrong_arguments_are_said_at_construction():
    """Of which cache, which function."""
    with pytest.raises(TypeError, match="needs a cache of this package"):
        CacheAside({}, len)
    with pytest.raises(TypeError, match="use AsyncCacheAside"):
        CacheAside(AsyncMemoryCache(), len)
    with pytest.raises(TypeError, match="use CacheAside"):
        AsyncCacheAside(MemoryCache(), len)
    with pytest.raises(TypeError, match="loader must be a function"):
        CacheAside(MemoryCache(), 5)
    for kind in (CacheAside, SingleFlightCache):
        with pytest.raises(TypeError, match="loader must be a function, not None"):
            kind(MemoryCache(), None)
    with pytest.raises(TypeError, match="loader must be a function, not None"):
        AsyncWriteThroughCache(AsyncMemoryCache(), None, print)
    for kind, cache in ((WriteThroughCache, MemoryCache()), (AsyncWriteThroughCache, AsyncMemoryCache())):
        with pytest.raises(TypeError, match=rf"{kind.__name__} needs a saver; without one there is (Async)?CacheAside"):
            kind(cache, len, None)
    with pytest.raises(TypeError, match="key must be"):
        CacheAside(MemoryCache(), len, key=5)
    with pytest.raises(ConfigurationError, match="ttl"):
        CacheAside(MemoryCache(), len, ttl=-1)


def test_ttl_and_policy_of_a_pattern(make, database):
    """ttl wins over the policy's, both over the cache's."""
    users = make(CacheAside, database.load, ttl=5, policy=Policy(50, jitter=0))
    users.get("a")
    cache = users.cache
    inner = getattr(cache, "_cache", cache)
    assert 4 < inner.remaining("a") <= 5


def test_cancelled_write_runs_to_its_end():
    """A caller who leaves between saver and cache leaves no old value behind."""

    async def main():
        rows, entered, go = {"a": 1}, asyncio.Event(), asyncio.Event()

        async def load(key):
            return rows[key]

        async def save(key, value):
            rows[key] = value
            entered.set()
            await go.wait()

        cache = AsyncMemoryCache(ttl=60)
        users = AsyncWriteThroughCache(cache, load, save)
        assert await users.get("a") == 1
        task = asyncio.create_task(users.set("a", 2))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        assert await cache.drain(SECONDS)
        assert await users.get("a") == 2
        await cache.close()

    asyncio.run(main())


def test_error_of_a_saver_whose_caller_has_left_is_reported(monkeypatch):
    """There is nobody to raise it to; the old value is gone."""
    reports = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: reports.append(report.exc_value))

    async def main():
        entered, go = asyncio.Event(), asyncio.Event()

        async def load(key):
            return "loaded"

        async def save(key, value):
            entered.set()
            await go.wait()
            raise LookupError("not saved")

        cache = AsyncMemoryCache(ttl=60)
        users = AsyncWriteThroughCache(cache, load, save)
        await cache.set("a", "old")
        task = asyncio.create_task(users.set("a", "new"))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await cache.drain(0) is False, "the saver is still at work"
        go.set()
        assert await cache.drain(SECONDS)
        assert await users.get("a") == "loaded"
        await cache.close()

    asyncio.run(main())
    assert [(type(error), error.args) for error in reports] == [(LookupError, ("not saved",))]


def test_pattern_says_what_it_is():
    """And on which cache."""
    assert repr(CacheAside(MemoryCache(5), len)) == "<CacheAside on <MemoryCache of 0 entries, maxsize=5, ttl=inf>>"


def test_two_patterns_on_one_cache_share_its_flights(database):
    """A write through one is seen by a reader of the other."""
    cache = MemoryCache(ttl=60)
    aside = CacheAside(cache, database.load)
    through = WriteThroughCache(cache, database.load, database.save)
    assert aside.get("a") == "1"
    through.set("a", "new")
    assert aside.get("a") == "new"


def test_missing_is_no_value_to_write():
    """MISSING is what a loader returns; storing it, or writing it through, is refused before anything is done."""
    saved = []
    cache = MemoryCache(ttl=60)
    pattern = WriteThroughCache(cache, lambda key: MISSING, lambda key, value: saved.append(value))
    for store in (lambda: cache.set("a", MISSING), lambda: pattern.set("a", MISSING)):
        with pytest.raises(TypeError, match="MISSING"):
            store()
    assert not saved
    assert not cache.exists("a")
