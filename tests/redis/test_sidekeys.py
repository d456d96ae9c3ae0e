"""The names beside the values: guards must be in the slots of their values, whatever the keys are."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from fastcache.keys import glob_matcher
from fastcache.sidekeys import ANCHORS, Names, guard_name, guard_patterns, shard_tag, value_name

# Braces decide slots, so most names have some.
# (No name is empty: there is always the colon of the prefix.)
parts = st.sampled_from([b"{", b"}", b"a", b"p:", b"fastcache-guard:", b"\xff"]) | st.binary(min_size=1, max_size=4)
names = st.lists(parts, min_size=1).map(b"".join)


@given(names)
@example(b"}")
@example(b"{}")
@example(b"{}{a}")
@example(b"a}b{c}")
@example(b"p:{user}:1")
def test_guard_is_in_the_slot_of_its_value(name):
    """A script that touches both runs on one node of a cluster."""
    guard = guard_name(name)
    assert key_slot(guard) == key_slot(name)
    assert guard.startswith(b"fastcache-guard:")


@given(names)
@example(b"{a}b")
@example(b"{0}}")
def test_value_is_found_from_its_guard(name):
    """The inverse of guard_name."""
    assert value_name(guard_name(name)) == name


@given(names, names)
def test_two_values_never_share_a_guard(one, other):
    """Else the load of one would stand in the way of the other."""
    assert (guard_name(one) == guard_name(other)) == (one == other)


@given(st.text(alphabet="{}ab:", max_size=8))
def test_patterns_of_guards_match_the_guards_of_all_that_match(key):
    """delete_pattern must spoil what is being loaded for each of the keys."""
    name = b"p:" + key.encode()
    guard = guard_name(name).decode()
    assert any(glob_matcher(pattern.decode())(guard) for pattern in guard_patterns(b"p:*"))


def test_shard_tags_lie_in_their_slots():
    """One for each anchor."""
    assert len(ANCHORS) == 16
    assert [key_slot(shard_tag(anchor)) for anchor in ANCHORS] == list(ANCHORS)


@given(st.binary(max_size=8))
def test_tokens_and_their_tags_are_inverse(tag):
    """The empty tag is the whole namespace's."""
    names = Names(b"p:", 3)
    assert names.tag(names.token(tag)) == tag
    assert not names.token(tag).startswith(b"p:")
    assert names.channel == b"fastcache-news:3:p:"
    assert key_slot(names.shard_channel(ANCHORS[5])) == ANCHORS[5]
