# `make demo` and `make test` are all that a fresh machine needs: Python 3.11 or newer, a C compiler and a package index.
#
#   make demo    install, then tell the whole story on a simulated world (runs/demo/report.html)
#   make test    install, then run the tests
#   make check   style, types and the house rules
#   make bench   speed and memory, beside a literal implementation
#   make docs    write docs/commands.md from the program and check every page against the code
#
# Variables: PYTHON=python3.12 chooses the interpreter; TORCH_ARGS="--index-url URL" the index of another build of torch
# (on Linux the default build carries CUDA; a CPU-only one is much smaller); TEST_ARGS is handed to pytest.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help demo test check bench docs clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
TORCH_ARGS ?=
TEST_ARGS ?=
DEMO_ARGS ?=

# The first interpreter that runs, is new enough and can make environments; 3.11 first, the version that constraints.txt was tested on.
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 python
SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c '$(SUITABLE)' >/dev/null 2>&1 && echo $$p && break; done)

help:
	@sed -n '3,7s/^# *//p' Makefile

# One environment, filled in two steps: what the program needs, then what its tests and checks need. Each step leaves a stamp, so
# nothing is done twice, and everything is done again when the pins or the project's dependencies change.
$(VENV)/.core: pyproject.toml constraints.txt
	@$(if $(PYTHON),,echo "No suitable Python: dinogrl needs Python 3.11 or newer with the venv module (make PYTHON=/path/to/python3.11)." >&2; exit 1)
	@$(PYTHON) -c '$(SUITABLE)' 2>/dev/null || { echo "$(PYTHON) cannot be used: dinogrl needs Python 3.11 or newer with the venv module." >&2; exit 1; }
	@echo "[1/3] environment in $(VENV) ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/3] torch (the largest download)"
	@$(PIP) install $(TORCH_ARGS) --constraint constraints.txt torch
	@echo "[3/3] dinogrl and what it needs"
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "[dev] test and check tools"
	@$(PIP) install --constraint constraints.txt --editable '.[test,check]'
	@touch $@

demo: $(VENV)/.core
	$(BIN)/dinogrl demo --out runs/demo $(DEMO_ARGS)

# One thread a process: the tests' matrices are small, and processes share the cores better than threads do.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 $(TEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house_floors.py tests/test_house_rules.py

bench: $(VENV)/.core
	$(BIN)/dinogrl bench

docs: $(VENV)/.dev
	$(BIN)/python -m typer dinogrl.cli.main utils docs --name dinogrl --title "Commands of dinogrl" --output docs/commands.md
	$(BIN)/python -m pytest tests/test_house_docs.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
