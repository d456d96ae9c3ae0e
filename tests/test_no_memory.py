"""Every operation without memory: MemoryError or success, no crash, no hang, and the cache whole and of use afterwards.

CPython's allocators are told to fail from the n-th request on, for every n until the operation succeeds, and then the n-th
request alone. Each subject has a process of its own. What CPython (3.11 to 3.13) itself doesn't bear is left out:

* A Python function that raises, in which the one request that fails is for its traceback, returns without an exception
  (SystemError, or a crash in code that relies on one): such operations only see all requests fail.
* An exception in a `try` or `with` more than 256 instructions into a Python function needs an int to be handled, and without
  memory for that the interpreter tries again for ever: what is written in Python (shared runs, the loading engine, `cached`)
  only sees one request fail.
* A `lambda` or `def` that is made without memory crashes 3.12 and 3.13: the loading engine, which makes some, is looked at
  on 3.11 only.
* An iterator over a dictionary's items that is made without memory crashes 3.12.
* An instance whose `__dict__` was asked for can't be released (3.13): see `Key` in operations.py.
"""

import os
import sys
import sysconfig

import pytest
from operations import SUBJECTS

pytest.importorskip("_testcapi", reason="CPython's own test module is not installed")
pytestmark = [
    pytest.mark.skipif(
        bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="the allocators are set while other threads use them"
    ),
    pytest.mark.skipif("FASTCACHE_COVERAGE_ROOT" in os.environ, reason="tracing a line takes memory"),
]

PYTHON = ("single flight", "cached")  # written in Python to a large part

SCRIPT = """
import faulthandler, gc, sys
sys.path.insert(0, ".")
import operations
from _testcapi import remove_mem_hooks, set_nomemory

faulthandler.dump_traceback_later(100, exit=True)
sys.unraisablehook = lambda unraisable: None
gc.disable()
raised = []
raises = operations.raises
operations.raises = lambda *args: (raised.append(args[0]), raises(*args))
PATIENCE = 8  # successes in a row, where one request fails: later ones may not be for what can do without


def without_memory(operate, subject, start, stop):
    try:
        set_nomemory(start, stop)
        operate(subject)
    except BaseException as error:
        return error
    finally:
        remove_mem_hooks()
    return None


def run(name, make, operate, single):
    start = succeeded = 0
    while succeeded < (PATIENCE if single else 1):
        subject = make()
        error = without_memory(operate, subject, start, start + 1 if single else 0)
        what = f"{name}: request {start} {'alone' if single else 'and all after it'} failed"
        expected = error is None or isinstance(error, MemoryError) or str(error) == "can't allocate lock"
        assert expected, f"{what}: {error!r}"
        try:
            subject._check()
            try:
                operate(subject)
            except Exception:
                pass  # it may have removed something the first time
            subject._check()
        except BaseException as error:
            raise AssertionError(what) from error
        succeeded = succeeded + 1 if error is None else 0
        start += 1
    return start


make, its_operations = operations.SUBJECTS[subject]
for name, operate in its_operations.items():
    print(name, flush=True)
    raised.clear()
    operate(make())
    # pickle has an error of its own for it.
    if not single or not (raised or "pickle" in name):
        run(name, make, operate, single)
"""


def cases():
    for subject in SUBJECTS:
        if subject == "cached" and sys.version_info >= (3, 12):
            continue
        for single in (True,) if any(name in subject for name in PYTHON) else (False, True):
            yield subject, single


@pytest.mark.parametrize(("subject", "single"), list(cases()))
def test_operation_without_memory_leaves_a_whole_cache(run_script, subject, single):
    """Whichever request for memory fails, alone or with all that follow."""
    run_script(f"subject, single = {subject!r}, {single}\n{SCRIPT}", timeout_seconds=120)
