# Two commands on a fresh machine: `make demo` and `make test`. Each installs what it needs first.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
VIDEOS ?= data/UCF-101
SHARDS ?= data/shards

# What `make demo` trains: small enough for two CPU cores, see docs/benchmarks.md.
DEMO_FRAMES ?= 8
DEMO_SIZE   ?= 48x64
DEMO_TRAIN  ?= --epochs 30

.PHONY: help install demo shards test test-all lint format clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Installed again whenever the project's own requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## Make .venv and install the project with its tested versions.

shards: install  ## Decode VIDEOS (data/UCF-101) once into SHARDS (data/shards).
	@$(BIN)/har-shards build "$(VIDEOS)" --out "$(SHARDS)"

test: install  ## Run the tests.
	$(BIN)/python -m pytest

test-all: install  ## Run the tests, the slow matrices and soaks too.
	$(BIN)/python -m pytest -m ""

lint: install  ## ruff and mypy.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the demo's data, runs and report.
	rm -rf data/demo runs/demo reports/demo
