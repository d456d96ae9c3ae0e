"""What the engine says and serves when writes fail, are interrupted or refused, or the server talks nonsense."""

from __future__ import annotations

import asyncio
import re
import socketserver
import threading

import pytest
from loaders import overtake
from proxy import Proxy
from redis.exceptions import ResponseError
from test_tiered import until

from fastcache import (
    BackendError,
    BackendTimeout,
    CacheAside,
    MemoryCache,
    Policy,
    RedisCache,
    TieredCache,
    WriteThroughCache,
)
from fastcache.plan import run


@pytest.fixture
def cache(server):
    with RedisCache.from_url(server.url, "p", ttl=60) as cache:
        yield cache


def intercept(cache, replace):
    """Have `replace(send, command)`, a plan, stand for each command that the cache sends."""
    send = cache._execute_plan
    cache._execute_plan = lambda *command, **options: replace(lambda: send(*command, **options), command)
    return lambda: setattr(cache, "_execute_plan", send)


@pytest.mark.parametrize("how", ["set", "set_many", "put", "invalidate"])
def test_an_older_success_keeps_a_newer_failure_in_the_outbox(cache, how):
    """A write that was answered before another one failed doesn't say that the backend has the newer value."""
    db = {}
    through = WriteThroughCache(cache, db.__getitem__, db.__setitem__)
    answered, go_on = threading.Event(), threading.Event()

    def replace(send, command):
        if threading.current_thread().name == "second":
            raise BackendTimeout("too late")
        reply = yield from send()
        if threading.current_thread().name == "first":
            answered.set()
            go_on.wait(10)
        return reply

    loading = cache._loading
    cache.set("k", "v0")
    writes = {
        "set": lambda: cache.set("k", "v1"),
        "set_many": lambda: cache.set_many({"k": "v1"}),
        "put": lambda: run(loading.put_plan({"k": "v1"}, loading.policy_for(None, None))),
        "invalidate": lambda: run(loading.invalidate_plan("k")),
    }
    restore = intercept(cache, replace)
    if how == "set_many":
        send_many = cache._pipeline_plan
        cache._pipeline_plan = lambda commands: replace(lambda: send_many(commands), ("pipeline",))
    first = threading.Thread(target=writes[how], name="first")
    first.start()
    assert answered.wait(10)
    second = threading.Thread(target=through.set, args=("k", "v2"), name="second")
    second.start()
    second.join()
    go_on.set()
    first.join()
    restore()
    assert len(loading.outbox) == 1
    assert through.get("k") == "v2"


@pytest.mark.parametrize("how", ["set", "update"])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_interrupted_write_leaves_no_old_value_to_read(cache, how, interrupt):
    """Once the saver ran, an interrupt before the cache has heard of it keeps the key from being read from the cache."""
    db = {"k": 1}
    pattern = {"set": WriteThroughCache, "update": CacheAside}[how](cache, db.__getitem__, db.__setitem__)
    assert pattern.get("k") == 1

    def replace(send, command):
        if command[0] in ("SET", "UNLINK"):
            raise interrupt
        return (yield from send())

    restore = intercept(cache, replace)
    with pytest.raises(interrupt):
        getattr(pattern, how)("k", 2)
    restore()
    assert pattern.get("k") == 2


class Nonsense(socketserver.ThreadingTCPServer):
    """A server that says OK to greetings and the same thing to everything else."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, reply):
        self.reply = reply
        super().__init__(("127.0.0.1", 0), Answers)


class Answers(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(65536):
                n = len(re.findall(rb"(?:^|\r\n)\*\d+\r\n", data)) or 1
                answer = self.server.reply * n
                if b"HELLO" in data:
                    answer = b"%1\r\n+proto\r\n:3\r\n" + b"+OK\r\n" * (n - 1)
                elif b"CLIENT" in data:
                    answer = b"+OK\r\n" * n
                self.request.sendall(answer)
        except OSError:
            pass


REPLIES = [b"+OK\r\n", b":1\r\n", b"*1\r\n+x\r\n", b"*0\r\n", b"$-1\r\n", b",1.5\r\n", b"_\r\n", b"#t\r\n"]
REPLIES += [b"%1\r\n+a\r\n+b\r\n"]
REPLIES += [b"$4\r\njunk\r\n", b"$17\r\n\xc1fc\x01\x00" + bytes(6) + b"\x27\x10" + bytes(4) + b"\r\n", b"-ERR x\r\n"]


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("policy", [None, Policy(60, stale_for=60, refresh_ahead=1.0)], ids=["plain", "stale_for"])
def test_a_reply_of_the_wrong_type_is_a_failure_of_the_backend(reply, policy):
    """Whatever a server answers, callers get what the loader returns, and a write is not taken for done."""
    server = Nonsense(reply)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"redis://127.0.0.1:{server.server_address[1]}?protocol=3"
        with RedisCache.from_url(url, "p", ttl=60, policy=policy) as cache:
            assert cache.get_or_load("k", str.upper) == "K"
            assert cache.get_or_load_many(["a", "b"], lambda keys: dict.fromkeys(keys, 1)) == {"a": 1, "b": 1}
            CacheAside(cache, str.upper, lambda key, value: None).update("k", "x")
            WriteThroughCache(cache, str.upper, lambda key, value: None).set("k", "x")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_stale_value_is_served_only_where_the_caller_allows_it():
    """Another caller's stale_for keeps the value; who has none gets a fresh one, or the loader's error."""
    now = [0.0]
    with MemoryCache(timer=lambda: now[0]) as cache:
        cache.get_or_load("k", lambda key: "old", policy=Policy(1, jitter=0, stale_for=100))
        now[0] = 2.0
        with pytest.raises(ZeroDivisionError):
            cache.get_or_load("k", lambda key: 1 / 0, policy=Policy(60))
        assert cache.get_or_load("k", lambda key: "new", policy=Policy(60)) == "new"
        assert cache.get("k") == "new"


def test_a_refused_invalidation_leaves_the_other_keys_cached(cache):
    """The server answers, so the calls for other keys read it, and only one in a while tries the refused one again."""
    loads, sent = [], []
    aside = CacheAside(cache, lambda key: loads.append(key) or 1)
    aside.get("a")

    def replace(send, command):
        sent.append(command[0])
        if command[0] == "UNLINK":
            raise BackendError("NOPERM") from ResponseError("NOPERM")
        return (yield from send())

    restore = intercept(cache, replace)
    cache._loading._clock = lambda: 0.0
    aside.invalidate("other")
    for _ in range(10):
        assert aside.get("a") == 1
    restore()
    assert loads == ["a"]
    assert sent.count("GET") == 10
    assert sent.count("UNLINK") <= 3


def test_a_value_on_its_way_into_the_store_is_not_loaded_again(cache):
    """A caller that missed before another's load ended finds its value, though a slow store has yet to take it."""
    runs, gate, loading, hold = [], *(threading.Event() for _ in range(3))
    policy = Policy(60, store="background")

    def load(key):
        runs.append(key)
        loading.set()
        gate.wait(10)
        return key

    def replace(send, command):
        if command[0] == "SET":
            hold.wait(10)
        return (yield from send())

    intercept(cache, replace)
    overtake(cache._flights, lambda: cache.get_or_load("k", load, policy=policy), loading, gate)
    hold.set()
    assert cache.drain(10)
    assert runs == ["k"]


def test_a_refused_key_is_not_saved(cache):
    """`update` says that the cache can't have such a key before the saver runs."""
    saved = []
    with pytest.raises(TypeError, match="a key is"):
        CacheAside(cache, str, lambda key, value: saved.append(key)).update(7, "v")
    assert saved == []


def test_a_reply_that_is_an_error_does_not_say_that_the_backend_is_away(server):
    """A key of the wrong kind fails each time, and the backend neither goes away nor comes back."""
    kinds = []
    with RedisCache.from_url(server.url, "p", ttl=60, on_event=lambda event: kinds.append(event.kind)) as cache:
        cache.client.lpush("p:list", "x")
        for number in range(3):
            cache.get_or_load("list", str)
            cache.get_or_load(str(number), str)
    assert kinds.count("backend_error") == 3
    assert not {"backend_away", "backend_back"} & set(kinds)


@pytest.mark.parametrize("how", ["writing", "clear", "tags", "pattern"])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_interrupted_change_of_both_tiers_leaves_no_old_value_to_read(server, monkeypatch, how, interrupt):
    """Whether Redis has heard of it isn't known: nothing is read from there until it has, a second later."""
    monkeypatch.setattr("fastcache.writing.FLUSH_INTERVAL", 0.05)
    remotes = [RedisCache.from_url(server.url, "p", ttl=60) for _ in range(2)]
    with TieredCache(MemoryCache(), remotes[0]) as cache, TieredCache(MemoryCache(), remotes[1]) as other:
        cache.set("k", "old", tags=["t"])
        assert other.get("k") == "old"
        begun = threading.Event()

        def replace(send, command):
            if threading.current_thread() is threading.main_thread() and not begun.is_set():
                begun.set()
                raise interrupt
            return (yield from send())

        intercept(cache.remote, replace)
        with pytest.raises(interrupt):  # noqa: PT012
            match how:
                case "writing":
                    with cache.writing("k"):
                        raise AssertionError("the block began, though nobody was told")
                case "clear":
                    cache.clear()
                case "tags":
                    cache.invalidate_tags("t")
                case "pattern":
                    cache.delete_pattern("k*")
        assert cache.get("k") is None
        assert cache.get_or_load("k", lambda key: "new") == "new"
        until(lambda: not cache._loading.outbox)
        other.sync()
        assert other.get("k") != "old"
        assert cache.get_or_load("k", lambda key: "newer") in ("new", "newer")


class Interrupting:
    """A key whose comparison is interrupted, once, after `armed` was set."""

    armed = False

    def __hash__(self):
        return 7

    def __eq__(self, other):
        if Interrupting.armed:
            Interrupting.armed = False
            raise KeyboardInterrupt
        return isinstance(other, Interrupting)


@pytest.mark.parametrize("kind", [WriteThroughCache, CacheAside])
def test_an_interrupted_write_of_memory_leaves_no_old_value_to_read(kind):
    """The saver ran; the value that was there is gone, though the write was cut short."""
    db = {"row": "old"}

    def save(key, value):
        db["row"] = value
        Interrupting.armed = True

    pattern = kind(MemoryCache(), lambda key: db["row"], save)
    assert pattern.get(Interrupting()) == "old"
    with pytest.raises(KeyboardInterrupt):
        (pattern.set if kind is WriteThroughCache else pattern.update)(Interrupting(), "new")
    assert not Interrupting.armed
    assert pattern.get(Interrupting()) == "new"


def test_two_writers_of_a_key_take_turns_though_the_first_ends_just_then(cache):
    """The second one, which has found it at work and then no more, writes after it."""
    saved, first_saves, go_on = [], threading.Event(), threading.Event()

    def save(key, value):
        if value == 1:
            first_saves.set()
            assert go_on.wait(10)
        saved.append(value)

    through = WriteThroughCache(cache, str, save)
    writes = cache._loading.writes
    under_way = writes.under_way

    def late(identity):
        go_on.set()
        first.join()
        return under_way(identity)

    first = threading.Thread(target=through.set, args=("k", 1))
    first.start()
    assert first_saves.wait(10)
    writes.under_way = late
    through.set("k", 2)
    assert saved == [1, 2]
    assert cache.get("k") == 2


def test_an_outbox_that_overflowed_clears_the_prefix(server, monkeypatch):
    """Which keys were to be removed isn't known any more; those of other prefixes stay."""
    monkeypatch.setattr("fastcache.writing.FLUSH_INTERVAL", 0.05)
    with Proxy(server.port) as proxy, server.client() as client, RedisCache.from_url(proxy.url, "p", ttl=60) as cache:
        cache._loading.outbox._most = 2
        cache.set_many({"a": "old", "b": "old", "c": "old", "d": "old"})
        client.set("other", "kept")
        aside = CacheAside(cache, {}.get)
        proxy.refuse()
        for key in "abc":
            aside.invalidate(key)
        assert cache.get_or_load("d", lambda key: "new") == "new"
        proxy.listen()
        until(lambda: not cache._loading.outbox)
        assert client.keys() == [b"other"]
