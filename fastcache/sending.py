"""How a Redis cache sends commands: one, many, or a script; the one place through which all of them go.

It asks the breaker first, counts a failure before anyone can swallow it, and wraps it in `BackendError`. This file must
never know what a command is for, never wait, and never send one again that failed (but a script that the server has
forgotten).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from redis.exceptions import AskError, NoScriptError, ResponseError, TryAgainError

from fastcache.errors import BackendError, BackendTimeout
from fastcache.link import AsyncLink, SyncLink
from fastcache.outage import is_outage, is_timeout
from fastcache.plan import Call, Join
from fastcache.replies import is_sound
from fastcache.scripts import Script
from fastcache.targets import Target

__all__ = ["AnyLink", "Sending", "Steps"]

T = TypeVar("T")
AnyLink = TypeVar("AnyLink", bound=SyncLink | AsyncLink)
Steps: TypeAlias = Generator[Call | Join, Any, T]


class Sending(Generic[AnyLink]):
    """The way from a cache to its server."""

    def __init__(self, link: AnyLink) -> None:
        self._link = link
        self._backend_errors = 0

    def _execute_plan(
        self, *command: Any, target: Target | None = None, answers: tuple[type[Exception], ...] = (), **options: Any
    ) -> Steps[Any]:
        """Send one command. `NEVER_DECODE` makes redis-py return bytes from a client that decodes, too.

        `answers`: replies with an error that are no failures; they are raised as they are.
        """
        link = self._link
        if target is None:
            target = link.at(command[1]) if link.cluster else link
        self._admit(command[0], target)
        try:
            reply = yield Call(link.client.execute_command, *command, NEVER_DECODE=True, **options)
        except answers:
            target.breaker.answered()
            raise
        except BackendError:  # of the link: it was closed meanwhile
            raise
        except Exception as error:
            raise self._failure(command[0], error, target) from error
        if target.breaker.failures:
            target.breaker.answered()
        return self._checked(command[0], reply)

    def _pipeline_plan(self, commands: Sequence[tuple[Any, ...]]) -> Steps[list[Any]]:
        """Send many commands in one round trip (in a cluster, one per node). Replies that are errors are returned."""
        targets = [self._link.at(_key(command)) for command in commands]
        for target in set(targets):
            self._admit("pipeline", target)
        try:
            replies: list[Any] = yield Call(self._link.pipeline, commands)
        except BackendError:
            raise
        except Exception as error:  # of some node; a PONG soon clears those that it wasn't
            for target in set(targets) - {targets[0]}:
                self._count(error, target)
            raise self._failure("pipeline", error, targets[0]) from error
        self._expect(replies, commands)
        moved = []
        for place, (reply, target) in enumerate(zip(replies, targets, strict=True)):
            self._checked(commands[place][0], reply)
            if isinstance(reply, AskError | TryAgainError):  # MovedError is an AskError
                moved.append(place)
            elif isinstance(reply, Exception) and not isinstance(reply, ResponseError):
                raise self._failure("pipeline", reply, target) from reply
        for target in set(targets):
            target.breaker.answered()
        for place in moved:
            there = self._link.at(_key(commands[place]))  # as the client knows by now
            try:
                replies[place] = yield from self._execute_plan(*commands[place], target=there, answers=(ResponseError,))
            except ResponseError as error:
                replies[place] = error
        return replies

    def _script_plan(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Any]) -> Steps[Any]:
        """Run a script, by its digest; where the server doesn't know it (any more), by its text, which it then knows."""
        target = self._link.at(keys[0]) if self._link.cluster else self._link
        call = (len(keys), *keys, *arguments)
        try:
            return (
                yield from self._execute_plan(
                    "EVALSHA", script.digest, *call, target=target, answers=(NoScriptError,)
                )
            )
        except NoScriptError:
            return (yield from self._execute_plan("EVAL", script.text, *call, target=target))

    def _scripts_plan(
        self, script: Script, calls: Sequence[tuple[Sequence[bytes], Sequence[Any]]]
    ) -> Steps[list[Any]]:
        """Run a script for several keys, each with its arguments, in one round trip (per node in a cluster); in two more
        where a server doesn't know it (any more).
        """
        if len(calls) == 1:
            return [(yield from self._script_plan(script, *calls[0]))]
        replies = yield from self._digests_plan(script, calls)
        unknown = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            # A call for each node teaches it the script.
            first = {self._link.at(calls[place][0][0]): place for place in reversed(unknown)}
            for place in first.values():
                replies[place] = yield from self._script_plan(script, *calls[place])
            rest = [place for place in unknown if place not in first.values()]
            again = (yield from self._digests_plan(script, [calls[place] for place in rest])) if rest else []
            for place, reply in zip(rest, again, strict=True):
                known = not isinstance(reply, NoScriptError)
                replies[place] = reply if known else (yield from self._script_plan(script, *calls[place]))
        return replies

    def _digests_plan(
        self, script: Script, calls: Sequence[tuple[Sequence[bytes], Sequence[Any]]]
    ) -> Steps[list[Any]]:
        commands = [("EVALSHA", script.digest, len(keys), *keys, *arguments) for keys, arguments in calls]
        replies = yield from self._pipeline_plan(commands)
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, NoScriptError):
                raise self._failure("EVALSHA", reply, self._link) from reply
        return replies

    def _admit(self, command: str, target: Target) -> None:
        link, breaker = self._link, target.breaker
        if link.closed:
            raise BackendError(f"{command}: the cache is closed")
        if breaker.is_open:
            self._backend_errors += 1
            breaker.keep_probing(target.ping, link.asynchronous)
            raise BackendError(f"Redis at {breaker.server}: {command}: {breaker.reason()}")

    def _count(self, error: Exception, target: Target) -> None:
        """Tell the breaker what an error means, before anyone can swallow it."""
        if is_outage(error):
            target.breaker.failed(error)
            if target.breaker.is_open:
                target.breaker.keep_probing(target.ping, self._link.asynchronous)
        elif isinstance(error, ResponseError):
            target.breaker.answered()

    def _failure(self, command: str, error: Exception, target: Target) -> BackendError:
        """Count an error of redis-py and say it in this package's terms."""
        self._backend_errors += 1
        self._count(error, target)
        reason = str(error) or error.__class__.__name__
        if isinstance(error, ResponseError) and ("HELLO" in reason or "NOPROTO" in reason):
            reason += " (this server doesn't speak RESP3: make the client with protocol=2, or use from_url)"
        kind = BackendTimeout if is_timeout(error) else BackendError
        return kind(f"Redis at {target.breaker.server}: {command}: {reason}")

    def _checked(self, command: str, reply: Any) -> Any:
        if not is_sound(command, reply):
            self._backend_errors += 1
            raise BackendError(f"Redis at {self._link.breaker.server}: {command}: not a reply to that: {reply!r:.80}")
        return reply

    def _expect(self, replies: Any, asked: Sequence[Any]) -> None:
        if not isinstance(replies, list) or len(replies) != len(asked):
            raise BackendError(f"Redis at {self._link.breaker.server}: expected {len(asked)} replies, got {replies!r:.80}")


def _key(command: Sequence[Any]) -> Any:
    """The key that decides where a command goes."""
    return command[3] if command[0] == "EVALSHA" else command[1]
