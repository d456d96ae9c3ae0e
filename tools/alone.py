"""A second look at tests that failed: python tools/alone.py LOG PYTHON, where LOG is what `PYTHON -m pytest` printed.

For the tests of the Redis tier only, and for two at most: they meet real servers through real sockets, and on a machine that
is busy with other tests, too, one may wait for longer than its time limit. Each is run once more by itself, which must pass.
More of them, one of the other tests, those of the two-level cache among them (an old value that was served once is one too
many), or a crash stays a failure at once. What needed a second look is said, so that it is
looked into: a test that needs it twice has a race.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

MOST = 2
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/\S+?\.py\S*?(?:\[.*?\])?)(?: - .*)?$", re.MULTILINE)


def passes_alone(output: str, python: str | Path, cwd: Path | None = None) -> bool:
    """Whether all that failed passes when it is run by itself."""
    failed = list(dict.fromkeys(_FAILED.findall(output)))
    if not 0 < len(failed) <= MOST or "crashed while running" in output:
        return False
    if not all(test.startswith("tests/redis/") and "test_tiered" not in test and "::" in test for test in failed):
        return False
    print(f"\n-- failed beside others, now alone: {', '.join(failed)}", flush=True)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return subprocess.run([python, "-m", "pytest", *options, *failed], cwd=cwd, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(not passes_alone(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace"), sys.argv[2]))
