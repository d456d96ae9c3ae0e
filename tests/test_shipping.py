"""What is promised to be shipped is what the configuration builds: the wheels of each platform, classifiers, versions."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "tools").is_dir(), reason="there is no checkout")

if (ROOT / "tools").is_dir():
    sys.path.insert(0, str(ROOT / "tools"))
    import alone
    import distributions

    PLATFORMS = list(distributions.PLATFORMS)
    sys.path.remove(str(ROOT / "tools"))
else:
    PLATFORMS = []


@pytest.mark.parametrize(("platform", "architecture"), PLATFORMS)
def test_wheels_are_those_promised(platform, architecture):
    """cibuildwheel would build exactly the list in tools/distributions.py, no more and no less."""
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform]
    done = subprocess.run([*command, "--archs", architecture, str(ROOT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(distributions.identifiers(platform, architecture))


def test_classifiers_name_the_pythons_that_have_wheels():
    """The versions in the classifiers are those of the wheels, and requires-python is the oldest of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE)
    assert named == [f"3.{python[3:]}" for python in distributions.PYTHONS if not python.endswith("t")]
    assert project["requires-python"] == f">={named[0]}"


def test_workflow_builds_with_the_tested_cibuildwheel():
    """wheels.yml installs the version of cibuildwheel that the list was compared with."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8")
    pins = re.findall(r"cibuildwheel==[\d.]+", workflow)
    assert pins
    assert set(pins) == set(re.findall(r"cibuildwheel==[\d.]+", project))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fastcache_tiers-0.1.0-cp313-cp313-manylinux1_x86_64.manylinux_2_28_x86_64.whl", "cp313-manylinux_x86_64"),
        ("fastcache_tiers-0.1.0-cp314-cp314t-musllinux_1_2_aarch64.whl", "cp314t-musllinux_aarch64"),
        ("fastcache_tiers-0.1.0-cp311-cp311-macosx_10_9_x86_64.whl", "cp311-macosx_x86_64"),
        ("fastcache_tiers-0.1.0-cp315-cp315t-win_arm64.whl", "cp315t-win_arm64"),
    ],
)
def test_identifier_of_a_wheel(name, expected):
    """A wheel's file name is read as cibuildwheel names its builds."""
    assert distributions.identifier(Path(name)) == expected


def test_actions_are_pinned_by_commit():
    """Each action of the workflows is named by a full commit, with its tag beside it."""
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        for line in workflow.read_text(encoding="utf-8").splitlines():
            if match := re.search(r"uses: (\S+)(.*)", line):
                local = match.group(1).startswith("./")
                assert local or re.fullmatch(r"[\w/.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", "".join(match.groups())), line


SECOND_LOOK = """
import pytest

@pytest.mark.parametrize("name", ["a - b", "c"])
def test_good(name):
    pass

def test_bad():
    assert False
"""


@pytest.mark.parametrize(
    ("printed", "enough"),
    [
        (["FAILED tests/redis/test_it.py::test_good[a - b] - assert 1 == 2"], True),
        (["FAILED tests/redis/test_it.py::test_good[c]", "ERROR tests/redis/test_it.py::test_good[a - b] - x[0] - y"], True),
        (["FAILED tests/redis/test_it.py::test_bad - assert False"], False),
        (["FAILED tests/redis/test_it.py::test_good[c] - worker 'gw1' crashed while running it"], False),
        ([f"FAILED tests/redis/test_it.py::test_good[{name}]" for name in "cde"], False),
        (["FAILED tests/test_it.py::test_good[c]"], False),
        (["FAILED tests/redis/test_tiered_races.py::test_good[c]"], False),
        (["ERROR tests/redis/test_it.py"], False),
        (["E501 Line too long"], False),
    ],
    ids=["one", "two", "again", "crash", "three", "another", "tiered", "collection", "lint"],
)
def test_second_look_is_for_one_or_two_of_redis(tmp_path, printed, enough):
    """What fails beside others, at a real server, may pass alone; all else is a failure at once."""
    for place in ("tests/redis", "tests"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name in ("test_it.py", "test_tiered_races.py"):
            (tmp_path / place / name).write_text(SECOND_LOOK)
    assert alone.passes_alone("\n".join(["..F", *printed, "= 1 failed ="]), sys.executable, tmp_path) is enough
