"""The janitor: when it sweeps what, its thread's life, forks, the end of the interpreter, and failing callbacks."""

import gc
import os
import sys
import threading
import weakref

import pytest
from hammering import IMMORTALS

from fastcache import MemoryCache, TTLCache
from fastcache.janitor import Janitor, janitor

PATIENCE = 20  # seconds until a test gives up on a thread


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Worker(Janitor):
    """A janitor without a thread: the test calls sweep_due()."""

    def _start(self):
        pass


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def worker(clock):
    return Worker(clock)


def wait_until(condition):
    """Spin until a condition holds; fails when it takes too long."""
    pause = threading.Event()
    for _ in range(PATIENCE * 500):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("waited in vain")


def test_caches_are_swept_each_in_its_own_interval(clock, worker):
    """And sweep_due tells how long until the next one."""
    gone = []
    often, seldom = (
        TTLCache(None, 1, clock, on_evict=lambda key, value, cause, name=name: gone.append((name, key, cause)))
        for name in ("often", "seldom")
    )
    assert worker.sweep_due() is None
    worker.take_on(often, 10)
    worker.take_on(seldom, 25)
    often["a"] = seldom["a"] = 1
    assert (worker.sweep_due(), gone) == (10, [])
    clock.now = 10
    assert (worker.sweep_due(), gone) == (10, [("often", "a", "expired")])
    often["b"] = 1
    clock.now = 25
    assert (worker.sweep_due(), gone[1:]) == (10, [("often", "b", "expired"), ("seldom", "a", "expired")])
    clock.now = 30
    assert worker.sweep_due() == 5
    assert len(gone) == 3


def test_backlog_is_swept_whole(clock, worker):
    """More than one step's worth, too, and only what has expired."""
    cache = TTLCache(None, 1, clock)
    for i in range(5000):
        cache[i] = i
    cache.set("live", 1, ttl=100)
    worker.take_on(cache, 10)
    clock.now = 10
    worker.sweep_due()
    assert cache._counters()[3] == 5000
    assert list(cache) == ["live"]


def test_dropped_cache_is_forgotten(clock, worker):
    """The janitor holds weak references, also after it has swept."""
    cache = TTLCache(None, 1, clock)
    reference = weakref.ref(cache)
    worker.take_on(cache, 10)
    clock.now = 10
    worker.sweep_due()
    del cache
    assert reference() is None
    assert worker.sweep_due() is None


def test_collection_in_the_middle_of_its_rounds_is_harmless():
    """Caches that die while it looks through its list, in its own thread, don't break the loop."""

    class Moment(float):
        """A reading of the clock that drops a cache whenever it is compared."""

        def __le__(self, other):
            drop()
            return float(self) <= float(other)

        def __lt__(self, other):
            drop()
            return float(self) < float(other)

        def __add__(self, other):
            return Moment(float(self) + float(other))

    def drop():
        if caches and armed:
            caches.pop()

    armed = False
    worker = Worker(lambda: Moment(now))
    for start in (0.0, 100.0):
        now = start
        caches = [TTLCache(None, 1) for _ in range(20)]
        for cache in caches:
            worker.take_on(cache, 10)
        del cache
        now = start + 5
        armed = True
        worker.sweep_due()
        now = start + 10
        worker.sweep_due()
        armed = False
        caches.clear()
    assert worker.sweep_due() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_failing_on_evict_is_reported_and_does_not_stop_the_sweep(clock, worker, monkeypatch):
    """Each error reaches sys.unraisablehook; all entries go, and the next round takes place."""
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: errors.append((type(args.exc_value), args.exc_value.args)))

    def on_evict(key, value, cause):
        raise OSError(key)

    cache = TTLCache(None, 1, clock, on_evict=on_evict)
    for i in range(2500):
        cache[i] = i
    worker.take_on(cache, 10)
    clock.now = 10
    assert worker.sweep_due() == 10
    assert sorted(errors) == [(OSError, (i,)) for i in range(2500)]
    cache["a"] = 1
    clock.now = 20
    worker.sweep_due()
    assert len(errors) == 2501


def test_failing_timer_is_reported_once_a_round(clock, worker, monkeypatch):
    """A cache whose clock fails can't be swept; trying again at once would be for ever."""
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: errors.append(args.exc_value.args))

    def timer():
        calls.append(1)
        if broken and len(calls) < 100:
            raise OSError("no time")
        return 0.0

    calls, broken = [], False
    cache = TTLCache(None, 1, timer)
    cache["a"] = 1
    worker.take_on(cache, 10)
    broken, calls = True, []
    clock.now = 10
    assert worker.sweep_due() == 10
    assert errors == [("no time",)]


def test_cache_given_up_in_the_midst_of_a_round_is_not_swept(clock, worker):
    """By what the sweep of another one calls."""
    second = TTLCache(None, 1, clock)
    first = TTLCache(None, 1, clock, on_evict=lambda *event: worker.give_up(second))
    for cache in (first, second):
        cache["a"] = 1
        worker.take_on(cache, 1)
    clock.now = 5
    assert worker.sweep_due() == 1
    assert [cache._counters()[3] for cache in (first, second)] == [1, 0]


def test_nobody_waits_for_a_janitor_that_has_ended(clock, worker):
    """Its thread may have been frozen with the lock held. No cache is taken on any more."""
    worker.end()
    held = worker._changed
    with held:
        cache = TTLCache(None, 1, clock)
        caller = threading.Thread(target=lambda: (worker.take_on(cache, 1), worker.give_up(cache)), daemon=True)
        caller.start()
        caller.join(PATIENCE)
        assert not caller.is_alive()
    assert worker.sweep_due() is None


# The thread

needs_idle_janitor = pytest.mark.usefixtures("idle_janitor")


@pytest.fixture
def idle_janitor():
    """Wait until the janitor of the process has nothing to do; it has no cache of other tests to look after."""
    gc.collect()
    wait_until(lambda: not janitor.running)
    yield
    gc.collect()
    wait_until(lambda: not janitor.running)


@needs_idle_janitor
def test_thread_is_not_started_when_nothing_can_expire():
    """Not at construction, not by entries without a ttl, not without an interval, not after close."""
    with MemoryCache(ttl=5, cleanup_interval=100) as unused, MemoryCache(cleanup_interval=100) as endless:
        endless.set("a", 1)
        endless.set("a", 1, ttl=float("inf"))
        none = MemoryCache(ttl=5, cleanup_interval=None)
        none.set("a", 1)
        unused.get("a")
        unused.close()
        unused.set("a", 1)
        assert not janitor.running


@needs_idle_janitor
def test_thread_sweeps_and_ends_with_the_last_cache():
    """Entries go without anybody touching the cache; one daemon thread serves all; without caches there is none."""
    swept = [threading.Event(), threading.Event()]
    causes = []

    def make(event):
        def on_evict(key, value, cause):
            causes.append((key, cause, threading.current_thread().name))
            event.set()

        return MemoryCache(ttl=0.01, cleanup_interval=0.02, on_evict=on_evict)

    caches = [make(event) for event in swept]
    for cache in caches:
        cache.set("a", 1)
    assert all(event.wait(PATIENCE) for event in swept)
    assert causes == [("a", "expired", "fastcache-janitor")] * 2
    threads = [thread for thread in threading.enumerate() if thread.name == "fastcache-janitor"]
    assert [thread.daemon for thread in threads] == [True]
    caches[0].close()
    assert janitor.running
    del cache, caches[:]
    wait_until(lambda: not janitor.running)
    assert not threads[0].is_alive() or not threads[0].join(PATIENCE)


@needs_idle_janitor
def test_thread_starts_again_for_the_next_cache():
    """After it ended for want of caches."""
    for _ in range(3):
        gone = threading.Event()
        with MemoryCache(ttl=0.01, cleanup_interval=0.01, on_evict=lambda *args, gone=gone: gone.set()) as cache:
            cache.set("a", 1)
            assert gone.wait(PATIENCE)
        wait_until(lambda: not janitor.running)


def test_thread_that_could_not_be_started_is_tried_again(monkeypatch):
    """With the next cache that is taken on; the first is then swept, too."""
    janitor, swept = Janitor(), threading.Semaphore(0)
    caches = [TTLCache(None, 0.001, on_evict=lambda *event: swept.release()) for _ in range(2)]
    for cache in caches:
        cache["a"] = 1

    def spare_none(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", spare_none)
        janitor.take_on(caches[0], 0.001)
    assert not janitor.running
    janitor.take_on(caches[1], 0.001)
    assert janitor.running
    assert all(swept.acquire(timeout=PATIENCE) for _ in caches)
    janitor.end()


@needs_idle_janitor
def test_cache_dropped_by_the_collector_ends_the_thread():
    """A cache in a cycle is collected like anything else."""
    cache = MemoryCache(ttl=60, cleanup_interval=60)
    cache.set("self", cache)
    assert janitor.running
    reference = weakref.ref(cache)
    del cache
    gc.collect()
    assert reference() is None
    wait_until(lambda: not janitor.running)


@needs_idle_janitor
def test_thread_survives_a_failing_on_evict(run_script):
    """With Python's own unraisablehook: one report on stderr for each failure, and the sweeps go on."""
    run_script(
        """
import io, sys, threading
from fastcache import MemoryCache
from fastcache.janitor import janitor
sys.stderr = io.StringIO()
gone = threading.Semaphore(0)
def on_evict(key, value, cause):
    gone.release()
    raise OSError("from on_evict")
cache = MemoryCache(ttl=0.01, cleanup_interval=0.01, on_evict=on_evict)
for i in range(3):
    cache.set(i, i)
    assert gone.acquire(timeout=20), "the janitor is dead"
assert janitor.running
cache.close()
janitor._thread and janitor._thread.join(20)
text = sys.stderr.getvalue()
assert text.count("OSError: from on_evict") == 3, text
assert "TypeError" not in text, text
"""
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_forked_child_sweeps_on(run_script):
    """The thread isn't copied by a fork; the child has one of its own for the caches it inherited."""
    run_script(
        """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from fastcache import MemoryCache
from fastcache.janitor import janitor
gone = threading.Event()
cache = MemoryCache(ttl=0.2, cleanup_interval=0.05, on_evict=lambda *args: gone.set())
cache.set("a", 1)
assert janitor.running
child = os.fork()
if child == 0:
    ok = janitor.running and gone.wait(20) and cache.stats().expirations == 1
    gone.clear()
    cache.set("b", 1)
    os._exit(0 if ok and gone.wait(20) else 3)
_, status = os.waitpid(child, 0)
assert gone.wait(20)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    )


EXITS = {
    "caches alive": "",
    "failing on_evict": "def fail(*args): raise OSError\ncaches.append(MemoryCache(ttl=0.001, on_evict=fail))\n"
    "caches[-1].set(1, 1)",
    "cache in a cycle": "caches[0].set('self', caches)",
    "used at exit": "import atexit\natexit.register(lambda: [MemoryCache(ttl=1).set(i, i) for i in range(3)])",
    "used by a finalizer at the end": "class F:\n    def __del__(self, C=MemoryCache): C(ttl=1).set(1, 1)\nkeep = F()",
    "finalizer among the values": "class F:\n    def __del__(self): caches[0].set('late', 1, ttl=3)\n"
    "caches[0].set('f', F())",
    "sweeping at the moment": "for cache in caches:\n    for i in range(50_000): cache.set(i, i, ttl=0.01)",
    "exit in a thread's life": "import sys\nsys.exit(0)",
}


@pytest.mark.parametrize("case", EXITS)
def test_interpreter_exits_without_noise(case):
    """Exit code 0 and an empty stderr, however the caches are left."""
    import subprocess

    if IMMORTALS and "finalizer" in case:
        pytest.skip("free-threaded 3.13 clears the modules before it runs the last finalizers")
    script = (
        "from fastcache import MemoryCache\n"
        "caches = [MemoryCache(ttl=5, cleanup_interval=0.001), MemoryCache(ttl=0.001, cleanup_interval=0.001)]\n"
        "for cache in caches: cache.set('a', 1)\n" + EXITS[case] + "\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    stderr = process.stderr if case != "failing on_evict" else ""  # its report may or may not come in time
    assert (process.returncode, stderr) == (0, "")
