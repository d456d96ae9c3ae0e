"""Running one piece of work in many threads at once, for the tests that do so."""

import sys
import sysconfig
import threading

THREADS = 8
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
# CPython 3.13 without the GIL makes functions, types and modules immortal once a thread was started (cpython#117783).
IMMORTALS = FREE_THREADED and sys.version_info < (3, 14)


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
