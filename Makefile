# `make help` lists what there is. Each target makes its own environment in .venv when there is none.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DATA   ?=
ARGS   ?=
STUDY  ?= recognition
OUT    ?= runs/$(if $(DATA),$(notdir $(patsubst %/,%,$(DATA))),demo)

# idle threads go to sleep soon instead of spinning: the speed stays, and a busy machine does not stall
export GOMP_SPINCOUNT = 20000

.PHONY: help demo test avx check study site readme build clean
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 8
	@echo "DATA=folder  a CelebA-format folder for 'make demo'; OUT=folder  where it goes; PYTHON=python3.x"
	@echo "ARGS='...'   handed on: make demo DATA=folder ARGS='--unseen 0.4 --skip nothing', make demo ARGS=--help, make test ARGS='-k demo',"
	@echo "             make study STUDY=landmarks ARGS=--help"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "facerec_nb needs Python 3.10 or newer: make PYTHON=python3.11 ...")'
	@echo "== making the environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.package: $(VENV)/bin/python settings.ini setup.py pyproject.toml
	@echo "== installing facerec_nb and what it needs (PyTorch is large: some minutes)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.package
	@echo "== installing what the tests and the website need"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(VENV)/.package ## from a folder of photographs to names, with a report (DATA= for your own)
	@$(BIN)/facerec_demo --out $(OUT) $(if $(DATA),--data $(DATA)) $(ARGS)

test: $(VENV)/.dev ## in sync, clean, lint, every notebook, the commands, the website
	@$(BIN)/python -m pytest $(ARGS)

# what a processor without AVX-512 does, as far as the libraries can be asked for it (ONNX Runtime cannot: benchmarks/processors.py)
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
        NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" OPENCV_CPU_DISABLE=AVX512-SKX

avx: $(VENV)/.dev ## the same tests with the arithmetic of a processor that has AVX2 and no AVX-512
	@$(AVX2) $(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev ## only the quick part: in sync, clean, lint, types
	@$(BIN)/python -m pytest tests/test_sync.py tests/test_types.py tests/test_house.py tests/test_cells.py tests/test_pages.py $(ARGS)

study: $(VENV)/.dev ## rerun what made the recorded numbers (STUDY=recognition, ARGS= its options)
	@$(BIN)/python -m studies.$(STUDY) $(ARGS)

site: $(VENV)/.dev ## the website, in _docs/
	@$(BIN)/python tools/site.py --check $(ARGS)

readme: $(VENV)/.dev ## README.md from nbs/index.ipynb
	@$(BIN)/python tools/readme.py

build: $(VENV)/.dev ## sdist and wheel, in dist/
	@$(BIN)/python -m build

clean: ## remove what was made, but neither the environment nor runs/
	rm -rf _proc _docs build dist .pytest_cache .ruff_cache .mypy_cache
