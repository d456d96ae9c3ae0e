"""The guarantees of the two-level cache under real processes, in short form: what chaos.py's rigs must show."""

from __future__ import annotations

import signal
import threading
from contextlib import closing

import pytest
from chaos import (
    STAMPEDE_OF_TASKS,
    Naive,
    blackout,
    database,
    durable,
    killer,
    outage,
    race,
    silence,
    spawn,
    stampede,
)

from fastcache import MemoryCache, RedisCache, TieredCache

pytestmark = pytest.mark.slow


@pytest.fixture
def durable_server():
    with durable().start() as server:
        yield server


def test_no_reader_serves_an_old_value_after_a_race(own_server):
    """Slow loaders in three processes against a writer; after it all is quiet, and right, in both tiers."""
    reads, writes, stale = race(own_server, 4)
    assert reads > writes > 20
    assert stale == 0


def test_race_would_show_old_values(own_server):
    """Cache-aside as it is usually written leaves some, in the very same race."""
    assert any(race(own_server, 3, Naive)[2] for _ in range(4))


def test_killed_connections_leave_nothing_old(own_server):
    """CLIENT KILL of a random connection every 50 ms."""
    with own_server.client() as client:
        reads, writes, stale = race(own_server, 4, disturb=killer(client))
    assert reads > writes > 20
    assert stale == 0


def test_race_goes_on_while_redis_is_away(durable_server):
    """kill -9 in mid-race, and back with all its values two seconds later: no error, and nothing old in the end."""
    reads, writes, stale = race(durable_server, 6, disturb=blackout(durable_server, 2, 2))
    assert reads > writes > 20
    assert stale == 0


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


def test_outage_costs_no_error_and_leaves_nothing_old(durable_server):
    """What was invalidated meanwhile is, and no call waits longer than its time."""
    calls, _ = outage(durable_server, 1)
    assert calls > 100


def test_staleness_is_bounded_when_a_line_dies_silently(own_server):
    """Two seconds and a heartbeat."""
    assert 0 < silence(own_server) <= 2.5
