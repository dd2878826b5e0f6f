# make demo | make test      the two commands; both install into a virtual environment of their own
# HOST=pypi (default)        solo-learn 1.0.2 from PyPI, in .venv
# HOST=main                  solo-learn from GitHub, in .venv-main
# HOST=<folder>              solo-learn from a checkout, in .venv-main
# HOST=lightly               lightly from PyPI, in .venv-lightly
PYTHON ?= python3
HOST ?= pypi
# versions that were tried together; Python 3.10 has not all of them and gets the oldest torch
CONSTRAINTS ?= .ci/constraints$(shell $(PYTHON) -c 'import sys; print("-oldest" * (sys.version_info < (3, 11)))').txt
MORE := $(if $(filter lightly,$(HOST)),--constraint .ci/constraints-lightly.txt)
LINE := $(if $(filter pypi lightly,$(HOST)),$(HOST),main)
VENV ?= .venv$(if $(filter pypi,$(LINE)),,-$(LINE))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.host-$(subst /,_,$(HOST))
SOLO_LEARN := $(if $(filter pypi main lightly,$(HOST)),,$(abspath $(HOST)))
export SOLO_LEARN

# those that train, whose floating-point sums depend on the instructions of the processor
TRAINING := tests/runs/test_training.py tests/hosts/test_methods.py tests/runs/test_label_stages.py \
	tests/runs/test_schedules.py tests/runs/test_small_recipes.py tests/runs/test_checkpoints.py \
	tests/runs/test_migrate.py tests/pseudo_labels tests/networks tests/evaluation tests/experiments/compare

.PHONY: help install demo test test-browser test-slow test-isa lint docs wheel bench bench-gpu clean
help:
	@sed -n 1,5p Makefile

install: $(STAMP)
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@test -z "$(SOLO_LEARN)" || test -d "$(SOLO_LEARN)/solo" || \
	  { echo "HOST=$(HOST) is no checkout of solo-learn: give pypi, main, lightly, or a folder with solo/ in it"; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint $(CONSTRAINTS) $(MORE) --editable ".[$(LINE),pretrained]"
	rm -f $(VENV)/lib/python*/site-packages/solo_learn_checkout.pth
ifeq ($(HOST),pypi)
	$(PIP) install --quiet --no-deps solo-learn==1.0.2
else ifeq ($(HOST),lightly)
	@true
else ifeq ($(HOST),main)
	$(PIP) install --quiet --no-deps --no-build-isolation --force-reinstall git+https://github.com/vturrisi/solo-learn
else
	$(PIP) uninstall --quiet --yes solo-learn
	echo $(SOLO_LEARN) > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/solo_learn_checkout.pth
endif
	rm -f $(VENV)/.host-* && touch $@

demo: install
	$(BIN)/uic demo --out demo

$(VENV)/.test: $(STAMP)
	$(PIP) install --quiet --constraint $(CONSTRAINTS) $(MORE) --editable ".[$(LINE),test]"
	touch $@

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

test: lint
	$(BIN)/python -m pytest -n 2

# Pages in a real Chromium (Debian's package chromium, or CHROMIUM=FILE); `make test` runs them, too,
# where there is one. With UIC_CIFAR10=FOLDER of `uic data cifar10 FOLDER` also 10,000 images.
test-browser: $(VENV)/.test
	@$(BIN)/python -c 'import os, shutil, sys; sys.exit(not (os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")) and "There is no Chromium: apt-get install chromium, or CHROMIUM=FILE")'
	$(BIN)/python -m pytest tests/browser

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

# as on a processor without vector instructions beyond SSE 4.1, and on one with AVX2 but not AVX-512
test-isa: $(VENV)/.test
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -n 2 $(TRAINING)
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python -m pytest -n 2 $(TRAINING)

$(VENV)/.docs: $(STAMP)
	$(PIP) install --quiet --constraint $(CONSTRAINTS) $(MORE) --editable ".[$(LINE),docs]"
	touch $@

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

wheel: $(VENV)/.test
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest -m "slow or not slow" tests/test_wheel.py

bench: $(VENV)/.test
	$(BIN)/python -m pytest -m benchmark --benchmark-enable -s tests/benchmarks

# on one GPU: images a second of packed and JPEG photographs, NCCL, labels on the device, kills
bench-gpu: $(VENV)/.test
	$(BIN)/python -m pytest -m benchmark --benchmark-enable -s tests/benchmarks/test_gpu.py
	$(BIN)/python -m pytest tests/methods/test_waits.py

clean:
	rm -rf .venv .venv-main .venv-lightly site dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
