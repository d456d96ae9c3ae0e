"""The part of the loading engine that writes and invalidates for the program, and sees to it that it takes effect.

A key whose invalidation the backend didn't take waits in the outbox: it isn't read from the cache until the backend has
heard of it. What is being loaded for a key that is written or invalidated is not stored. This file must never call a loader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from fastcache.errors import BackendError, SerializationError
from fastcache.flight import inside
from fastcache.plan import Call, Join, Plan
from fastcache.policy import Policy
from fastcache.storing import Errand, Storing

__all__ = ["Writing"]

FLUSH_BATCH = 500  # keys of the outbox at a time
FLUSH_INTERVAL = 1.0  # seconds, as the breaker's probe
LOOK = 0.5  # seconds between two looks at whether a store that is waited for can end at all: nobody tells when a loop stops


class Writing(Storing):
    """What an engine does for those who write."""

    # -- writing and invalidating ----------------------------------------------------------------------------------

    def forget_plan(self, *identities: Any) -> Plan[None]:
        """Nothing that is being loaded for keys is stored from now on, nor still on its way into the store."""
        for identity in identities:
            self._held_off.pop(identity, None)
        yield from self.await_plan([self.flights.forget(identity) for identity in identities])

    def await_plan(self, stores: Iterable[Any]) -> Plan[None]:
        for stored in stores:
            if stored is not None and stored.enter(inside.get()):
                try:
                    while not (yield Call(self.driver.wait, stored, LOOK)):
                        pass  # its event loop may have ended, or have been stopped: the driver looks
                finally:
                    stored.leave(inside.get())

    def invalidate_plan(self, *keys: Any, held: str = "") -> Plan[int]:
        """Remove keys, or, if the backend doesn't, see to it that nobody here reads them. How many there were, if known.

        `held`: what `hold_plan` returned for the key.
        """
        identities = [self.store.identity(key) for key in keys]
        self.deliver()
        marks = self.outbox.marks(identities)
        there = 0
        try:
            yield from self.forget_plan(*identities)
            there = yield from self.store.remove_plan(identities, *((held,) if held else ()))
        except self._failures as error:
            self.reporter.backend_failed(keys[0] if len(keys) == 1 else keys, error, self.store.unreachable(error))
            self._refuse_if_closed(error)
            self._post(*identities)
        except BaseException as error:
            yield from self._interrupted_plan(identities, error)
            raise
        else:
            self.outbox.done(marks)
            self.reporter.backend_answered()
        finally:
            self._forget(identities)
        return there

    def abandon_plan(self, key: Any, held: str = "") -> Plan[None]:
        """The same for who has something of his own to raise or to return: that a closed cache takes no change is less."""
        with suppress(BackendError):
            yield from self.invalidate_plan(key, held=held)

    def put_plan(
        self,
        values: Mapping[Any, Any],
        policy: Policy,
        held: str = "",
        tags: tuple[bytes, ...] = (),
        strict: bool = False,
    ) -> Plan[None]:
        """Store what the program wrote, or, if the backend doesn't, see to it that nobody here reads anything older.

        `values`: by key. `strict`: a value that can't be stored is the caller's mistake, and changes nothing.
        """
        keys = {self.store.identity(key): key for key in values}
        stored = {identity: values[key] for identity, key in keys.items()}
        errand = Errand(keys, None, policy, None, len(keys) == 1, writes=True, held=held, tags=tags)
        self.deliver()
        marks = self.outbox.marks(keys)
        try:
            yield from self.forget_plan(*keys)
            yield from self.store.write_plan(stored, errand, self._lives(stored, policy))
        except SerializationError as error:
            if strict:
                raise
            self.reporter.tell("store_error", errand.name(list(keys)), error=error)
            yield from self.invalidate_plan(*values, held=held)
        except self._failures as error:
            self.reporter.backend_failed(errand.name(list(keys)), error, self.store.unreachable(error))
            self._refuse_if_closed(error)
            if self.store.unreachable(error):
                self._post(*keys)
            else:
                yield from self.invalidate_plan(*values, held=held)  # it said no, so it is there
        except BaseException as error:
            yield from self._interrupted_plan(keys, error)
            raise
        else:
            self.outbox.done(marks)
            self.reporter.backend_answered()
        finally:
            self._forget(keys)

    def hold_plan(self, key: Any) -> Plan[str]:
        """Begin to write what a key's value is made from: until `invalidate_plan` or `put_plan` of it, nobody stores one.

        A store without leases can't be told, nor one that is away; "" then.
        """
        if not self.store.leases:
            return ""
        store: Any = self.store
        identity = store.identity(key)
        try:
            yield from self.forget_plan(identity)
            token: str = yield from store.hold_plan(identity)
            return token
        except self._failures as error:
            self.reporter.backend_failed(key, error, self.store.unreachable(error))
            self._refuse_if_closed(error)
            self._post(identity)
            return ""
        except BaseException as error:
            yield from self._interrupted_plan([identity], error)
            raise
        finally:
            self._forget([identity])

    def _forget(self, identities: Iterable[Any]) -> None:
        for identity in identities:
            self.flights.forget(identity)

    def _interrupted_plan(self, identities: Iterable[Any], error: BaseException) -> Plan[None]:
        """Whether a write took place isn't known: see to it that nobody here reads what it was to replace."""
        if not self.store.local:
            self._post(*identities)
        elif not isinstance(error, Exception):  # an error is that of an `on_evict`, after the write
            yield from self.store.remove_plan(identities)

    def exclusive_plan(self, key: Any, plan: Plan[Any]) -> Plan[Any]:
        """Run a plan while no other such plan runs for the key in this process (in asyncio, in this event loop)."""
        identity = self.store.identity(key)
        current = inside.get()
        while True:
            flight, mine = self.writes.board([identity])
            if mine:
                break
            other = self.writes.under_way(identity)
            if other is None:
                continue
            if not other.enter(current):
                return (yield from plan)  # inside the other one: it waits for us
            try:
                yield Join(other)
            finally:
                other.leave(current)
        try:
            flight.enter(current)
            token = inside.set(flight)
            try:
                return (yield from plan)
            finally:
                inside.reset(token)
                flight.leave(current)
        finally:
            self.writes.discard([identity], flight)

    # -- the outbox ------------------------------------------------------------------------------------------------

    def _refuse_if_closed(self, error: BaseException) -> None:
        """What a closed cache didn't send is never sent: whoever writes must know."""
        if self.store.closed or self.driver.stopped:
            raise BackendError("the cache is closed, and Redis was not told of the change") from error

    def _post(self, *identities: Any) -> None:
        for identity in identities:
            self.outbox.add(identity)
        self._keep_flushing(pause=FLUSH_INTERVAL)

    def post_all(self, error: BaseException | None = None, thorough: bool = False) -> None:
        """Have the whole namespace cleared, once the backend can be reached; until then nobody here reads it.

        `thorough`: see `Store.clear_plan`.
        """
        if error is not None:
            self._refuse_if_closed(error)
        self.outbox.overflow(thorough)
        self._keep_flushing(pause=FLUSH_INTERVAL)

    def deliver(self) -> None:
        """See to it that somebody sends what waits in the outbox: who did may have ended with his loop, or be the parent's.

        Called as an operation begins that may reach the backend.
        """
        if self.outbox and self._clock() >= self._flush_after:
            self._keep_flushing()

    def _keep_flushing(self, pause: float = 0.0) -> None:
        place = self.driver.place()
        if place in self._flushing or self.driver.stopped:
            return
        self._flushing.add(place)  # before the plan may end
        kept = False
        try:
            kept = self.driver.keep(self._keep_flushing_plan(place, pause))
        finally:
            if not kept:
                self._flushing.discard(place)  # the next operation tries again

    def _keep_flushing_plan(self, place: Any, pause: float) -> Plan[None]:
        try:
            while self.outbox and not self.driver.stopped:
                if pause:
                    yield Call(self.driver.pause, pause)
                yield from self._flush_plan(None)
                pause = FLUSH_INTERVAL
        finally:
            self._flushing.discard(place)

    def last_plan(self) -> Plan[None]:
        """Before the way to the backend is closed: one attempt to send what waits in the outbox, which ends with it."""
        if self.outbox and not self.store.closed:
            yield from self._flush_plan(None)

    def _flush_plan(self, errand: Errand | None) -> Plan[None]:
        """Send the invalidations that wait, unless the backend is known to be away."""
        outbox = self.outbox
        if self.store.unreachable(None):
            return
        try:
            if overflow := outbox.overflowed:
                yield from self.store.clear_plan(outbox.thorough)
                outbox.cleared(overflow)
            while batch := outbox.batch(FLUSH_BATCH):
                yield from self.store.remove_plan(batch)
                outbox.done(batch)
        except self._failures as error:
            self.reporter.backend_failed(None, error, self.store.unreachable(error))
            self._flush_after = self._clock() + FLUSH_INTERVAL
            if errand is not None and self.store.unreachable(error):
                errand.alive = False
        else:
            self.reporter.backend_answered()
