"""What makes two calls the same call for `lru_cache`: compared with functools', and with what `==` says."""

import functools
import math
import sys
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcache import lru_cache

MERSENNE = sys.hash_info.modulus  # n and n + MERSENNE have one hash


class Text(str):
    pass


class Number(int):
    pass


class Clash:
    """Equal by name; all of one hash."""

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return 1

    def __eq__(self, other):
        return isinstance(other, Clash) and self.name == other.name

    def __repr__(self):
        return f"Clash({self.name!r})"


def fresh(text):
    """An equal str that is another object."""
    return (text + "?")[:-1]


def entries(*calls, **options):
    """How many entries the calls make; each result is checked to be that of an equal call."""
    f = lru_cache(None, **options)(lambda *args, **kwargs: (args, tuple(kwargs.items())))
    for args, kwargs in calls:
        assert f(*args, **kwargs) == (args, tuple(kwargs.items()))
    f._check()
    return f.cache_info().currsize


SAME = [
    (1, 1),
    (10**30, 10**30 + 0),
    (-1, -1),
    (1.5, 1.5),
    (math.nan, math.nan),
    (None, None),
    (b"abc", bytes([97, 98, 99])),
    ("abc", fresh("abc")),
    ("äöü", fresh("äöü")),
    ("Ωλ", fresh("Ωλ")),
    ("🜚x", fresh("🜚x")),
    ((1, "a", (2.0, None)), (1, fresh("a"), (2.0, None))),
    ((), ()),
    (frozenset([1]), frozenset([1])),
    (Clash("a"), Clash("a")),
    (Text("a"), Text("a")),
    (Number(1), Number(1)),
    (range(3), range(3)),
    (1 + 2j, 1 + 2j),
    (((((((1,),),),),),), ((((((1,),),),),),)),
    (1.0, True),
    (0.0, -0.0),
    ((1,), (True,)),
    ((1.0, 2), (1, 2.0)),
]
DIFFERENT = [
    (-1, -2),
    (1, 1 + MERSENNE),
    (5, 5 + 2 * MERSENNE),
    (2**40, 2**40 + MERSENNE),
    (1, "1"),
    (1, (1,)),
    ("a", ("a",)),
    ("a", b"a"),
    ("", 0),
    (None, 0),
    ((), None),
    ((1, 2), (2, 1)),
    ("abc", "abd"),
    ("a", "ä"),
    ("ÿ", "Ā"),
    ("￿", "𐀀"),
    (math.nan, float("nan")),
    (Clash("a"), Clash("b")),
    (0, False),
    (1, True),
    (1, Number(1)),
    ("a", Text("a")),
    ((1, (2,)), (1, (3,))),
    (((1, -1),), ((1, -2),)),
]


@pytest.mark.parametrize(("a", "b"), SAME, ids=repr)
def test_equal_arguments_are_one_call(a, b):
    """Equality decides, as a tuple of the arguments would: alone, beside others, by keyword."""
    assert entries(((a, 1), {}), ((b, 1), {})) == 1
    assert entries(((), {"k": a}), ((), {"k": b})) == 1
    assert entries(((a,), {}), ((b,), {})) == 1


@pytest.mark.parametrize(("a", "b"), DIFFERENT, ids=repr)
def test_different_arguments_are_two_calls(a, b):
    """Equal hashes prove nothing, kinds of string are told apart, and a tuple is not its items; as in functools."""
    assert entries(((a,), {}), ((b,), {}), ((a,), {}), ((b,), {})) == 2
    together = functools.lru_cache(lambda *args: args)
    together(a, 1), together(b, 1)
    assert entries(((a, 1), {}), ((b, 1), {})) == together.cache_info().currsize


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (((1,), {}), ((1.0,), {})),
        (((1, "a"), {}), ((True, "a"), {})),
        (((), {"k": 1}), ((), {"k": 1.0})),
        ((("a",), {}), ((Text("a"),), {})),
        (((0,), {}), ((False,), {})),
    ],
)
def test_typed_tells_types_apart(one, other):
    """With typed=True equal arguments of different types are different calls; but not inside a tuple."""
    assert entries(one, other, typed=True) == 2
    assert entries((((1,),), {}), (((1.0,),), {}), typed=True) == 1
    assert entries(one, one, typed=True) == 1


def test_keywords_are_remembered_in_call_order():
    """f(a=1, b=2) and f(b=2, a=1) are two, f(1) and f(x=1) are two, f(**{}) is f()."""
    assert entries(((), {"a": 1, "b": 2}), ((), {"b": 2, "a": 1})) == 2
    assert entries(((1,), {}), ((), {"x": 1})) == 2
    assert entries(((), {}), ((), {})) == 1
    assert entries(((1, 2), {}), ((1,), {"b": 2}), ((), {"a": 1, "b": 2})) == 3
    assert entries(((), {"a": 1}), ((), {"b": 1})) == 2


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a"), ("", "a"), ("Ω", "ω"), ("self", "key")])
def test_keywords_that_are_str_subclasses(names):
    """A name that is equal is the same name, whatever its class."""
    plain = dict.fromkeys(names, 1)
    dressed = {Text(name): 1 for name in names}
    f = lru_cache(lambda **kwargs: dict(kwargs))
    assert f(**plain) == f(**dressed) == plain
    assert f.cache_info().currsize == 1
    assert f.cache_contains(**dressed)


def test_positional_tuple_is_no_stand_in_for_a_keyword():
    """What a key looks like inside can't be forged by arguments."""
    f = lru_cache(None)(lambda *args, **kwargs: (args, kwargs))
    calls = [
        ((1, ("k",)), {}),
        ((), {"k": 1}),
        ((1,), {"k": 1}),
        ((1, 1, ("k",)), {}),
        ((("k",), 1), {}),
        ((1, int), {}),
    ]
    for args, kwargs in calls * 2:
        assert f(*args, **kwargs) == (args, kwargs)
    assert f.cache_info() == (6, 6, None, 6)


def test_strings_of_equal_content_in_every_kind():
    """A str that was wider once, or built from parts, finds the entry of the literal one."""
    f = lru_cache(str.upper)
    for text in ("plain", "naïve", "Ωmega", "🜚gold"):
        f(text)
        for variant in (fresh(text), (text + "🜚")[: len(text)], "".join(list(text)), text.encode().decode()):
            assert f(variant) == text.upper()
    assert f.cache_info().currsize == 4


def test_nan_is_found_by_identity():
    """The same NaN object hits; another NaN is another call."""
    f = lru_cache(lambda x: x)
    nan = float("nan")
    assert f(nan) is f(nan) is nan
    f(float("nan"))
    assert f.cache_info() == (1, 2, 128, 2)


def test_mock_any_finds_nothing_by_equality():
    """mock.ANY equals everything: unhashable, it is refused; given a hash, it hits what has that hash."""
    f = lru_cache(lambda x, y: x)
    with pytest.raises(TypeError, match="unhashable"):
        f(mock.ANY, 1)

    class Any(type(mock.ANY)):
        def __hash__(self):
            return hash(7)

    assert (f(6, 1), f(7, 1), f(Any(), 1)) == (6, 7, 7)
    assert f.cache_info() == (1, 2, 128, 2)


class Odd:
    """One hash for all; what `==` answers is given."""

    def __init__(self, answer):
        self.answer = answer

    def __hash__(self):
        return 42

    def __eq__(self, other):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("shape", [lambda x: (x,), lambda x: (1, x), lambda x: ((x, 2),)])
@pytest.mark.parametrize(
    ("answer", "same"), [(NotImplemented, False), (0, False), ([], False), ("yes", True), (7, True)]
)
def test_eq_may_answer_anything(answer, same, shape):
    """Its truth counts, as for a dict."""
    f = lru_cache(lambda *args: args)
    first, second = shape(Odd(answer)), shape(Odd(answer))
    assert f(*first) is f(*first)
    assert (f(*second) is f(*first)) == same
    f._check()


@pytest.mark.parametrize("shape", [lambda x: ((x,), {}), lambda x: ((1, x), {}), lambda x: ((), {"k": x})])
def test_eq_raising_reaches_the_caller(shape):
    """The error passes, the function isn't run, the counters don't move, the entry stays; a bool that raises too."""

    class Undecided:
        def __bool__(self):
            raise LookupError("no truth")

    for answer in (LookupError("no"), Undecided()):
        f = lru_cache(lambda *args, **kwargs: None)
        args, kwargs = shape(Odd(answer))
        f(*args, **kwargs)
        before = f.cache_info()
        other_args, other_kwargs = shape(Odd(answer))
        for call in (f, f.cache_contains, f.cache_invalidate):
            with pytest.raises(LookupError):
                call(*other_args, **other_kwargs)
        assert f.cache_info() == before
        assert f.cache_contains(*args, **kwargs)
        f._check()


arguments = st.recursive(
    st.one_of(
        st.integers(-3, 3),
        st.sampled_from([1 + MERSENNE, MERSENNE - 1, -1 - MERSENNE, 2**31, 2**30 - 1, -(2**30), 2**62]),
        st.floats(allow_nan=False, min_value=-2, max_value=2),
        st.booleans(),
        st.none(),
        st.text("aä🜚", max_size=2),
        st.binary(max_size=1),
    ),
    lambda inner: st.tuples(inner) | st.tuples(inner, inner),
    max_leaves=3,
)
calls = st.tuples(
    st.lists(arguments, max_size=3).map(tuple), st.dictionaries(st.sampled_from("abc"), arguments, max_size=2)
)


@given(st.lists(calls, max_size=25), st.booleans(), st.sampled_from([None, 0, 1, 3, 128]))
def test_functools_lru_cache_does_the_same(calls, typed, maxsize):
    """Any sequence of calls has the same results, counters and sizes as under functools.lru_cache."""

    def function(*args, **kwargs):
        return repr((args, kwargs))

    ours, theirs = lru_cache(maxsize, typed)(function), functools.lru_cache(maxsize, typed)(function)
    for args, kwargs in calls:
        assert ours(*args, **kwargs) == theirs(*args, **kwargs)
        assert tuple(ours.cache_info()) == tuple(theirs.cache_info())
    ours._check()


def mixed(acc, lane):
    """One round of the hash of a call, as in _memo.pyx; without it these tests would find nothing to compare."""
    return ((acc << 5 | acc >> 59) ^ lane) * FACTOR % 2**64


FACTOR = 0x517CC1B727220A95


def signed(number):
    return number - 2**64 if number >= 2**63 else number


class Hashed:
    """Has the hash that it is given, and equals everything."""

    def __init__(self, hash):
        self.hash = signed(hash)

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        return True


def test_calls_of_one_hash_and_another_number_of_arguments_differ():
    """The arguments are not even compared."""
    two = Hashed(12345), Hashed(67890)
    acc = mixed(2, 12345)
    one = Hashed(1 << 5 ^ (acc << 5 | acc >> 59) % 2**64 ^ 67890)
    f = lru_cache(lambda *args: args)
    assert f(*two) == two
    assert len(f(one)) == 1
    assert len(f(*two)) == 2
    assert f.cache_info()[:2] == (1, 2)


def test_calls_of_one_hash_and_other_types_differ_where_typed():
    """Equal or not."""

    class Other(Hashed):
        pass

    lanes = [id(cls) >> 4 for cls in (Hashed, Other)]
    acc = mixed(1, 12345)
    acc = (acc << 5 | acc >> 59) % 2**64 ^ lanes[0] ^ lanes[1]
    acc = (acc >> 5 | acc << 59) % 2**64
    first, second = Hashed(12345), Other(acc * pow(FACTOR, -1, 2**64) % 2**64 ^ 1 << 5)
    f = lru_cache(typed=True)(lambda x: type(x))
    assert [f(first), f(second), f(first), f(second)] == [Hashed, Other] * 2
    assert f.cache_info()[:2] == (2, 2)
