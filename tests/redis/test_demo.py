"""The part of `python -m fastcache` about Redis: with a server of the program's, with none, and without the extra."""

from __future__ import annotations

import sys

import pytest
import servers

import fastcache
from fastcache.__main__ import redis_tier


def test_server_of_the_program_is_used_and_left_running(server, monkeypatch, capsys):
    """The one at REDIS_URL: nothing is killed, and nothing left in it."""
    monkeypatch.setenv("REDIS_URL", server.url)
    redis_tier()
    said = capsys.readouterr().out
    assert "100 values" in said
    assert "killed" not in said
    with server.client() as client:
        assert client.keys("fastcache-demo*") == []


def test_without_a_server_of_the_program_one_is_started_and_killed(monkeypatch, capsys):
    """The calls after that fail, and soon fail fast."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    redis_tier()
    said = capsys.readouterr().out.splitlines()
    assert any("100 values" in line for line in said)
    for what in ("the server is killed; cache.get", "after five failures, cache.get"):
        assert any(what in line and line.endswith("BackendError") for line in said)


def test_without_any_server_the_part_is_left_out(monkeypatch, capsys, tmp_path):
    """Whether there is none to start, or the one at REDIS_URL is away."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    redis_tier()
    assert capsys.readouterr().out == "Redis is left out: no server at REDIS_URL, and no redis-server to start\n"
    port = servers.free_port()
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{port}")
    redis_tier()
    said = capsys.readouterr().out
    assert said.startswith(f"Redis is left out: Redis at 127.0.0.1:{port}: ")
    assert said.count("\n") == 1


def test_without_the_extra_the_part_is_left_out(monkeypatch, capsys):
    """It says what isn't there."""
    monkeypatch.delattr(fastcache, "RedisCache", raising=False)
    monkeypatch.setitem(sys.modules, "fastcache.redis", None)
    with pytest.raises(ImportError):
        _ = fastcache.RedisCache
    redis_tier()
    said = capsys.readouterr().out
    assert said.startswith("Redis is left out: ")
    assert "fastcache.redis" in said
