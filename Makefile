# Each target makes .venv when it is missing; a second call is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One worker per core, each on one thread. A worker that runs out of tests takes over some of another one's.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist worksteal
# Where codespell looks for misspelled and retired words.
PAGES := README.md CHANGELOG.md docs src tests benchmarks scripts pretraining

.PHONY: demo test check docs bench lint clean

demo: $(VENV)/.installed
	$(BIN)/spurmem demo --out demo

test: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell $(PAGES)
	$(BIN)/pytest $(PARALLEL)

check: $(VENV)/.installed-dev
	$(BIN)/pytest $(PARALLEL) -m slow

docs: $(VENV)/.installed-docs
	$(BIN)/python docs/build.py

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell $(PAGES)

clean:
	rm -rf $(VENV) demo site docs/commands.md build dist .cache .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed pyproject.toml
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@
