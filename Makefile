# `make verify` runs the main job, `make test` the tests. Each makes its own virtual environment and installs what it needs.
# The system's interpreter if it is new enough: distributions build theirs with profile-guided optimisation.
PYTHON ?= $(firstword $(shell for each in /usr/bin/python3 python3; do \
	$$each -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each; done) python3)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: verify test lint clean

verify: $(VENV)/.verify-installed
	$(BIN)/comitia verify $(ARGS)

test: $(VENV)/.test-installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -q $(ARGS)

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Comitia needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.verify-installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[checks]'
	touch $@

$(VENV)/.test-installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.verify-installed

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
