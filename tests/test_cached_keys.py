"""The keys of calls: the same in every process, different for different calls, and never too long."""

import dataclasses
import datetime as dt
import enum
import io
import os
import subprocess
import sys
import uuid
from collections import namedtuple
from decimal import Decimal
from pathlib import PurePosixPath
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcache import ConfigurationError, cached
from fastcache.callkeys import LONGEST, KeyMaker, TagMaker, shortened
from fastcache.entries import MAX_KEY_LENGTH
from fastcache.stable import Unstable, stable

SCRIPT = """
import datetime, decimal, uuid, enum
from fastcache import cached
class Color(enum.Enum):
    RED = 1
@cached
def f(*args, **kwargs): pass
print(f.cache_key({"b": 1, "a": {"x", "y", "z"}}, frozenset("abc"), Color.RED, 1.5, b"x", decimal.Decimal("1.50"),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), uuid.UUID(int=7), range(3), z=None, a=True))
"""

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20), st.binary(max_size=20),
    st.decimals(allow_nan=False),
    st.uuids(), st.dates(), st.datetimes(), st.times(), st.timedeltas(),
)  # fmt: skip
hashables = st.recursive(
    scalars, lambda inner: st.tuples(inner) | st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    hashables, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hashables, inner, max_size=3), max_leaves=6
)


def typed(value):
    """A value with all types in it spelled out, and zeros told apart, so that == means being the same."""
    if isinstance(value, tuple | list):
        return type(value), tuple(typed(each) for each in value)
    if isinstance(value, frozenset | set):
        return type(value), frozenset(typed(each) for each in value)
    if isinstance(value, dict):
        return dict, frozenset((typed(key), typed(one)) for key, one in value.items())
    return type(value), repr(value) if isinstance(value, float | Decimal) else value


@given(values, values)
def test_stable_forms_are_equal_just_where_values_are(a, b):
    """Injective, over everything that has a form."""
    assert (stable(a) == stable(b)) == (typed(a) == typed(b))


@given(
    st.lists(st.text(alphabet="a',\\()[]\ud800", max_size=4), max_size=3),
    st.lists(st.text("a',\\()", max_size=4), max_size=3),
)
def test_texts_side_by_side_are_not_confused(a, b):
    """Quotes, commas and brackets in texts don't reach beyond them."""
    assert (stable(tuple(a)) == stable(tuple(b))) == (a == b)


def test_keys_are_the_same_in_every_process():
    """Whatever PYTHONHASHSEED is."""
    keys = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (0, 1, 12345)
    }
    assert len(keys) == 1


def test_forms_of_all_kinds():
    """As documented."""

    class Color(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point:
        x: int
        cached: int = dataclasses.field(default=0, compare=False)

    paris = ZoneInfo("Europe/Paris")
    assert stable(PurePosixPath("/a")) == "PurePosixPath('/a')"
    assert stable(uuid.UUID(int=1)).startswith("UUID(")
    assert stable(Color.RED).endswith("Color.RED")
    assert stable(Point(1, 2)) == stable(Point(1, 3)) != stable(Point(2))
    assert stable(dt.datetime(2026, 1, 1, tzinfo=paris)) != stable(
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    )
    assert stable(10**5000) != stable(10**5000 + 1)
    assert stable(0.0) != stable(-0.0)


def test_forms_of_what_is_made_of_fields():
    """Named tuples, Structs and flags go by their class and all that is in them."""
    Pair, Other = namedtuple("Pair", "a b"), namedtuple("Other", "a b")
    assert stable(Pair(1, "x")) == f"{__name__}.Pair(1,'x')"
    assert stable(Pair(1, 2)) != stable(Other(1, 2)) != stable((1, 2))

    class Right(enum.Flag):
        READ = 1
        WRITE = 2

    assert stable(Right.READ).endswith("Right(1)")
    assert stable(Right.READ | Right.WRITE).endswith("Right(3)")
    msgspec = pytest.importorskip("msgspec")
    Struct = msgspec.defstruct("Struct", [("a", int), ("b", str)], module=__name__)
    assert stable(Struct(1, "x")) == f"{__name__}.Struct(a=1,b='x')"


def test_time_zone_without_a_name_has_no_form():
    """Two of them may differ, and nothing tells how."""
    nothing = b"TZif" + bytes(16) + b"".join(n.to_bytes(4, "big") for n in (0, 0, 0, 0, 1, 4)) + bytes(6) + b"UTC\0"
    with pytest.raises(Unstable, match="ZoneInfo"):
        stable(ZoneInfo.from_file(io.BytesIO(nothing)))


def test_functions_made_by_one_factory_have_keys_of_their_own():
    """What they use of the outer function tells them apart; so does the code of a lambda."""

    def make(n):
        def inner(x):
            return x * n

        return KeyMaker(inner, None)

    assert make(1)(5) != make(2)(5)
    assert make(1)(5) == make(1)(5)
    assert KeyMaker(lambda x: x + 1, None)(5) != KeyMaker(lambda x: x + 2, None)(5)


def test_changed_signature_changes_the_keys():
    """The version is part of the key."""
    first, second = (lambda: None), (lambda: None)
    exec("def f(a, b): pass", names := {"__name__": "m"})
    first = KeyMaker(names["f"], None)
    exec("def f(b, a): pass", names)
    second = KeyMaker(names["f"], None)
    assert first(1, 2) != second(1, 2)


def test_long_keys_end_in_a_digest():
    """And keep their beginning."""
    assert LONGEST == MAX_KEY_LENGTH
    function = cached(key="text:{x}")(lambda x: x)
    a, b = function.cache_key("a" * 5000), function.cache_key("a" * 4999 + "b")
    assert a != b
    assert len(a) == len(b) == LONGEST
    assert a.startswith("text:aaa")
    assert shortened("x" * LONGEST) == "x" * LONGEST


def test_template_fields_have_stable_texts():
    """Attributes, items, formats; sets in order; no address of an object."""

    class Thing:
        id = 7

    def f(x, *more, **named):
        pass

    def key(template, *args, **kwargs):
        return KeyMaker(f, template)(*args, **kwargs)

    assert key("{x.id}:{more[0]}:{named[a]:>3}", Thing(), 1, a=2) == "7:1:  2"
    assert key("{{{x}}}", "a") == "{a}"
    assert key("{x}", {"b", "a"}) == key("{x!r}", {"b", "a"}) == "set('a','b')"
    assert key("{x}", None) == "None"
    assert key("{x:%Y}", dt.date(2026, 1, 1)) == "2026"
    for template in ("{x}", "{x!r}", "{x!s}"):
        with pytest.raises(TypeError, match=r"'x'.*Thing"):
            key(template, Thing())


def test_template_conversions_are_those_of_str_format():
    """For what says itself how it is shown; a repr that tells the address is refused."""

    class Shown:
        def __str__(self):
            return "shown"

    def key(template, x):
        return KeyMaker(lambda x: x, template)(x)

    assert [key(template, "é") for template in ("{x!s}", "{x!r}", "{x!a}", "{x!r:>5}")] == ["é", "'é'", "'\\xe9'", "  'é'"]
    assert key("{x!s:>7}", Shown()) == "  shown"
    for template in ("{x!r}", "{x!a}"):
        with pytest.raises(TypeError, match=r"'x'.*Shown"):
            key(template, Shown())


def test_key_function_gets_the_arguments():
    """It must return a str, and is asked at each call."""
    tenant = ["a"]
    function = cached(key=lambda x: f"{tenant[0]}:{x}")(lambda x: tenant[0])
    assert function(1) == "a"
    tenant[0] = "b"
    assert function(1) == "b"
    with pytest.raises(TypeError, match="must return a str"):
        cached(key=lambda x: x)(len)(1)


def test_tags_are_templates_or_a_function_of_the_call():
    """A sequence of str either way; a single str is a mistake, not its letters."""

    def f(user, *, kind="k"):
        pass

    assert TagMaker(f, ["all", "user:{user}"])((7,), {}) == ["all", "user:7"]
    assert TagMaker(f, lambda user, **more: (f"user:{user}", *more))((7,), {"kind": "x"}) == ["user:7", "kind"]
    for wrong in ("users", b"users", 5):
        with pytest.raises(ConfigurationError, match="must be a sequence of templates"):
            TagMaker(f, wrong)
    with pytest.raises(ConfigurationError, match="a tag is a str, not 5"):
        TagMaker(f, ["users", 5])
    for returned in ("users", b"users", ["users", 5]):
        with pytest.raises(TypeError, match=r"f: the function tags= must return a sequence of str"):
            TagMaker(f, lambda user, returned=returned: returned)((7,), {})
