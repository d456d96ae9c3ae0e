"""Rigs that put the two-level cache, and what is often used instead, under real processes, deaths and outages.

    python tests/redis/chaos.py SECONDS

prints what each of them shows (`make chaos`); test_tiered_chaos.py runs them in short form. Nothing here judges.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import servers
from proxy import Proxy

from fastcache import AsyncMemoryCache, AsyncRedisCache, AsyncTieredCache, MemoryCache, RedisCache, TieredCache  # noqa: F401  (the children use them)

KEYS = 40
AWAY = 10.0  # seconds that an outage lasts


def database(path):
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def spawn(script, *arguments):
    """A child that runs a script, with what this file defines."""
    prelude = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom chaos import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# -- who takes part in a race ------------------------------------------------------------------------------------------


class Tiered:
    """A TieredCache, written to as its documentation says."""

    def __init__(self, url):
        self.cache = TieredCache(MemoryCache(), RedisCache.from_url(url, "race", ttl=600, socket_timeout=5))
        self.writes = 0

    def read(self, key, load):
        return self.cache.get_or_load(key, load)

    def write(self, key, change):
        self.writes += 1
        if self.writes % 2:
            change()
            self.cache.invalidate(key)
        else:
            with self.cache.writing(key):
                change()

    def settle(self):
        """Wait until all that was written is known here, as a caller can who needs it."""
        deadline = time.monotonic() + 15
        while self.cache._loading.outbox and time.monotonic() < deadline:
            time.sleep(0.05)
        self.cache.sync()

    def close(self):
        self.cache.close()


class Naive:
    """Cache-aside over Redis alone, as it is usually written."""

    def __init__(self, url):
        self.cache = RedisCache.from_url(url, "race", ttl=600, socket_timeout=5)

    def read(self, key, load):
        value = self.cache.get(key)
        if value is None:
            value = load(key)
            self.cache.set(key, value)
        return value

    def write(self, key, change):
        change()
        self.cache.delete(key)

    def settle(self):
        time.sleep(1)

    def close(self):
        self.cache.close()


class Cashews:
    """The decorator of cashews over its client-side caching; invalidated by deleting the key."""

    def __init__(self, url):
        from cashews import Cache

        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.cache = Cache()
        # By RESP3, which redis-py 8 speaks where it isn't told otherwise, cashews 7.6 hears of no invalidation.
        self.cache.setup(f"{url}?protocol=2", client_side=True)
        self._run(self.cache.init())
        self.load = None

        @self.cache(ttl="10m", key="race:{key}")
        async def read(key):
            return await asyncio.to_thread(self.load, key)

        self._read = read

    def _run(self, call):
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(30)

    def read(self, key, load):
        self.load = load
        return self._run(self._read(key))

    def write(self, key, change):
        change()
        self._run(self.cache.delete(f"race:{key}"))

    def settle(self):
        time.sleep(1)

    def close(self):
        self._run(self.cache.close())


# -- the race ----------------------------------------------------------------------------------------------------------

# Readers ask, load slowly, and at the end say what they serve. Each line of a child is one word and its numbers.
READER = """
url, path, side = sys.argv[1], sys.argv[2], globals()[sys.argv[3]](sys.argv[1])
local = threading.local()
def load(key):
    if not hasattr(local, "rows"):
        local.rows = database(path)
    time.sleep(random.random() * 0.002)
    value = local.rows.execute("SELECT v FROM t WHERE k = ?", [key]).fetchone()[0]
    time.sleep(random.random() * 0.004)
    return value
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
print("ready", flush=True)
reads = 0
while not ended.is_set():
    side.read(f"k{random.randrange(KEYS)}", load)
    reads += 1
side.settle()
print(reads, *(side.read(f"k{n}", load) for n in range(KEYS)), flush=True)
"""


def race(server, seconds, kind=Tiered, disturb=lambda elapsed: None, readers=3):
    """Readers against a writer that changes rows and invalidates. Returns reads, writes, and the stale values at the end.

    `disturb` is called between the writes, with the seconds that the race has been on.
    """
    with server.client() as client:
        client.flushall()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = os.path.join(directory, "rows.db")
        with closing(database(path)) as rows:
            rows.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER)")
            rows.executemany("INSERT INTO t VALUES (?, 0)", [[f"k{n}"] for n in range(KEYS)])
            children = [stack.enter_context(spawn(READER, server.url, path, kind.__name__)) for _ in range(readers)]
            for child in children:
                assert child.stdout.readline() == "ready\n"
            writer = kind(server.url)
            key, writes, begun = "k0", 0, time.monotonic()
            while time.monotonic() - begun < seconds:
                # In bursts: the first invalidation has readers load, the next one comes while they do.
                if random.random() < 0.4:
                    key = f"k{random.randrange(KEYS)}"
                writer.write(key, lambda key=key: rows.execute("UPDATE t SET v = v + 1 WHERE k = ?", [key]))
                writes += 1
                disturb(time.monotonic() - begun)
                time.sleep(random.random() * 0.008)
            writer.settle()
            right = [rows.execute("SELECT v FROM t WHERE k = ?", [f"k{n}"]).fetchone()[0] for n in range(KEYS)]
            reads = stale = 0
            for child in children:
                child.stdin.write("end\n")
                child.stdin.flush()
            for child in children:
                count, *served = map(int, child.stdout.readline().split())
                reads += count
                stale += sum(mine != truth for mine, truth in zip(served, right, strict=True))
                assert child.wait(20) == 0
            writer.close()
            return reads, writes, stale


def killer(client):
    """What kills a random connection, at most every 50 ms."""
    last = 0.0

    def disturb(elapsed):
        nonlocal last
        if elapsed - last > 0.05:
            last = elapsed
            others = [each["id"] for each in client.client_list() if each["cmd"] != "client|list"]
            if others:
                client.client_kill_filter(_id=random.choice(others))

    return disturb


def blackout(server, at, seconds):
    """What kills the server with SIGKILL after `at` seconds, and starts it again so much later."""
    due = [(at, server.kill), (at + seconds, server.start)]

    def disturb(elapsed):
        while due and elapsed >= due[0][0]:
            due.pop(0)[1]()

    return disturb


# -- stampedes ---------------------------------------------------------------------------------------------------------

STAMPEDE = """
url, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
remote = RedisCache.from_url(url, "stampede", ttl=600, socket_timeout=10, socket_connect_timeout=10)
cache = TieredCache(MemoryCache(), remote)
cache.get("warm")
def load(key):
    with open(path, "a") as runs:
        runs.write(f"{os.getpid()}\\n")
    time.sleep(0.5)
    return 42
print("ready", flush=True)
sys.stdin.readline()
begun, values = time.monotonic(), []
workers = [threading.Thread(target=lambda: values.append(cache.get_or_load("k", load))) for _ in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(sum(values), time.monotonic() - begun, flush=True)
"""

STAMPEDE_OF_TASKS = """
url, path, tasks = sys.argv[1], sys.argv[2], int(sys.argv[3])
async def load(key):
    with open(path, "a") as runs:
        runs.write(f"{os.getpid()}\\n")
    await asyncio.sleep(0.5)
    return 42
async def main():
    remote = AsyncRedisCache.from_url(url, "stampede", ttl=600, socket_timeout=10, socket_connect_timeout=10)
    async with AsyncTieredCache(AsyncMemoryCache(), remote) as cache:
        await cache.get("warm")
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begun = time.monotonic()
        values = await asyncio.gather(*(cache.get_or_load("k", load) for _ in range(tasks)))
        print(sum(values), time.monotonic() - begun, flush=True)
asyncio.run(main())
"""


def stampede(server, processes=8, threads=32, kill=False, script=STAMPEDE):
    """Returns how often the loader ran, and the longest that a process waited. `kill`: the leader, in mid-load."""
    with server.client() as client:
        client.flushall()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = os.path.join(directory, "runs")
        Path(path).touch()
        children = [stack.enter_context(spawn(script, server.url, path, threads)) for _ in range(processes)]
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        if kill:
            while not Path(path).read_text().endswith("\n"):
                time.sleep(0.01)
            leader = int(Path(path).read_text().split()[0])
            os.kill(leader, signal.SIGKILL)
            children = [child for child in children if child.pid != leader or child.wait() is None]
        longest = 0.0
        for child in children:
            total, seconds = child.stdout.readline().split()
            assert int(total) == 42 * threads
            longest = max(longest, float(seconds))
            assert child.wait(20) == 0
        return len(Path(path).read_text().split()), longest


# -- a server that is away, a line that is dead ------------------------------------------------------------------------


def outage(server, seconds):
    """kill -9 of Redis under load, and a restart after so long. Returns calls, and the slowest in seconds."""
    truth, calls, slowest = {"k": 0}, 0, 0.0
    with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "outage", ttl=600)) as cache:

        def step():
            nonlocal calls, slowest
            truth["k"] += 1
            for call, expected in (
                (lambda: cache.invalidate("k"), None),
                (lambda: cache.get_or_load("k", lambda key: truth[key]), truth["k"]),
            ):
                begun = time.monotonic()
                assert call() == expected
                slowest = max(slowest, time.monotonic() - begun)
                calls += 1
            time.sleep(0.005)

        for _ in range(50):
            step()
        server.kill()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            step()
        server.start()
        deadline = time.monotonic() + 10
        while cache._loading.outbox or not cache._front.gate.is_open():
            assert time.monotonic() < deadline
            step()
        last = truth["k"]
        with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "outage", ttl=600)) as other:
            assert other.get("k") in (None, last)
        cache.set("k", -1)
        assert cache.get("k") == -1
    return calls, slowest


def silence(server):
    """The worst age in seconds of a copy that is served after the connection of who listens has died without a word."""
    with (
        Proxy(server.port) as proxy,
        TieredCache(MemoryCache(), RedisCache.from_url(proxy.url, "silence", ttl=600)) as cache,
        TieredCache(MemoryCache(), RedisCache.from_url(server.url, "silence", ttl=600)) as writer,
    ):
        writer.set("k", "old")
        while cache.get("k") != "old" or not cache._front.gate.is_open() or cache.stats().l1_hits == 0:
            time.sleep(0.01)
        proxy.mode = "silent"
        begun = time.monotonic()
        writer.set("k", "new")
        last = begun
        while time.monotonic() - begun < 3.5:
            if cache.get("k") == "old":
                last = time.monotonic()
        return last - begun


def durable():
    """A server that remembers what it was told before it was killed."""
    return servers.Server(appendonly="yes", appendfsync="everysec")


def main(seconds):
    with durable().start() as server, server.client() as client:
        away = min(AWAY, seconds / 3)
        for name, options in (
            ("TieredCache", {}),
            ("naive cache-aside", {"kind": Naive}),
            ("cashews, client_side", {"kind": Cashews}),
            ("CLIENT KILL every 50 ms", {"disturb": killer(client)}),
            (f"kill -9, back {away:g} s later", {"disturb": blackout(server, seconds / 3, away)}),
        ):
            if options.get("kind") is Cashews:
                try:
                    import cashews  # noqa: F401
                except ImportError:
                    print("(without cashews: not installed)")
                    continue
            reads, writes, stale = race(server, seconds, **options)
            print(f"race      {name:26} {reads:9} reads {writes:7} changes {stale:4} stale in the end", flush=True)
        for name, options in (
            ("8 processes x 32 threads", {}),
            ("8 processes x 200 tasks", {"threads": 200, "script": STAMPEDE_OF_TASKS}),
            ("leader killed", {"kill": True}),
        ):
            runs, longest = stampede(server, **options)
            print(f"stampede  {name:26} {runs:9} runs  longest wait {longest:.2f} s", flush=True)
        print(f"silence   {'a half-open line':26} {silence(server):9.2f} s  the oldest copy served", flush=True)
        calls, slowest = outage(server, away)
        figures = f"{calls:9} calls  no errors, the slowest {slowest * 1000:.0f} ms"
        print(f"outage    {'kill -9, restart':26} {figures}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 180)
