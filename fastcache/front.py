"""The first tier of a two-level cache: what this process keeps of the values in Redis, and when it may.

A copy is kept only if nothing was heard against it since before it was read, and only while the gate is open: as long as the
process hears what others write. For that each reading and each writing under way has a marker; whatever is heard, or done
here, spoils the markers of its key. A marker is of one key, and lives as long as its reading or writing.

Rules: a copy that can't be told apart from an old one is not kept. Two writings of a key that overlap leave no copy, for it
isn't known whose reached Redis last. Everything here is done under one lock, that of the map; nothing waits, and no code of
the program runs while it is held: `on_evict` runs after, and what it raises goes to `sys.unraisablehook`, since who reads or
writes has yet to talk to Redis. This file must never do that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fastcache._gate import Gate, GatedLookup
from fastcache.errors import MISSING
from fastcache.events import report_unraisable
from fastcache.memory import Entry
from fastcache.storing import Found

if TYPE_CHECKING:
    from fastcache.backends import MemoryCache

__all__ = ["Front", "Marker", "Packed"]

MOST_TYPES = 16
"""Copies of one key decoded into so many different types are kept; of further types none. (More are made by the program as
it goes, and would never be asked for again.)"""

MOST_TOKENS = 1000
"""Tokens of tags that no copy has (any more): some 200 bytes each. Beyond that they are asked for again."""

MOST_NOTED = 1000  # tags of copies, before it is first looked which of these have left the map

NAMESPACE = b""  # the tag of all values

_ABSENT: Any = object()
_TYPED: Any = object()  # in the place of a copy that is kept under a type, so that no key which the program names is one
_NONE: Mapping[bytes, Marker] = {}


class Packed:
    """A value as it is serialised (`isolate=True`): each reader decodes an object of its own."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Marker:
    """A reading or writing of a key that is under way."""

    __slots__ = ("clean", "epoch", "writes")

    def __init__(self, epoch: int, writes: bool) -> None:
        self.epoch = epoch
        self.writes = writes
        self.clean = True
        """Nothing was heard against what it brings."""


class _Section:
    """The lock of the map; no `on_evict` before it is released, and nothing that it raises after."""

    __slots__ = ("_section",)

    def __init__(self, section: Any) -> None:
        self._section = section

    def __enter__(self) -> None:
        self._section.__enter__()

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._section.__exit__(*exc_info)
        except Exception as error:
            report_unraisable(error, self._section, "Exception ignored in the on_evict of a two-level cache")


class Front:
    """The copies in a `MemoryCache`, which belongs to this tier alone. Thread-safe.

    Keys are the caller's; their names in Redis, `prefix` and the key, are what is heard of. A copy decoded into a type that
    the caller named is kept under the key and the type.
    """

    def __init__(self, cache: MemoryCache[Any, Any], prefix: bytes, coherent: bool) -> None:
        self._cache = cache
        self._map: Any = cache._map
        self._prefix = prefix
        self.gate = Gate()
        self._coherent = coherent
        if not coherent:
            self.gate.open()  # nothing will ever be heard: a copy is as good as its ttl
        self.lookup = GatedLookup(self._map, self.gate)
        self.epoch = 0
        self.lost = 0
        """How often the process stopped hearing what others write."""
        self._pending: dict[bytes, set[Marker]] = {}
        self._tokens: dict[bytes, bytes] = {}
        self._tagged: dict[bytes, set[Any]] = {}
        self._tags_of: dict[Any, tuple[bytes, ...]] = {}  # the other way round
        self._noted = 0  # keys in all sets of `_tagged`
        self._most_noted = MOST_NOTED
        self._types: dict[Any, None] = {}
        self.disguised = 0  # hits of the map that were none

    def _section(self) -> Any:
        return _Section(self._cache._section())

    def forget_parent(self) -> None:
        """In a forked child: nothing is heard here, and the readings and writings are the parent's."""
        self._pending = {}
        self.epoch += 1
        if self._coherent:
            self.gate.close()

    # -- looking ---------------------------------------------------------------------------------------------------

    def place(self, key: Any, type: Any) -> Any:
        """Under which key of the map a copy is; None: it isn't kept."""
        if type is None:
            return key
        try:
            if type not in self._types:
                if len(self._types) >= MOST_TYPES:
                    return None
                self._types[type] = None
        except TypeError:  # not hashable
            return None
        return (key, type, _TYPED)

    def find(self, key: Any, type: Any, trusted: bool = True) -> Found | None:
        """The copy of a key, fresh or stale, without counting it. `trusted`: only with the gate open, and no spare one."""
        if trusted and not self.gate.is_open():
            return None
        place = self.place(key, type)
        value = _ABSENT if place is None else self._map.peek(place, _ABSENT)
        if value is _ABSENT:
            return None
        if value.__class__ is Entry:
            return None if trusted and value.spare else self._cache._store.find(place, value)
        return Found(value, remaining=self._map.remaining(place) or 0.0)

    # -- keeping ---------------------------------------------------------------------------------------------------

    def begin(
        self, identities: Iterable[bytes], writes: bool = False, load: Mapping[bytes, Marker] = _NONE
    ) -> dict[bytes, Marker]:
        """Markers for what is about to be read or written. To be given to `end`.

        `load`: the markers of the load whose values are written. That isn't against them; all other writing is.
        """
        markers = {}
        with self._section():
            for identity in identities:
                marker = markers[identity] = Marker(self.epoch, writes)
                others = self._pending.setdefault(identity, set())
                if writes:
                    for other in others:
                        if other is not load.get(identity):
                            other.clean = False
                        if other.writes:
                            marker.clean = False
                others.add(marker)
        return markers

    def end(self, markers: Mapping[bytes, Marker], load: Mapping[bytes, Marker] = _NONE) -> None:
        """The readings or writings are over. A writing spoils what was read while it was under way.

        A marker hears nothing from then on, so that what it brings is not kept. `load`: see `begin`.
        """
        with self._section():
            for identity, marker in markers.items():
                marker.clean = False
                pending = self._pending.get(identity)
                if pending is None:
                    continue
                pending.discard(marker)
                if marker.writes:
                    for other in pending:
                        if other is not load.get(identity):
                            other.clean = False
                if not pending:
                    del self._pending[identity]

    def keep(
        self,
        key: Any,
        type: Any,
        value: Any,
        life: float,
        marker: Marker,
        tags: Iterable[bytes],
        stale_for: float = 0.0,
        load_seconds: float = 0.0,
        beside: bool = False,
        only: bool = False,
    ) -> bool:
        """Keep a copy for `life` seconds (and `stale_for` more), if nothing speaks against it; whether it is kept.

        `beside`: the engine will ask for what is beside the value. `only`: there is a new value, so no other copy is right.
        """
        place = self.place(key, type)
        if place is None or life <= 0:
            return False
        life = min(life, self._map.ttl)
        if life == math.inf:
            stale_for = 0.0
        if stale_for or beside or value is MISSING or value.__class__ is Packed:
            value = Entry(value, stale_for, load_seconds)
        with self._section():
            if not marker.clean or marker.epoch != self.epoch or not self.gate.is_open():
                return False
            if only:
                self._pop(key)
            self._put(place, value, life, stale_for, tags)
        return True

    def keep_untrusted(
        self, key: Any, type: Any, value: Any, life: float, marker: Marker, stale_for: float, tags: Iterable[bytes] = ()
    ) -> None:
        """Keep a value that Redis didn't take, for those who prefer an old value to none. Nothing else may rely on it: what
        isn't in Redis can be invalidated there without a word (by CLIENT TRACKING).
        """
        place = self.place(key, type)
        life = min(life, self._map.ttl)
        if place is None:
            return
        with self._section():
            if marker.clean and marker.epoch == self.epoch:
                self._pop(key)
                self._put(place, Entry(value, stale_for, 0.0, spare=True), life, stale_for, tags)

    def _put(self, place: Any, value: Any, life: float, stale_for: float, tags: Iterable[bytes]) -> None:
        if value.__class__ is Entry:
            self._cache._store.has_entries = True
        self._forget_tags(place)
        self._map.set(place, value, life + stale_for)
        self._cache._have_swept(life)
        self._note(place, tuple(tag for tag in tags if tag != NAMESPACE))

    def _pop(self, key: Any) -> None:
        """Drop all copies of a key: those under its other spelling, too, for str and bytes are one key in Redis."""
        for spelling in _spellings(key):
            self._drop_place(spelling)
            for type in self._types:
                self._drop_place((spelling, type, _TYPED))

    def _drop_place(self, place: Any) -> None:
        self._forget_tags(place)
        self._map.pop(place, None)

    def _note(self, place: Any, tags: tuple[bytes, ...]) -> None:
        if not tags:
            return
        self._tags_of[place] = tags
        for tag in tags:
            self._tagged.setdefault(tag, set()).add(place)
        self._noted += len(tags)
        if self._noted > self._most_noted:
            # Some have left the map by themselves. As many must come again before the next look: O(1) in the long run.
            for other in [each for each in list(self._tags_of) if each not in self._map]:
                self._forget_tags(other)
            self._most_noted = 2 * self._noted + MOST_NOTED

    def _forget_tags(self, place: Any) -> None:
        for tag in self._tags_of.pop(place, ()):
            places = self._tagged.get(tag, set())
            if place in places:  # a finalizer may have come in between that used this very cache
                places.remove(place)
                self._noted -= 1
                if not places:
                    del self._tagged[tag]

    # -- dropping --------------------------------------------------------------------------------------------------

    def drop(self, identities: Iterable[bytes]) -> None:
        """These were written or invalidated."""
        with self._section():
            for identity in identities:
                for marker in self._pending.get(identity, ()):
                    marker.clean = False
                self._pop(identity[len(self._prefix) :])

    def drop_where(self, matches: Callable[[bytes], object]) -> None:
        """The same for all names that match. O(copies)."""
        with self._section():
            found = {identity for identity in self._pending if matches(identity)}
            for place, _ in self._map._entries():
                key = place[0] if place.__class__ is tuple else place
                identity = self._prefix + (key.encode() if isinstance(key, str) else key)
                if matches(identity):
                    found.add(identity)
            self.drop(found)

    def reset(self) -> None:
        """Begin afresh: from now on it is heard what others write, but not what they wrote before."""
        with self._section():
            self.epoch += 1
            self._tokens.clear()
            self._empty()

    def _empty(self) -> None:
        self._tagged.clear()
        self._tags_of.clear()
        self._noted = 0
        self._most_noted = MOST_NOTED
        self._map.clear()

    # -- tokens ----------------------------------------------------------------------------------------------------

    def known(self, tags: Iterable[bytes]) -> dict[bytes, bytes]:
        """The tokens that are known to be current."""
        if not self._coherent or not self.gate.is_open():
            return {}
        with self._section():
            return {tag: self._tokens[tag] for tag in tags if tag in self._tokens}

    def learn(self, tokens: Mapping[bytes, bytes], markers: Mapping[bytes, Marker]) -> None:
        """These were read while the markers were out; they count unless something was heard meanwhile."""
        if not self._coherent:
            return
        with self._section():
            if all(marker.clean and marker.epoch == self.epoch for marker in markers.values()):
                for tag, token in tokens.items():
                    before = self._tokens.get(tag)
                    if before != token:
                        self._tokens[tag] = token
                        if before is not None:
                            self._drop_tag(tag)
                self._bound_tokens(tokens)

    def retag(self, tag: bytes, token: bytes | None) -> None:
        """It was heard, or done here, that a tag got a new token (None: it isn't known which).

        What is being read may have the old one: all of that is spoilt, for it isn't known yet what tags it has.
        """
        with self._section():
            for markers in self._pending.values():
                for marker in markers:
                    marker.clean = False
            if token is not None and self._coherent:
                self._tokens[tag] = token
                self._bound_tokens((tag,))
            else:
                self._tokens.pop(tag, None)
            self._drop_tag(tag)

    def _bound_tokens(self, new: Iterable[bytes]) -> None:
        """Forget those of tags that no copy has. O(1) in the long run: as many must have come as are looked at."""
        if len(self._tokens) > MOST_TOKENS + 2 * len(self._tagged):
            wanted = {NAMESPACE, *new, *self._tagged}
            self._tokens = {tag: token for tag, token in list(self._tokens.items()) if tag in wanted}

    def _drop_tag(self, tag: bytes) -> None:
        if tag == NAMESPACE:
            self._empty()
            return
        for place in list(self._tagged.get(tag, ())):
            self._drop_place(place)


def _spellings(key: str | bytes) -> list[str | bytes]:
    """The keys that have the same name in Redis."""
    if not isinstance(key, bytes):
        return [key, key.encode()]
    try:
        return [key, key.decode()]
    except UnicodeDecodeError:
        return [key]
