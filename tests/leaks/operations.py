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
ATTEMPTS = [1, 1, 1, 2, 4, 20]  # how many times more: the first ones still fill free lists and caches of the interpreter


def left_by(make, operate, times):
    """What stays behind by each operation: the least of some attempts, for what leaks does so in each."""
    least = None
    for more in ATTEMPTS:
        gc.collect()
        before = count()
        for _ in range(times * more):
            operate(make())
        gc.collect()
        left = (count() - before) / (times * more)
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
    if left > 0.5:
        leaks.append(f"{name}: {left:g} each time")
print(f"{len(operations)} operations, each {times} times, by {count.__name__}")
sys.exit("\n".join(leaks) or 0)
