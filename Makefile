# make test    everything that must hold: format, lint, types, room doors, tests. Creates .venv when missing.
# make bench   the measurements; nothing in them is asserted
# make help    the rest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help tools test check unit format bench wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make test    check + unit: what CI runs"
	@echo "make check   format, lint, types, import contracts"
	@echo "make unit    the tests, with coverage"
	@echo "make bench   the measurements (no assertions)"
	@echo "make format  rewrite the sources as ruff wants them"
	@echo "make wheel   build the wheel and run the codec's and captures' tests against it, installed elsewhere"
	@echo "make clean   remove .venv and all that was made"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vhostcomm needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing. On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Programs that tests run, and the Debian packages they are in.
TOOLS := sfdisk:fdisk qemu-img:qemu-utils cc:gcc

tools:
	@missing=; for each in $(TOOLS); do \
		PATH="$$PATH:/usr/sbin:/sbin" command -v "$${each%%:*}" >/dev/null || missing="$$missing $${each#*:}"; done; \
	[ -z "$$missing" ] && exit 0; \
	command -v apt-get >/dev/null || { echo "missing, install them by hand:$$missing"; exit 1; }; \
	if [ "$$(id -u)" = 0 ]; then run=; elif command -v sudo >/dev/null; then run=sudo; \
	else echo "missing, and neither root nor sudo is here to install them: apt-get install$$missing"; exit 1; fi; \
	echo "installing$$missing"; \
	$$run apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends $$missing >/dev/null

test: tools check unit wheel

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(INSTALLED)
	$(BIN)/pytest --cov --cov-report=term

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)
	$(BIN)/python bench/codec.py
	$(BIN)/python bench/daemon.py

wheel: $(INSTALLED)
	$(BIN)/python -m tests.wheel

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
