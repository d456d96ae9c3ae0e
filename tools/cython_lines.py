"""A coverage.py plugin that counts the lines of our Cython sources. Used by tools/coverage only; never installed.

Cython.Coverage finds the executable lines in the generated C, and that part is used here. Its mapping of traced names to
files isn't: it takes `_links.pxd`, inlined in `_lru.c`, for `_lru.pxd`, so that the lines of inline functions are lost;
it wants the C beside the source; and it calls Python code on each traced call, where a garbage collection in the midst of
a table's change could run anything. Here a name is looked up once, by its last part.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import Cython.Coverage
from coverage.plugin import FileTracer
from coverage.plugin_support import Plugins

ROOT = Path(os.environ.get("FASTCACHE_COVERAGE_ROOT", Path(__file__).parent.parent))
SOURCES = {path.name: path for path in (ROOT / "src" / "fastcache").glob("*.p[yx][xd]")}
GENERATED = ROOT / "build" / "cython" / "src" / "fastcache"


class OneFile(FileTracer):
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        # Called for each line, maybe in the midst of a table's change: in Python, another thread could get its turn there.
        self.line_number_range = attrgetter("f_lineno", "f_lineno")  # type: ignore[method-assign]

    def source_filename(self) -> str:
        return self.path


def excluded_lines(lines: list[str]) -> set[int]:
    """Those marked `pragma: no cover`, all of a block whose first line is, and the first lines of inline functions.

    (Cython counts the latter as lines, but what is inlined is never called, so that no call is traced; its body is.)
    """
    excluded = set()
    block = None  # how far the line that began it is indented
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is None and "pragma: no cover" in line:
            excluded.add(number)
            if line.partition("#")[0].rstrip().endswith(":"):
                block = indent
        elif block is not None or line.lstrip().startswith("cdef inline "):
            excluded.add(number)
    return excluded


class CythonLines(Cython.Coverage.Plugin):
    _lines: dict[str, dict[int, str]] | None = None

    def file_tracer(self, filename: str) -> OneFile | None:
        if not filename.endswith((".pyx", ".pxd")):
            return None
        path = SOURCES.get(os.path.basename(filename))
        return OneFile(path) if path else None

    def file_reporter(self, filename: str) -> Cython.Coverage.CythonModuleReporter:
        name = os.path.basename(filename)
        if self._lines is None:
            self._lines = self._parse()
        excluded = excluded_lines(SOURCES[name].read_text().splitlines())
        relative = os.path.relpath(SOURCES[name], ROOT)
        code = {line: text for line, text in self._lines[name].items() if line not in excluded}
        return Cython.Coverage.CythonModuleReporter(None, str(SOURCES[name]), relative, code, excluded)

    def find_executable_files(self, src_dir: str) -> Iterator[str]:
        """Name each of our sources, so that a module that no test imports counts as well."""
        if self._lines is None:
            self._lines = self._parse()
        return (str(path) for name, path in SOURCES.items() if path.is_relative_to(src_dir) and self._lines.get(name))

    def _parse(self) -> dict[str, dict[int, str]]:
        """Collect the executable lines of each source from every C file: inline code of a .pxd is in several."""
        lines: dict[str, dict[int, str]] = defaultdict(dict)
        for c_file in sorted(GENERATED.glob("*.c")):
            for name, code in self._parse_cfile_lines(str(c_file)).items():
                if os.path.basename(name) in SOURCES:
                    lines[os.path.basename(name)].update(code)
        return lines


def coverage_init(registry: Plugins, options: dict[str, str]) -> None:
    plugin = CythonLines()
    registry.add_configurer(plugin)
    registry.add_file_tracer(plugin)
