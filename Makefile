# make help lists the targets. The first one that needs it creates .venv from requirements.lock.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

# A user without a name or a home, as of docker run --user 1234: git, DVC and PyTorch look for both.
ifneq ($(shell test -n "$$HOME" -a -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.cache/home
$(shell mkdir -p "$(HOME)"; cd "$(CURDIR)"; export HOME="$(HOME)"; \
  git rev-parse --git-dir >/dev/null 2>&1 || git config --global --add safe.directory "$(CURDIR)")
endif
ifneq ($(shell id -un >/dev/null 2>&1 && echo yes),yes)
export LOGNAME ?= user
export USER ?= user
endif

# What is built of sources is built by the setuptools of the lock, which is therefore installed first.
PIP := $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --disable-pip-version-check
LOCKED := $(PIP) --require-hashes --requirement

.DEFAULT_GOAL := help
.PHONY: help install repro trusted summary compare test test-all attack lint format types check tables docs figures lock sbom clean distclean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED)  ## create .venv with the pinned requirements (about 7 GB) and the command fmkt
	@echo "ready; to use it in this shell: source $(BIN)/activate"

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), needed is 3.11 or later; e.g. make PYTHON=python3.12" >&2; exit 2; }
	@echo "creating $(VENV); the first time this downloads about 3 GB"
	@$(PYTHON) -m venv $(VENV)
	@{ awk '/^[^ ]/ {found = /^setuptools==/} found' requirements.lock | $(LOCKED) /dev/stdin && $(LOCKED) requirements.lock; } || { \
	  echo "error: the packages of requirements.lock are not installed, for the reason above; docs/install.md says what" \
	    "to do without a network, where a hash differs, and with another Python" >&2; exit 2; }
	@$(PIP) --editable .
	@$(BIN)/python -m stages offline-plots && $(BIN)/dvc config --quiet --local plots.html_template plots.html
	@touch $@
	@echo "created $(VENV); to use it in this shell: source $(BIN)/activate"

repro: $(INSTALLED) trusted  ## run what changed of the pipeline, then print the summary
	@python -m stages repair
	@dvc repro; code=$$?; python -m stages settle && exit $$code
	@python -m stages summary

trusted:
	@git rev-parse --git-dir >/dev/null 2>&1 || { \
	  echo "error: git refuses $(CURDIR): it is no clone, or belongs to another user; if you trust it:" \
	    "git config --global --add safe.directory $(CURDIR)" >&2; exit 2; }

summary: $(INSTALLED)  ## print the result of the last run
	@python -m stages summary

COMPARISON ?= digits
compare: $(INSTALLED)  ## train methods and seeds against each other: COMPARISON=digits, JOBS=auto, MINUTES=60, RESULTS=folder
	@python -m stages compare benchmarks/comparisons/$(COMPARISON).yaml \
	  --out artifacts/comparison/$(COMPARISON) --report reports/comparison/$(COMPARISON) --jobs $(or $(JOBS),auto) \
	  $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RESULTS),--results $(RESULTS))

PYTEST := python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: $(INSTALLED)  ## run the tests, but for those that take long
	@$(PYTEST) -m "not slow"

test-all: $(INSTALLED)  ## run all tests: also whole chains, kills, power cuts, several processes and hosts
	@$(PYTEST)

attack: $(INSTALLED)  ## try every attack on this project (hours; goes on where it was): CAMPAIGN=images, MINUTES=10, JOBS=2
	@python -m attacks $(CAMPAIGN) $(if $(MINUTES),--minutes $(MINUTES)) --jobs $(or $(JOBS),2)

lint: $(INSTALLED)  ## look for faults with ruff
	@ruff check .
	@ruff format --check .

format: $(INSTALLED)  ## format the code
	@ruff check --fix --quiet .
	@ruff format .

types: $(INSTALLED)  ## check the types with mypy
	@mypy

check: lint types test-all  ## lint, types and all tests: what .ci/run runs

tables: $(INSTALLED)  ## rewrite the tables in the documentation from the code
	@python -m tests.documented_tables

docs: $(INSTALLED)  ## build the documentation site, offline, into the folder site; a broken link stops it
	@python -m deploy.site site

figures: $(INSTALLED)  ## draw the figures of the documentation from the committed results and the imports
	@python -m benchmarks.figures

lock:  ## resolve requirements.lock anew from pyproject.toml, with the hashes of all files of each release
	@$(PYTHON) -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	@.cache/uv/bin/uv pip compile pyproject.toml --extra dev --extra docs --extra serve --extra timm --universal --generate-hashes \
	  --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.lock
	@echo "requirements.lock is resolved; make install tables installs it and lists its licences"

sbom: $(INSTALLED)  ## write what is installed, with hashes and licences, as a CycloneDX document: sbom.cdx.json
	@python -m deploy.sbom sbom.cdx.json

clean:  ## remove caches, rendered plots and the site; results stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache dvc_plots site
	@find models pipeline stages workbench tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## also remove .venv and the checkpoints of interrupted training
	@rm -rf $(VENV) .checkpoints
