"""The loading engine: `get_or_load` and what the patterns need, for every cache, sync and async.

It decides: whether what a store has is fresh, stale or to be refreshed ahead; who loads; what the callers get meanwhile;
whether a loaded value may be stored; what happens when the backend fails. All of it is plans (see `plan.py`), driven by
`Threads` or `Tasks`. It knows no backend: a cache gives it a `Store`, whose keys are identities (the name in Redis, the
key itself in memory), so that all forms of a key are one.

Rules: nothing is raised but the loader's own errors, LoadTimeout, and mistakes in the arguments; an error is never cached,
an expired value served only under `stale_for`. This file must never talk to a backend but through the plans of its `Store`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

from fastcache.arguments import several
from fastcache.errors import MISSING, ConfigurationError
from fastcache.leasing import leased_plan, longest_wait
from fastcache.plan import Call, Plan
from fastcache.policy import Policy
from fastcache.storing import Errand, Found, Landed, Unstored
from fastcache.writing import Writing

__all__ = ["Loading"]

SLACK = 0.5  # seconds that a follower gives the leader beside the loader's hard_timeout: a read and a store at 0.25 s each


class Loading(Writing):
    """The engine of one cache."""

    # -- what a call asks for --------------------------------------------------------------------------------------

    def policy_for(self, ttl: float | None, policy: Policy | None) -> Policy:
        """The policy of a call, with its ttl settled. Without any policy there is no jitter: the ttl given is meant."""
        if policy is None:
            policy = self.policy
        elif not isinstance(policy, Policy):
            raise TypeError(f"policy must be a Policy or None, not {policy!r}")
        if ttl is None and policy is not None:
            ttl = policy.ttl
        if ttl is None:
            ttl = self.store.ttl
            if ttl is None:
                raise ConfigurationError(
                    "no ttl: give the cache, the policy or this call one; ttl=math.inf keeps an entry for ever"
                )
        if policy is None:
            return Policy(ttl, jitter=0.0)
        return policy if policy.ttl == ttl else replace(policy, ttl=ttl)

    def one_plan(
        self, key: Any, loader: Any, default: Any, ttl: Any, policy: Policy | None, type: Any, tags: tuple[bytes, ...] = ()
    ) -> Plan[Any]:
        """`get_or_load`."""
        settled = self.policy_for(ttl, policy)
        if not callable(loader):
            raise TypeError(f"loader must be a function of the key, not {loader!r}")
        identity = self.store.identity(key)
        errand = Errand({identity: key}, loader, settled, type, True, tags=tags)
        value = (yield from self._fetch_plan(errand))[identity]
        return default if value is MISSING else value

    def many_plan(
        self, keys: Iterable[Any], loader: Any, ttl: Any, policy: Policy | None, type: Any, tags: tuple[bytes, ...] = ()
    ) -> Plan[dict[Any, Any]]:
        """`get_or_load_many`."""
        settled = self.policy_for(ttl, policy)
        if not callable(loader):
            raise TypeError(f"loader must be a function of a list of keys, not {loader!r}")
        names = {key: self.store.identity(key) for key in several(keys)}
        mine: dict[Any, Any] = {}
        for key, identity in names.items():
            mine.setdefault(identity, key)
        errand = Errand(mine, loader, settled, type, False, tags=tags)
        values = (yield from self._fetch_plan(errand)) if mine else {}
        return {key: values[identity] for key, identity in names.items() if values[identity] is not MISSING}

    def refresh_plan(
        self, key: Any, loader: Any, default: Any, ttl: Any, policy: Policy | None, type: Any, tags: tuple[bytes, ...] = ()
    ) -> Plan[Any]:
        """Load a key whatever the cache holds, and store that, never in the background nor without a lease, where there are
        leases: no load that began before is stored from now on.

        A value that isn't to be stored (`Unstored`, or MISSING without a `missing_ttl`), or can't be, leaves nothing under
        the key: what was there is out of date. If the loader raises it stays.
        """
        settled = replace(self.policy_for(ttl, policy), lease=True, store="foreground")
        identity = self.store.identity(key)
        yield from self.forget_plan(identity)
        errand = Errand({identity: key}, loader, settled, type, True, anew=True, tags=tags)
        errand.found = yield from self._read_plan(errand, [identity])
        value = (yield from self._missing_plan(errand, [identity]))[identity]
        if identity not in errand.settled:
            yield from self.abandon_plan(key)
        return default if value is MISSING else value

    # -- reading ---------------------------------------------------------------------------------------------------

    def _fetch_plan(self, errand: Errand) -> Plan[dict[Any, Any]]:
        """A value (or MISSING) for each key of the errand."""
        if self.outbox and self._clock() >= self._flush_after:
            yield from self._flush_plan(errand)
        errand.seen = self.flights.landings
        errand.found = yield from self._read_plan(errand, list(errand.keys))
        values: dict[Any, Any] = {}
        early: list[Any] = []
        stale: list[Any] = []
        missing: list[Any] = []
        for identity in errand.keys:
            found = errand.found.get(identity)
            if found is None or found.broken or (found.stale and not errand.policy.stale_for):
                landed = self.landed(errand, identity, missing)
                if landed is missing:
                    missing.append(identity)
                else:
                    values[identity] = landed
            elif found.stale:
                stale.append(identity)
            else:
                values[identity] = found.value
                if self._is_early(found, errand.policy) and not self._waits(identity):
                    early.append(identity)
        if early:
            self._refresh(replace(errand, early=True), early)
        if stale:
            values.update((yield from self._stale_plan(errand, stale)))
        if missing:
            values.update((yield from self._missing_plan(errand, missing)))
        return values

    def _read_plan(self, errand: Errand, identities: list[Any]) -> Plan[dict[Any, Found]]:
        wanted = {identity: errand.keys[identity] for identity in identities if identity not in self.outbox}
        if not errand.alive or not wanted:
            return {}
        try:
            found = yield from self.store.read_plan(wanted, errand.type, errand.policy)
        except self._failures as error:
            self._failed(errand, identities, error)
            return self.store.rescue(wanted, errand.type, errand.policy)
        if len(found) < len(wanted) or any(one.token is not None for one in found.values()):  # else they were copies
            self.reporter.backend_answered()
        return found

    def _is_early(self, found: Found, policy: Policy) -> bool:
        """XFetch: a random time ahead of the end, in proportion to how long loading takes."""
        return found.remaining != math.inf and self._ahead(found, policy) >= found.remaining

    def _stale_plan(self, errand: Errand, stale: list[Any]) -> Plan[dict[Any, Any]]:
        """Have the values refreshed in the background; until then, those that there are."""
        values = {identity: errand.found[identity].value for identity in stale}
        due = [identity for identity in stale if not self._waits(identity)]
        flight: Any = None
        mine: list[Any] = []
        if due:
            flight, mine = self._refresh(errand, due)
        soft = errand.policy.soft_timeout
        served = dict.fromkeys(stale)
        if mine and soft is not None and (yield Call(self.driver.wait, flight, soft)) and not flight.handed_over:
            try:
                fresh = flight.result()
            except Exception:
                fresh = {}  # reported by the load, and the next one waits
            for identity, landed in fresh.items():
                values[identity] = self.store.own(errand.keys[identity], landed, errand.type)
                served.pop(identity, None)
        for identity in served:
            self.reporter.served_stale(errand.keys[identity])
        return values

    # -- loading ---------------------------------------------------------------------------------------------------

    def _missing_plan(self, errand: Errand, missing: list[Any]) -> Plan[dict[Any, Any]]:
        policy = errand.policy
        if policy.single_flight:
            patience = None if policy.hard_timeout is None else policy.hard_timeout + SLACK
            if patience is not None and self.store.leases and policy.lease:
                patience += longest_wait()
            led: set[Any] = set()
            landed = yield Call(self.flights.share_many, missing, self._work(errand, led), patience)
            values = {
                identity: one.value if identity in led else self.store.own(errand.keys[identity], one, errand.type)
                for identity, one in landed.items()
                if one is not MISSING
            }
        else:
            flight = self.flights.alone(missing)
            try:
                values = yield from self._work_plan(errand, missing, dict.fromkeys(missing, flight))
            finally:
                self.flights.leave(missing, flight)
        return {identity: values.get(identity, MISSING) for identity in missing}

    def _work(self, errand: Errand, led: set[Any]) -> Callable[[list[Any], dict[Any, Any]], Any]:
        """What makes the run of a flight. `led` gets its keys."""

        def work(identities: list[Any], flights: dict[Any, Any]) -> Any:
            led.update(identities)
            return self.driver.work(lambda _: self._flight_plan(errand, identities, flights))

        return work

    def _flight_plan(self, errand: Errand, identities: list[Any], flights: Mapping[Any, Any]) -> Plan[dict[Any, Landed]]:
        values = yield from self._work_plan(errand, identities, flights)
        return {identity: self._landing(errand, identity, value) for identity, value in values.items()}

    def _work_plan(self, errand: Errand, identities: list[Any], flights: Mapping[Any, Any]) -> Plan[dict[Any, Any]]:
        """What a leader does: look again, load, store."""
        if self.store.leases:
            # What it holds is its own: of one call two may run at once, one of them within a load of the same key.
            own = replace(errand, unstored=set(), storing=set())
            load = partial(self._load_and_store_plan, own, flights=flights)
            try:
                return (yield from leased_plan(self, own, identities, load))
            finally:
                errand.alive = errand.alive and own.alive
        values: dict[Any, Any] = {}
        if self.flights.landings != errand.seen and not (errand.early or errand.anew):
            found = yield from self._read_plan(errand, identities)
            errand.found.update(found)
            values = {key: found[key].value for key in found if not (found[key].stale or found[key].broken)}
            for identity in [identity for identity in identities if identity not in values]:
                landed = self.landed(errand, identity, values)
                if landed is not values:
                    values[identity] = landed
        todo = [identity for identity in identities if identity not in values]
        if todo:
            values.update((yield from self._load_and_store_plan(errand, todo, flights)))
        return values

    def _load_and_store_plan(
        self, errand: Errand, identities: list[Any], flights: Mapping[Any, Any]
    ) -> Plan[dict[Any, Any]]:
        started = perf_counter()
        loaded = yield from self._load_plan(errand, identities)
        yield from self._store_plan(errand, loaded, flights, perf_counter() - started)
        return loaded

    def _load_plan(self, errand: Errand, identities: list[Any]) -> Plan[dict[Any, Any]]:
        name = errand.name(identities)
        argument = name if errand.single else list(name)
        hard = errand.policy.hard_timeout
        started = perf_counter()
        try:
            if hard is None:
                answer = yield Call(self.driver.call, errand.loader, argument)
            else:
                answer = yield Call(self.driver.call_within, hard, errand.loader, argument, name)
            if not errand.single and not isinstance(answer, Mapping):
                raise TypeError(f"{errand.loader!r} must return a mapping from keys to values, not {answer!r:.80}")
        except Exception as error:
            self.reporter.loaded(name, perf_counter() - started, error)
            raise
        self.reporter.loaded(name, perf_counter() - started, None)
        if errand.single:
            if type(answer) is Unstored:
                errand.withheld = True
                answer = answer.value
            return {identities[0]: answer}
        return {identity: answer.get(errand.keys[identity], MISSING) for identity in identities}

    def _refresh(self, errand: Errand, identities: list[Any]) -> tuple[Any, list[Any]]:
        """Load in the background those of the keys that nobody is loading. Returns the flight and which they are."""
        flight, mine = self.flights.board(identities)
        if mine:
            work = self.driver.work(lambda _: self._refresh_plan(errand, mine, flight))
            if self.driver.spawn_flight(mine, flight, work):
                return flight, mine
            self.flights.discard(mine, flight)
        return None, []

    def _refresh_plan(self, errand: Errand, identities: list[Any], flight: Any) -> Plan[dict[Any, Landed]]:
        errand = replace(errand, alive=True)  # a call of its own, as far as the backend is concerned
        try:
            landed = yield from self._flight_plan(errand, identities, dict.fromkeys(identities, flight))
        except Exception:
            for identity in identities:
                self._hold_off(identity, errand.policy)
            raise
        for identity in identities:
            self._held_off.pop(identity, None)
        return landed
