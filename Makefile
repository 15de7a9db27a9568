# Everything here sets itself up: a machine with python3, pip and make is enough. uv is used where it is found.
# Variables: PYTHON (interpreter for a new .venv), SEED and OUTPUT (of the quick start), ARGS (extra arguments).

PYTHON ?=
SEED   ?= 0
OUTPUT ?= runs/digits
ARGS   ?=

VENV := .venv
PY   := $(VENV)/bin/python
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test lint types env clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(VENV)/.ready ## train the digits recipe, both stages, and print its table (SEED=0 OUTPUT=runs/digits)
	@$(VENV)/bin/dualat train digits --seed $(SEED) --output $(OUTPUT) --overwrite $(ARGS)

test: $(VENV)/.ready ## run the tests, without the slow ones
	@$(PY) -m pytest $(ARGS)

lint: $(VENV)/.ready ## check style and format with ruff
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

types: $(VENV)/.ready ## check types with basedpyright
	@$(VENV)/bin/basedpyright

env: $(VENV)/.ready ## make or update .venv: pinned requirements and dualat itself, editable

clean: ## remove the environments, builds and caches; runs and data stay
	rm -rf $(VENV) .venv-* dist build .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so that an interrupted set-up is done again.
$(VENV)/.ready: pyproject.toml requirements/dev.txt
	@bash scripts/make_venv.sh $(VENV) "$(PYTHON)" -r requirements/dev.txt
	@bash scripts/make_venv.sh $(VENV) "$(PYTHON)" --no-deps -e .
	@touch $@
