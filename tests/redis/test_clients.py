"""Every sort of client redis-py has: what the cache stores and returns doesn't depend on it."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import time
import traceback
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
import servers
from proxy import Proxy
from redis.backoff import NoBackoff
from redis.retry import Retry

from fastcache.errors import BackendError, ConfigurationError
from fastcache.redis import AsyncRedisCache, RedisCache
from fastcache.serializers import SignedPickle

BINARY = bytes(range(256)) * 3


def exercise(face, cache, plain):
    """All operations with a binary serializer: `cache` stores, `plain` (a bytes client of this face) looks."""
    cache.set("a", {"binary": BINARY})
    assert cache.get("a") == {"binary": BINARY}
    cache.set_many({"b": BINARY, "c": None, "ключ": 3}, ttl=30)
    assert cache.get_many(["a", "b", "c", "ключ", "nothing"]) == {
        "a": {"binary": BINARY},
        "b": BINARY,
        "c": None,
        "ключ": 3,
    }
    assert cache.get("nothing") is None
    assert cache.get("nothing", 7) == 7
    assert 29 < cache.remaining("b") <= 30
    assert cache.remaining("nothing") is None
    assert cache.exists("b") is True
    assert cache.exists("nothing") is False
    assert cache.delete("b") is True
    assert cache.delete("b") is False
    assert cache.delete_many(["a", "a", "nothing"]) == 1
    assert face.run(plain.get, "app:c") is not None
    cache.set_many({f"user:{number}": number for number in range(30)}, ttl=60)
    assert cache.delete_pattern("user:1?") == 10
    assert cache.delete_pattern("nothing*") == 0
    cache.clear()
    assert cache.get_many([f"user:{number}" for number in range(30)]) == {}
    assert cache.stats().backend_errors == 0


@pytest.mark.parametrize("decode_responses", [False, True], ids=["bytes", "str"])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("legacy_responses", [False, True], ids=["unified", "legacy"])
@pytest.mark.parametrize("given", [False, True], ids=["from_url", "given"])
def test_single_server(face, server, decode_responses, protocol, legacy_responses, given):
    """Sixteen ways to configure a client on each face, with binary values through all of them."""
    options = {"decode_responses": decode_responses, "protocol": protocol}
    if "legacy_responses" in inspect.signature(redis.Redis).parameters:  # redis-py 8
        options["legacy_responses"] = legacy_responses
    module = face.redis()
    plain = module.Redis(port=server.port)
    client = module.Redis(port=server.port, **options)
    if given:
        cache = face.on(client, "app", ttl=60, serializer="msgpack")
    else:
        cache = face.from_url(server.url, "app", ttl=60, serializer="msgpack", **options)
    exercise(face, cache, plain)
    for each in (plain, client):
        face.run(each.close if face.name == "sync" else each.aclose)


def test_signed_pickle_on_a_decoding_client(face, server):
    """Bytes that are no text come back whole."""
    cache = face.from_url(server.url, "app", ttl=60, serializer=SignedPickle(b"x" * 16), decode_responses=True)
    cache.set("a", {1, 2, frozenset({3})})
    assert cache.get("a") == {1, 2, frozenset({3})}


def test_a_single_connection_client(face, server):
    """`single_connection_client=True`: one connection, a lock, the same answers."""
    module = face.redis()
    client = module.Redis(port=server.port, single_connection_client=True)
    plain = module.Redis(port=server.port)
    exercise(face, face.on(client, "app", ttl=60, serializer="msgpack"), plain)
    for each in (plain, client):
        face.run(each.close if face.name == "sync" else each.aclose)


def test_another_encoding_of_the_client_changes_no_key(face, server):
    """Names of keys are UTF-8, whatever the client was told."""
    module = face.redis()
    client = module.Redis(port=server.port, encoding="utf-16")
    cache = face.on(client, "app", ttl=60)
    cache.set("ключ", 1)
    with server.client() as look:
        assert look.keys() == ["app:ключ".encode()]
    assert cache.get("ключ") == 1
    face.run(client.close if face.name == "sync" else client.aclose)


def test_a_unix_socket(face):
    """`unix://` URLs."""
    with servers.Server() as server:
        server.destroy()
    server = servers.Server()
    path = server.directory / "socket"
    server.options["unixsocket"] = path
    with server.start():
        cache = face.from_url(f"unix://{path}?db=2", ttl=60)
        cache.set("a", 1)
        assert cache.get("a") == 1
        assert str(path) in repr(cache)
        with server.client(db=2) as look:
            assert look.dbsize() == 1


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[servers.Server, dict[str, str]]]:
    files = servers.certificates(tmp_path_factory.mktemp("tls"))
    server = servers.Server(requirepass="se:cret/@")
    server.options |= {
        "port": 0,
        "tls-port": server.port,
        "tls-cert-file": files["server.crt"],
        "tls-key-file": files["server.key"],
        "tls-ca-cert-file": files["ca.crt"],
        "tls-auth-clients": "no",
    }
    with server.start():
        yield server, files


def test_tls_and_a_password(face, tls_server):
    """`rediss://` with a CA of one's own; password and TLS options by URL or by keyword."""
    server, files = tls_server
    url = f"rediss://:se%3Acret%2F%40@127.0.0.1:{server.port}"
    cache = face.from_url(url, "app", ttl=60, serializer="msgpack", ssl_ca_certs=files["ca.crt"], **servers.PATIENT)
    module = face.redis()
    plain = module.Redis(port=server.port, ssl=True, ssl_ca_certs=files["ca.crt"], password="se:cret/@")
    exercise(face, cache, plain)
    given = face.on(plain, "app", ttl=60, serializer="msgpack")
    exercise(face, given, plain)
    face.run(plain.close if face.name == "sync" else plain.aclose)
    by_query = face.from_url(f"{url}?ssl_ca_certs={files['ca.crt']}", ttl=60, **servers.PATIENT)
    by_query.set("a", 1)
    assert by_query.get("a") == 1
    keyword = face.from_url(
        f"rediss://127.0.0.1:{server.port}", ttl=60, password="se:cret/@", ssl_ca_certs=files["ca.crt"], **servers.PATIENT
    )
    assert keyword.get("a") == 1


def test_tls_to_a_stranger_is_refused(face, tls_server):
    """A certificate that no known CA signed: an error at once, not a connection without checks."""
    server, _ = tls_server
    cache = face.from_url(f"rediss://:se%3Acret%2F%40@127.0.0.1:{server.port}", ttl=60, **servers.PATIENT)
    with pytest.raises(BackendError, match=r"(?i)certificate"):
        cache.set("a", 1)


def test_tls_connections_dropped_between_calls_are_not_noticed(face, tls_server):
    """As without TLS, through the proxy, by reset and by orderly end."""
    server, files = tls_server
    with Proxy(server.port) as proxy:
        cache = face.from_url(
            f"rediss://:se%3Acret%2F%40@127.0.0.1:{proxy.port}", ttl=60, ssl_ca_certs=files["ca.crt"],
            socket_timeout=2, socket_connect_timeout=5,
        )  # fmt: skip
        cache.set("a", 1)
        for drop in (proxy.reset_all, proxy.close_all) * 3:
            drop()
            assert cache.get("a") == 1
        proxy.mode = "silent"
        with pytest.raises(BackendError):
            cache.get("a")
        proxy.mode = "pass"
        assert cache.get("a") == 1


def test_a_burst_of_first_calls_over_tls_makes_one_context(tls_server, monkeypatch):
    """In asyncio, where making one per connection stops the loop until the others time out."""
    server, files = tls_server
    made = []
    create = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda *args: made.append(1) or create(*args))

    async def burst():
        url = f"rediss://:se%3Acret%2F%40@127.0.0.1:{server.port}"
        cache = AsyncRedisCache.from_url(url, ttl=60, ssl_ca_certs=files["ca.crt"], **servers.PATIENT)
        outcomes = await asyncio.gather(*(cache.get("nothing") for _ in range(20)), return_exceptions=True)
        state = (await cache.stats()).breaker
        await cache.close()
        return outcomes, state

    assert asyncio.run(burst()) == ([None] * 20, "closed")
    assert len(made) == 1


def test_making_a_tls_context_takes_nothing_from_the_time_to_connect(tls_server, monkeypatch):
    """However long it takes on a busy machine; and one that can't be made is an error of the connection."""
    server, files = tls_server
    url = f"rediss://:se%3Acret%2F%40@127.0.0.1:{server.port}"
    create = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda *args: time.sleep(1.5) or create(*args))

    async def main():
        options = {**servers.PATIENT, "socket_connect_timeout": 1}
        cache = AsyncRedisCache.from_url(url, ttl=60, ssl_ca_certs=files["ca.crt"], **options)
        assert await cache.get("nothing") is None
        await cache.close()
        monkeypatch.undo()
        cache = AsyncRedisCache.from_url(url, ttl=60, ssl_ca_certs=files["ca.crt"] + ".none", **servers.PATIENT)
        with pytest.raises(BackendError, match="No such file"):
            await cache.get("nothing")
        await cache.close()

    asyncio.run(main())


def test_a_client_of_the_other_face_is_refused():
    """With the name of the class to use; so are URLs, pipelines and anything else."""
    sync, other = redis.Redis(), redis.asyncio.Redis()
    for cls, wrong, expected in (
        (RedisCache, other, "AsyncRedisCache"),
        (AsyncRedisCache, sync, "use RedisCache"),
        (RedisCache, "redis://localhost", "from_url"),
        (AsyncRedisCache, "redis://localhost", "from_url"),
        (RedisCache, sync.pipeline(), "Pipeline"),
        (RedisCache, None, "NoneType"),
        (RedisCache, object(), "object"),
        (AsyncRedisCache, redis.asyncio, "module"),
    ):
        with pytest.raises(ConfigurationError, match=expected):
            cls(wrong)


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://localhost", "redis://localhost:port", "redis://localhost/x", "", None, 5]
)
def test_a_bad_url_is_refused(face, url):
    """At construction."""
    with pytest.raises(ConfigurationError, match="redis://"):
        face.cls.from_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cr/et@127.0.0.1:7711/0",
        "redis://user:s3cr?et@127.0.0.1:7711/0",
        "redis://:s3cr#et@127.0.0.1:7711",
        "redis://:123/s3cret@127.0.0.1:7711/0",
        "redis://:123?s3cret@127.0.0.1:7711/0",
        "redis://:x@y/s3cret@127.0.0.1:7711/0",
        "redis://:s3cret@[::1",
        "rediss://:s3cret@127.0.0.1:99999",
        "unix://:s3cr/et@/run/redis.sock",
    ],
)
def test_an_unreadable_url_shows_nothing_of_its_password(face, url):
    """Neither in the message nor in the errors chained to it."""
    with pytest.raises(ConfigurationError, match="percent-encoded") as caught:
        face.cls.from_url(url)
    assert "s3cr" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "options",
    [
        {"no_such_option": 1},
        {"protocol": 5},
        {"protocol": "x"},
        {"max_connections": -1},
        {"max_connections": "many"},
        {"connection_class": redis.Connection},
        {"socket_timeout": "soon"},
        {"socket_timeout": -1},
        {"socket_connect_timeout": 0},
        {"timeout": "soon"},
    ],
)
def test_a_bad_option_is_refused(face, options):
    """At construction, not at the first command."""
    with pytest.raises(ConfigurationError):
        face.cls.from_url("redis://localhost", **options)


def test_options_reach_the_connection_and_the_url_wins(face, server):
    """Every option of redis-py's, by keyword or query."""
    cache = face.from_url(f"{server.url}?db=5&client_name=by-url", ttl=60, client_name="by-keyword", db=4)
    cache.set("a", 1)
    with server.client(decode_responses=True) as look:
        assert [each["db"] for each in look.client_list() if each["name"] == "by-url"] == ["5"]
    with server.client(db=5) as look:
        assert look.dbsize() == 1


def test_the_defaults_fail_fast(face):
    """0.25 s each, no retries, a pool that waits."""
    cache = face.from_url("redis://127.0.0.1:1")
    client = cache.client if face.name == "sync" else face.run(lambda: cache.cache.client)
    pool = client.connection_pool
    assert isinstance(pool, redis.BlockingConnectionPool | redis.asyncio.BlockingConnectionPool)
    options = pool.connection_kwargs
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.25, 0.25)
    assert options["retry"].get_retries() == 0
    assert isinstance(options["retry"]._backoff, NoBackoff)


def test_retries_of_the_program_s_own_are_kept(face, server):
    """Who asks for them gets them, and nothing of ours on top."""
    retry = (redis.asyncio.retry.Retry if face.name == "asyncio" else Retry)(NoBackoff(), 2)
    with Proxy(server.port) as proxy:
        cache = face.from_url(proxy.url, ttl=60, retry=retry)
        proxy.mode, proxy.cut = "cut", 0
        with pytest.raises(BackendError):
            cache.get("a")
        assert proxy.accepted >= 3


def test_a_given_client_of_an_old_server_says_what_to_do(face, server):
    """HELLO refused to a client that isn't ours to change."""
    with Proxy(server.port) as proxy:
        proxy.mode = "no-hello"
        client = face.redis().Redis(port=proxy.port, protocol=3)
        with pytest.raises(BackendError, match="protocol=2"):
            face.on(client).get("a")
        face.run(client.close if face.name == "sync" else client.aclose)


def test_ssl_module_is_there():
    """The TLS tests would fail without it, which is right; this says why."""
    assert ssl.OPENSSL_VERSION
    assert inspect.iscoroutinefunction(AsyncRedisCache.get)
