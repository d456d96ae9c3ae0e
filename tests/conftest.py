"""Hypothesis profiles, and what several test files share.

`FASTCACHE_TEST_PROFILE=fuzz` makes every hypothesis test look further, at random, and `thorough` much further; both print
how to repeat what they found. `make fuzz` does the former with the tests that gain by it.
"""

import gc
import os
import subprocess
import sys
from pathlib import Path
from unittest import TestCase

import pytest
from faces import Face
from hypothesis import HealthCheck, settings
from loaders import Clock

from fastcache import AsyncMemoryCache, MemoryCache

TESTS = Path(__file__).parent
PROFILE = os.environ.get("FASTCACHE_TEST_PROFILE", "default")

# derandomize: the seed is the test itself, so the same source always tries the same examples; `thorough` explores.
unhurried = [HealthCheck.too_slow, HealthCheck.data_too_large]
common = {"deadline": None, "database": None, "suppress_health_check": unhurried}
settings.register_profile("default", max_examples=60, stateful_step_count=40, derandomize=True, **common)
settings.register_profile("fuzz-short", max_examples=60, stateful_step_count=40, print_blob=True, **common)
settings.register_profile("fuzz", max_examples=500, stateful_step_count=100, print_blob=True, **common)
settings.register_profile("thorough", max_examples=3000, stateful_step_count=100, print_blob=True, **common)
settings.load_profile(PROFILE)


def pytest_report_header() -> str:
    return f"hypothesis profile: {PROFILE} (default is derandomized: its seed is the test itself)"


# What can't be run by several threads at once (pytest-run-parallel), beside the tests that say so themselves: they would get
# and change one and the same of these fixtures,
SHARED = {"face", "clock", "make", "log", "on_evict", "gone", "cache", "memory", "front", "engine", "database", "redis"}
SHARED |= {"worker", "idle_janitor", "_clean", "monkeypatch", "elsewhere"}
# or start threads, up to a thousand, count what is alive in the process, or use what there is once in the module.
ALONE = {"test_flight", "test_single_flight", "test_singleflight", "test_loading", "test_loading_many", "test_patterns"}
ALONE |= {"test_loading_stateful", "test_loading_limits", "test_failing_keys", "test_engine_endings", "test_janitor"}
ALONE |= {"test_memory", "test_per_instance_ends"}
ALONE |= {"test_ttl_leaks", "test_cached_methods", "test_readme", "test_examples", "test_functools_suite"}


@pytest.hookimpl(tryfirst=True)  # before pytest-run-parallel asks
def pytest_itemcollected(item):
    reason = None
    if item.path.stem in ALONE:
        reason = "starts threads, counts what is alive, or uses what there is once"
    elif SHARED & set(item.fixturenames):
        reason = "its threads would share fixtures"
    elif "run_script" in item.fixturenames:
        reason = "runs in a process of its own"
    elif issubclass(item.cls or object, TestCase):
        reason = "its threads would share one TestCase, with a state machine in it"
    if reason:
        item.add_marker(pytest.mark.thread_unsafe(reason=reason))


@pytest.fixture(autouse=True)
def _ordinary_collector():
    """Leave the garbage collector and the switch interval as they were, whatever a test did to them."""
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


@pytest.fixture
def run_script():
    """Run a file or a source text in a fresh interpreter; fail with its output unless it exits with 0 in time."""

    def run(script: Path | str, *args: str, timeout_seconds: float = 60) -> str:
        command = [script] if isinstance(script, Path) else ["-c", script]
        # A crash must show where it happened; -W error as in the suite itself.
        process = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-W", "error", *map(str, command), *args],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            cwd=TESTS,
        )
        assert process.returncode == 0, f"exit code {process.returncode}\n{process.stdout}\n{process.stderr}"
        return process.stdout

    return run


@pytest.fixture(params=["sync", "asyncio"])
def face(request):
    face = Face(request.param)
    yield face
    face.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(face, clock):
    def make(policy=None, **options):
        kind = MemoryCache if face.name == "sync" else AsyncMemoryCache
        return face.wrap(kind(timer=clock, policy=policy, **options))

    return make
