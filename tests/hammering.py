"""Running one piece of work in many threads at once, for the tests that do so."""

import os
import sys
import sysconfig
import threading
from typing import ClassVar

THREADS = 8
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
# CPython 3.13 without the GIL makes functions, types and modules immortal once a thread was started (cpython#117783).
IMMORTALS = FREE_THREADED and sys.version_info < (3, 14)

ROUNDS = int(os.environ.get("FASTCACHE_TEST_ROUNDS", 2000 if FREE_THREADED else 400))  # of each thread
LIMIT = 40  # entries


class Key:
    """Compared in Python: a critical section may be suspended there."""

    def __init__(self, n):
        self.n = n

    def __hash__(self):
        return self.n % 7

    def __eq__(self, other):
        return isinstance(other, Key) and self.n == other.n


class Value:
    """What belongs to a key; `alive()` says how many there are."""

    # No lock: a finalizer may run in the midst of any line, of `__init__` too. To append is atomic.
    _made: ClassVar[list] = []
    _gone: ClassVar[list] = []

    def __init__(self, n):
        self.n = n
        Value._made.append(None)

    def __del__(self):
        Value._gone.append(None)

    def __reduce__(self):
        return Value, (self.n,)

    @staticmethod
    def alive():
        """Asked while no other thread makes or drops any."""
        return len(Value._made) - len(Value._gone)


class Clock:
    """Time that any thread moves on."""

    now = 0.0

    def __call__(self):
        return self.now


MAKERS = {"int": int, "str": str, "python": Key}


def nothing(*args):
    pass


def weigh(value):
    return 1.0


def hammer(work, threads=THREADS):
    """Run work(thread number) in all threads at once; raise the first error."""
    sys.setswitchinterval(1e-6)
    start, errors = threading.Barrier(threads), []

    def run(number):
        start.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    crew = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(120)
        assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]
