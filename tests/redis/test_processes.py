"""Threads, forks and endings on the sync face: what is shared, what starts afresh, what is left behind (nothing)."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest
import redis
import servers
from proxy import Proxy

from fastcache.errors import BackendError
from fastcache.redis import AsyncRedisCache, RedisCache


def connections(server, name):
    with server.client(decode_responses=True) as admin:
        return [each for each in admin.client_list() if each["name"] == name]


def in_child(function):
    """Run `function` in a forked child; its exit status says whether it succeeded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork in a process with threads
        child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_and_its_parent_never_share_a_connection(server):
    """Both use the cache that was warm before the fork, at the same time, and each gets its own replies."""
    cache = RedisCache.from_url(server.url, ttl=60)
    cache.set("warm", 1)
    ready, go = os.pipe(), os.pipe()

    def use(name):
        for number in range(200):
            cache.set(f"{name}:{number}", [name, number])
            assert cache.get(f"{name}:{number}") == [name, number]

    def child():
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        use("child")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    os.read(ready[0], 1)
    os.write(go[1], b"x")
    use("parent")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert cache.get("warm") == 1
    cache.close()
    for end in (*ready, *go):
        os.close(end)


def test_a_breaker_that_is_open_at_a_fork_is_closed_in_the_child(server):
    """No thread lives on in a child to probe for it, so it finds out for itself; the parent's stays open."""
    with Proxy(server.port) as proxy:
        cache = RedisCache.from_url(proxy.url, ttl=60)
        proxy.refuse()
        for _ in range(6):
            with pytest.raises(BackendError):
                cache.get("a")
        assert cache.stats().breaker == "open"
        other = Proxy(server.port, port=proxy.port)

        def child():
            assert cache.stats().breaker == "closed"
            cache.close()

        assert in_child(child) == 0
        other.close()
        cache.close()


def test_an_asyncio_cache_works_in_a_forked_child(server):
    """Used in the parent's loop, then in a loop of the child's, then in another of the parent's."""
    cache = AsyncRedisCache.from_url(server.url, ttl=60)

    async def use(name):
        await cache.set(name, name)
        assert await cache.get(name) == name

    asyncio.run(use("parent"))
    assert in_child(lambda: asyncio.run(use("child"))) == 0
    asyncio.run(use("parent"))
    asyncio.run(cache.close())


def test_a_child_forked_while_a_loop_runs_leaves_that_loop_alone(server):
    """The copy of a running loop never answers: close() in the child must not wait for it, nor touch its sockets."""
    cache = AsyncRedisCache.from_url(server.url, ttl=60)
    started, ended = threading.Event(), threading.Event()
    failures = []

    async def use(name):
        await cache.set(name, name)
        assert await cache.get(name) == name

    async def parent():
        await use("parent")
        started.set()
        while not ended.is_set():
            await asyncio.sleep(0.001)
        await use("parent")

    def work():
        try:
            asyncio.run(parent())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()

    async def child():
        await use("child")
        await cache.close()

    def in_it():
        signal.alarm(10)
        asyncio.run(child())
        gc.collect()

    assert in_child(in_it) == 0
    ended.set()
    thread.join()
    assert not failures
    asyncio.run(cache.close())


def test_close_is_final_and_may_be_repeated(server):
    """A closed cache refuses instead of quietly connecting again; its connections are gone."""
    with RedisCache.from_url(server.url, ttl=60, client_name="closing") as cache:
        cache.set("a", 1)
        assert len(connections(server, "closing")) == 1
    cache.close()
    assert connections(server, "closing") == []
    with pytest.raises(BackendError, match="closed"):
        cache.get("a")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_close_leaves_a_given_client_open(server, asynchronous):
    """It is the program's."""
    if asynchronous:

        async def main():
            async with redis.asyncio.Redis(port=server.port) as client:
                async with AsyncRedisCache(client, ttl=60) as cache:
                    await cache.set("a", 1)
                assert await client.get("fastcache:a") == b"1"

        asyncio.run(main())
    else:
        with redis.Redis(port=server.port) as client:
            with RedisCache(client, ttl=60) as cache:
                cache.set("a", 1)
            assert client.get("fastcache:a") == b"1"


def test_a_dropped_cache_closes_its_connections_without_a_warning(server):
    """Nobody called close(); ResourceWarning is an error here."""
    cache = RedisCache.from_url(server.url, ttl=60, client_name="dropped")
    cache.set("a", 1)
    del cache
    gc.collect()
    assert connections(server, "dropped") == []


def test_from_url_connects_at_the_first_command(server):
    """On both faces, and not before: a program may start while Redis is away."""
    with Proxy(server.port) as proxy:
        cache = RedisCache.from_url(proxy.url, ttl=60)
        other = AsyncRedisCache.from_url(proxy.url, ttl=60)
        assert proxy.accepted == 0
        cache.get("a")
        assert proxy.accepted == 1
        cache.close()
        asyncio.run(other.close())
        assert proxy.accepted == 1


def test_caches_of_one_server_share_its_breaker(server):
    """Of both faces, whatever the prefix or database; one cache's failures spare the others the wait."""
    with Proxy(server.port) as proxy:
        proxy.refuse()
        first = RedisCache.from_url(proxy.url, "a")
        second = RedisCache.from_url(f"{proxy.url}/3", "b")
        given = RedisCache(redis.Redis(host="127.0.0.1", port=proxy.port), "c")
        third = AsyncRedisCache.from_url(proxy.url, "d")
        elsewhere = RedisCache.from_url(server.url, "e")
        for _ in range(5):
            with pytest.raises(BackendError):
                first.get("x")
        assert [each.stats().breaker for each in (first, second, given, third)] == ["open"] * 4
        for each in (second, given):
            with pytest.raises(BackendError, match="not tried"):
                each.get("x")
        assert elsewhere.stats().breaker == "closed"
        assert elsewhere.get("x") is None

        async def ask():
            with pytest.raises(BackendError, match="not tried"):
                await third.get("x")
            await third.close()

        asyncio.run(ask())
        for each in (first, second, given, elsewhere):
            each.close()


def test_an_open_breaker_costs_the_server_one_ping_a_second(server):
    """However many callers ask meanwhile."""
    with Proxy(server.port) as proxy:
        cache = RedisCache.from_url(proxy.url, ttl=60)
        proxy.mode = "silent"
        for _ in range(5):
            with pytest.raises(BackendError):
                cache.get("a")
        accepted = proxy.accepted
        threading.Event().wait(2.6)
        for _ in range(1000):
            with pytest.raises(BackendError, match="not tried"):
                cache.get("a")
        assert accepted + 1 <= proxy.accepted <= accepted + 3
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("fastcache-probe") == 1
        cache.close()
        assert "fastcache-probe" not in [thread.name for thread in threading.enumerate()]


def test_a_dropped_cache_stops_probing():
    """The probe holds its cache weakly: no thread goes on for ever."""
    cache = RedisCache.from_url(f"redis://127.0.0.1:{servers.free_port()}", ttl=60)
    for _ in range(5):
        with pytest.raises(BackendError):
            cache.get("a")
    (probe,) = [thread for thread in threading.enumerate() if thread.name == "fastcache-probe"]
    del cache
    gc.collect()
    probe.join(3)
    assert not probe.is_alive()


def test_a_success_between_failures_starts_the_count_again(server):
    """Five in a row, not five in a lifetime."""
    with Proxy(server.port) as proxy:
        cache = RedisCache.from_url(proxy.url, ttl=60)
        for _ in range(4):
            for _ in range(4):
                proxy.refuse()
                with pytest.raises(BackendError):
                    cache.get("a")
            proxy.listen()
            cache.get("a")
        assert cache.stats().breaker == "closed"
        cache.close()


def test_a_program_ends_cleanly_with_the_breaker_open():
    """The probe's thread doesn't keep the interpreter alive, and nothing is printed."""
    code = f"""
from fastcache.redis import RedisCache
cache = RedisCache.from_url("redis://127.0.0.1:{servers.free_port()}", ttl=60)
for _ in range(7):
    try:
        cache.get("a")
    except Exception:
        pass
assert cache.stats().breaker == "open"
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


def test_errors_pickle(server):
    """A BackendError crosses a process boundary, say of a process pool."""
    import pickle

    cache = RedisCache.from_url(f"redis://127.0.0.1:{servers.free_port()}", ttl=60)
    with pytest.raises(BackendError) as caught:
        cache.get("a")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value)
    cache.close()
