"""Every operation of every compiled class, repeated: nothing is left, not one reference where CPython counts them all.

A debug build of CPython has `sys.gettotalrefcount`; elsewhere the memory blocks of its allocator are counted instead.
"""

import gc
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the second line below
sys.unraisablehook = lambda unraisable: None  # some operations have more errors than one can be raised
from operations import SUBJECTS  # noqa: E402

count = getattr(sys, "gettotalrefcount", sys.getallocatedblocks)
# The interpreter's cache of attributes keeps names that were looked up, wherever in memory each of them was.
clear_cache = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
ATTEMPTS = 6  # the first ones still fill free lists and other caches of the interpreter


def settle():
    """Without the GIL what a collection releases may be counted by the collector only, too: by the next one."""
    gc.collect()
    gc.collect()
    clear_cache()


def left_by(make, operate, times):
    """What stays behind after so many times: the least of some attempts, for what leaks does so in each."""
    least = None
    for _ in range(ATTEMPTS):
        settle()
        before = count()
        for _ in range(times):
            operate(make())
        settle()
        left = count() - before
        least = left if least is None else min(least, left)
        if least <= 0:
            break
    return least


times = int(sys.argv[1]) if len(sys.argv) > 1 else 10
gc.disable()
gc.collect()
gc.freeze()
leaks = []
operations = [
    (f"{subject}: {name}", make, operate)
    for subject, (make, its_operations) in SUBJECTS.items()
    for name, operate in its_operations.items()
]
for name, make, operate in operations:
    left = left_by(make, operate, times)
    if left > times // 2:
        leaks.append(f"{name}: {left} after {times} times")
print(f"{len(operations)} operations, each {times} times, by {count.__name__}")
sys.exit("\n".join(leaks) or 0)
