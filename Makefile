# SPDX-License-Identifier: Apache-2.0
# Needs make, python3 >= 3.11 and the network (PyPI). A Rust toolchain makes regraft faster, nothing more.
#
#   make demo    one delta update from end to end, with a report      make test    the quick tests (CI=true: all of them)
#   make check   linters, types, layers, the Rust side                make bench   measured against the real tools
#   make fuzz    mutated inputs into every parser                     make setup   only the environment in .venv

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NATIVE := $(VENV)/.native
NATIVE_SOURCES := native/install native/pyproject.toml native/Cargo.toml native/Cargo.lock \
  $(wildcard native/crates/*/Cargo.toml) $(shell find native/crates -name '*.rs' 2>/dev/null)

SELECTION := $(if $(filter true 1 yes,$(CI)),,-m "not slow")

.PHONY: demo test check bench fuzz setup native clean
.DELETE_ON_ERROR:
.DEFAULT_GOAL := test

demo: setup
	@$(BIN)/python demo/run.py

test: setup
	@$(BIN)/python -m pytest -n auto $(SELECTION) $(TESTS)
	@$(if $(SELECTION),echo "regraft: the slow tests too: make test CI=true. Missing tools as failures: REGRAFT_REQUIRE_TOOLS=1. \
	Fuzzing: make fuzz. Installed: $(BIN)/regraft")

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@native/check $(VENV)

bench: setup
	@$(BIN)/python bench/run.py $(ARGS)

fuzz: setup
	@$(BIN)/python fuzz/run.py $(ARGS)

setup: $(INSTALLED)
	@native/install $(VENV) $(NATIVE_SOURCES)

native: $(INSTALLED)
	@rm -f $(NATIVE)
	@native/install $(VENV) $(NATIVE_SOURCES)

$(INSTALLED): pyproject.toml | $(BIN)/python
	@echo "regraft: installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 5 --editable '.[dev]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "regraft: needs Python 3.11 or later (here: $$($(PYTHON) --version 2>&1)); name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "regraft: this Python cannot make environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) native/target demo/out bench/out fuzz/crashes build dist
