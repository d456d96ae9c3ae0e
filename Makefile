# One command each: make demo | test | bench. `make help` lists the rest.
# The environment is made in .venv with $(PYTHON); the extension is rebuilt when a source under src/ changed.

PYTHON ?= python3
VENV   ?= .venv
ROWS   ?=
ARGS   ?=
WORKERS ?= 3
SECONDS ?= 180

SOURCES := $(wildcard src/fastcache/*.pyx src/fastcache/*.pxd src/fastcache/*.h) setup.py
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(BIN)/python
# Tools start each other by name (cython-lint: pycodestyle).
export PATH := $(abspath $(BIN)):$(PATH)
PIP := $(PY) -m pip --disable-pip-version-check --quiet --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test bench chaos lint types build wheels coverage clean pytest freethreaded tsan sanitize leaks fuzz

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "  Variables: PYTHON=$(PYTHON) VENV=$(VENV) ROWS=\"words\" (bench: only these rows) ARGS=\"...\" WORKERS=$(WORKERS) (test: for pytest)"

demo: $(VENV)/.built ## the main job on real input, in under a minute after the build
	@$(PY) -m fastcache

test: lint types pytest ## lint, types and all tests, those against a Redis server of their own included

pytest: $(VENV)/.built
	@tools/ensure-redis-server
	$(PY) -m pytest tests -n $(WORKERS) --dist worksteal $(ARGS)

bench: $(VENV)/.built ## ratios against functools and the peers; without ROWS also of loading and of Redis
	@$(PY) benches/compare.py $(ROWS)
ifeq ($(ROWS),)
	@tools/ensure-redis-server
	@$(PY) benches/bench_cached.py
	@$(PY) benches/bench_loading.py
	@$(PY) benches/bench_redis.py
	@$(PY) benches/bench_tiered.py
endif

chaos: $(VENV)/.built ## the two-level cache under real processes, deaths and outages for SECONDS each, beside others
	@tools/ensure-redis-server
	@$(PY) tests/redis/chaos.py $(SECONDS)

lint: $(VENV)/.built ## ruff, cython-lint, and zizmor for the workflows (actionlint too where it is installed)
	$(PY) -m ruff check .
	$(BIN)/cython-lint src
	$(BIN)/zizmor --offline --quiet .github/workflows
	@if command -v actionlint >/dev/null; then actionlint; fi

types: $(VENV)/.built ## mypy --strict and pyright
	$(PY) -m mypy
	$(PY) -m pyright --pythonpath $(PY)

sanitize: $(VENV)/.built ## the in-memory tests under AddressSanitizer and UndefinedBehaviorSanitizer (SHORT=1: the core's)
	@tools/sanitize $(PY) $(if $(SHORT),short)

leaks: $(VENV)/.built ## flat memory, counts of references on a debug CPython, valgrind (SHORT=1: in a minute)
	@tools/leaks $(PY) $(if $(SHORT),short)

fuzz: $(VENV)/.built ## operations at random, within each other and without memory; bytes from anywhere (SHORT=1: a minute)
	@tools/fuzz $(PY) $(if $(SHORT),short)

freethreaded: ## the in-memory tests without the GIL (FREETHREADED=python3.14t; SHORT=1: once only)
	@tools/freethreaded "$(FREETHREADED)" $(if $(SHORT),short)

tsan: ## the tests under threads with ThreadSanitizer (TSAN_PYTHON=: a CPython that was built with it)
	@FREETHREADED="$(FREETHREADED)" tools/tsan "$(TSAN_PYTHON)" $(ARGS)

build: $(VENV)/.built ## an sdist, and a wheel built from it, in dist/
	rm -rf dist
	$(PY) -m build

wheels: $(VENV)/.built ## the sdist, and from it a repaired and tested wheel for each Python here, in dist/
	$(PY) tools/wheels.py $(PYTHONS)

coverage: ## lines of Python and Cython that the whole suite runs; at least 99 %
	@tools/ensure-redis-server
	tools/coverage -n $(WORKERS) --dist worksteal $(ARGS)

clean: ## remove all that was built, the environment too
	rm -rf $(VENV) .venv-freethreaded build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage*
	rm -f fastcache/*.so fastcache/*.pyd
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: an environment with what building needs, then the project in it with all that it's tested with.

$(VENV)/.made:
	@tools/check-python $(PYTHON)
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip
	@$(PIP) install --upgrade "setuptools>=77" "cython>=3.1,<4" wheel
	@touch $@

$(VENV)/.built: $(SOURCES) pyproject.toml $(VENV)/.made
	@echo "Building the extension and installing what the project needs"
	@PYTHONWARNINGS=ignore $(PIP) install --no-build-isolation --editable ".[dev]"
	@touch $@
