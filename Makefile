# `make demo` and `make test` need nothing but make and Python 3.11 or newer (with venv and pip).
# Both install what they need into .venv and .venv-types, in the versions of constraints.txt, the first
# time and whenever pyproject.toml or constraints.txt has changed since.

PYTHON ?= python3

VENV  := .venv
TYPES := .venv-types
BENCH := .venv-bench
BIN   := $(VENV)/bin

# The build tools that pip fetches to install glide itself are held to the same constraints. Older
# versions of pip take them from the first variable, newer ones from the second.
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1

.DEFAULT_GOAL := help
.PHONY: help demo test lint types pytest soak chaos cov bench load compiled fmt clean
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: compiled ## relay, receiver and sender as three processes: send 64 MiB and verify it
	@$(BIN)/python tests/demo.py

test: lint types pytest ## everything that must pass: lint, types, pytest

lint: $(VENV)/installed ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(TYPES)/installed ## mypy, strict, over src and tests
	$(TYPES)/bin/mypy

pytest: compiled ## the tests alone; make pytest ARGS="-k name" for some of them
	$(BIN)/python -m pytest $(ARGS)

soak: compiled ## what takes minutes or gigabytes: 1 GiB between two machines, 5 GiB, a minute's stop
	$(BIN)/python -m pytest -m soak -p no:randomly $(ARGS)

chaos: compiled ## 200 random schedules of kills, stops and cuts; SEED=n repeats one of them
	$(if $(SEED),GLIDE_CHAOS_SEED=$(SEED)) $(BIN)/python -m pytest -m chaos -p no:randomly tests/chaos $(ARGS)

cov: compiled ## the tests under coverage, processes they start included; fails under 90 %
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: compiled ## measure glide beside real peers, ten minutes; results in build/bench
	@$(MAKE) --no-print-directory $(BENCH)/installed || echo "going on without plots" >&2
	@if test -e $(BENCH)/installed; then exec $(BENCH)/bin/python -m tests.bench $(ARGS); \
	else exec $(BIN)/python -m tests.bench $(ARGS); fi

load: compiled ## 10,000 clients and 200 transfers at one relay, and one slow receiver among 50 fast ones
	$(BIN)/python -m tests.load $(ARGS)

# As pip compiles what it installs. Where PYTHONDONTWRITEBYTECODE is set, each start of glide would do it otherwise.
compiled: $(VENV)/installed
	@$(BIN)/python -m compileall -q src

fmt: $(VENV)/installed ## repair what ruff can repair, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the environments and everything generated
	rm -rf $(VENV) $(TYPES) $(BENCH) .venv-peers build dist htmlcov .coverage .coverage.* \
		.hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is made anew when the pinned versions change, so that nothing stays behind in it which
# a fresh clone would lack. When only pyproject.toml changes, pip brings it up to date in place. The files
# `made` and `installed` are written last: an installation that was broken off is done again.

$(VENV)/installed: EXTRA := dev
$(TYPES)/installed: EXTRA := types
$(BENCH)/installed: EXTRA := bench

$(VENV)/installed $(TYPES)/installed $(BENCH)/installed: %/installed: %/made pyproject.toml
	@echo "installing glide and its '$(EXTRA)' tools into $* (up to a minute)"
	@$(PIP) $*/bin/python -m pip install --quiet --quiet --editable '.[$(EXTRA)]'
	@touch $@

$(VENV)/made $(TYPES)/made $(BENCH)/made: %/made: constraints.txt
	$(check_python)
	@$(PYTHON) -m venv --clear $*
	@touch $@

# Written so that any Python, even 2, gets as far as the message.
define check_python
@command -v "$(PYTHON)" >/dev/null || { \
	echo "glide needs Python 3.11 or newer, and there is no '$(PYTHON)' here." \
	     "Install it, or say where it is: make PYTHON=/path/to/python3" >&2; exit 1; }
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "glide needs Python 3.11 or newer; '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1)." \
	     "Use another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	echo "'$(PYTHON)' has no venv or ensurepip, which are needed to install glide's tools." \
	     "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
endef
