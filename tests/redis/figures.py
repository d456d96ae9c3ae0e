"""What tests measure, for the tables at the end of the run: noted in the process of the test, printed by the first one.

Use the fixture `note` (conftest.py). Nothing here judges.
"""

from __future__ import annotations

from typing import Any

_times: list[tuple[str, str, float, str]] = []
_lines: list[str] = []


class Note:
    """Belongs to one test; what it is told travels in the test's report."""

    def __init__(self, item: Any) -> None:
        self._item = item

    def time(self, what: str, seconds: float, outcome: str = "") -> None:
        self._item.user_properties.append(("time", (self._item.name, what, seconds, outcome)))

    def say(self, text: str) -> None:
        self._item.user_properties.append(("line", text))


def pytest_runtest_logreport(report: Any) -> None:
    """Take what a finished test's report brings."""
    if report.when == "teardown":
        for kind, value in report.user_properties:
            if kind == "time":
                _times.append(tuple(value))
            elif kind == "line":
                _lines.append(value)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The times of faults, the slowest of each, and what else was said."""
    if _times:
        terminalreporter.section("faults, measured")
    worst: dict[tuple[str, str], tuple[float, str]] = {}
    for test, what, seconds, outcome in _times:
        worst[test, what] = max(worst.get((test, what), (0.0, "")), (seconds, outcome))
    for (test, what), (seconds, outcome) in worst.items():
        name = test.removeprefix("test_")
        terminalreporter.write_line(f"{name:72} {what:44} {seconds * 1000:9.2f} ms  {outcome:.100}")
    if _lines:
        terminalreporter.section("servers that died, measured")
    for line in _lines:
        terminalreporter.write_line(line)
