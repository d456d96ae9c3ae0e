"""What a Redis cache costs over the bare redis-py call, and what decoding costs. Prints ratios.

    python benches/bench_redis.py [--json]

Both sides talk to the same server over the same client in the same run: short turns, one side after the other, the
minimum of each side, the median of three rounds. Needs a redis-server on PATH (or REDIS_URL).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import msgspec
import redis
import redis.asyncio

from fastcache.redis import AsyncRedisCache, RedisCache
from fastcache.serializers import Json, MsgPack, SignedPickle

TURN = 20  # calls in a row of one side: some 1 ms, shorter than the machine's changes of speed
TURNS = 60
ROUNDS = 3


@dataclass
class User:
    id: int
    name: str
    email: str
    tags: list[str]
    active: bool


USER = User(12345, "Ann Example", "ann@example.org", ["admin", "editor"], True)  # 98 bytes of JSON


@contextmanager
def server() -> Iterator[str]:
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        sys.exit("bench_redis: no redis-server on PATH and no REDIS_URL")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def compare(bare: Callable[[], Any], ours: Callable[[], Any]) -> tuple[float, float]:
    """Seconds per call of each side."""

    def turn(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        for _ in range(TURN):
            call()
        return (time.perf_counter() - start) / TURN

    rounds = []
    for _ in range(ROUNDS):
        turns = [(turn(bare), turn(ours)) for _ in range(TURNS)]
        rounds.append((min(first for first, _ in turns), min(second for _, second in turns)))
    return _middle(rounds)


async def acompare(bare: Callable[[], Awaitable[Any]], ours: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    async def turn(call: Callable[[], Awaitable[Any]]) -> float:
        start = time.perf_counter()
        for _ in range(TURN):
            await call()
        return (time.perf_counter() - start) / TURN

    rounds = []
    for _ in range(ROUNDS):
        turns = [(await turn(bare), await turn(ours)) for _ in range(TURNS)]
        rounds.append((min(first for first, _ in turns), min(second for _, second in turns)))
    return _middle(rounds)


def _middle(rounds: list[tuple[float, float]]) -> tuple[float, float]:
    middle = statistics.median(second / first for first, second in rounds)
    return min(rounds, key=lambda each: abs(each[1] / each[0] - middle))


Row = tuple[str, float, float, float | None]  # what, seconds of the bare side, of ours, the bar for the ratio


def against_redis(url: str) -> Iterator[Row]:
    cache = RedisCache.from_url(url, "bench", ttl=600)
    client = cache.client
    value = "x" * 98  # 100 bytes of JSON
    stored = json.dumps(value).encode()
    cache.set("one", value)
    keys = [f"user:{number}" for number in range(100)]
    names = [f"bench:{key}" for key in keys]
    cache.set_many(dict.fromkeys(keys, USER))
    decode = msgspec.json.Decoder().decode

    def bare_many() -> dict[str, Any]:
        return {key: decode(data) for key, data in zip(keys, client.mget(names), strict=True)}

    def bare_set_many() -> None:
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.set(name, stored, px=600_000)
        pipe.execute()

    plain = dict.fromkeys(keys, value)
    yield "get, 100 bytes", *compare(lambda: client.get("bench:one"), lambda: cache.get("one")), 1.25
    yield (
        "set, 100 bytes",
        *compare(lambda: client.set("bench:one", stored, px=600_000), lambda: cache.set("one", value)),
        1.25,
    )
    yield "get_many(100), bare: MGET and decoding", *compare(bare_many, lambda: cache.get_many(keys)), 1.5
    yield "set_many(100), bare: a pipeline of SETs", *compare(bare_set_many, lambda: cache.set_many(plain)), None
    cache.close()


async def against_redis_asyncio(url: str) -> list[Row]:
    rows: list[Row] = []
    async with AsyncRedisCache.from_url(url, "bench", ttl=600) as cache:
        client = cache.client
        stock = redis.asyncio.Redis.from_url(url)  # with the pool a program would have had
        value = "x" * 98
        stored = json.dumps(value).encode()
        await cache.set("one", value)
        keys = [f"user:{number}" for number in range(100)]
        names = [f"bench:{key}" for key in keys]
        await cache.set_many(dict.fromkeys(keys, USER))
        decode = msgspec.json.Decoder().decode

        async def bare_many() -> dict[str, Any]:
            return {key: decode(data) for key, data in zip(keys, await client.mget(names), strict=True)}

        pair = await acompare(lambda: client.get("bench:one"), lambda: cache.get("one"))
        rows.append(("asyncio get, 100 bytes", *pair, 1.35))
        pair = await acompare(lambda: stock.get("bench:one"), lambda: cache.get("one"))
        rows.append(("asyncio get, bare: redis-py's default pool", *pair, 1.35))
        pair = await acompare(lambda: client.set("bench:one", stored, px=600_000), lambda: cache.set("one", value))
        rows.append(("asyncio set, 100 bytes", *pair, 1.35))
        pair = await acompare(bare_many, lambda: cache.get_many(keys))
        rows.append(("asyncio get_many(100)", *pair, 1.5))
        await stock.aclose()
    return rows


def decoding() -> Iterator[Row]:
    """Bare: what the standard library takes for the same."""
    key = "bench:user:1"
    as_json, as_msgpack, signed = Json(), MsgPack(), SignedPickle(b"0123456789abcdef")
    texts = as_json.dumps(USER, key), as_msgpack.dumps(USER, key), signed.dumps(USER, key), pickle.dumps(USER)
    fields = asdict(USER)

    def times(call: Callable[[], Any]) -> Callable[[], None]:
        def fifty() -> None:
            for _ in range(50):
                call()

        return fifty

    def per_call(pair: tuple[float, float]) -> tuple[float, float]:
        return pair[0] / 50, pair[1] / 50

    def pair(bare: Callable[[], Any], ours: Callable[[], Any]) -> tuple[float, float]:
        return per_call(compare(times(bare), times(ours)))

    load, dump = json.loads, json.dumps
    yield "json encode, bare: json.dumps of a dict", *pair(lambda: dump(fields), lambda: as_json.dumps(USER, key)), None
    yield (
        "json decode untyped, bare: json.loads",
        *pair(lambda: load(texts[0]), lambda: as_json.loads(texts[0], key)),
        None,
    )
    yield (
        "json decode typed, bare: User(**json.loads)",
        *pair(lambda: User(**load(texts[0])), lambda: as_json.loads(texts[0], key, User)),
        None,
    )
    yield (
        "msgpack decode typed, bare: User(**json.loads)",
        *pair(lambda: User(**load(texts[0])), lambda: as_msgpack.loads(texts[1], key, User)),
        None,
    )
    yield (
        "signed pickle, bare: pickle.loads",
        *pair(lambda: pickle.loads(texts[3]), lambda: signed.loads(texts[2], key)),
        None,
    )


def compression() -> str:
    random = Random(1)
    words = ["".join(random.choices("etaoinshrdlu", k=random.randint(3, 9))) for _ in range(2000)]
    names = [" ".join(random.choices(words, k=4)) for _ in range(200)]
    data = json.dumps([{**asdict(USER), "id": random.randrange(10**6), "name": name} for name in names]).encode()
    rows = []
    for level in (1, 6, 9):
        start = time.perf_counter()
        for _ in range(20):
            packed = zlib.compress(data, level)
        seconds = (time.perf_counter() - start) / 20
        rows.append(f"level {level}: {len(packed) / len(data):.3f} of {len(data)} bytes in {seconds * 1e6:.0f} us")
    return "; ".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args()
    with server() as url:
        rows = [*against_redis(url), *asyncio.run(against_redis_asyncio(url)), *decoding()]
    for what, bare, ours, bar in rows:
        ratio = ours / bare
        if options.json:
            print(json.dumps({"what": what, "bare_us": bare * 1e6, "ours_us": ours * 1e6, "ratio": ratio, "bar": bar}))
        else:
            verdict = "" if bar is None else f"(at most {bar}: {'yes' if ratio <= bar else 'NO'})"
            print(f"{what:48} {bare * 1e6:9.2f} us {ours * 1e6:9.2f} us  {ratio:5.2f} times  {verdict}")
    if not options.json:
        print("zlib on JSON:", compression())


if __name__ == "__main__":
    main()
