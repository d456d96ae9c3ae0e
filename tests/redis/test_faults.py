"""What a caller sees when the server misbehaves, how long it takes, and that the next good call works.

Every fault is real: a proxy that resets or falls silent, a process that is killed or stopped, a server that refuses.
The bounds are the promised ones with room for a busy machine; the measured times are printed at the end of the run.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest
import servers
from proxy import Proxy

from fastcache.breaker import FAILURES_TO_OPEN
from fastcache.errors import BackendError, BackendTimeout

FIRST_FAILURE = 0.6  # promised
BREAKER_OPEN = 0.001  # promised, for the quickest of several
RECOVERY = 2.0  # promised
BUSY = 1.5  # what the first failure may take longer where other processes have the processors


@pytest.fixture
def measured(note):
    """Note a time under a name, for the table at the end."""
    return note.time


@contextmanager
def fails(note, what="first call fails", error=BackendError, within=FIRST_FAILURE, match=None):
    start = time.perf_counter()
    with pytest.raises(error, match=match) as caught:
        yield
    seconds = time.perf_counter() - start
    note(what, seconds, f"{type(caught.value).__name__}: {caught.value}")
    assert seconds < within + BUSY, f"{what}: {seconds:.3f} s"


def open_breaker(cache):
    """Fail until the breaker opens; the calls so far all had to wait for the server."""
    for _ in range(20):
        if cache.stats().breaker != "closed":
            return
        with pytest.raises(BackendError):
            cache.get("a")
    raise AssertionError("the breaker didn't open")


def quickest_refusal(note, cache):
    times = []
    for _ in range(30):
        start = time.perf_counter()
        with pytest.raises(BackendError, match="not tried"):
            cache.get("a")
        times.append(time.perf_counter() - start)
    note("call with the breaker open", min(times))
    return min(times)


def recovery(note, cache, since):
    """Call until one succeeds."""
    while True:
        try:
            cache.set("a", "back")
        except BackendError:
            assert time.perf_counter() - since < RECOVERY + 3
            time.sleep(0.01)  # a program's own pace
        else:
            break
    seconds = time.perf_counter() - since
    note("recovered after the server's return", seconds)
    assert seconds < RECOVERY
    assert cache.get("a") == "back"
    assert cache.stats().breaker == "closed"


def works(cache):
    cache.set("good", [1, 2])
    assert cache.get("good") == [1, 2]
    assert cache.stats().breaker == "closed"


@pytest.fixture
def cache(face, proxy):
    cache = face.from_url(proxy.url, ttl=60)
    cache.set("a", "value")
    return cache


def test_refused(face, proxy, measured):
    """Nothing listens: fails at once; after five the breaker is open; back within 2 s of the return."""
    cache = face.from_url(proxy.url, ttl=60)
    proxy.refuse()
    with fails(measured):
        cache.get("a")
    open_breaker(cache)
    assert quickest_refusal(measured, cache) < BREAKER_OPEN + 0.004
    proxy.listen()
    recovery(measured, cache, time.perf_counter())


def test_refused_costs_one_connection_attempt_per_call(face, server, measured):
    """No retry is hidden: a dead port is knocked at once per call, and not at all once the breaker is open."""
    with Proxy(server.port) as proxy:
        cache = face.from_url(proxy.url, ttl=60)
        proxy.mode = "cut"
        proxy.cut = 0
        for attempt in range(1, FAILURES_TO_OPEN + 1):
            with pytest.raises(BackendError):
                cache.get("a")
            assert proxy.accepted == attempt
        for _ in range(10):
            with pytest.raises(BackendError, match="not tried"):
                cache.get("a")
        assert proxy.accepted == FAILURES_TO_OPEN


def test_hangs_from_the_start(face, proxy, measured):
    """The port accepts and nobody answers: a timeout at the handshake, and never a second try with RESP2."""
    proxy.mode = "silent"
    cache = face.from_url(proxy.url, ttl=60)
    with fails(measured, error=BackendTimeout):
        cache.get("a")
    assert proxy.accepted == 1
    open_breaker(cache)
    assert quickest_refusal(measured, cache) < BREAKER_OPEN + 0.004
    proxy.reset_all()
    proxy.mode = "pass"
    recovery(measured, cache, time.perf_counter())


def test_goes_silent(cache, proxy, measured):
    """A half-open connection: it was good, now nothing comes back."""
    proxy.mode = "silent"
    with fails(measured, error=BackendTimeout):
        cache.get("a")
    open_breaker(cache)
    assert quickest_refusal(measured, cache) < BREAKER_OPEN + 0.004
    proxy.mode = "pass"
    recovery(measured, cache, time.perf_counter())


def test_reset_between_calls_is_not_noticed(cache, proxy, measured):
    """The one case that is repeated: a pooled connection found closed (RST). The caller sees nothing."""
    for _ in range(5):
        proxy.reset_all()
        assert cache.get("a") == "value"
    assert cache.stats().backend_errors == 0


def test_closed_between_calls_is_not_noticed(cache, proxy, measured):
    """The same with an orderly end (FIN), as of an idle timeout of the server."""
    for _ in range(5):
        proxy.close_all()
        assert cache.get("a") == "value"
        assert cache.get_many(["a"]) == {"a": "value"}
        proxy.close_all()
        cache.set_many({"b": 1})
    assert cache.stats().backend_errors == 0


def test_reset_in_the_middle_of_a_reply(cache, proxy, measured):
    """Whatever part of the reply came is thrown away; one repeat, which fails the same way, then an error."""
    proxy.mode = "cut"
    accepted = proxy.accepted
    with fails(measured):
        cache.get("a")
    assert proxy.accepted <= accepted + 1
    proxy.mode = "pass"
    works(cache)
    assert cache.get("a") == "value"


def test_garbage(cache, proxy, measured):
    """Bytes that aren't RESP, on a connection that was good and on new ones."""
    proxy.mode = "garbage"
    for _ in range(3):
        with fails(measured, within=1.2):
            cache.get("a")
    proxy.mode = "pass"
    works(cache)
    assert cache.get("a") == "value"


def test_byte_by_byte(face, proxy, measured):
    """Slow is not wrong: replies in pieces are put together."""
    proxy.mode = "drip"
    cache = face.from_url(proxy.url, ttl=60)
    cache.set_many({f"k{number}": "x" * number for number in range(50)})
    start = time.perf_counter()
    assert len(cache.get_many([f"k{number}" for number in range(50)])) == 50
    measured("get_many(50), delivered byte by byte", time.perf_counter() - start)
    assert cache.get("k9") == "x" * 9


def test_slow_replies(face, proxy, measured):
    """Under the timeout a call is slow; over it, it fails, and its late reply reaches nobody."""
    cache = face.from_url(proxy.url, ttl=60, socket_timeout=1, socket_connect_timeout=1)
    cache.set("a", "value")
    proxy.mode, proxy.delay = "delay", 0.1
    start = time.perf_counter()
    assert cache.get("a") == "value"
    measured("get through a delay of 0.1 s", time.perf_counter() - start)
    cache.set("b", "other")
    proxy.delay = 5
    with fails(measured, within=2, error=BackendTimeout):
        cache.get("a")
    proxy.mode = "pass"
    for _ in range(5):
        assert cache.get("b") == "other"
        assert cache.get("a") == "value"


def test_killed_and_restarted(face, own_server, measured):
    """kill -9 with connections open; a new process on the same port."""
    cache = face.from_url(own_server.url, ttl=60)
    cache.set("a", "value")
    own_server.kill()
    with fails(measured):
        cache.get("a")
    open_breaker(cache)
    own_server.start()
    recovery(measured, cache, time.perf_counter())


def test_restarted_between_calls_is_not_noticed(face, own_server, measured):
    """Both pools notice the closed connection and make a new one."""
    cache = face.from_url(own_server.url, ttl=60)
    cache.set("a", "value")
    own_server.kill()
    own_server.start()
    assert cache.get("a") is None
    assert cache.stats().backend_errors == 0


def test_frozen_process(face, own_server, measured):
    """SIGSTOP: the kernel accepts connections for it, nobody answers. As a machine that swaps."""
    cache = face.from_url(own_server.url, ttl=60)
    cache.set("a", "value")
    own_server.freeze()
    try:
        with fails(measured, error=BackendTimeout):
            cache.get("a")
        with fails(measured, "second call fails", error=BackendTimeout):
            cache.get("a")
        open_breaker(cache)
        assert quickest_refusal(measured, cache) < BREAKER_OPEN + 0.004
    finally:
        own_server.thaw()
    recovery(measured, cache, time.perf_counter())


def test_client_pause(face, own_server, measured):
    """CLIENT PAUSE ALL: the server reads and doesn't answer."""
    cache = face.from_url(own_server.url, ttl=60)
    cache.set("a", "value")
    with own_server.client() as admin:
        admin.execute_command("CLIENT", "PAUSE", 2000, "ALL")  # it holds CLIENT UNPAUSE back as well
        end = time.perf_counter() + 2.0
        with fails(measured, error=BackendTimeout):
            cache.get("a")
        open_breaker(cache)
        assert quickest_refusal(measured, cache) < BREAKER_OPEN + 0.004
    recovery(measured, cache, end)


def test_client_kill(face, server, measured):
    """Connections killed by an operator, between calls: not noticed."""
    cache = face.from_url(server.url, ttl=60, client_name="victim")
    with server.client() as admin:
        for number in range(5):
            cache.set("a", number)
            victims = [each["id"] for each in admin.client_list() if each["name"] == "victim"]
            assert victims
            for victim in victims:
                admin.client_kill_filter(_id=victim)
            assert cache.get("a") == number
    assert cache.stats().backend_errors == 0


def test_out_of_memory(face, measured):
    """maxmemory with noeviction: writes are refused, reads go on, and the breaker stays closed."""
    with servers.Server(maxmemory="1mb", maxmemory_policy="noeviction") as server, server.client() as admin:
        cache = face.from_url(server.url, ttl=60)
        admin.config_set("maxmemory", "0")
        cache.set("a", "value")
        admin.config_set("maxmemory", "1")
        for _ in range(8):
            with fails(measured, match="OOM|maxmemory"):
                cache.set("b", 1)
            with fails(measured, match=r"3 of 3 not stored"):
                cache.set_many({"b": 1, "c": 2, "d": 3})
        assert cache.get("a") == "value"
        assert cache.stats().breaker == "closed"
        admin.config_set("maxmemory", "0")
        works(cache)


def _replica(master):
    return servers.Server(replicaof=f"127.0.0.1 {master.port}").start()


def test_read_only_replica(face, measured):
    """A replica answers reads, and refuses writes by a reply that doesn't open the breaker."""
    with (
        servers.Server(repl_diskless_sync_delay=0).start() as master,
        _replica(master) as replica,
        replica.client() as admin,
    ):
        while admin.info("replication")["master_link_status"] != "up":
            time.sleep(0.02)
        with master.client() as writer:
            writer.set("fastcache:a", '"value"')
            writer.wait(1, 5000)
        cache = face.from_url(replica.url, ttl=60)
        for _ in range(8):
            with fails(measured, match="read.?only"):
                cache.set("a", 1)
        assert cache.get("a") == "value"
        assert cache.stats().breaker == "closed"
        admin.execute_command("REPLICAOF", "NO", "ONE")
        works(cache)


def test_loading(face, measured):
    """A server that reads its dump answers LOADING: an error at once, the breaker stays closed, then all is well."""
    with servers.Server(save="3600 1", key_load_delay=0).start() as server:
        with server.client() as admin:
            admin.execute_command("DEBUG", "POPULATE", 20_000, "key", 100)
            admin.save()
        server.kill()
        (server.directory / "redis.conf").unlink()
        server.options["key-load-delay"] = 80  # microseconds per key: some 1.6 s
        server.options["loading-process-events-interval-bytes"] = 1024
        server.start(wait=False)
        cache = face.from_url(server.url, ttl=60)
        seen = set()
        end = time.monotonic() + 20
        while True:
            start = time.perf_counter()
            try:
                cache.get("a")
                break
            except BackendError as error:
                if "loading" in str(error).lower():
                    if "loading" not in seen:
                        measured("call answered by LOADING", time.perf_counter() - start, str(error))
                    seen.add("loading")
                assert time.monotonic() < end
                time.sleep(0.01)  # a program's own pace
        assert "loading" in seen
        cache.set("good", 1)
        assert cache.get("good") == 1


def test_callers_beyond_the_pool_wait_for_each_other(face, proxy, measured):
    """Two connections, ten callers, each reply held for 30 ms: slow, but nobody fails."""
    cache = face.from_url(proxy.url, ttl=60, max_connections=2, **servers.PATIENT)
    cache.set("a", "value")
    proxy.mode, proxy.delay = "delay", 0.03
    outcomes = _at_once(10, lambda: cache.get("a"))
    assert outcomes == ["value"] * 10


def test_a_pool_without_a_free_connection_is_not_the_servers_fault(face, proxy, measured):
    """After `timeout` seconds a waiting caller gets a BackendTimeout that says so; the breaker doesn't count it."""
    cache = face.from_url(proxy.url, ttl=60, max_connections=1, timeout=0.05, socket_timeout=5)
    cache.set("a", "value")
    proxy.mode, proxy.delay = "delay", 0.5
    outcomes = _at_once(8, lambda: cache.get("a"))
    assert outcomes.count("value") >= 1
    refused = [outcome for outcome in outcomes if outcome != "value"]
    assert len(refused) >= 6
    assert all(isinstance(each, BackendTimeout) and "max_connections=1" in str(each) for each in refused)
    assert cache.stats().breaker == "closed"
    proxy.mode = "pass"
    works(cache)


def test_callers_that_wait_for_a_connection_leave_when_the_breaker_opens(face, proxy, measured):
    """Forty callers, two connections, a silent server: nobody waits for twenty timeouts in a row."""
    cache = face.from_url(proxy.url, ttl=60, max_connections=2)
    cache.set("a", "value")
    proxy.mode = "silent"
    start = time.perf_counter()
    outcomes = _at_once(40, lambda: cache.get("a"))
    seconds = time.perf_counter() - start
    measured("40 callers on 2 silent connections, all done", seconds)
    assert all(isinstance(outcome, BackendError) for outcome in outcomes)
    assert seconds < 2


def _at_once(count, call):
    outcomes = []

    def work():
        try:
            outcomes.append(call())
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_hello_refused_falls_back_to_resp2(face, proxy, measured):
    """An error reply to HELLO (an old server, a proxy): RESP2, remembered for the next connections."""
    proxy.mode = "no-hello"
    cache = face.from_url(proxy.url, ttl=60)
    works(cache)
    assert cache.get("nothing") is None
    assert cache.get_many(["good", "nothing"]) == {"good": [1, 2]}
    assert cache.delete_pattern("*") >= 1
    proxy.close_all()
    works(cache)
    assert cache.stats().backend_errors == 0


def test_a_user_without_the_right_to_hello_falls_back_to_resp2(face, server, measured):
    """NOPERM is an error reply too; the password is then sent by AUTH."""
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "meek", "on", ">secret", "~*", "+@all", "-hello")
        try:
            cache = face.from_url(f"redis://meek:secret@127.0.0.1:{server.port}", ttl=60)
            try:
                works(cache)
            except BackendError as error:  # some versions let HELLO AUTH through
                raise AssertionError(str(error)) from error
        finally:
            admin.execute_command("ACL", "DELUSER", "meek")


def test_a_user_who_may_not_ping_is_let_through_again(face, server, proxy, measured):
    """NOPERM is an answer to a PING, if not a PONG: the breaker closes, or it never would."""
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "quiet", "on", ">secret", "~*", "+@all", "-ping")
        try:
            cache = face.from_url(f"redis://quiet:secret@127.0.0.1:{proxy.port}", ttl=60)
            works(cache)
            proxy.refuse()
            open_breaker(cache)
            proxy.listen()
            recovery(measured, cache, time.perf_counter())
        finally:
            admin.execute_command("ACL", "DELUSER", "quiet")


def test_a_wrong_password_is_said_and_never_opens_the_breaker(face, measured):
    """The server is well; the program is wrong."""
    with servers.Server(requirepass="right").start() as server:
        for url in (f"redis://:wrong@127.0.0.1:{server.port}", server.url):
            cache = face.from_url(url, ttl=60)
            for _ in range(FAILURES_TO_OPEN + 2):
                with fails(measured, match=r"password|[aA]uthenticat"):
                    cache.get("a")
            assert cache.stats().breaker == "closed"
        works(face.from_url(f"redis://:right@127.0.0.1:{server.port}", ttl=60))


@pytest.mark.parametrize(("protocol", "connections"), [(2, 1), (3, 2)])
def test_an_error_in_the_greeting_is_said(face, own_server, measured, protocol, connections):
    """In RESP3 it may have been about HELLO, so RESP2 is tried, once; from RESP2 there is nothing to fall back to."""
    cache = face.from_url(f"{own_server.url}/99", ttl=60, protocol=protocol)
    with own_server.client() as admin:
        before = admin.info("stats")["total_connections_received"]
        with fails(measured, match="DB index is out of range"):
            cache.get("a")
        assert admin.info("stats")["total_connections_received"] - before == connections
    assert cache.stats().breaker == "closed"


def test_after_a_failure_a_call_sends_nothing_more(cache, proxy, measured):
    """A get_many of three batches and a delete_many of a hundred stop at the first silence."""
    proxy.mode = "silent"
    with fails(measured, error=BackendTimeout):
        cache.get_many([f"k{number}" for number in range(30_000)])
    with fails(measured, error=BackendTimeout):
        cache.delete_many([f"k{number}" for number in range(5_000)])
    with fails(measured, error=BackendTimeout):
        cache.clear()
