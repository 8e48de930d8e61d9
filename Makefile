# Everything sets itself up in .venv; needs only Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := LANGSMITH_TRACING=false $(BIN)/python -m pytest
WORKERS ?= 2

.PHONY: demo test lint unit slow bench soak clean help
.DEFAULT_GOAL := help

help:  ## What can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

demo: $(VENV)/demo.stamp  ## See a runaway agent stopped at its budget (SCENARIO=tools|parallel|crash for more)
	@$(BIN)/clearance demo $(if $(SCENARIO),--scenario $(SCENARIO))

test: lint unit slow  ## Everything that CI checks

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What measures fairness or kills processes runs by itself, the rest side by side. Tests of real time-outs can fail on a
# machine that is busy elsewhere: what failed is run once more, alone, and must pass then. Both runs are printed.
AGAIN := $(PYTEST) -q --last-failed --last-failed-no-failures none

unit: $(VENV)/test.stamp
	$(PYTEST) -q -n $(WORKERS) --dist loadfile --ignore tests/crash || $(AGAIN) --ignore tests/crash

slow: $(VENV)/test.stamp
	$(PYTEST) -q tests/crash || $(AGAIN) tests/crash

bench: $(VENV)/bench.stamp  ## Measure, and write benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

soak: $(VENV)/test.stamp  ## The long forms: a million model steps, an hour of kill -9
	CLEARANCE_SOAK_STEPS=1000000 CLEARANCE_SOAK_SECONDS=3600 $(PYTEST) -q --timeout 14400 tests/properties tests/crash

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Clearance needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/demo.stamp: $(VENV)/bin/uv pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[demo]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[demo,postgres,server]' --group test
	@touch $@

$(VENV)/bench.stamp: $(VENV)/test.stamp
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group bench
	@touch $@
