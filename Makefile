# Everything from a fresh clone, given Python >= 3.11 and make:
#   make demo     make test     make check     make help
# Variables: PYTHON=python3.12  TESTS=tests/test_values.py  SEED=7  FAILOVERS=20  ITEM_FAILOVERS=10  FAULTS=10
#            ONLY=steps QUICK=1  BANKING77=folder of that data's train.csv and test.csv

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
SHELL := /bin/sh

SEED ?= 0
TESTS ?= tests
JOBS ?= 2
FAILOVERS ?= 200
ITEM_FAILOVERS ?= 100
FAULTS ?= 100

# Started with -m each, since scripts in a virtual environment break when it is moved.
RUN := .venv/bin/python -m
BENCH := .bench-venv/bin/python -m
# Most tests wait for servers: two files side by side take half the time.
PYTEST := $(RUN) pytest -p tests.no_skips --numprocesses=$(JOBS) --dist=loadfile

# PYTHON if given, else the first one that is new enough.
FIND_PYTHON = for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11) ""; do \
	  if [ -z "$$python" ]; then \
	    echo "Python 3.11 or newer is needed: install it, or name one: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then break; fi; \
	done

# $(call install,directory,extra)
install = $(FIND_PYTHON); \
	echo "Setting up $(1) with $$("$$python" --version): about a minute ..."; \
	"$$python" -m venv --clear $(1) && \
	$(1)/bin/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[$(2)]' && \
	touch $(1)/.ready

.PHONY: help demo demo-cli test check format bench failover clean

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

.venv/.ready: pyproject.toml
	@$(call install,.venv,dev)

.bench-venv/.ready: pyproject.toml
	@$(call install,.bench-venv,bench)

demo: .venv/.ready ## Chat with an agent on a page, and break its cluster (PORT=8000 AGENT_MODEL=openai:...)
	@$(RUN) examples.agent_app $(ARGS)

demo-cli: .venv/.ready ## The same without a browser: a tour in the terminal (ARGS="--interactive")
	@$(RUN) examples.agent $(ARGS)

test: .venv/.ready ## Run all tests, on real servers of their own (TESTS=..., SEED=...)
	@echo "Seeds: random tests draw from seed $(SEED), so each run is the same; SEED=7 tries other cases."
	@$(PYTEST) --hypothesis-seed=$(SEED) $(TESTS)

check: .venv/.ready ## Check format, lint and types
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy

format: .venv/.ready ## Format the code, and repair what the linter can
	@$(RUN) ruff check --fix --quiet . || true
	@$(RUN) ruff format .

bench: .bench-venv/.ready ## Measure against other checkpointers and semantic caches (ONLY=steps QUICK=1 for a glance)
	@ONLY="$(ONLY)" QUICK="$(QUICK)" BANKING77="$(BANKING77)" $(BENCH) benchmarks

failover: .venv/.ready ## Break primaries under load, and agents with them; look for what was acknowledged and paid (FAILOVERS=200 ITEM_FAILOVERS=100 FAULTS=100 SEED=...)
	@$(RUN) tests.kill_loop --failovers $(FAILOVERS) --seed $(SEED)
	@$(RUN) tests.store_kill_loop --failovers $(ITEM_FAILOVERS) --seed $(SEED)
	@$(RUN) tests.double_fault --faults $(FAULTS) --seed $(SEED)

clean: ## Remove what make made: environments, caches, the demo's data
	@rm -rf .venv .bench-venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist demo-data
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
