"""What an error of redis-py means: is the server away, was it too slow, or did it answer?

Owns that judgement for all clients, those of `from_url` and a program's own. This file must never raise, count or wait:
it looks at an exception and says yes or no.
"""

from __future__ import annotations

import redis.exceptions as rexc

__all__ = ["PoolExhausted", "Refused", "answers_ping", "is_outage", "is_timeout", "pool_was_full"]


class PoolExhausted(rexc.MaxConnectionsError):
    """No connection became free in time. The callers' own doing, so it never counts against the server."""


class Refused(rexc.ConnectionError):
    """The breaker opened while this caller waited for a connection: it must not start waiting for the server now."""


def is_outage(error: BaseException) -> bool:
    """Whether a failed call says that the server is away: a connection that failed or a reply that didn't come.

    Not a reply with an error (OOM, READONLY, WRONGTYPE, LOADING, NOAUTH ...), which is a sign of life, nor a pool
    without a free connection, nor a caller's cancellation.
    """
    if isinstance(error, rexc.MaxConnectionsError | Refused) or pool_was_full(error):
        return False
    if isinstance(error, rexc.AuthenticationError | rexc.AuthorizationError | rexc.BusyLoadingError):
        return False  # redis-py derives these replies from ConnectionError
    if isinstance(error, rexc.ConnectionError):  # a Sentinel's connection hides READONLY, a demoted master's reply, so
        return not isinstance(error.__context__, rexc.ReadOnlyError)
    if isinstance(error, rexc.RedisClusterException):
        return "cannot be connected" in str(error)  # no node of the cluster answered
    return isinstance(error, rexc.TimeoutError | rexc.InvalidResponse | OSError | EOFError)


def is_timeout(error: BaseException) -> bool:
    """Whether the caller waited for nothing: for a reply, or for a free connection."""
    if isinstance(error, rexc.MaxConnectionsError):
        return isinstance(error, PoolExhausted)
    return isinstance(error, rexc.TimeoutError | TimeoutError) or pool_was_full(error)


def pool_was_full(error: BaseException) -> bool:
    return (
        isinstance(error, rexc.ConnectionError) and str(error) == "No connection available."
    )  # BlockingConnectionPool


def answers_ping(error: BaseException) -> bool:
    """Whether a PING that failed was answered all the same: a wrong password, or a user who may not PING.

    Callers should be told so by their own commands, rather than be shut out for ever. LOADING is no such answer.
    """
    return isinstance(error, rexc.AuthenticationError | rexc.AuthorizationError | rexc.NoPermissionError)
