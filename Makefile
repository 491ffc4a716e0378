# Two commands for a newcomer: `make demo` builds the demo, `make test` runs the tests. All make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all lint examples docs schemas clean

demo: $(VENV)/installed
	$(BIN)/edgeprune build --target rpi4

# Three workers on two cores: tests wait for processes that they start. All three together take less than 5 GB.
test: lint
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The scripts of examples/ on the data in ../shared: 20 minutes and more.
examples: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 1 tests/test_examples.py

docs: $(VENV)/installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

schemas: $(VENV)/installed
	$(BIN)/python -m edgeprune.schemas

# The stamps are remade when what they install changes; pip then finds most of it there.
$(VENV)/installed: setup.cfg constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[build]'
	touch $@

$(VENV)/installed-test: setup.cfg constraints.txt $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[build,test]'
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info
