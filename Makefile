# What a developer types. `make setup` comes first; `make VENV=path ...` uses another environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= configs/soft_teacher/shapes.py

.PHONY: setup format lint type test test-all docs demo bench

setup:  ## an environment with the package, its tests and pre-commit
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e ".[dev]"

format:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type:
	$(BIN)/mypy

test:
	$(BIN)/pytest

test-all:  ## the slow ones, too
	$(BIN)/pytest -m ""

docs:  ## the pages and the API as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

demo:  ## the README's training run, whole
	$(BIN)/python tools/train.py $(CONFIG)

bench:  ## what a step costs, beside mmdet's; CHECKPOINT=path for weights of a run
	$(BIN)/python tools/benchmark.py $(CONFIG) --against mmdet $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))
