# make demo     environment, then the continual stream of the README
# make test     environment, then lint, types, tests, doctests and docs
# make docs     the HTML documentation, in docs/_build/html
# make scatter  torch-scatter, compiled against the torch of the environment (minutes)
# make bench    key ratios of the hot paths against the stored ones (minutes)
# make bench-peers  ccdgraph beside PyG, RecBole and implicit, in environments of their own (minutes)
# make clean    removes the environment and everything built

# The first Python in the supported range; give another one as PYTHON=...
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$python && break; done)
# What pip is given for torch: TORCH="torch==2.13.0 --index-url ..." picks another build.
TORCH ?= torch==2.13.0
# Compiler processes of make scatter.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --quiet --constraint requirements/constraints.txt
# Needs the setuptools of the environment, so that pip resolves nothing but the pinned versions.
PACKAGE := --no-build-isolation --editable
SCATTER := PATH="$(abspath $(BIN)):$$PATH" MAX_JOBS=$(JOBS) $(PIP) install \
	--constraint requirements/constraints.txt --no-build-isolation --no-deps torch-scatter

PEERS := build/peers
RECBOLE := build/recbole
PEERS_INSTALL := $(PEERS)/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
	--constraint requirements/constraints.txt

.PHONY: demo test lint docs scatter bench bench-peers clean

demo: $(VENV)/run.stamp
	$(BIN)/ccdgraph demo

test: lint docs
	$(BIN)/python -m pytest

lint: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/test.stamp
	@rm -rf docs/api/generated docs/how_to docs/_build/html # pages of what is gone; recipes run anew
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

scatter: $(VENV)/scatter.stamp

bench: $(VENV)/run.stamp
	$(BIN)/python benchmarks/speed.py --device cpu --check benchmarks/results/speed_cpu.json

bench-peers: $(PEERS)/peers.stamp $(RECBOLE)/recbole.stamp
	$(PEERS)/bin/python benchmarks/peers.py --recbole $(RECBOLE)/bin/python \
		--to benchmarks/results/peers_cpu.json

clean:
	rm -rf $(VENV) build docs/_build docs/api/generated docs/how_to ccdgraph.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch comes first and alone: what asks for it by range afterwards finds it there and leaves it,
# where a range on its own would bring the newest build with its CUDA libraries.
$(VENV)/torch.stamp: requirements/constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python from 3.11 to 3.13 found; give one as PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@echo "installing $(TORCH) (the largest download)"
	$(INSTALL) $(TORCH)
	$(INSTALL) setuptools
	@touch $@

$(VENV)/run.stamp: $(VENV)/torch.stamp pyproject.toml setup.py
	@echo "installing ccdgraph and what it and its report need"
	$(INSTALL) $(PACKAGE) ".[report]"
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	@echo "installing the tools of make test"
	$(INSTALL) $(PACKAGE) ".[test,docs]"
	@touch $@

# pip keeps the wheel it builds; one built against another torch does not import and is built anew.
$(VENV)/scatter.stamp: $(VENV)/build.stamp
	$(SCATTER)
	$(BIN)/python -c "import torch, torch_scatter" || { \
		$(PIP) cache remove torch_scatter && $(SCATTER) --force-reinstall; }
	$(BIN)/python -c "import torch, torch_scatter"
	@touch $@

# The same outside the environment, to be put on PYTHONPATH: CI tests with and without it.
build/scatter: $(VENV)/build.stamp
	rm -rf $@ $@.tmp
	$(SCATTER) --target $@.tmp
	PYTHONPATH=$@.tmp $(BIN)/python -c "import torch, torch_scatter" || { \
		$(PIP) cache remove torch_scatter && rm -rf $@.tmp && $(SCATTER) --target $@.tmp; }
	PYTHONPATH=$@.tmp $(BIN)/python -c "import torch, torch_scatter"
	mv $@.tmp $@

$(VENV)/build.stamp: $(VENV)/run.stamp
	$(INSTALL) wheel ninja
	@touch $@

$(PEERS)/peers.stamp: requirements/peers.txt requirements/constraints.txt
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS_INSTALL) $(TORCH)
	$(PEERS_INSTALL) setuptools
	$(PEERS_INSTALL) $(PACKAGE) . --requirement requirements/peers.txt
	@touch $@

# Without its dependencies: ray is not used here and has no build for every supported Python.
$(RECBOLE)/recbole.stamp: requirements/recbole.txt
	$(PYTHON) -m venv --clear $(RECBOLE)
	$(RECBOLE)/bin/python -m pip --disable-pip-version-check --no-input install --quiet $(TORCH)
	$(RECBOLE)/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
		--requirement requirements/recbole.txt
	$(RECBOLE)/bin/python -m pip --disable-pip-version-check --no-input install --quiet --no-deps \
		recbole==1.2.1
	@touch $@
