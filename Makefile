# make results: from a fresh clone to the report. make test: the same set-up, then the tests. Both are safe to repeat.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.installed

export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help results test setup
help:
	@echo "make results   build every chosen study; with GPUs: make results ARGS='--resources gpu=4'"
	@echo "make test      run the tests"
	@echo "make setup     install only; another interpreter or place: make setup PYTHON=python3.12 VENV=elsewhere"

results: setup
	@$(BIN)/snakemake --cores all --rerun-incomplete --show-failed-logs $(ARGS)
	@echo; for page in reports/*/index.html; do echo "Report: file://$(CURDIR)/$$page"; done
	@echo "Every run: . $(VENV)/bin/activate && mlflow ui --backend-store-uri sqlite:///mlflow.db"

test: setup
	@$(BIN)/python -m pytest --numprocesses auto --dist loadscope -m "not slow and not gpu" $(ARGS)

setup: $(STAMP)

# torch first and alone, so that it is the pinned build before anything else could choose one
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segkd needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[workflow,dev]'
	@touch $(STAMP)
