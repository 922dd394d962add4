# Two commands on a fresh machine: `make demo` and `make test`. Each installs what it needs first.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
VIDEOS ?= data/UCF-101
SHARDS ?= data/shards

# What `make demo` trains: small enough for two CPU cores within ten minutes, see README.md. r3d
# starts from random weights here (no network needed), so it is augmented like the others.
DEMO    := data/demo
DEMO_ALL := --shards $(DEMO)/shards --frames 8 --size 42 --batch-size 16 --crop-scale 0.5 \
	--plateau-patience 3 --plateau-factor 0.3 --patience 30
DEMO_resnet3d := --model-options width=16 --epochs 22
DEMO_r2plus1d := --model-options width=16 --epochs 22
DEMO_convlstm := --lr 2e-3 --epochs 22
DEMO_r3d      := --weights none --lr 3e-4 --lr-scheduler cosine --augment --epochs 9

# OpenMP threads that wait give their core away: on shared cores spinning costs 7-10 times the step.
export GOMP_SPINCOUNT ?= 2000

.PHONY: help install demo shards reproduce test test-all test-avx2 gpu lint format docs clean ablation

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Installed again whenever the project's own requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@mkdir -p $(VENV)/link && ln -sfn ../.. $(VENV)/link/har  # for mypy: this folder under its import name
	@touch $@

install: $(VENV)/.installed  ## Make .venv and install the project with its tested versions.

demo: install  ## The main job on synthetic videos: shards, four models, report (ten minutes).
	rm -rf $(DEMO) runs/demo reports/demo
	$(BIN)/har-shards synthetic $(DEMO)/videos --groups 12 --clips 4
	$(BIN)/har-shards build $(DEMO)/videos --out $(DEMO)/shards --frames 8 --size 48x64
	$(BIN)/har-train --model resnet3d $(DEMO_ALL) $(DEMO_resnet3d) --out runs/demo/resnet3d
	$(BIN)/har-train --model r2plus1d $(DEMO_ALL) $(DEMO_r2plus1d) --out runs/demo/r2plus1d
	$(BIN)/har-train --model convlstm $(DEMO_ALL) $(DEMO_convlstm) --out runs/demo/convlstm
	$(BIN)/har-train --model r3d $(DEMO_ALL) $(DEMO_r3d) --out runs/demo/r3d
	for model in resnet3d r2plus1d convlstm r3d; do \
		$(BIN)/har-eval runs/demo/$$model || exit; done
	mkdir -p reports/demo
	$(BIN)/har-shards preview $(DEMO)/shards -o reports/demo/contact_sheet.png
	$(BIN)/har-report runs/demo/* -o reports/demo
	@echo
	@echo "The report is reports/demo/report.html (report.md, table1.csv and the pictures beside it)."
	@echo "Next: $(BIN)/har-predict runs/demo/resnet3d $(DEMO)/videos/SwipeLeft"
	@echo "Then, with UCF101 in $(VIDEOS): make shards; $(BIN)/har-train --model convlstm --frames 16"

shards: install  ## Decode VIDEOS (data/UCF-101) once into SHARDS (data/shards); OPTIONS='--frames 64'.
	@$(BIN)/har-shards build "$(VIDEOS)" --out "$(SHARDS)" $(OPTIONS)

reproduce: install  ## The whole paper on VIDEOS; says its hours first, goes on where it stopped.
	@$(BIN)/har-reproduce "$(VIDEOS)" --shards "$(SHARDS)" $(OPTIONS)

# One process a core; each file's tests in one of them, in the order of tests/conftest.py.
TESTS := -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: install  ## Run the tests.
	$(BIN)/python $(TESTS)

test-all: install  ## Run the tests, the slow matrices and soaks too.
	$(BIN)/python $(TESTS) -m ""

# oneDNN and torch then do without AVX-512, so this machine computes like one without bf16 units.
test-avx2: install  ## The numeric tests as on a processor without bf16 units.
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python $(TESTS) \
		tests/models tests/training/runtime tests/training/optim tests/training/test_*.py \
		tests/training/inspection/test_doctor*.py

ablation: install  ## What each option is worth on little data: recipes x seeds -> a table (hours).
	$(BIN)/python tests/support/ablation.py $(OPTIONS)

lint: install  ## ruff and mypy.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-oldest:  ## Run the tests with the lowest versions that pyproject.toml declares (.venv-oldest).
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -c constraints-oldest.txt -e '.[dev]'
	.venv-oldest/bin/python $(TESTS) -o filterwarnings=default

GPU_NEEDS := torch torchvision numpy numba click xxhash tqdm matplotlib pytest

gpu:  ## Test and measure everything on a GPU in nine minutes; needs torch and torchvision, no install.
	@$(PYTHON) -c "import sys; from importlib.util import find_spec; \
		missing = ', '.join(name for name in '$(GPU_NEEDS)'.split() if not find_spec(name)); \
		sys.exit(missing and '$(PYTHON) has no ' + missing + ': make gpu PYTHON=/another/python' or 0)"
	@mkdir -p build/gpu && ln -sfn ../.. build/gpu/har
	PYTHONPATH=build/gpu $(PYTHON) -m har.training.benchmark.gpu --tests tests/gpu $(OPTIONS)

# pdoc shows of a lazy package what has been looked up.
API_DOCS := import pathlib, har, pdoc; [getattr(p, name) for p in (har, har.shards) for name in p.__all__]; \
	pdoc.pdoc("har", output_directory=pathlib.Path("site"))

docs: install  ## The API reference, from the docstrings, into site/.
	$(BIN)/python -c '$(API_DOCS)'

clean:  ## Remove the demo's data, runs and report.
	rm -rf data/demo runs/demo reports/demo
