"""Access traces of real systems, read in place: FASTCACHE_TRACES, or ../shared/traces beside the checkout.

A reader for each format gives a list of int keys. The traces are no part of the project; they must never be copied
into it.

Sources: "oltp" is of Megiddo and Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003; the others
come with the simulator of ben-manes/caffeine (cache2k, Scarab Research, R3 Corda, LIRS).
"""

from __future__ import annotations

import gzip
import lzma
import os
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

# The hit ratios in percent of an exact LRU that others published, and to how many digits.
KNOWN: dict[tuple[str, int], tuple[float, int]] = {
    ("oltp", 250): (16.47, 2),
    ("oltp", 500): (23.45, 2),
    ("oltp", 1000): (32.83, 2),
    ("oltp", 2000): (42.47, 2),
    ("scarab", 100_000): (75.91, 2),
    ("gli", 1000): (11.2, 1),
    ("gli", 1500): (36.5, 1),
    ("gli", 2000): (57.4, 1),
    ("loop", 512): (0.0, 1),
}

MOST = 1_000_000  # accesses of a trace that are replayed, where no known ratio asks for all of them


def unpacked(path: Path) -> bytes:
    return (gzip.decompress if path.suffix == ".gz" else lzma.decompress)(path.read_bytes())


def big_endian(typecode: str) -> Callable[[Path], list[int]]:
    def read(path: Path) -> list[int]:
        keys = array(typecode, unpacked(path))
        keys.byteswap()
        return keys.tolist()

    return read


def lirs(path: Path) -> list[int]:
    return [int(line) for line in unpacked(path).split() if line != b"*"]


def arc(path: Path) -> list[int]:
    keys: list[int] = []
    for line in unpacked(path).splitlines():
        start, n = line.split()[:2]
        keys.extend(range(int(start), int(start) + int(n)))
    return keys


FILES: list[tuple[str, str, Callable[[Path], list[int]], list[int]]] = [
    ("oltp", "oltp.lis.gz", arc, [250, 500, 1000, 2000]),
    ("scarab", "scarab__scarab-recs.trace.xz", big_endian("q"), [100_000]),
    ("gli", "lirs__gli.trace.gz", lirs, [1000, 1500, 2000]),
    ("loop", "lirs__loop.trace.gz", lirs, [512]),
    ("multi3", "lirs__multi3.trace.gz", lirs, [1000]),
    ("web shop", "cache2k__web07.trace.xz", big_endian("i"), [2000]),
    ("web shop, later", "cache2k__web12.trace.xz", big_endian("i"), [2000]),
    ("ORM, busy", "cache2k__orm-busy.trace.xz", big_endian("i"), [5000]),
    ("ORM, night", "cache2k__orm-night.trace.xz", big_endian("i"), [5000]),
    ("block chain", "corda__trace_vaultservice.gz", big_endian("q"), [2000]),
]


def folder() -> Path | None:
    """Where the traces are, or None."""
    given = os.environ.get("FASTCACHE_TRACES")
    path = Path(given) if given else Path(__file__).resolve().parent.parent.parent / "shared" / "traces"
    return path if path.is_dir() else None


def read_traces() -> Iterator[tuple[str, list[int], list[int]]]:
    """(name, keys, sizes of cache to replay with) of each trace that is there."""
    where = folder()
    if where is None:
        return
    for name, file, read, sizes in FILES:
        path = where / file
        if path.exists():
            keys = read(path)
            known = any((name, size) in KNOWN for size in sizes)
            yield name, keys if known else keys[:MOST], sizes
