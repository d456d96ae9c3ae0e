"""`cached` on methods, class methods and static methods."""

import dataclasses
import functools
import inspect
import pickle

import pytest

from fastcache import cached
from fastcache.callkeys import Template


class Shop:
    def __init__(self, id):
        self.id, self.runs = id, 0

    @cached(key="price:{self.id}:{item}")
    def price(self, item):
        """What it costs."""
        self.runs += 1
        return self.id * item

    @cached
    def unkeyed(self):
        return 1

    @classmethod
    @cached
    def named(cls, name):
        return cls, name

    @staticmethod
    @cached
    def tax(rate):
        return [rate]


def test_method_is_cached_by_instance_through_both_ways():
    """`a.m(1)` and `A.m(a, 1)` are one call, and so are their invalidations, refreshes and keys."""
    shop, other = Shop(2), Shop(3)
    assert shop.price(5) == Shop.price(shop, 5) == 10
    assert other.price(5) == 15
    assert shop.runs == 1
    shop.price.invalidate(5)
    shop.price(5)
    Shop.price.invalidate(shop, 5)
    bound = shop.price
    assert bound(5) == 10
    assert shop.runs == 3
    assert bound.refresh(5) == Shop.price.refresh(shop, item=5) == 10
    assert shop.runs == 5
    assert shop.price.cache_key(5) == Shop.price.cache_key(shop, 5) == "price:2:5"
    assert shop.price.cache is Shop.price.cache


def test_bound_method_looks_like_one():
    """Signature, documentation, name, equality."""
    shop = Shop(2)
    assert str(inspect.signature(shop.price)) == "(item)"
    assert str(inspect.signature(Shop.price)) == "(self, item)"
    assert (shop.price.__doc__, shop.price.__name__) == ("What it costs.", "price")
    assert shop.price == shop.price != Shop(2).price
    assert hash(shop.price) == hash(shop.price)
    assert shop.price.__self__ is shop
    assert "Shop.price" in repr(shop.price)
    assert shop.price != 5
    assert pickle.loads(pickle.dumps(shop.price))(5) == 10


def test_bound_method_in_a_class_stays_bound():
    """As a bound method that is another class's attribute does."""
    shop = Shop(2)

    class Other:
        price = shop.price

    assert Other().price == Other.price == shop.price
    assert Other().price(5) == 10


def test_self_without_a_stable_form_is_refused():
    """The error names the function, the parameter, the type and the way out."""
    with pytest.raises(TypeError, match=r"Shop\.unkeyed: .*'self'.*Shop .*give cached\(\) a key="):
        Shop(1).unkeyed()


def test_self_with_a_stable_form_needs_no_key():
    """Of a dataclass, or of what says its own."""
    runs = []

    @dataclasses.dataclass
    class Point:
        x: int

        @cached
        def double(self):
            runs.append(self.x)
            return self.x * 2

    class Own:
        def __init__(self, id):
            self.id = id

        def __cache_key__(self):
            return self.id

        @cached
        def me(self):
            return self.id

    assert [Point(1).double(), Point(1).double(), Point(2).double()] == [2, 2, 4]
    assert runs == [1, 2]
    assert [Own(1).me(), Own(2).me()] == [1, 2]


def test_class_and_static_methods_work():
    """Below @classmethod and @staticmethod."""
    assert Shop.named("a") == Shop(1).named("a") == (Shop, "a")
    assert Shop.tax(19) is Shop(1).tax(19)
    Shop.tax.invalidate(19)
    Shop.named.invalidate(Shop, "a")


class Service:
    """Neither hashable nor comparable, as much of what has methods."""

    __hash__ = None

    def __eq__(self, other):
        raise AssertionError("nobody asks")

    @cached(key="user:{user_id}:{lang}")
    def user(self, user_id, session=None, *, lang="en"):
        return user_id, session, lang

    @cached(key="all:{ids}")
    def all(self, *ids):
        return ids


def test_key_without_the_instance_is_made_once(monkeypatch):
    """What the template doesn't name may be anything: a hit makes no key, whoever asks."""
    made = []
    make = Template.__call__
    monkeypatch.setattr(Template, "__call__", lambda self, values: made.append(values) or make(self, values))
    Service.user.cache.clear()
    session = Service()
    assert Service().user(7, session)[1] is session
    assert Service().user(7, Service())[1] is session
    assert Service.user(Service(), 7)[0] == 7
    assert len(made) == 2  # with two arguments and with three
    assert Service().user(7, session=Service())[1] is session  # by keyword: there it is looked at
    assert len(made) == 3
    assert Service().user(7, lang="de") == (7, None, "de")
    assert Service().user(7, lang="de", session=Service()) == (7, None, "de")
    assert Service().user(8) == (8, None, "en")
    assert Service().user.cache_key(8) == "user:8:en"


def test_wrong_arguments_beside_the_instance_are_an_error():
    """As of any function, and nothing is cached."""
    with pytest.raises(TypeError, match="user_id"):
        Service().user()
    with pytest.raises(TypeError, match="positional"):
        Service().user(1, 2, 3)
    with pytest.raises(TypeError, match="'self'"):
        Service().user(7, self=1)


def test_many_arguments_beside_the_instance():
    """More than fit beside those that are left out: the key is made each time, and right."""
    ids = tuple(range(40))
    assert Service().all(*ids) == Service().all(*ids) == ids
    assert Service().all(1) == (1,)


def times(x, y=2):
    return x * y


def test_what_has_no_name_is_shown_as_it_is():
    """A partial, or an object that is called: as what it is, bound to an instance or not."""
    function = functools.partial(times, y=5)
    wrapper = cached(key="partial:{x}")(function)
    assert wrapper(2) == 10
    assert repr(wrapper).startswith(f"<fastcache.cached of {function!r} at 0x")
    assert repr(wrapper.__get__(3, int)) == f"<bound fastcache.cached of {function!r} of 3>"


async def fetch(x):
    return x


def test_call_that_is_never_awaited_is_named_after_the_function():
    """What Python says of the coroutine of a miss, and asyncio of its task."""
    function = cached(key="{x}")(fetch)
    for argument in (1, [1]):
        coroutine = function(argument)
        assert coroutine.__qualname__ == "fetch"
        coroutine.close()
