"""The first tier alone: when a copy is kept, what spoils it, and what drops it. Nothing here needs a server."""

from __future__ import annotations

import math
import sys
import time

import pytest

from fastcache import MISSING, MemoryCache
from fastcache.front import MOST_TOKENS, MOST_TYPES, NAMESPACE, Front, Packed


@pytest.fixture
def memory():
    with MemoryCache() as memory:
        yield memory


@pytest.fixture
def front(memory):
    """One that hears, from now on."""
    front = Front(memory, b"p:", coherent=True)
    front.gate.until = time.monotonic() + 60
    return front


def keep(front, key, value, *, type=None, tags=(), between=lambda: None, **options):
    """Read a key as the engine does; `between` happens between the answer of Redis and the keeping."""
    identity = b"p:" + (key.encode() if isinstance(key, str) else key)
    markers = front.begin([identity])
    between()
    kept = front.keep(key, type, value, 60, markers[identity], tags, **options)
    front.end(markers)
    return kept


def copy(front, key, type=None):
    found = front.find(key, type)
    return None if found is None else found.value


def test_copy_under_a_type_without_a_hash_is_not_kept(front):
    """Trusted or not: there is no key for it in the map."""
    assert not keep(front, "k", 1, type=[])
    markers = front.begin([b"p:k"])
    front.keep_untrusted("k", [], 1, 60, markers[b"p:k"], 60)
    assert copy(front, "k", []) is None
    assert not len(front._map)
    front.keep_untrusted("k", int, 1, 60, markers[b"p:k"], 60)
    assert len(front._map) == 1
    front.end(markers)


def test_copy_is_kept_and_found(front):
    """With nothing heard in between."""
    assert keep(front, "k", 1)
    assert copy(front, "k") == 1
    assert 59 < front.find("k", None).remaining <= 60
    assert copy(front, "other") is None


@pytest.mark.parametrize(
    "between",
    [
        lambda front: front.drop([b"p:k"]),
        lambda front: front.drop_where(lambda name: name == b"p:k"),
        lambda front: front.retag(b"t", b"new"),
        lambda front: front.retag(b"of somebody else", None),
        lambda front: front.retag(NAMESPACE, b"new"),
        lambda front: front.reset(),
        lambda front: front.gate.close(),
        lambda front: front.forget_parent(),
        lambda front: front.begin([b"p:k"], writes=True),
        lambda front: front.end(front.begin([b"p:k"], writes=True)),
    ],
)
def test_what_is_heard_while_reading_spoils_the_copy(front, between):
    """It can't be told apart from an old one."""
    assert not keep(front, "k", 1, between=lambda: between(front))
    assert copy(front, "k") is None


def test_writing_that_was_under_way_spoils_what_is_read_in_it(front):
    """The reader may have got the value from before it."""
    writing = front.begin([b"p:k"], writes=True)
    reading = front.begin([b"p:k"])
    front.end(writing)
    assert not front.keep("k", None, "old", 60, reading[b"p:k"], ())


@pytest.mark.parametrize("first", [0, 1])
def test_overlapping_writings_leave_no_copy(front, first):
    """It isn't known whose reached Redis last, whichever ends first here."""
    writings = [front.begin([b"p:k"], writes=True) for _ in range(2)]
    for number in (first, 1 - first):
        assert not front.keep("k", None, number, 60, writings[number][b"p:k"], (), only=True)
        front.end(writings[number])
    assert copy(front, "k") is None


def test_other_keys_are_not_spoilt(front):
    """A marker is of one key."""
    assert keep(front, "k", 1, between=lambda: front.drop([b"p:other", b"k", b"p:k2"]))


def test_markers_are_gone_in_the_end(front):
    """Nothing grows with the number of keys that were ever read."""
    for number in range(100):
        keep(front, f"k{number}", 1, between=lambda: front.drop([b"p:k1"]))
    front.end({b"p:never begun": next(iter(front.begin([b"p:x"]).values()))})
    front.end(dict.fromkeys(front._pending, next(iter(front._pending[b"p:x"]))))
    assert front._pending == {}


def test_closed_gate_hides_the_copies(front):
    """What is hidden is there for those who prefer an old value to none."""
    keep(front, "k", 1)
    front.gate.close()
    assert copy(front, "k") is None
    assert front.lookup("k", MISSING) is not 1  # noqa: F632
    assert front.find("k", None, trusted=False).value == 1


def test_reset_drops_all(front, memory):
    """What was written before the hearing began isn't known."""
    keep(front, "k", 1, tags=[b"t"])
    front.learn({b"t": b"one"}, {})
    front.reset()
    assert len(memory) == 0
    assert front.known([b"t"]) == {}


def test_copies_of_several_types_are_dropped_together(front):
    """And kept apart until then."""
    keep(front, "k", [1])
    keep(front, "k", (1,), type=tuple)
    keep(front, b"k", b"bytes")
    assert copy(front, "k", tuple) == (1,)
    front.drop([b"p:k"])
    assert copy(front, "k") is copy(front, "k", tuple) is copy(front, b"k") is None


def test_new_value_replaces_the_copies_of_other_types(front):
    """They are of the value before."""
    keep(front, "k", (1,), type=tuple)
    keep(front, "k", [2], only=True)
    assert copy(front, "k", tuple) is None
    assert copy(front, "k") == [2]


def test_new_value_replaces_the_copy_under_the_other_spelling(front):
    """A key as str and as bytes is one key in Redis."""
    keep(front, b"k", 1)
    keep(front, "k", 2, only=True)
    assert copy(front, b"k") in (None, 2)
    front.keep_untrusted(b"k", None, 3, 60, front.begin([b"p:k"])[b"p:k"], 0.0)
    assert copy(front, "k") in (None, 3)


def test_types_beyond_the_limit_are_not_kept(front):
    """A program that makes types as it goes doesn't fill the memory; nor does one that can't be a key."""
    types = [type(f"T{number}", (), {}) for number in range(MOST_TYPES + 1)]
    assert [keep(front, "k", 1, type=each) for each in types] == [True] * MOST_TYPES + [False]
    assert not keep(front, "k", 1, type=[])
    assert keep(front, "k", 1, type=types[0])


def test_names_that_are_not_text_are_dropped(front):
    """A key of any bytes."""
    keep(front, b"\xff", 1)
    front.drop([b"p:\xff"])
    assert copy(front, b"\xff") is None


def test_tag_drops_its_copies_alone(front):
    """All types of them; and the namespace's drops all."""
    keep(front, "a", 1, tags=[b"t", b"u", NAMESPACE])
    keep(front, "a", 2, type=str, tags=[b"t"])
    keep(front, "b", 3, tags=[b"u"])
    front.retag(b"t", b"new")
    assert (copy(front, "a"), copy(front, "a", str), copy(front, "b")) == (None, None, 3)
    front.retag(NAMESPACE, None)
    assert copy(front, "b") is None
    assert front._noted == 0


def test_tokens_are_known_until_something_is_heard(front):
    """A token learnt while its tag was renewed may be the old one."""
    markers = front.begin([b"p:k"])
    front.learn({b"t": b"one"}, markers)
    assert front.known([b"t", b"u"]) == {b"t": b"one"}
    front.retag(b"t", b"two")
    assert front.known([b"t"]) == {b"t": b"two"}
    front.learn({b"t": b"one"}, markers)
    assert front.known([b"t"]) == {b"t": b"two"}
    front.retag(b"t", None)
    assert front.known([b"t"]) == {}
    front.learn({b"t": b"three"}, front.begin([b"p:x"]))
    front.gate.close()
    assert front.known([b"t"]) == {}


def test_token_that_is_new_drops_the_copies_of_the_old(front):
    """Somebody renewed the tag unheard."""
    keep(front, "k", 1, tags=[b"t"])
    front.learn({b"t": b"one"}, {})
    assert copy(front, "k") == 1
    front.learn({b"t": b"two"}, {})
    assert copy(front, "k") is None


def test_notes_of_tags_do_not_outgrow_the_copies():
    """Copies that were evicted leave no notes for good."""
    front = Front(MemoryCache(maxsize=10), b"p:", coherent=False)
    for number in range(5000):
        keep(front, f"k{number}", 1, tags=[b"%d" % number, b"all"])
    assert front._noted == sum(map(len, front._tagged.values())) <= 1000 + 8 * 10 + 2
    front.retag(b"all", None)
    assert copy(front, "k4999") is None


def test_tags_that_a_copy_had_before_are_forgotten(front):
    """It is neither found under them, nor dropped with them."""
    for number in range(20):
        keep(front, "k", number, tags=[b"%d" % number, b"all"], only=bool(number % 2))
    assert front._tagged == {b"19": {"k"}, b"all": {"k"}}
    assert front._noted == 2
    front.retag(b"18", b"new")
    assert copy(front, "k") == 19
    front.retag(b"19", b"new")
    assert copy(front, "k") is None
    assert front._tagged == front._tags_of == {}


def test_notes_of_many_tags_are_looked_through_seldom(front, monkeypatch):
    """Each copy with more than a few tags of its own: all are noted, and what that costs doesn't grow with them."""
    looks = []
    contains = front._map.__contains__

    class Map:
        def __contains__(self, place):
            looks.append(place)
            return contains(place)

        def __getattr__(self, name):
            return getattr(actual, name)

    actual, front._map = front._map, Map()
    for number in range(1000):
        keep(front, f"k{number}", 1, tags=[b"%d %d" % (number, tag) for tag in range(20)])
    assert front._noted == 20_000
    assert len(looks) < 2000
    front._map = actual


def test_tokens_do_not_outgrow_the_copies(front):
    """Of tags that no copy has, some are remembered; of those that one has, all."""
    for number in range(5 * MOST_TOKENS):
        tag = b"%d" % number
        if number < 10:
            keep(front, f"k{number}", 1, tags=[tag])
        if number % 2:
            front.learn({NAMESPACE: b"one", tag: b"one"}, {})
        else:
            front.retag(tag, b"one")
        assert front.known([tag]) == {tag: b"one"}
        if number < 10:
            keep(front, f"k{number}", 1, tags=[tag])
    assert len(front._tokens) <= MOST_TOKENS + 2 * 10 + 2
    had = [b"%d" % number for number in range(10)]
    assert front.known([NAMESPACE, *had]) == dict.fromkeys([NAMESPACE, *had], b"one")


def test_callback_that_fails_is_reported():
    """By no error of who reads or writes, which has yet to be done in Redis."""
    reports = []

    def fail(key, value, cause):
        raise ZeroDivisionError

    front = Front(MemoryCache(on_evict=fail), b"p:", coherent=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", reports.append)
        assert keep(front, "k", 1)
        assert keep(front, "k", 2, only=True)
        front.drop([b"p:k"])
    assert copy(front, "k") is None
    assert [report.exc_type for report in reports] == [ZeroDivisionError] * 2


def test_lives_end_with_the_memory_cache_and_stale_ones_later():
    """The first tier's ttl is a bound; `stale_for` comes on top."""
    front = Front(MemoryCache(ttl=5), b"p:", coherent=False)
    keep(front, "k", 1)
    assert front.find("k", None).remaining <= 5
    keep(front, "s", Packed(b"1"), stale_for=60.0)
    found = front.find("s", None)
    assert not found.stale
    assert found.remaining <= 5
    markers = front.begin([b"p:k"])
    assert not front.keep("k", None, 1, 0.0, markers[b"p:k"], ())
    assert front.keep("k", None, MISSING, math.inf, markers[b"p:k"], ())
    assert copy(front, "k") is MISSING


def test_incoherent_front_is_always_open():
    """A fork or a tag changes nothing in that; no token is ever believed."""
    front = Front(MemoryCache(), b"p:", coherent=False)
    keep(front, "k", 1)
    front.learn({b"t": b"one"}, {})
    front.forget_parent()
    assert copy(front, "k") == 1
    assert front.known([b"t"]) == {}
