"""What is shown to people runs: the example, and the Python in docs/redis.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_runs_as_its_heading_says(server):
    """With warnings as errors, against a real server; it shows what an absent one looks like as well."""
    environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "redis_cache.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "breaker: open" in done.stdout
    assert "User(id=7, name='user number 7')" in done.stdout


def test_the_examples_of_the_readme_hold(server, monkeypatch):
    """Each block of the README that names a server runs against a real one; its asserts hold."""
    page = (ROOT / "README.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "redis://" in block]
    assert blocks
    for block in blocks:
        module = types.ModuleType("example")  # a dataclass looks its own module up
        monkeypatch.setitem(sys.modules, "example", module)
        code = compile(block.replace("redis://localhost:6379", server.url), "README.md", "exec", dont_inherit=True)
        exec(code, vars(module))


def test_the_first_example_of_the_documentation_does_what_its_comments_say(server, monkeypatch):
    """Each commented line is evaluated and compared with its comment."""
    page = (ROOT / "docs" / "redis.md").read_text()
    block = re.findall(r"```python\n(.*?)```", page, re.S)[0].replace("redis://localhost:6379", server.url)
    setup, body = block.split("with ", 1)
    opening, *lines = body.splitlines()
    module = types.ModuleType("example")  # a dataclass looks its own module up
    monkeypatch.setitem(sys.modules, "example", module)
    names = vars(module)
    exec(compile(setup, "docs/redis.md", "exec", dont_inherit=True), names)
    exec("cache = " + opening.removesuffix(" as cache:"), names)
    checked = 0
    for line in lines:
        code, _, comment = line.strip().partition("  # ")
        if not comment:
            exec(code, names)
            continue
        checked += 1
        if comment.startswith("raises"):
            try:
                exec(code, names)
            except KeyError as error:
                assert type(error).__name__ == "CacheMiss"  # noqa: PT017
                continue
            raise AssertionError(f"{code} didn't raise")
        assert repr(eval(code, names)) == comment.split(", validated")[0].strip(), code
    assert checked == 4
    exec("cache.close()", names)
