# Two commands on a fresh machine: make search, make test.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: search test test-faults lint types arch clean

search: .venv/.stamp-run
	$(BIN)/automl-prune search experiments/digits/config.yaml

test: .venv/.stamp-dev
	$(BIN)/python -m pytest

test-faults: .venv/.stamp-dev
	$(BIN)/python -m pytest -m faults -rP

# What README, the tutorial and the how-tos tell to do, done: some minutes.
pages: .venv/.stamp-dev
	$(BIN)/python -m pytest -m pages

# Into build/docs; a warning is an error.
docs: .venv/.stamp-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: .venv/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.stamp-dev
	$(BIN)/mypy

arch: .venv/.stamp-dev
	$(BIN)/lint-imports

clean:
	rm -rf .venv

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; name yours with: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.stamp-run: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing (5 GB with torch; some minutes)"
	$(PIP) -e .
	@touch $@

.venv/.stamp-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing (5 GB with torch; some minutes)"
	$(PIP) -e ".[dev]"
	@touch $@ .venv/.stamp-run
