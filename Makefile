# Two commands do everything: `make book` and `make test`. Each sets up .venv first, once per lock.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
BIN := $(VENV)/bin
PROFILE ?= laptop
STAMP := $(VENV)/.ready

# The allocator must be told before a process starts: on some virtual hosts the first touch of a page
# costs seconds per GB, and keeping freed memory avoids it. glibc only; ignored elsewhere.
export GLIBC_TUNABLES ?= glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help book test lab reproduce publish verify lint bench campaign clean notebooks

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml
	@found=; for p in python3 python3.13 python3.12 python3.11; do \
	  if command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$p; break; fi; done; \
	  if [ -z "$$found" ]; then echo "make: Python 3.11 or newer is needed, and none is on PATH" >&2; exit 1; fi; \
	  $(BIN)/python -m pip --version >/dev/null 2>&1 || $$found -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

book: $(STAMP) ## run the chapters and compile the site (PROFILE=laptop)
	$(BIN)/realign book --profile $(PROFILE)

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest

lab: $(STAMP) ## open JupyterLab with the notebooks as notebooks
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@echo '{"@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"python": "Jupytext Notebook"}}}' \
	  > $(VENV)/share/jupyter/lab/settings/overrides.json
	$(BIN)/jupyter lab notebooks

notebooks: $(STAMP) ## write the notebooks as .ipynb for papermill
	$(BIN)/realign notebooks

reproduce: $(STAMP) ## compute everything here, ignoring published results; goes on after a kill
	$(BIN)/realign book --profile $(PROFILE) --ignore-published

publish: $(STAMP) ## copy the small results of ./artifacts into data/results
	$(BIN)/realign publish --profile $(PROFILE)

verify: $(STAMP) ## compute published results again and compare
	$(BIN)/realign verify --profile $(PROFILE)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy src

bench: $(STAMP) ## performance against peers, one JSON object a line
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@for b in benchmarks/*.py; do $(BIN)/python $$b || exit 1; done

campaign: $(STAMP) ## kill, damage and mislead it, 20 minutes; a table at the end
	$(BIN)/python tests/campaign/campaign.py

clean: ## remove the built book and caches (not .venv, not artifacts)
	rm -rf book/_build book/_generated book/chapters book/_extra notebooks/*.ipynb .pytest_cache .mypy_cache .ruff_cache
