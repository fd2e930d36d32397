# Every target makes the environment it needs; `make help` lists them.
PYTHON   ?= python3
DEVICE   ?= auto
STUDY    ?= compare
WORKERS  ?= 1
QUICK    ?=
PIP_ARGS ?=
PAPER    := depth language runtime vision stability budget reproduce
BIN      := .venv/bin
READY    := .venv/ready

.DEFAULT_GOAL := help
.PHONY: help setup experiment paper report test torture lint types check clean

help:  ## this list
	@grep -hE '^[a-z%<>-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 22
	@echo; echo "studies (make experiment-NAME):"; \
	for f in experiments/configs/*.yaml; do \
	  printf '  %-20s%s\n' "$$(basename $$f .yaml)" "$$(sed -n 's/^title: *//p' $$f)"; done

# Rebuilt when what it is made from changed, and at no other time.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "deq-lab needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' was not found: install it, or name one with make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "deq-lab needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): name another with make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "making the environment .venv (once; a few minutes)"
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) --editable '.[dev]'
	@touch $@

setup: $(READY)  ## the environment (.venv); PIP_ARGS= for another build of torch

experiment: $(READY)  ## run a study and write its report: STUDY=compare DEVICE=auto|cpu|cuda WORKERS=1 QUICK=1
	@$(BIN)/deq study $(STUDY) --device $(DEVICE) --workers $(WORKERS) --report $(if $(QUICK),with quick=true)

experiment-%: $(READY)  ## the same for the study named
	@$(BIN)/deq study $* --device $(DEVICE) --workers $(WORKERS) --report $(if $(QUICK),with quick=true)

paper: $(READY)  ## the studies of the DEQ paper one after the other, and the page that compares: QUICK=1 takes minutes
	@for study in $(PAPER); do \
	  $(BIN)/deq study $$study --device $(DEVICE) --workers $(WORKERS) --report $(if $(QUICK),with quick=true) || exit $$?; done

report: $(READY)  ## write the report of STUDY again, from the store alone
	@$(BIN)/deq report $(STUDY)$(if $(QUICK),-quick)

test: $(READY)  ## every test
	@$(BIN)/python -m pytest --numprocesses 2 --quiet

torture: $(READY)  ## ten minutes of faults, and the speed of the store: SEED= ONLY=
	@$(BIN)/python tests/torture/torture.py $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

lint: $(READY)  ## ruff and the layers
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports --no-cache

types: $(READY)  ## mypy --strict
	@$(BIN)/mypy

check: lint types test  ## what CI runs

clean:  ## remove the environment and the caches; results/ stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
