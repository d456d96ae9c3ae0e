"""How the scripts beside this one measure: operations, a million or as many as the argument says, leave memory as it was.

Three measures, each with a blind spot of its own: the blocks of CPython's allocator (none above 512 bytes), what tracemalloc
sees (nothing that C code takes from malloc), the size of the process (no small leak).
"""

import gc
import os
import sys
import tracemalloc
from itertools import pairwise

SAMPLES = 10


def resident():
    """Bytes of the process that are in memory; 0 where the system doesn't say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def check(work, each, operations=1_000_000):
    """Have `work(rounds)` done, of `each` operations a round, and exit with an error when memory grows.

    operations: in all, where the argument doesn't say.
    """
    rounds = int(sys.argv[1] if len(sys.argv) > 1 else operations) // each
    work(max(rounds // 10, 1000))
    sizes, blocks = [], []
    for _ in range(SAMPLES):
        work(rounds // SAMPLES)
        gc.collect()
        sizes.append(resident())
        blocks.append(sys.getallocatedblocks())
    tracemalloc.start()
    traced = []
    for _ in range(6):
        work(max(rounds // 100, 1000))
        gc.collect()
        traced.append(tracemalloc.get_traced_memory()[0])
    # The least of the last half against the least of the first: what leaks has no way back. Traced is the least that a work
    # added: what leaks does so in each, where a table that CPython makes anew (a set's, of objects that come and go) is a
    # step up or down once in a while, which no block from before the trace balances.
    grown = {
        "blocks": (min(blocks[5:]) - min(blocks[:5]), 200),
        "traced bytes": (min(after - before for before, after in pairwise(traced)), 10_000),
        "resident bytes": (min(sizes[5:]) - min(sizes[:5]), 1_500_000),
    }
    said = ", ".join(f"{n} {what}" for what, (n, _) in grown.items())
    print(f"{rounds * each:,} operations: grown by {said}")
    sys.exit(f"grown by {said}" if any(n > allowed for n, allowed in grown.values()) else 0)
