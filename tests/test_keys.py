"""Glob patterns: fixed cases, the work done for hostile patterns, and the real Redis as the judge."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcache.keys import escape_glob, glob_matcher


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("user:*", ["user:", "user:1", "user:\n1"], ["User:1", "xuser:1", "user"]),
        ("h?llo", ["hello", "h\nllo", "hüllo"], ["hllo", "heello"]),
        ("h[ae]llo", ["hello", "hallo"], ["hillo"]),
        ("h[^e]llo", ["hallo", "h^llo"], ["hello"]),
        ("h[a-c]llo", ["hbllo"], ["hdllo"]),
        ("h[c-a]llo", ["hbllo"], ["hdllo"]),
        ("a\\*b", ["a*b"], ["axb"]),
        ("a\\", ["a\\"], ["a"]),
        ("[]", [], ["", "[]", "]"]),
        ("[^]", ["x"], ["", "[^]"]),
        ("[abc", ["a", "c"], ["d", "[abc"]),
        ("[a\\]b]", ["]", "a", "b"], ["\\"]),
        ("", [""], ["a"]),
        ("*", ["", "a\nb"], []),
        ("**a***", ["a", "bab"], ["b"]),
        ("*ab*ab", ["abab", "xabyab"], ["ab", "aba"]),
        ("a.c", ["a.c"], ["abc"]),
        ("(a|b)+$", ["(a|b)+$"], ["a"]),
    ],
)
def test_glob_matches_as_documented(pattern, matching, others):
    """Stars, sets, ranges, negation, escapes and the odd ends, on whole keys."""
    matches = glob_matcher(pattern)
    assert [key for key in matching if not matches(key)] == []
    assert [key for key in others if matches(key)] == []


@given(st.text())
def test_escaped_text_matches_itself_alone(text):
    """Whatever the text: the pattern made of it matches it, and nothing longer."""
    matches = glob_matcher(escape_glob(text))
    assert matches(text)
    assert not matches(text + "x")
    assert not matches("x" + text)


@pytest.mark.parametrize("pattern", ["*a" * 30 + "*b", "a*" * 50 + "b", "*?" * 40 + "b", "*[ab]" * 30 + "*c"])
def test_hostile_pattern_takes_linear_time(run_script, pattern):
    """A pattern that sends a backtracking matcher round for years is done with 50,000 characters in seconds."""
    run_script(
        f"from fastcache.keys import glob_matcher\nassert not glob_matcher({pattern!r})('a' * 50_000 + 'd')",
        timeout_seconds=20,
    )


# The judge

ALPHABET = "ab-]^[\\*?cz"


class Redis:
    """A server of our own on a free port, and the two commands that this test needs."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        deadline = time.monotonic() + 15
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
                break
            except OSError:
                assert time.monotonic() < deadline, "redis-server doesn't answer"
                time.sleep(0.02)
        self.file = self.socket.makefile("rb")

    def __call__(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            data = word.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        self.socket.sendall(b"".join(parts))
        return self.reply()

    def reply(self):
        line = self.file.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        assert kind in b"+:", line
        return rest.decode()

    def close(self):
        self.file.close()
        self.socket.close()
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def redis():
    if not shutil.which("redis-server"):
        pytest.skip("needs redis-server")
    server = Redis()
    yield server
    server.close()


TEXT = st.text(st.sampled_from(ALPHABET), max_size=8)


@settings(max_examples=400)
@given(pattern=TEXT, keys=st.sets(TEXT, min_size=1, max_size=12), mutate=st.booleans())
def test_glob_matches_as_redis_does(redis, pattern, keys, mutate):
    """KEYS and SCAN MATCH of a real server choose the same keys."""
    if mutate:  # a key turned into a pattern meets the key more often
        pattern = re.sub("[abc]", lambda found: {"a": "?", "b": "*", "c": "[a-c]"}[found[0]], min(keys))
    redis("FLUSHALL")
    for key in keys:
        redis("SET", key, "1")
    expected = set(redis("KEYS", pattern))
    assert set(redis("SCAN", "0", "MATCH", pattern, "COUNT", "1000")[1]) == expected
    matches = glob_matcher(pattern)
    assert {key for key in keys if matches(key)} == expected, pattern
