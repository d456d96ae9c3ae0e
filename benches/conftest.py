"""Settings of `pytest benches` that a run of the tests must not have: short rounds, and groups in the report."""

from __future__ import annotations

from typing import Any


def pytest_configure(config: Any) -> None:
    config.option.benchmark_columns = ["min", "median", "ops", "rounds"]
    config.option.benchmark_sort = "min"
    config.option.benchmark_max_time = 0.1
    config.option.benchmark_disable_gc = True
