"""The guarantees of the two-level cache under real processes: races, stampedes, deaths and outages, in short form.

`python tests/redis/test_tiered_chaos.py SECONDS` is the long form (`make chaos`): the same, and naive cache-aside beside it,
with the figures printed.
"""

from __future__ import annotations

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

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import servers
from proxy import Proxy

from fastcache import AsyncMemoryCache, AsyncRedisCache, AsyncTieredCache, MemoryCache, RedisCache, TieredCache  # noqa: F401  (the children use them)

pytestmark = pytest.mark.slow

KEYS = 40


def database(path):
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    return connection


# Readers ask, load slowly, and at the end say what they serve. Each line of a child is one word and its numbers.
READER = """
import random, sys, time
sys.path.insert(0, sys.argv[4])
from test_tiered_chaos import *
url, path, naive = sys.argv[1], sys.argv[2], sys.argv[3] == "naive"
rows = database(path)
def load(key):
    time.sleep(random.random() * 0.002)
    value = rows.execute("SELECT v FROM t WHERE k = ?", [key]).fetchone()[0]
    time.sleep(random.random() * 0.004)
    return value
remote = RedisCache.from_url(url, "race", ttl=600, socket_timeout=5)
cache = remote if naive else TieredCache(MemoryCache(), remote)
def read(key):
    if not naive:
        return cache.get_or_load(key, load)
    value = cache.get(key)
    if value is None:
        value = load(key)
        cache.set(key, value)
    return value
import threading
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
print("ready", flush=True)
reads = 0
while not ended.is_set():
    read(f"k{random.randrange(KEYS)}")
    reads += 1
if not naive:
    cache.sync()
print(reads, *(read(f"k{n}") for n in range(KEYS)), flush=True)
"""


def spawn(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def race(server, seconds, naive=False, disturb=lambda: None, readers=3):
    """Readers against a writer that changes rows and invalidates. Returns reads, writes, and the stale values at the end."""
    with server.client() as client:
        client.flushall()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = os.path.join(directory, "rows.db")
        with closing(database(path)) as rows:
            rows.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER)")
            rows.executemany("INSERT INTO t VALUES (?, 0)", [[f"k{n}"] for n in range(KEYS)])
            kind = "naive" if naive else "tiered"
            children = [stack.enter_context(spawn(READER, server.url, path, kind)) for _ in range(readers)]
            for child in children:
                assert child.stdout.readline() == "ready\n"
            remote = RedisCache.from_url(server.url, "race", ttl=600, socket_timeout=5)
            cache = remote if naive else TieredCache(MemoryCache(), remote)
            key, writes, end = "k0", 0, time.monotonic() + seconds
            while time.monotonic() < end:
                # In bursts: the first invalidation has readers load, the next one comes while they do.
                if random.random() < 0.4:
                    key = f"k{random.randrange(KEYS)}"
                change = lambda key=key: rows.execute("UPDATE t SET v = v + 1 WHERE k = ?", [key])  # noqa: E731
                if naive:
                    change()
                    cache.delete(key)
                elif writes % 2:
                    with cache.writing(key):
                        change()
                else:
                    change()
                    cache.invalidate(key)
                writes += 1
                disturb()
                time.sleep(random.random() * 0.008)
            if not naive:
                deadline = time.monotonic() + 10
                while cache._loading.outbox and time.monotonic() < deadline:
                    time.sleep(0.05)
                cache.sync()
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
            cache.close()
            return reads, writes, stale


def killer(client):
    """What kills a random connection, at most every 50 ms."""
    last = [0.0]

    def disturb():
        if time.monotonic() - last[0] > 0.05:
            last[0] = time.monotonic()
            others = [each["id"] for each in client.client_list() if each["cmd"] != "client|list"]
            if others:
                client.client_kill_filter(_id=random.choice(others))

    return disturb


def test_no_reader_serves_an_old_value_after_a_race(own_server):
    """Slow loaders in three processes against a writer; after it all is quiet, and right, in both tiers."""
    reads, writes, stale = race(own_server, 4)
    assert reads > writes > 20
    assert stale == 0


def test_race_would_show_old_values(own_server):
    """Cache-aside as it is usually written leaves some, in the very same race."""
    assert any(race(own_server, 3, naive=True)[2] for _ in range(4))


def test_killed_connections_leave_nothing_old(own_server):
    """CLIENT KILL of a random connection every 50 ms."""
    with own_server.client() as client:
        reads, writes, stale = race(own_server, 4, disturb=killer(client))
    assert reads > writes > 20
    assert stale == 0


STAMPEDE = """
import sys, threading, time
sys.path.insert(0, sys.argv[4])
from test_tiered_chaos import *
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
import asyncio, sys, time
sys.path.insert(0, sys.argv[4])
from test_tiered_chaos import *
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


def test_stampede_of_processes_runs_the_loader_once(own_server):
    """Eight processes of 32 threads on one cold key."""
    runs, _ = stampede(own_server)
    assert runs == 1


def test_stampede_of_tasks_runs_the_loader_once(own_server):
    """Eight processes of 200 tasks. (With time enough to connect: who takes Redis for away loads without it.)"""
    runs, _ = stampede(own_server, threads=200, script=STAMPEDE_OF_TASKS)
    assert runs == 1


def test_stampede_survives_the_death_of_its_leader(own_server):
    """At most one more run, by one who waited."""
    runs, longest = stampede(own_server, kill=True)
    assert runs == 2
    assert longest < 4.5


DIES = """
import sys
sys.path.insert(0, sys.argv[4])
from test_tiered_chaos import *
url, path, point = sys.argv[1:4]
rows = database(path)
cache = TieredCache(MemoryCache(), RedisCache.from_url(url, "dies", ttl=600))
def die(here):
    if here == point:
        os.kill(os.getpid(), signal.SIGKILL)
with cache.writing("k"):
    die("held")
    rows.execute("UPDATE t SET v = v + 1")
    die("committed")
die("ended")
"""


@pytest.mark.parametrize("point", ["held", "committed", "ended"])
def test_writer_that_dies_leaves_nothing_old(own_server, point, tmp_path):
    """kill -9 at each point of `writing`, with a reader that asks all the time."""
    path = str(tmp_path / "rows.db")
    with closing(database(path)) as rows:
        rows.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER)")
        rows.execute("INSERT INTO t VALUES ('k', 0)")

        def load(key):
            with closing(database(path)) as mine:
                return mine.execute("SELECT v FROM t").fetchone()[0]

        with TieredCache(MemoryCache(), RedisCache.from_url(own_server.url, "dies", ttl=600)) as cache:
            assert cache.get_or_load("k", load) == 0
            ended = threading.Event()

            def ask():
                while not ended.is_set():
                    cache.get_or_load("k", load)

            reader = threading.Thread(target=ask)
            reader.start()
            with spawn(DIES, own_server.url, path, point) as writer:
                assert writer.wait(20) == -signal.SIGKILL
            ended.set()
            reader.join()
            cache.sync()
            assert cache.get_or_load("k", load) == load("k") == (0 if point == "held" else 1)
            with own_server.client() as client:
                assert client.get("dies:k") is None or point == "ended"


def outage(server, seconds):
    """kill -9 of Redis under load, and a restart after so long. Returns calls, and the slowest in seconds."""
    truth, calls, slowest = {"k": 0}, 0, 0.0
    with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "outage", ttl=600)) as cache:

        def step():
            nonlocal calls, slowest
            truth["k"] += 1
            begun = time.monotonic()
            cache.invalidate("k")
            assert cache.get_or_load("k", lambda key: truth[key]) == truth["k"]
            slowest = max(slowest, (time.monotonic() - begun) / 2)
            calls += 2
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


def test_outage_costs_no_error_and_leaves_nothing_old(own_server):
    """What was invalidated meanwhile is, and no call waits longer than its time."""
    calls, _ = outage(own_server, 1)
    assert calls > 100


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


def test_staleness_is_bounded_when_a_line_dies_silently(own_server):
    """Two seconds and a heartbeat."""
    assert 0 < silence(own_server) <= 2.5


def main(seconds):
    with servers.Server().start() as server, server.client() as client:
        for name, options in (
            ("TieredCache", {}),
            ("CLIENT KILL every 50 ms", {"disturb": killer(client)}),
            ("naive cache-aside", {"naive": True}),
        ):
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
        calls, slowest = outage(server, min(10.0, seconds))
        figures = f"{calls:9} calls  no errors, the slowest {slowest * 1000:.0f} ms"
        print(f"outage    {'kill -9, restart':26} {figures}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 180)
