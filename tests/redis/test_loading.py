"""get_or_load over Redis, on both faces: the envelope, what others write, and Redis dead, hanging or talking nonsense."""

from __future__ import annotations

import json
import logging
import math
import threading
import time

import pytest
import servers

from fastcache import MISSING, ConfigurationError, Policy, SerializationError
from fastcache.breaker import FAILURES_TO_OPEN
from fastcache.envelope import HEADER_SIZE, Malformed, seal, unseal

FIRST = 2.0  # the timeout of 0.25 s, and a busy machine; beside the loader's own time
OPEN = 0.005  # promised, with the breaker open, for the quickest of several
STALE = Policy(0.3, stale_for=60, jitter=0)


class Loader:
    def __init__(self, value="v1"):
        self.value, self.error, self.runs = value, None, 0

    def __call__(self, key):
        self.runs += 1
        if self.error is not None:
            raise self.error
        return self.value


@pytest.fixture
def cache(face, server):
    return face.from_url(server.url, "p", ttl=60, **servers.PATIENT)


def until_stale(cache, key):
    """Wait until a short ttl is over: this clock is the server's."""
    while cache.exists(key):
        time.sleep(0.01)


def test_loads_once_and_stores_plain(cache, other):
    """A policy that needs nothing beside the value leaves it as other programs read it, with PX."""
    load = Loader({"a": 1})
    assert cache.get_or_load("k", load) == {"a": 1}
    assert cache.get_or_load("k", load) == {"a": 1}
    assert load.runs == 1
    assert json.loads(other.get("p:k")) == {"a": 1}
    assert 59_000 < other.pttl("p:k") <= 60_000
    stats = cache.stats()
    assert (stats.loads, stats.hits, stats.misses) == (1, 1, 1)


def test_values_of_other_programs_are_read(cache, other):
    """Plain, with an expiry or without, also under a policy that keeps more."""
    other.set("p:k", b'"theirs"')
    for policy in (None, STALE, Policy(9, refresh_ahead=1.0)):
        assert cache.get_or_load("k", Loader(), policy=policy) == "theirs"


def test_envelope_is_what_is_documented(cache, other):
    """Byte by byte; PX is the ttl and stale_for."""
    cache.get_or_load("k", Loader("v"), policy=Policy(10, stale_for=20, jitter=0))
    data = other.get("p:k")
    assert data[:3] == b"\xc1fc"
    assert data[3:5] == bytes([1, 0])
    assert int.from_bytes(data[5:13], "big") == 20_000
    assert int.from_bytes(data[13:17], "big") < 1_000_000
    assert data[17:] == b'"v"'
    assert HEADER_SIZE == 17
    assert 29_000 < other.pttl("p:k") <= 30_000
    assert cache.get("k") == "v"
    assert cache.get_many(["k"]) == {"k": "v"}
    assert 9 < cache.remaining("k") <= 10
    assert cache.exists("k")


def test_envelope_opens_what_it_seals():
    """Any payload, an empty one too; long loads are cut to what fits."""
    for payload in (b"", b"x", b"\xc1fc\x01\x00", bytes(range(256))):
        envelope = unseal(seal(payload, 1.5, 1e9))
        assert (envelope.payload, envelope.stale_for, envelope.missing) == (payload, 1500, False)
        assert envelope.load_seconds == pytest.approx(4294.967295)


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1fc",
        seal(b"x")[:16],
        b"\xc1fc\x03" + seal(b"x")[4:],
        b"\xc1fc\x01\x07" + seal(b"x")[5:],
        seal(b"x", missing=True),
    ],
    ids=["magic only", "short", "later version", "unknown kind", "missing with a value"],
)
def test_malformed_envelope_is_refused_and_overwritten(cache, other, data):
    """`get` says so; the engine takes it for a miss and overwrites it."""
    with pytest.raises(Malformed):
        unseal(data)
    other.set("p:k", data)
    with pytest.raises(SerializationError, match="envelope"):
        cache.get("k")
    with pytest.raises(SerializationError, match="envelope"):
        cache.get_many(["k"])
    assert cache.get_or_load("k", Loader()) == "v1" == cache.get("k")


def test_value_that_does_not_decode_is_a_miss_that_is_overwritten(cache, other):
    """Garbage of others must not stop the program."""
    other.set("p:k", b"{not json")
    load = Loader()
    assert cache.get_or_load("k", load) == "v1" == cache.get("k")
    other.set("p:k", b'"text"')
    assert cache.get_or_load("k", Loader(5), type=int) == 5 == cache.get("k")


def test_raw_value_that_begins_like_an_envelope(face, server, other):
    """It comes back as it was, through `set` and through the engine."""
    cache, value = face.from_url(server.url, "p", ttl=60, serializer="raw"), b"\xc1fc\x01\x00 and more"
    cache.set("k", value)
    assert cache.get("k") == value == cache.get_many(["k"])["k"]
    assert cache.get_or_load("l", Loader(value)) == value == cache.get("l")
    other.set("p:m", b"\xc1 other binary data")
    assert cache.get("m") == b"\xc1 other binary data"


def test_stale_value_is_served_and_refreshed(cache):
    """Not by get, get_many, exists, remaining; get_or_load has it, and a new one in the background."""
    load = Loader()
    cache.get_or_load("k", load, policy=STALE)
    until_stale(cache, "k")
    assert (cache.get("k"), cache.get_many(["k"]), cache.remaining("k")) == (None, {}, None)
    load.value = "v2"
    assert cache.get_or_load("k", load, policy=STALE) == "v1"
    assert cache.drain(10)
    assert cache.get_or_load("k", Loader("x"), policy=Policy(60, stale_for=60)) == "v2"
    assert (load.runs, cache.stats().stale_hits) == (2, 1)


def test_failing_loader_serves_stale(cache):
    """And is left alone for retry_after."""
    load = Loader()
    cache.get_or_load("k", load, policy=STALE)
    until_stale(cache, "k")
    load.error = LookupError("database")
    for _ in range(3):
        assert cache.get_or_load("k", load, policy=STALE) == "v1"
        assert cache.drain(10)
    assert load.runs == 2
    assert cache.stats().load_errors == 1


def test_missing_is_remembered(cache, other):
    """For missing_ttl; the other operations see nothing."""
    load, policy = Loader(MISSING), Policy(60, missing_ttl=10)
    assert [cache.get_or_load("k", load, "none", policy=policy) for _ in range(3)] == ["none"] * 3
    assert load.runs == 1
    assert cache.get("k", "d") == "d"
    assert not cache.exists("k")
    assert cache.get_many(["k"]) == {}
    assert 0 < other.pttl("p:k") <= 10_000


def test_refresh_ahead_uses_the_load_time_in_the_envelope(cache, other):
    """As early as chance, the load time and beta say; the caller gets the value that is still fresh."""
    policy = Policy(60, refresh_ahead=1.0, jitter=0)
    load = Loader("v2")
    other.set("p:k", seal(b'"v1"', 0, 10.0), px=50_000)
    cache._loading.random = lambda: math.exp(-4.9)  # 49 s ahead
    assert cache.get_or_load("k", load, policy=policy) == "v1"
    assert cache.drain(10)
    assert load.runs == 0
    cache._loading.random = lambda: math.exp(-5.1)
    assert cache.get_or_load("k", load, policy=policy) == "v1"
    assert cache.drain(10)
    assert load.runs == 1
    assert cache.get("k") == "v2"


def test_many_loads_what_is_missing(cache, other):
    """One call; plain, enveloped, stale and missing keys together."""
    calls = []

    def load(keys):
        calls.append(list(keys))
        return {key: key.upper() for key in keys if key != "none"}

    cache.get_or_load_many(["a"], load, policy=STALE)
    until_stale(cache, "a")
    other.set("p:b", b'"theirs"')
    found = cache.get_or_load_many(["a", "b", "c", "d", "none"], load, policy=STALE)
    assert found == {"a": "A", "b": "theirs", "c": "C", "d": "D"}
    assert cache.drain(10)
    assert sorted(map(sorted, calls)) == [["a"], ["a"], ["c", "d", "none"]]


def test_str_and_bytes_forms_of_a_key_are_one(face, server):
    """An invalidation of one form concerns a load of the other."""
    cache = face.from_url(server.url, "p", ttl=60)
    entered, go = threading.Event(), threading.Event()

    def load(key):
        if face.name == "sync":
            entered.set()
            assert go.wait(10)
        return "old"

    if face.name == "sync":
        thread = threading.Thread(target=cache.get_or_load, args=("k", load))
        thread.start()
        assert entered.wait(10)
        cache.delete(b"k")
        go.set()
        thread.join(10)
        assert cache.get("k") is None
        assert cache.stats().lease_refused == 1
    else:
        cache.get_or_load("k", load)
        assert cache.get(b"k") == "old"


@pytest.mark.parametrize("stale", [False, True])
def test_value_written_by_another_process_during_the_load_stays(cache, other, stale):
    """SET NX where there was nothing, compare and set where there was a stale value."""
    policy = STALE if stale else Policy(60)
    if stale:
        cache.get_or_load("k", Loader("oldest"), policy=policy)
        until_stale(cache, "k")

    def load(key):
        other.set("p:k", b'"newer"', px=60_000)
        return "older"

    cache.get_or_load("k", load, policy=policy)
    assert cache.drain(10)
    assert cache.get("k") == "newer"
    assert cache.stats().lease_refused == 1


def test_background_store(cache, other):
    """drain() waits for it."""
    assert cache.get_or_load("k", Loader(), policy=Policy(60, store="background")) == "v1"
    assert cache.drain(10)
    assert other.get("p:k") == b'"v1"'
    assert len(cache._loading.flights) == 0


def test_value_that_cannot_be_stored_is_served(face, server):
    """The loader's value is right all the same; an event says that it isn't cached."""
    events = []
    cache = face.from_url(server.url, "p", ttl=60, on_event=events.append)
    value = object()
    assert cache.get_or_load("k", Loader(value)) is value
    assert [event.kind for event in events] == ["load", "store_error"]


def test_wrong_keys_and_no_ttl_are_errors(face, server):
    """Before anything is loaded."""
    cache, load = face.from_url(server.url, "p"), Loader()
    with pytest.raises(ConfigurationError, match=r"math\.inf"):
        cache.get_or_load("k", load)
    with pytest.raises(TypeError, match="a key is a str"):
        cache.get_or_load(5, load, ttl=1)
    assert cache.get_or_load("k", load, ttl=math.inf) == "v1"
    assert cache.remaining("k") == math.inf
    assert load.runs == 1


@pytest.mark.parametrize("fault", ["refused", "silent", "garbage", "cut", "reset"])
def test_redis_away_serves_from_the_loader(face, proxy, note, fault):
    """Within one timeout for the first call and 5 ms with the breaker open; nothing but the loader's own errors."""
    events = []
    cache = face.from_url(proxy.url, "p", ttl=60, on_event=events.append)
    assert cache.get_or_load("before", Loader()) == "v1"
    if fault == "refused" or fault == "reset":
        proxy.refuse()
    else:
        proxy.mode = fault
    load, times = Loader(), []
    for number in range(FAILURES_TO_OPEN + 30):
        begun = time.perf_counter()
        assert cache.get_or_load(f"k{number}", load, policy=STALE) == "v1"
        times.append(time.perf_counter() - begun)
    note.time("first get_or_load", times[0], "served by the loader")
    note.time("get_or_load, breaker open", min(times[-30:]), "served by the loader")
    assert times[0] < FIRST
    if fault not in ("garbage", "cut"):
        assert cache.stats().breaker != "closed"
    assert min(times[-30:]) < OPEN
    load.error = LookupError("the loader's own")
    with pytest.raises(LookupError):
        cache.get_or_load("x", load)
    assert cache.get_or_load_many(["a", "b"], lambda keys: dict.fromkeys(keys, 1)) == {"a": 1, "b": 1}
    assert cache.stats().backend_errors >= FAILURES_TO_OPEN
    kinds = [event.kind for event in events]
    assert kinds.count("backend_away") == 1
    assert kinds.count("backend_error") >= FAILURES_TO_OPEN


def test_failure_to_store_is_no_failure(face, proxy):
    """Redis goes away between reading and storing: the value is served, and a call that failed tries nothing more."""
    cache = face.from_url(proxy.url, "p", ttl=60)

    def load(key):
        proxy.mode = "silent"
        return "v"

    begun = time.perf_counter()
    assert cache.get_or_load("k", load, policy=STALE) == "v"
    assert time.perf_counter() - begun < FIRST
    assert cache.stats().backend_errors == 1


def test_log_says_one_line_each(face, own_server, caplog):
    """When the backend goes away and when it is back, to those who listen."""
    cache = face.from_url(own_server.url, "p", ttl=60)
    cache.get_or_load("a", Loader())
    with caplog.at_level(logging.INFO, logger="fastcache"):
        own_server.kill()
        for number in range(10):
            assert cache.get_or_load(f"k{number}", Loader()) == "v1"
        own_server.start()
        for _ in range(500):
            if cache.get_or_load("b", Loader()) and "is back" in caplog.text:
                break
            time.sleep(0.02)
    lines = [record.getMessage() for record in caplog.records if record.name == "fastcache"]
    assert len(lines) == 2
    assert "is away" in lines[0]
    assert "is back" in lines[1]


def test_logger_is_silent_by_default(own_server):
    """Nothing on stderr of a program that has no logging of its own."""
    import subprocess
    import sys

    script = f"""
from fastcache import RedisCache
cache = RedisCache.from_url("redis://127.0.0.1:{servers.free_port()}", ttl=60)
assert cache.get_or_load("k", lambda key: 1) == 1
cache.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
