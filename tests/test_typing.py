"""The promises to type checkers: `mypy --strict` and `pyright` accept the package and what tests/typing asserts."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "fastcache").is_dir(), reason="there is no checkout to check")

CHECKERS = {
    "mypy": ["--no-incremental"],
    "pyright": ["--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_typing_satisfies_checker(checker):
    """The checker finds nothing to say, an ignore that is no longer needed included (configured in pyproject.toml)."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed (extra `dev`)")
    process = subprocess.run(
        [sys.executable, "-m", checker, *CHECKERS[checker]], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_typing_of_methods_is_what_happens():
    """The statements of tests/typing/methods.py that type checkers accept run too: types and behaviour agree."""
    source = (ROOT / "tests" / "typing" / "methods.py").read_text()
    wrong = "# type: ignore[arg-type]", "# type: ignore[call-arg"
    accepted = "\n".join(line for line in source.splitlines() if not any(mark in line for mark in wrong))
    exec(compile(accepted, "methods.py", "exec"), {"__name__": "methods"})
