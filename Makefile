# Everything here sets itself up: a machine with python3, pip and make is enough. uv is used where it is found.
# Variables: PYTHON (interpreter for a new .venv), SEED and OUTPUT (of the quick start), ARGS (extra arguments),
# JOBS (processes that the tests run in, one thread each; auto: one per core).

PYTHON ?=
SEED   ?= 0
OUTPUT ?= runs/digits
ARGS   ?=
JOBS   ?= auto

VENV := .venv
PY   := $(VENV)/bin/python
# Compiled bytecode is kept even where the environment says otherwise: without it every process waits seconds for imports.
export PYTHONDONTWRITEBYTECODE :=
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test lint types env clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(VENV)/.ready ## train the digits recipe, both stages, and print its table (SEED=0 OUTPUT=runs/digits)
	@echo "Training on 8x8 digits, stage 1 (300 steps) and stage 2 (1,000 steps): 2 to 4 minutes on 2 cores."
	@$(VENV)/bin/dualat train digits --seed $(SEED) --output $(OUTPUT) --overwrite $(ARGS)

test: $(VENV)/.ready ## run the tests, without the slow ones
	@echo "Running the tests, without the slow ones: 6 to 11 minutes on 2 idle cores, by their speed, twice as long beside other work."
	@$(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

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
	@echo "Installing the pinned packages into $(VENV), once: about 3 GB to download, 6 GB on disk (most of it PyTorch with"
	@echo "CUDA, which a machine without a GPU gets too): 1 to 10 minutes, by the network."
	@bash scripts/make_venv.sh $(VENV) "$(PYTHON)" -r requirements/dev.txt
	@bash scripts/make_venv.sh $(VENV) "$(PYTHON)" --no-deps -e .
	@touch $@
	@echo "The packages are installed."
