"""Bytes from anywhere: an envelope or a signed pickle is read exactly as it was written, or refused as documented."""

import re
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastcache.compression import Compression
from fastcache.envelope import (
    HEADER_SIZE,
    LONGEST_TAG,
    MAGIC,
    TOKEN_SIZE,
    Envelope,
    Malformed,
    glance,
    is_enveloped,
    seal,
    unseal,
)
from fastcache.errors import SerializationError
from fastcache.serializers import SignedPickle

tokens = st.none() | st.dictionaries(
    st.binary(max_size=30) | st.just(b"t" * LONGEST_TAG), st.binary(min_size=TOKEN_SIZE, max_size=TOKEN_SIZE), max_size=5
)
microseconds = st.integers(0, 2**32 - 1)
milliseconds = st.integers(0, 2**53 // 1000)
contents = st.one_of(st.tuples(st.just(False), st.binary(max_size=50)), st.just((True, b"")))
envelopes = st.tuples(contents, milliseconds, microseconds, tokens)


def sealed(parts):
    (missing, payload), stale_for, load, tags = parts
    return seal(payload, stale_for / 1000, load / 1e6, missing, tags)


@given(envelopes)
def test_envelope_comes_back_as_it_was(parts):
    """Every field; times to the millisecond and, of the load, to the microsecond, cut off."""
    (missing, payload), stale_for, load, tags = parts
    data = sealed(parts)
    assert is_enveloped(data)
    back = unseal(data)
    assert (back.missing, back.payload, back.tokens) == (missing, payload, tags or {})
    assert back.stale_for in (stale_for, stale_for - 1)
    assert load - 1 <= round(back.load_seconds * 1e6) <= load
    assert glance(data[:HEADER_SIZE]) == (back.missing, back.stale_for)


def test_examples_of_the_page_are_right():
    """docs/envelope.md, byte by byte."""
    page = (Path(__file__).parent.parent / "docs" / "envelope.md").read_text()
    plain, tagged = (bytes.fromhex(block) for block in re.findall(r"```\n([0-9A-F\s]+)```", page))
    assert plain == seal(b'"v"', 20, 0.005)
    tokens = {b"": bytes(range(0x01, 0x09)), b"team:7": bytes(range(0x11, 0x19))}
    assert tagged == seal(b'"v"', 20, 0.005, tokens=tokens)


@given(st.binary(max_size=120), st.sampled_from([b"", MAGIC, MAGIC + b"\x01\x00", MAGIC + b"\x02\x00", MAGIC + b"\x02\x01"]))
@example(b"", MAGIC)
@example(struct.pack(">QIHH", 0, 0, 1, 0xFFFF), MAGIC + b"\x02\x00")
def test_any_bytes_are_an_envelope_or_malformed(data, start):
    """Nothing else comes out, and what is taken for an envelope is one: sealed again, it gives the same bytes."""
    data = start + data
    try:
        back = unseal(data)
    except Malformed:
        return
    assert isinstance(back, Envelope)
    assert all(len(token) == TOKEN_SIZE for token in back.tokens.values())
    _, version, _, _, load = struct.unpack_from(">3sBBQI", data)
    tagged = version == 2
    if tagged and struct.unpack_from(">H", data, HEADER_SIZE)[0] != len(back.tokens):
        return  # a tag twice
    again = seal(back.payload, 0, 0, back.missing, back.tokens if tagged else None)
    assert struct.pack(">3sBBQI", data[:3], version, back.missing, back.stale_for, load) + again[HEADER_SIZE:] == data


@given(envelopes, st.integers(0, 2000), st.integers(1, 255))
def test_damaged_envelope_is_read_or_malformed(parts, position, flip):
    """Cut off anywhere, or with one byte changed."""
    data = sealed(parts)
    position %= len(data)
    for damaged in (data[:position], data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :]):
        try:
            unseal(damaged)
        except Malformed:
            pass
        try:
            glance(damaged[:HEADER_SIZE])
        except Malformed:
            pass


SIGNED = [
    SignedPickle(b"secret " * 4),
    SignedPickle(b"secret " * 4, [b"another " * 3], compression=Compression(min_size=0, min_saving=0)),
]
plain = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.booleans(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3) | st.tuples(each, each),
    max_leaves=8,
)


@given(plain, st.text(max_size=20))
def test_signed_pickle_comes_back_equal_and_of_the_same_type(value, key):
    for serializer in SIGNED:
        back = serializer.loads(serializer.dumps(value, key), key)
        assert back == value
        assert type(back) is type(value)


@given(plain, st.text(max_size=20), st.integers(0, 100_000), st.integers(1, 255), st.binary(max_size=100))
def test_forged_pickle_is_refused(value, key, position, flip, noise):
    """Whatever was changed, cut off, added, moved to another key or never signed: an error, and nothing is loaded."""
    for serializer in SIGNED:
        data = serializer.dumps(value, key)
        position %= len(data)
        changed = data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :]
        for forged in (changed, data[:position], data + b"\x00", noise):
            with pytest.raises(SerializationError):
                serializer.loads(forged, key)
        with pytest.raises(SerializationError):
            serializer.loads(data, key + "!")
