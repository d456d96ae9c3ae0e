"""What counts against a server: silence and broken connections, never an answer."""

from __future__ import annotations

import asyncio

import pytest
import redis.exceptions as rexc

from fastcache.breaker import FAILURES_TO_OPEN, Breaker
from fastcache.outage import PoolExhausted, Refused, answers_ping, is_outage, is_timeout


def demoted():
    """What a Sentinel's connection makes of READONLY."""
    try:
        try:
            raise rexc.ReadOnlyError("READONLY")
        except rexc.ReadOnlyError:
            raise rexc.ConnectionError("The previous master is now a slave")  # noqa: B904  (as redis-py has it)
    except rexc.ConnectionError as error:
        return error


CASES = [
    # error, outage, timeout
    (rexc.ConnectionError("Connection closed by server."), True, False),
    (rexc.TimeoutError("Timeout reading"), True, True),
    (TimeoutError(), True, True),
    (ConnectionResetError(), True, False),
    (EOFError(), True, False),
    (rexc.InvalidResponse("Protocol Error"), True, False),
    (rexc.RedisClusterException("Redis Cluster cannot be connected. Please provide"), True, False),
    (rexc.RedisClusterException("No targets were found"), False, False),
    (rexc.OutOfMemoryError("OOM"), False, False),
    (rexc.ReadOnlyError("READONLY"), False, False),
    (demoted(), False, False),
    (rexc.ResponseError("WRONGTYPE"), False, False),
    (rexc.BusyLoadingError("LOADING"), False, False),
    (rexc.AuthenticationError("WRONGPASS"), False, False),
    (rexc.NoPermissionError("NOPERM"), False, False),
    (rexc.MaxConnectionsError("Too many connections"), False, False),
    (rexc.ConnectionError("No connection available."), False, True),
    (PoolExhausted("no connection became free"), False, True),
    (Refused("not tried"), False, False),
    (rexc.DataError("Invalid input"), False, False),
    (asyncio.CancelledError(), False, False),
    (KeyboardInterrupt(), False, False),
]


@pytest.mark.parametrize(("error", "outage", "timeout"), CASES, ids=[f"{type(case[0]).__name__}" for case in CASES])
def test_an_error_is_judged(error, outage, timeout):
    """Each sort that redis-py raises."""
    assert is_outage(error) is outage
    assert is_timeout(error) is timeout


def test_refusals_answer_a_ping_and_loading_does_not():
    """The first says that the server serves, the second that it doesn't yet."""
    assert answers_ping(rexc.AuthenticationError("WRONGPASS"))
    assert answers_ping(rexc.NoPermissionError("NOPERM"))
    assert not answers_ping(rexc.BusyLoadingError("LOADING"))
    assert not answers_ping(rexc.TimeoutError("Timeout"))


def test_the_breaker_opens_after_five_in_a_row_and_closes_by_a_pong_only():
    """A late success of a call that was under way doesn't close it."""
    breaker = Breaker("server")
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failed(rexc.ConnectionError("away"))
    assert not breaker.is_open
    breaker.answered()
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failed(rexc.ConnectionError("away"))
    assert not breaker.is_open
    breaker.failed(rexc.TimeoutError("silent"))
    assert breaker.is_open
    assert breaker.opened == 1
    assert "silent" in breaker.reason()
    breaker.answered()
    assert breaker.is_open
    breaker.close()
    assert (breaker.state, breaker.failures) == ("closed", 0)
