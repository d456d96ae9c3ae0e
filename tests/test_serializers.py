"""What goes in comes out, and what doesn't is refused by SerializationError, whatever the bytes are."""

from __future__ import annotations

import datetime
import enum
import pickle
import subprocess
import sys
import uuid
import zlib
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypedDict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastcache.compression import Compression
from fastcache.errors import ConfigurationError, SerializationError
from fastcache.serializers import Json, MsgPack, Raw, Serializer, SignedPickle, resolve

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


class Named(NamedTuple):
    a: int
    b: str


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


TYPED = [
    (Point(1, 2), Point),
    (Struct("a", [Point(1)]), Struct),
    ({"name": "a"}, Typed),
    (Named(1, "b"), Named),
    (Colour.RED, Colour),
    (Level.LOW, Level),
    (datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=datetime.UTC), datetime.datetime),
    (datetime.date(2026, 1, 2), datetime.date),
    (datetime.time(1, 2, 3), datetime.time),
    (datetime.timedelta(seconds=5), datetime.timedelta),
    (uuid.UUID(int=5), uuid.UUID),
    (Decimal("1.10"), Decimal),
    ([Point(1), Point(2)], list[Point]),
    (Point(1), Point | None),
    (None, Point | None),
    ({"a": Point(1)}, dict[str, Point]),
    ({1: "one"}, dict[int, str]),
    ((1, "a"), tuple[int, str]),
    ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    (b"\x00\xff", bytes),
    (1.5, float),
    (True, bool),
    ("a", Literal["a", "b"]),
    (2**63 - 1, int),
    ({"any": [1, None]}, Any),
]


@pytest.mark.parametrize("serializer", [Json(), MsgPack(), Json(compression=True), SignedPickle(SECRET)], ids=repr)
@pytest.mark.parametrize(("value", "type_"), TYPED, ids=lambda case: str(case)[:40])
def test_typed_values_come_back_as_themselves(serializer, value, type_):
    """Value and type, for every sort of type that is promised."""
    back = serializer.loads(serializer.dumps(value, KEY), KEY, type_)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("serializer", [Json(), MsgPack()], ids=repr)
@pytest.mark.parametrize(
    ("value", "type_", "path"),
    [
        ({"x": "one"}, Point, "$.x"),
        ({}, Point, ""),
        ([{"x": 1}, {"x": None}], list[Point], "$[1].x"),
        ({"name": "a", "points": [{"x": 1}, {"x": 1, "y": []}]}, Struct, "$.points[1].y"),
        ("green", Colour, ""),
        ("not a date", datetime.datetime, ""),
        ("5", int, ""),
        ({"a": {"x": 1.5}}, dict[str, Point], "$[...].x"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_the_path(serializer, value, type_, path):
    """`path` is msgspec's, "" where the value as a whole is wrong."""
    with pytest.raises(SerializationError) as caught:
        serializer.loads(serializer.dumps(value, KEY), KEY, type_)
    assert (caught.value.key, caught.value.type, caught.value.path) == (KEY, type_, path)
    assert KEY in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).path == path


@pytest.mark.parametrize(
    ("serializer", "value"),
    [
        (Json(), object()),
        (Json(), {"a": {object()}}),
        (Json(), "\ud800"),
        (MsgPack(), 2**64),
        (MsgPack(), 1j),
        (Raw(), 5),
        (Raw(), None),
        (Raw(), ["a"]),
        (Raw(), "\ud800"),
        (SignedPickle(SECRET), lambda: None),
    ],
    ids=lambda case: repr(case).split(" at 0x")[0],  # the same in every process
)
def test_a_value_that_has_no_form_is_refused(serializer, value):
    """Naming the key and the type of the value."""
    with pytest.raises(SerializationError) as caught:
        serializer.dumps(value, KEY)
    assert caught.value.key == KEY
    assert caught.value.type is type(value)


@pytest.mark.parametrize("serializer", [Json(), MsgPack(), SignedPickle(SECRET)], ids=repr)
def test_a_value_nested_too_deep_is_refused(serializer):
    """RecursionError is the codec's, SerializationError ours. (From 3.14 on the size of the stack is the limit.)"""
    deep = []
    for _ in range(1_000_000):
        deep = [deep]
    with pytest.raises(SerializationError):
        serializer.dumps(deep, KEY)
    while deep:  # taken apart by hand: some versions of Python can't release it in one go
        deep = deep.pop()


def test_data_nested_too_deep_is_refused():
    """Somebody else may have written it."""
    for serializer, data in ((Json(), b"[" * 100_000 + b"]" * 100_000), (MsgPack(), b"\x91" * 100_000 + b"\x90")):
        with pytest.raises(SerializationError):
            serializer.loads(data, KEY)


def test_msgpack_with_bad_utf8_is_a_serialization_error():
    """msgspec raises UnicodeDecodeError there, not its own DecodeError."""
    with pytest.raises(SerializationError, match="utf-8"):
        MsgPack().loads(b"\xa2\xff\xfe", KEY)


def test_raw_keeps_bytes_and_stores_str_as_utf8():
    """`type=str` gives a str back; no other type exists."""
    raw = Raw()
    assert raw.loads(raw.dumps(b"\x00\xff", KEY), KEY) == b"\x00\xff"
    assert raw.dumps("ключ", KEY) == "ключ".encode()
    assert raw.loads("ключ".encode(), KEY, str) == "ключ"
    assert raw.dumps(bytearray(b"a"), KEY) == raw.dumps(memoryview(b"a"), KEY) == b"a"
    assert raw.loads(b"a", KEY, bytes) == b"a"
    with pytest.raises(SerializationError, match="bytes or str, not int"):
        raw.loads(b"1", KEY, int)
    with pytest.raises(SerializationError):
        raw.loads(b"\xff", KEY, str)


def test_decoders_of_many_types_do_not_pile_up():
    """A program that makes types in a loop keeps at most 256 decoders alive."""
    json = Json()
    for number in range(1000):
        assert json.loads(b'{"a":1}', KEY, msgspec.defstruct(f"S{number}", [("a", int)])).a == 1
    assert len(json._decoders) <= 256


def test_an_impossible_type_is_a_configuration_error():
    """Whatever msgspec says about it: the program's mistake, which must not look like bad data."""
    for type_ in (5, "Point", [int], lambda: None, set | list):
        with pytest.raises(ConfigurationError, match="type="):
            Json().loads(b"1", KEY, type_)


def test_values_too_large_to_be_read_again_are_not_compressed():
    """What decompresses to more than `max_size` would be refused at every read."""
    serializer = Raw(compression=Compression(max_size=10_000))
    value = b"a" * 20_000
    assert serializer.dumps(value, KEY) == value
    assert serializer.loads(serializer.dumps(value, KEY), KEY) == value


# -- compression -------------------------------------------------------------------------------------------------------

ALL = [Json, MsgPack, Raw, lambda **options: SignedPickle(SECRET, **options)]


@pytest.mark.parametrize("make", ALL)
def test_compression_starts_at_two_kibibytes_and_only_where_it_saves_a_tenth(make):
    """Below, or for noise, what is stored is what would be stored without it."""
    plain, packing = make(), make(compression=True)
    noise = (
        zlib.compress(bytes(range(256)) * 8) + uuid.uuid4().bytes * 3 + b"".join(uuid.uuid4().bytes for _ in range(300))
    )
    values = [b"x" * 100, noise] if not isinstance(plain, Json) else ["x" * 100]
    for value in values:
        assert packing.dumps(value, KEY) == plain.dumps(value, KEY)
    big = "x" * 10_000 if isinstance(plain, Json) else b"x" * 10_000
    assert len(packing.dumps(big, KEY)) < 500
    assert packing.loads(packing.dumps(big, KEY), KEY) == big
    if not isinstance(plain, SignedPickle):
        assert packing.loads(plain.dumps(big, KEY), KEY) == big


def test_decompression_stops_at_the_cap():
    """A bomb of 1 GiB costs no more than the cap, and is refused."""
    import tracemalloc

    bomb = Compression(max_size=2**30).pack(b"\x00" * (256 * 1024 * 1024))
    assert len(bomb) < 1024 * 1024 * 2
    raw = Raw(compression=Compression(max_size=1024 * 1024))
    tracemalloc.start()
    with pytest.raises(SerializationError, match="more than the 1048576 bytes"):
        raw.loads(bomb, KEY)
    assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    tracemalloc.stop()


def test_a_value_exactly_at_the_cap_comes_back():
    """One byte more doesn't."""
    raw = Raw(compression=Compression(max_size=5000))
    assert raw.loads(Compression().pack(b"x" * 5000), KEY) == b"x" * 5000
    with pytest.raises(SerializationError):
        raw.loads(Compression().pack(b"x" * 5001), KEY)


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-3], lambda d: d + b"x", lambda d: d[:5], lambda d: d[:4] + b"9" + d[5:]]
)
def test_damaged_compressed_data_is_refused(damage):
    """Truncated, followed by something, empty, of an unknown kind."""
    raw = Raw(compression=True)
    with pytest.raises(SerializationError):
        raw.loads(damage(raw.dumps(b"x" * 5000, KEY)), KEY)


def test_data_that_looks_like_a_frame_survives():
    """Framed itself, so that no value is mistaken for a compressed one."""
    raw = Raw(compression=True)
    for value in (b"\x00fcz", b"\x00fcz0", b"\x00fcz1" + zlib.compress(b"x"), b"\x00fcz1" * 1000):
        assert raw.loads(raw.dumps(value, KEY), KEY) == value


@pytest.mark.parametrize(
    "options",
    [
        {"min_size": -1},
        {"min_size": 1.5},
        {"max_size": True},
        {"min_saving": 2},
        {"min_saving": "1"},
        {"level": 0},
        {"level": 1.0},
    ],
)
def test_bad_compression_options_are_refused(options):
    """Where they are given."""
    with pytest.raises(ConfigurationError):
        Compression(**options)


def test_compression_takes_a_bool_or_a_compression():
    """Nothing else."""
    assert Json(compression=False).dumps("x" * 9000, KEY) == Json().dumps("x" * 9000, KEY)
    with pytest.raises(ConfigurationError, match="compression=5"):
        Json(compression=5)


# -- fuzzing -----------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
types = st.sampled_from([None, Any, *(type_ for _, type_ in TYPED)])
DECODERS = [
    Json(),
    MsgPack(),
    Raw(),
    SignedPickle(SECRET),
    *(make(compression=Compression(min_size=0)) for make in ALL),
]


@given(st.binary(max_size=200), types)
@example(b"\x00fcz1x\x9c", None)
@example(b"\xc1", None)
@example(b"\xd9\xff", None)
def test_random_bytes_never_raise_anything_else(data, type_):
    """A decoder returns a value or raises SerializationError with the key."""
    for serializer in DECODERS:
        try:
            serializer.loads(data, KEY, type_)
        except SerializationError as error:
            assert error.key == KEY  # noqa: PT017  (returning is as good)


@given(values, st.integers(0, 10_000), st.integers(0, 255), types)
def test_flipped_and_truncated_payloads_never_raise_anything_else(value, position, flip, type_):
    """Almost right is the hard case."""
    for serializer in DECODERS:
        if isinstance(serializer, Raw):
            continue
        data = serializer.dumps(value, KEY)
        position %= len(data)
        for bad in (data[:position], data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :]):
            try:
                back = serializer.loads(bad, KEY, type_)
            except SerializationError:
                continue
            assert not isinstance(serializer, SignedPickle) or bad == data, back


@given(values)
def test_plain_values_come_back_equal(value):
    """Without a type, from every format that has one for them."""
    for serializer in DECODERS:
        if not isinstance(serializer, Raw):
            assert serializer.loads(serializer.dumps(value, KEY), KEY) == value


@given(st.binary(max_size=5000))
def test_raw_bytes_come_back_equal(value):
    """Compressed or not, whatever they look like."""
    for serializer in (Raw(), Raw(compression=True), Raw(compression=Compression(min_size=0, min_saving=0))):
        assert serializer.loads(serializer.dumps(value, KEY), KEY) == value


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_resolve_takes_names_and_objects():
    """The three names, and anything with the two methods."""
    assert isinstance(resolve("json"), Json)
    assert isinstance(resolve("msgpack"), MsgPack)
    assert isinstance(resolve("raw"), Raw)
    own = SignedPickle(SECRET)
    assert resolve(own) is own
    assert isinstance(own, Serializer)


def test_raw_and_signed_pickle_need_no_msgspec():
    """It is imported by Json and MsgPack alone, whose error names the extra."""
    code = """
import sys
sys.modules["msgspec"] = None
from fastcache.serializers import Json, Raw, SignedPickle
assert Raw().loads(Raw().dumps(b"a", "k"), "k") == b"a"
assert SignedPickle(b"x" * 16).dumps(1, "k")
try:
    Json()
except ImportError as error:
    assert "fastcache-tiers[redis]" in str(error), error
else:
    sys.exit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("missing", ["redis", "msgspec"])
def test_importing_the_redis_tier_without_its_extra_names_it(missing):
    """`import fastcache.redis` says what to install."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
try:
    import fastcache.redis
except ImportError as error:
    assert "fastcache-tiers[redis]" in str(error), error
else:
    sys.exit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
