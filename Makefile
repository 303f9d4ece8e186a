# make test    everything that must hold: format, lint, types, room doors, tests. Creates .venv when missing.
# make bench   the measurements; nothing in them is asserted
# make help    the rest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One more at once than there are cores, since most wait for something most of the time.
PYTEST := $(BIN)/pytest -q -n $$(($$(nproc) + 1)) --dist worksteal

.PHONY: help tools venv demo e2e qemu10 test check unit coverage format docs bench wheel pyz clean
.DEFAULT_GOAL := help

help:
	@echo "make test    check + unit + wheel + qemu10: what CI runs"
	@echo "make demo    a real kernel in QEMU asks its questions, without and with vhostcomm"
	@echo "make venv    .venv, with vhostcomm and what it needs: .venv/bin/vhostcomm"
	@echo "make check   format, lint, types, import contracts"
	@echo "make unit    the tests"
	@echo "make coverage  the tests, and what they cover"
	@echo "make e2e     the tests with a real guest in the QEMU that is installed, or in VHOSTCOMM_QEMU"
	@echo "make qemu10  the same with Debian's QEMU 10, fetched into the cache"
	@echo "make bench   the measurements (no assertions)"
	@echo "make format  rewrite the sources as ruff wants them"
	@echo "make docs    rewrite what is made from the program: docs/commands.md, docs/configuration.md, docs/man"
	@echo "make wheel   build the wheel and the sdist, compare them with the checkout, and try both, installed elsewhere"
	@echo "make pyz     dist/vhostcomm and dist/qemu-host: each program as one file, with all that it needs"
	@echo "make clean   remove .venv and all that was made"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vhostcomm needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing. On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

tools:
	@PYTHON=$(PYTHON) tests/tools.sh

venv: tools $(INSTALLED)

test: tools check unit wheel qemu10

# A real kernel asks without vhostcomm, then with it.
demo: tools $(INSTALLED)
	$(BIN)/python -m tests.demo

# All that runs QEMU, with the QEMU in VHOSTCOMM_QEMU, else the installed one.
e2e: tools $(INSTALLED)
	$(PYTEST) tests/e2e tests/qemu

qemu10: tools $(INSTALLED)
	@found=$$(tests/qemu10.sh); status=$$?; [ $$status = 2 ] && exit 0; [ $$status = 0 ] || exit 1; \
	eval "$$found"; echo "with $$VHOSTCOMM_QEMU:"; $(PYTEST) tests/e2e tests/qemu

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(INSTALLED)
	$(PYTEST)

coverage: $(INSTALLED)
	$(PYTEST) --cov --cov-report=term

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED)
	$(BIN)/python -m tools

bench: $(INSTALLED)
	$(BIN)/python bench/codec.py
	$(BIN)/python bench/daemon.py
	$(BIN)/python bench/calls.py
	$(BIN)/python bench/start.py

wheel: $(INSTALLED)
	$(BIN)/python -m tests.wheel

pyz: $(INSTALLED)
	$(BIN)/python -m tools.onefile

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
