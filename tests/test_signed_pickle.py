"""SignedPickle: only what somebody with the secret made, for this very key, is ever unpickled."""

from __future__ import annotations

import enum
import pickle
from collections import namedtuple
from dataclasses import dataclass
from typing import Annotated, Literal, NewType, TypedDict

import pytest

from fastcache.errors import ConfigurationError, SerializationError
from fastcache.serializers import SignedPickle

msgspec = pytest.importorskip("msgspec")  # no wheel for free-threaded 3.13
SECRET = b"0123456789abcdef"
KEY = "fastcache:user:1"


@dataclass
class Point:
    x: int
    y: int = 0


class Struct(msgspec.Struct):
    name: str
    points: list[Point] = []  # noqa: RUF012 (msgspec copies it)


class Typed(TypedDict):
    name: str


class Colour(enum.Enum):
    RED = "red"


class Boom:
    """Unpickling it is noticed."""

    exploded = False

    def __reduce__(self):
        return _explode, ()


def _explode():
    Boom.exploded = True


def test_signed_pickle_keeps_what_no_format_holds():
    """Any picklable object, shared references and all."""
    shared = [1]
    value = {"pair": (shared, shared), Point(1, 2).x: {Colour.RED}, "pattern": namedtuple}
    back = SignedPickle(SECRET).loads(SignedPickle(SECRET).dumps(value, KEY), KEY)
    assert back == value
    assert back["pair"][0] is back["pair"][1]


@pytest.mark.parametrize(
    "tamper",
    [
        lambda data: data[:-1],
        lambda data: data[:32],
        lambda data: data[:31],
        lambda data: b"",
        lambda data: data + b"\x00",
        lambda data: bytes(32) + data[32:],
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: bytes([data[0] ^ 128]) + data[1:],
        lambda data: data[32:],
        lambda data: SignedPickle(b"another secret..").dumps(Boom(), KEY),
        lambda data: SignedPickle(SECRET).dumps(Boom(), "fastcache:user:2"),
        lambda data: SignedPickle(SECRET).dumps(Boom(), "other:user:1"),
        lambda data: pickle.dumps(Boom()),
    ],
)
def test_signed_pickle_refuses_what_was_not_made_for_this_key(tamper):
    """Truncated, extended, changed, forged, moved from another key or namespace; and nothing of it is unpickled."""
    Boom.exploded = False
    data = SignedPickle(SECRET).dumps(Boom(), KEY)
    with pytest.raises(SerializationError, match="signature") as caught:
        SignedPickle(SECRET).loads(tamper(data), KEY)
    assert caught.value.key == KEY
    assert not Boom.exploded


def test_signed_pickle_rotates_secrets():
    """Old ones are accepted for reading, never used for writing; once dropped, refused."""
    old, new = b"old secret 123456", b"new secret 123456"
    data = SignedPickle(old).dumps([1], KEY)
    rotating = SignedPickle(new, old_secrets=[b"x" * 16, old])
    assert rotating.loads(data, KEY) == [1]
    assert SignedPickle(new).loads(rotating.dumps([2], KEY), KEY) == [2]
    with pytest.raises(SerializationError):
        SignedPickle(old).loads(rotating.dumps([2], KEY), KEY)
    with pytest.raises(SerializationError):
        SignedPickle(new).loads(data, KEY)


@pytest.mark.parametrize("secret", [b"", b"15 bytes long..", "a str of 16 chars", None, 16, bytearray(5)])
def test_a_bad_secret_is_refused_without_being_shown(secret):
    """At least 16 bytes, and bytes."""
    for arguments in ((secret,), (SECRET, [secret])):
        with pytest.raises(ConfigurationError) as caught:
            SignedPickle(*arguments)
        if secret and isinstance(secret, bytes | str):
            assert str(secret) not in str(caught.value)
    with pytest.raises(ConfigurationError):
        SignedPickle(SECRET, SECRET)


def test_a_secret_is_not_in_repr():
    """It ends up in logs."""
    assert "0123456789" not in repr(SignedPickle(SECRET, [SECRET]))


class Unloadable:
    def __setstate__(self, state):
        raise RuntimeError("no")

    def __getstate__(self):
        return 1


def test_a_signed_pickle_that_does_not_load_is_a_serialization_error():
    """Signed long ago by a version of the program that had this class, say."""
    signed = SignedPickle(SECRET)
    body = b"\x80\x05cno_such_module\nName\n."
    for data in (signed._mac(SECRET, KEY, body) + body, signed.dumps(Unloadable(), KEY)):
        with pytest.raises(SerializationError):
            signed.loads(data, KEY)


@pytest.mark.parametrize(
    ("value", "type_", "fits"),
    [
        (Point(1), Struct, False),
        (3, NewType("Number", int), True),
        (3, float, True),
        (True, float, False),
        (Point(1), Point | None, True),
        (5, Point | None, False),
        ([1], list[int], True),
        ({}, list[int], False),
        ({}, Typed, True),
        ([], Typed, False),
        ("a", Literal["a"], True),
        ("b", Literal["a"], False),
        (1, Annotated[int, "x"], True),
        (None, None, True),
    ],
)
def test_signed_pickle_checks_the_type_it_is_asked_for(value, type_, fits):
    """By isinstance, on the outside."""
    signed = SignedPickle(SECRET)
    data = signed.dumps(value, KEY)
    if fits:
        assert signed.loads(data, KEY, type_) == value
    else:
        with pytest.raises(SerializationError, match="expected"):
            signed.loads(data, KEY, type_)


def test_signed_pickle_says_of_what_type_nothing_can_be():
    """A type that isinstance can't ask for is the program's mistake, not the data's."""
    signed = SignedPickle(SECRET)
    with pytest.raises(ConfigurationError, match="nonsense"):
        signed.loads(signed.dumps(5, KEY), KEY, "nonsense")
