# make demo: from a fresh clone to reports/site/index.html.  make test: the tests.  make ui: Dagster on 127.0.0.1:3000.
PY ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-all ui setup lint plan clean
demo: .venv/.ok
	@$(BIN)/uss demo

test: .venv/.ok
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: .venv/.ok
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

ui: .venv/.ok
	@$(BIN)/uss ui

setup: .venv/.ok

# The stamp makes a second `make` instant; touching pyproject.toml or constraints.txt installs again.
.venv/.ok: pyproject.toml constraints.txt
	@echo "Setting up .venv (about 2 GB, a few minutes the first time)"
	@$(PY) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

lint: .venv/.ok
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

plan: .venv/.ok
	@$(BIN)/uss plan

clean:
	rm -rf .uss reports/site reports/leaderboard
