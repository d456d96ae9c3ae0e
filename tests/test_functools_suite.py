"""CPython's own tests of `lru_cache` and `cache`, unmodified, run against ours on the interpreter at hand."""

import functools
import types
import unittest

import pytest

import fastcache

try:
    from test import test_functools
except ImportError as error:
    test_functools = None
    missing = str(error)

# What the tests reach through `self.module`: ours where it is about caching, the standard library's elsewhere.
module = types.SimpleNamespace(
    lru_cache=fastcache.lru_cache,
    cache=fastcache.cache,
    _CacheInfo=fastcache.CacheInfo,
    WRAPPER_ASSIGNMENTS=functools.WRAPPER_ASSIGNMENTS,
    partial=functools.partial,
)


def test_functools_suite_is_installed():
    """The suite can't pass by having nothing to run: without CPython's tests it fails and says what to install."""
    if test_functools is None:
        pytest.fail(
            f"CPython's own tests are not installed ({missing}); install them, on Debian and Ubuntu by "
            "`apt-get install libpython3.11-testsuite`"
        )


if test_functools is not None:

    @fastcache.lru_cache()
    def cached_func(x, y):
        return 3 * x + y

    class Borrowed:
        """What CPython sets up around each of its own classes, for ours."""

        module = module
        cached_func = (cached_func,)  # in a tuple, as in CPython, so that it doesn't become a method

        @module.lru_cache()
        def cached_meth(self, x, y):
            return 3 * x + y

        @staticmethod
        @module.lru_cache()
        def cached_staticmeth(x, y):
            return 3 * x + y

        @pytest.fixture(autouse=True)
        def _take_the_c_branch(self, monkeypatch):
            # test_lru_recursion asks for RecursionError from what equals `c_functools` only.
            monkeypatch.setattr(test_functools, "c_functools", module)

        def skipTest(self, reason):
            self.fail(f"nothing here may be skipped: {reason}")

    class TestOurLRU(Borrowed, test_functools.TestLRU, unittest.TestCase):
        """`TestLRU`, with our module."""

    class TestOurCache(Borrowed, test_functools.TestCache, unittest.TestCase):
        """`TestCache`, with our module."""

    @pytest.mark.parametrize(("ours", "theirs"), [(TestOurLRU, "TestLRU"), (TestOurCache, "TestCache")])
    def test_functools_suite_is_whole(ours, theirs):
        """No test of CPython's is lost, replaced or skipped on the way."""
        original = getattr(test_functools, theirs)
        names = [name for name in dir(original) if name.startswith("test")]
        assert names
        for name in names:
            assert getattr(ours, name) is getattr(original, name)
            assert not getattr(getattr(ours, name), "__unittest_skip__", False), f"{name} would be skipped"
