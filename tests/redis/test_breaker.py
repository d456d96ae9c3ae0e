"""The breaker by itself, with a clock that the test moves, and short-lived caches and event loops that share one."""

from __future__ import annotations

import asyncio
import threading
from weakref import WeakMethod

import pytest
import redis
import redis.asyncio
import redis.exceptions as rexc
import servers

from fastcache.breaker import FAILURES_TO_OPEN, PROBE_INTERVAL, Breaker, _Probe
from fastcache.errors import BackendError
from fastcache.plan import run
from fastcache.redis import AsyncRedisCache, RedisCache
from fastcache.targets import identify


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def opened(clock):
    breaker = Breaker("server", clock)
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(rexc.ConnectionError("away"))
    return breaker


def elsewhere(function):
    """What the function returns in another thread."""
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(function()))
    thread.start()
    thread.join()
    return outcome[0]


def fail(cache, times=FAILURES_TO_OPEN + 1):
    for _ in range(times):
        with pytest.raises(BackendError):
            cache.get("a")


async def afail(cache):
    for _ in range(FAILURES_TO_OPEN + 1):
        with pytest.raises(BackendError):
            await cache.get("a")


def test_one_caller_is_the_trial_when_no_ping_has_ended_for_two_intervals():
    """Others are refused meanwhile; the trial's own further steps are not."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 2 * PROBE_INTERVAL - 0.01
    assert breaker.is_open
    clock.now += 0.02
    assert not breaker.is_open
    assert not breaker.is_open
    assert breaker.state == "half-open"
    assert elsewhere(lambda: breaker.is_open)


def test_the_success_of_the_trial_closes_the_breaker():
    """Only its own: another caller's reply may be from before."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 2 * PROBE_INTERVAL
    assert not breaker.is_open
    elsewhere(breaker.answered)
    assert breaker.state == "half-open"
    breaker.answered()
    assert (breaker.state, breaker.failures) == ("closed", 0)
    assert not elsewhere(lambda: breaker.is_open)


def test_the_failure_of_the_trial_opens_the_breaker_again():
    """And the next trial is two intervals away."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 2 * PROBE_INTERVAL
    assert not breaker.is_open
    clock.now += 0.5
    breaker.failed(rexc.TimeoutError("silent"))
    assert breaker.state == "open"
    clock.now += 2 * PROBE_INTERVAL - 0.01
    assert breaker.is_open
    clock.now += 0.02
    assert not elsewhere(lambda: breaker.is_open)


def test_a_trial_that_is_never_heard_of_again_is_followed_by_another():
    """A cancelled caller, say."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 2 * PROBE_INTERVAL
    assert not elsewhere(lambda: breaker.is_open)
    assert breaker.is_open
    clock.now += 2 * PROBE_INTERVAL
    assert not breaker.is_open


def test_of_many_tasks_one_is_the_trial():
    """They share a thread."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 2 * PROBE_INTERVAL

    async def ask():
        await asyncio.sleep(0)
        return breaker.is_open

    async def main():
        return await asyncio.gather(*(ask() for _ in range(10)))

    assert sorted(asyncio.run(main())) == [False] + [True] * 9


def test_a_slow_ping_that_is_out_lets_nobody_through():
    """While a probe lives, calls fail at once, however long the client's own timeouts are."""
    clock = Clock()
    breaker = opened(clock)
    pinged, pong = threading.Event(), threading.Event()

    class Link:
        def ping(self):
            pinged.set()
            assert pong.wait(10)

    link = Link()
    clock.now += PROBE_INTERVAL
    breaker.keep_probing(link.ping, False)
    assert pinged.wait(10)
    clock.now += 100
    assert breaker.is_open
    thread = breaker._probe._thread
    pong.set()
    thread.join(10)
    assert breaker.state == "closed"


def test_a_new_probe_does_not_begin_its_second_anew():
    """The time of the next PING is the server's, not the probe's."""
    clock = Clock()
    breaker = opened(clock)
    pinged = threading.Event()

    class Link:
        def ping(self):
            pinged.set()

    first, second = Link(), Link()
    breaker.keep_probing(first.ping, False)
    breaker.stop_probing(first).join()
    assert not pinged.is_set()
    clock.now += PROBE_INTERVAL
    breaker.keep_probing(second.ping, False)
    assert pinged.wait(0.5)


def late(cache, seconds=2 * PROBE_INTERVAL):
    """Let the cache's breaker believe that so much time has passed."""
    breaker = cache._link.breaker
    breaker._heard -= seconds
    breaker._next -= seconds


def test_an_event_loop_for_each_job_finds_out_that_the_server_is_back(own_server):
    """No probe lives long enough for a PONG, as it ends with its loop."""
    cache = AsyncRedisCache.from_url(own_server.url, ttl=60)
    own_server.kill()
    asyncio.run(afail(cache))
    own_server.start()
    with pytest.raises(BackendError, match="not tried"):
        asyncio.run(cache.set("a", 1))
    late(cache)
    asyncio.run(cache.set("a", 1))
    assert cache.stats().breaker == "closed"
    asyncio.run(cache.close())


def test_a_cache_for_each_job_finds_out_that_the_server_is_back(own_server):
    """Closing a cache ends its probe."""
    idle = RedisCache.from_url(own_server.url, ttl=60)
    own_server.kill()
    with RedisCache.from_url(own_server.url, ttl=60) as cache:
        fail(cache)
    own_server.start()
    late(idle)
    with RedisCache.from_url(own_server.url, ttl=60) as cache:
        cache.set("a", 1)
        assert cache.stats().breaker == "closed"
    idle.close()


def test_a_trial_on_a_server_that_is_away_costs_one_caller_its_wait(face):
    """The next ones are refused at once again."""
    cache = face.from_url(f"redis://127.0.0.1:{servers.free_port()}", ttl=60)
    fail(cache)
    link = (cache.cache if face.name == "asyncio" else cache)._link
    link.breaker._heard -= 2 * PROBE_INTERVAL
    with pytest.raises(BackendError) as caught:
        cache.get("a")
    assert "not tried" not in str(caught.value)
    with pytest.raises(BackendError, match="not tried"):
        cache.get("a")


def test_without_a_thread_a_caller_gets_a_backend_error(monkeypatch):
    """The next caller tries again to start the probe, and the trial needs none."""
    cache = RedisCache.from_url(f"redis://127.0.0.1:{servers.free_port()}", ttl=60)

    def start(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        fail(cache, FAILURES_TO_OPEN + 2)
    assert cache._link.breaker._probe is None
    fail(cache, 1)
    assert cache._link.breaker._probe.alive()
    cache.close()


def test_tls_and_its_certificates_are_part_of_the_servers_identity():
    """A cache that speaks TLS to a plain port, or trusts the wrong CA, doesn't shut out the others."""
    address = "127.0.0.1:7000"
    tls = f"rediss://{address}"
    urls = [f"redis://{address}", tls, f"{tls}?ssl_ca_certs=/a", f"{tls}?ssl_ca_certs=/b"]
    pairs = [(identify(redis.from_url(url))[0], identify(redis.asyncio.from_url(url))[0]) for url in urls]
    assert all(sync == asynchronous for sync, asynchronous in pairs)
    assert len({sync for sync, _ in pairs}) == len(urls)
    secret = identify(redis.from_url(urls[1], ssl_password="secret"))
    assert "secret" not in repr(secret)


def test_a_cache_that_speaks_tls_to_a_plain_port_shuts_out_nobody_else(server):
    """They have a breaker each."""
    good = RedisCache.from_url(server.url, ttl=60)
    bad = RedisCache.from_url(server.url.replace("redis:", "rediss:"), ttl=60)
    fail(bad)
    good.set("a", 1)
    assert (good.stats().breaker, bad.stats().breaker) == ("closed", "open")
    good.close()
    bad.close()


class Counted:
    """A link whose PING fails, or doesn't."""

    def __init__(self, error=None):
        self.error = error
        self.pings = 0

    def ping(self):
        self.pings += 1
        if self.error is not None:
            raise self.error


def test_the_next_ping_is_that_of_the_caller_refused_last():
    """But not the one that has just failed: a client that can't reach its server doesn't keep out one that can."""
    clock = Clock()
    breaker = opened(clock)
    bad, good = Counted(rexc.ConnectionError("certificate verify failed")), Counted()
    slept, go = threading.Semaphore(0), threading.Semaphore(0)

    def sleep(_):
        slept.release()
        assert go.acquire(timeout=10)

    probe = object.__new__(_Probe)
    probe.__dict__.update(_breaker=breaker, _stopped=threading.Event(), _task=None, _failed=None)
    probe.use(bad.ping)
    probe._thread = threading.Thread(target=lambda: run(probe._plan(sleep)))
    breaker._probe = probe
    probe._thread.start()
    assert slept.acquire(timeout=10)
    clock.now += PROBE_INTERVAL
    go.release()
    assert slept.acquire(timeout=10)
    assert (bad.pings, good.pings) == (1, 0)
    breaker.keep_probing(good.ping, False)
    breaker.keep_probing(bad.ping, False)
    clock.now += PROBE_INTERVAL
    go.release()
    probe._thread.join(10)
    assert (bad.pings, good.pings, breaker.state) == (1, 1, "closed")


def test_a_probe_that_failed_gives_way_to_a_caller_of_the_other_face():
    """A thread can't await that one's PING."""
    clock = Clock()
    breaker = opened(clock)
    bad, pinged = Counted(rexc.ConnectionError("certificate verify failed")), []

    class Good:
        async def ping(self):
            pinged.append(1)

    good = Good()

    async def main():
        breaker.keep_probing(bad.ping, False)
        thread = breaker._probe
        breaker.keep_probing(good.ping, True)
        assert breaker._probe is thread, "its turn came first"
        thread._failed = WeakMethod(bad.ping)
        breaker.keep_probing(good.ping, True)
        await asyncio.to_thread(thread.join)
        assert not thread.alive()
        task = breaker._probe
        clock.now += PROBE_INTERVAL
        task.stop()
        breaker._probe = None
        breaker.keep_probing(good.ping, True)
        await asyncio.wait_for(asyncio.shield(breaker._probe._task), 10)

    asyncio.run(main())
    assert (pinged, breaker.state) == ([1], "closed")


def test_of_two_callers_at_once_one_is_the_trial():
    """Who looked at the time before the other one was let through is refused."""
    clock = Clock()
    breaker = opened(clock)
    lock, let_in = breaker._lock, []

    class Slow:
        def __enter__(self):
            breaker._lock = lock
            let_in.append(not elsewhere(lambda: breaker.is_open))
            lock.acquire()

        def __exit__(self, *error):
            lock.release()

    clock.now += 2 * PROBE_INTERVAL
    breaker._lock = Slow()
    assert breaker.is_open
    assert let_in == [True]


def test_nobody_probes_a_server_that_has_answered_meanwhile():
    """The caller was turned away just before."""
    breaker, link = Breaker("server"), Counted()
    breaker.keep_probing(link.ping, False)
    assert breaker._probe is None
    assert link.pings == 0


def test_a_ping_that_fails_after_a_call_came_through_opens_nothing():
    """It was out when the trial closed the breaker, and says what was before. The probe has ended."""
    clock = Clock()
    breaker = opened(clock)

    threads, pinged = [], threading.Event()

    class Link(Counted):
        def ping(self):
            threads.append(threading.current_thread())
            breaker.close()
            pinged.set()
            super().ping()

    link = Link(rexc.ConnectionError("away"))
    clock.now += PROBE_INTERVAL
    breaker.keep_probing(link.ping, False)
    assert pinged.wait(10)
    threads[0].join(10)
    assert not threads[0].is_alive()
    assert (breaker.state, breaker.failures, link.pings) == ("closed", 0, 1)


def test_a_loop_that_takes_no_task_leaves_the_probe_to_the_next_caller():
    """One that is being shut down, or has a task factory of its own; nothing is left unawaited."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += PROBE_INTERVAL
    pinged = []

    class Link:
        async def ping(self):
            pinged.append(1)

    def refuse(loop, coroutine, **options):
        raise RuntimeError("no more tasks")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(refuse)
        breaker.keep_probing(link.ping, True)
        assert breaker._probe is None
        loop.set_task_factory(None)
        breaker.keep_probing(link.ping, True)
        await asyncio.wait_for(asyncio.shield(breaker._probe._task), 10)

    link = Link()
    asyncio.run(main())
    assert (pinged, breaker.state) == ([1], "closed")


def test_closing_in_a_loop_waits_for_the_probe_of_a_thread():
    """A cache of the other face may have left it, and its connection is to be gone."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += PROBE_INTERVAL
    pinged, pong = threading.Event(), threading.Event()

    class Link:
        def ping(self):
            pinged.set()
            assert pong.wait(10)

    async def main():
        breaker.keep_probing(link.ping, False)
        probe = breaker._probe
        assert await asyncio.to_thread(pinged.wait, 10)
        joining = asyncio.ensure_future(probe.ajoin())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not joining.done()
        pong.set()
        await joining
        assert not probe.alive()

    link = Link()
    asyncio.run(main())
    assert breaker.state == "closed"


def test_a_probe_that_is_cancelled_during_its_ping_leaves_the_breaker_open():
    """The event loop ended; a caller in the next one has another probe."""
    clock = Clock()
    breaker = opened(clock)

    class Silent:
        async def ping(self):
            pinged.set()
            await asyncio.Event().wait()

    class Good:
        async def ping(self):
            pass

    async def cancelled():
        clock.now += PROBE_INTERVAL
        breaker.keep_probing(silent.ping, True)
        await asyncio.wait_for(pinged.wait(), 10)
        assert breaker.state == "half-open"

    async def again():
        assert breaker.state == "open"
        clock.now += PROBE_INTERVAL
        breaker.keep_probing(good.ping, True)
        await asyncio.wait_for(asyncio.shield(breaker._probe._task), 10)

    silent, good, pinged = Silent(), Good(), asyncio.Event()
    asyncio.run(cancelled())
    asyncio.run(again())
    assert breaker.state == "closed"
