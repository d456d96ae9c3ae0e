"""The rules of the house that can be read off the sources: imports go one way, importing is cheap, files stay small."""

import ast
import re
from pathlib import Path

import pytest

import fastcache

ROOT = Path(__file__).parent.parent
PACKAGE = Path(fastcache.__file__).parent
CORE = ROOT / "src" / "fastcache"

# Each file may import those in the lines above its own only (and, within the core, above it in its line).
FLOORS = [
    ["interpreter"],
    ["errors"],
    [
        "_links", "_cpython", "_clock", "_expiry", "_readers", "_table", "_lru", "_ttl", "_gate", "_memo", "_method",
        "_cached",
    ],
    ["stats"],
    ["flight", "flights", "taskflights"],
    ["runs"],
    ["memoize"],
    ["arguments"],
    ["keys", "stable", "callkeys"],
    ["compression", "serializers", "expiry", "envelope", "entries"],
    ["plan"],
    ["singleflight"],
    ["policy"],
    ["events", "workers", "background", "outbox", "storing", "writing", "leasing", "loading"],
    ["janitor"],
    ["memory", "methods", "backends", "asyncmemory"],
    [
        "outage", "breaker", "connection", "pools", "targets", "loops", "link", "replies", "scripts", "sending", "remote",
        "commands",
    ],
    ["redis"],
    ["sidekeys", "messages", "news", "guards", "front", "tierreading", "tiers"],
    ["wires", "line", "listener", "coherence", "tierplans", "tiered", "asynctiered"],
    ["patterns"],
    ["decorators"],
    ["__main__"],
]
ORDER = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}
# The table's fields are declared in _table.pxd; _expiry.pxd, which the table uses, works on its struct `Expiry`.
EXCEPTIONS = {("_expiry", "_table")}


def imports_of_python(path):
    """Names of our modules that a .py file imports, at its top or inside a function, but those for type checkers."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            if module == "fastcache":
                yield from (alias.name for alias in node.names)
            elif module.startswith("fastcache."):
                yield module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fastcache."))


def imports_of_cython(path):
    """The same for .pyx and .pxd, import and cimport."""
    for line in path.read_text().splitlines():
        found = re.match(r"\s*(?:from\s+(?:\.|fastcache\.)(\w+)\s+c?import|c?import\s+fastcache\.(\w+))", line)
        if found:
            yield found[1] or found[2]


def sources():
    files = [*PACKAGE.glob("*.py"), *CORE.glob("*.p[yx][xd]")]
    return sorted((path for path in files if path.name != "__init__.py"), key=lambda path: path.name)


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_imports_go_one_way(path):
    """No file imports from its own floor or from one above it; every file has its place in the order."""
    assert path.stem in ORDER, f"{path.name} has no place in FLOORS: give it one"
    imports = imports_of_python if path.suffix == ".py" else imports_of_cython
    for name in set(imports(path)) - {path.stem}:
        assert name in ORDER, f"{path.name} imports {name}, which has no place in FLOORS"
        if (path.stem, name) in EXCEPTIONS:
            continue
        assert ORDER[name] < ORDER[path.stem], f"{path.name} imports {name}, which is not below it"


def test_imports_are_seen():
    """The readers above find imports at all: a test that can't fail is a defect."""
    assert {"_memo", "_ttl"} <= set(imports_of_python(PACKAGE / "memoize.py"))
    if CORE.exists():
        assert {"_cpython", "_links", "_table"} <= set(imports_of_cython(CORE / "_lru.pyx"))


@pytest.mark.parametrize("first", ["import fastcache", "from fastcache import lru_cache; lru_cache(len)('x')"])
def test_importing_is_cheap(first, run_script):
    """Neither importing the package nor decorating a `def` loads what the core has no need of."""
    heavy = {
        "redis",
        "msgspec",
        "asyncio",
        "dataclasses",
        "inspect",
        "typing",
        "logging",
        "threading",
        "ctypes",
        "json",
    }
    output = run_script(f"import sys; before = set(sys.modules)\n{first}\nprint(*(set(sys.modules) - before))")
    assert "fastcache._memo" in output.split()
    assert not heavy & set(output.split())


def test_public_names_are_in_order():
    """__all__ is sorted as ruff sorts it, complete, and every name exists."""
    pytest.importorskip("msgspec")
    names = fastcache.__all__
    assert len(names) == len(set(names))
    assert all(hasattr(fastcache, name) for name in names)
    assert not any(name.startswith("_") for name in names)

    def kind(name):
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert names == sorted(names, key=kind)


def test_dir_names_what_is_not_loaded_yet(run_script):
    """All public names, in order, without an import of any."""
    names = run_script("import fastcache, sys; print(*dir(fastcache)); assert 'fastcache.redis' not in sys.modules").split()
    assert set(fastcache.__all__) <= set(names)
    assert names == sorted(set(names))


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_public_names_of_a_module_exist(path):
    """Each Python module says what it offers, and offers what it says."""
    if path.stem == "redis":
        pytest.importorskip("msgspec")
    if path.suffix == ".py" and path.stem != "__main__":
        scope = {}
        exec(f"from fastcache.{path.stem} import *", scope)
        assert set(__import__(f"fastcache.{path.stem}", fromlist=["__all__"]).__all__) <= set(scope)


@pytest.mark.parametrize("path", [*sources(), *sorted(Path(__file__).parent.glob("*.py"))], ids=lambda path: path.name)
def test_files_stay_small(path):
    """A Python file of more than 400 lines wants to be two."""
    if path.suffix == ".py":
        assert len(path.read_text().splitlines()) <= 400
    assert path.read_text().startswith(('"""', "# cython:")), "its first lines say what it owns"
