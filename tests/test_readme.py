"""The README's examples run as they stand, one after the other, as a reader would type them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks() -> list[tuple[int, str]]:
    """(line, source) of each block of Python, but those that need a server: redis/test_examples.py runs them."""
    text = README.read_text(encoding="utf-8")
    found = [(text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in BLOCK.finditer(text)]
    return [block for block in found if "redis://" not in block[1]]


def test_readme_has_examples() -> None:
    """The expression above finds what it should: nothing found would pass everything below."""
    assert len(blocks()) >= 3


@pytest.mark.parametrize(("line", "source"), [pytest.param(*block, id=f"line {block[0]}") for block in blocks()])
def test_readme_example_runs(line: int, source: str) -> None:
    """Each block runs on its own; its asserts hold."""
    for module in re.findall(r"^(?:from|import) (cachetools)\b", source, re.MULTILINE):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    code = compile("\n" * (line - 1) + source, str(README), "exec")
    exec(code, {"__name__": "readme"})
