"""Subinterpreters: each kind is refused with an ImportError that says so, and the main interpreter is none the worse."""

import os

import pytest

try:
    import _interpreters as interpreters  # CPython 3.13
except ImportError:
    interpreters = pytest.importorskip("_xxsubinterpreters", reason="this CPython makes no subinterpreters")

pytestmark = pytest.mark.skipif("FASTCACHE_COVERAGE_ROOT" in os.environ, reason="coverage would start in each")

# "isolated": with a GIL of its own, from 3.12 on; "legacy": one that shares the GIL, as mod_wsgi's do.
SCRIPT = """
try:
    import _interpreters as interpreters
    number, run = interpreters.create(kind), interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    number, run = interpreters.create(isolated=kind == "isolated"), interpreters.run_string

def use():
    from fastcache import LRUCache, lru_cache
    cache = LRUCache(2)
    cache[1] = 1
    assert lru_cache(len)("abc") == 3 and cache[1] == 1
    cache._check()

if "before" in when:
    use()
for _ in range(2):
    failed = run(number, '''
import sys
for name in ("fastcache", "fastcache._lru"):
    try:
        __import__(name)
    except ImportError as error:
        assert "fastcache works in the main interpreter of a process only" in str(error), error
    else:
        raise AssertionError("imported")
assert "fastcache._table" not in sys.modules
''')
    assert failed is None, failed
use()
interpreters.destroy(number)
use()
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_subinterpreter_is_refused(run_script, kind, when):
    """Whether the main interpreter imported the package before or does so after: it works there, and only there."""
    run_script(f"kind, when = {kind!r}, {when!r}\n{SCRIPT}")
