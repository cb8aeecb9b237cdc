# `make demo` and `make test` do all the set-up on a machine with Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
# What is installed beside the package itself; optional parts are tested where they are there.
EXTRAS ?= weights,onnx,openvino,dicom,parquet,dask,browser,dev
BIN := $(VENV)/bin
DEMO := demo-output
# Test processes side by side; each file's tests stay together.
JOBS ?= 2

.PHONY: demo test lint install release-check clean help

help:
	@echo "make demo   install into .venv, then predict the example images with Grad-CAM"
	@echo "make test   install into .venv, then lint, types, import rules and all tests"
	@echo "make release-check   build, install the wheel into a fresh environment, predict without a network"

# The stamp is older than pyproject.toml whenever the dependencies have changed.
$(VENV)/.installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/python examples/demo.py $(DEMO)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install lint
	$(BIN)/pytest -n $(JOBS) --dist loadfile

release-check:
	PYTHON=$(PYTHON) bash examples/release_check.sh

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache
