# Two commands: `make demo` runs the main job end to end, `make test` proves the checkout. Each sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.radfs-setup

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types imports pytest fmt docs site bench wheel clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## make .venv and install radfs[demo] with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(f"radfs needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Use make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable ".[demo]"
	@touch $(STAMP)

demo: setup ## phantom cohort -> tokens -> heads -> table and learning curves, in ./demo
	$(BIN)/radfs demo --out demo
	@echo "(radfs lies in the environment: source $(BIN)/activate)"

test: setup lint types imports pytest ## lint, types, import rules, tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/basedpyright

imports: setup
	$(BIN)/lint-imports

pytest: setup
	$(BIN)/pytest

fmt: setup ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## make docs/schema.md, docs/cli.md and the file map anew
	$(BIN)/python docs/generate.py

site: setup ## build the documentation into ./site
	$(BIN)/zensical build --strict

bench: setup ## run every benchmark (ratios against a baseline in the same run)
	for script in benchmarks/*.py; do $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove the environment and the demo
	rm -rf $(VENV) demo site build dist *.egg-info
