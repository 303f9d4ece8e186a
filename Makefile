# make test    all checks: format, lint, types, import contracts, the wheel, tests
# make bench   the measurements, without assertions
# make help    the other targets

PYTHON ?= python3
RUNS ?= 3
FUZZ_SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEV := $(VENV)/.dev
# Run this many more test processes than cores: most tests wait half of their time, those of `make quick` less.
MORE := 3
PYTEST = $(BIN)/pytest -q -n $$(($$(nproc) + $(MORE))) --dist worksteal

# Bytecode is cached even where the environment forbids it: every process would compile the sources again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help fresh fresh-reduced packages-demo packages-test venv demo e2e qemu10 test check prepared unit quick stress coverage format docs pictures bench soak fuzz mutants wheel wheel-installed wheel-onefile pyz deb hosts virtual-dsm clean
.DEFAULT_GOAL := help

help:
	@echo "make test         run check and wheel, then unit, with the installed QEMU"
	@echo "make demo         boot a real kernel in QEMU, without and with vhostcomm"
	@echo "make venv         install vhostcomm into .venv: .venv/bin/vhostcomm"
	@echo "make check        check the format, lint, types, import contracts"
	@echo "make unit         run the tests, several at once"
	@echo "make quick        run the tests except the slow ones"
	@echo "make stress       run the tests, or TESTS, three times, or RUNS, on busy cores"
	@echo "make coverage     run the tests, and report their coverage"
	@echo "make e2e          run the tests with a real guest, in QEMU or VHOSTCOMM_QEMU"
	@echo "make qemu10       run the tests of QEMU's versions with Debian's QEMU 10"
	@echo "make fresh        run demo and test on the other Debian release, or SUITE"
	@echo "make bench        run the measurements, without assertions"
	@echo "make soak         send a million frames, with reloads and a restart"
	@echo "make fuzz         fuzz the codec and the reader of captures, FUZZ_SECONDS each"
	@echo "make mutants      count planted faults that no test notices, all or in GROUPS"
	@echo "make format       format the sources with ruff"
	@echo "make docs         generate docs/commands.md and docs/configuration.md"
	@echo "make pictures     generate docs/pictures, with Chromium"
	@echo "make wheel        build the wheel and the sdist, and test the wheel elsewhere"
	@echo "make pyz          build dist/vhostcomm and dist/qemu-host, one file each"
	@echo "make deb          build dist/vhostcomm_VERSION_all.deb, for Debian 12 and 13"
	@echo "make virtual-dsm  run the container's scripts, of the checkout VIRTUAL_DSM"
	@echo "make hosts        test units under systemd, images in container engines; as root"
	@echo "make clean        remove .venv and all generated files"

PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@PYTHON=$(PYTHON) tests/tools.sh venv
	@echo "Installing vhostcomm and the Python packages it needs into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e .
	@touch $@

$(DEV): $(INSTALLED)
	@echo "Installing the Python packages of the checks and the tests into $(VENV)"
	@$(PIP) -e '.[dev]'
	@touch $@

packages-demo packages-test: packages-%:
	@PYTHON=$(PYTHON) tests/tools.sh $*

venv: $(INSTALLED)

# Each job of the first line keeps one core busy; the tests keep all cores busy.
test: packages-test $(DEV)
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=line check wheel-installed wheel-onefile prepared
	@$(MAKE) --no-print-directory unit

# A real kernel asks without vhostcomm, then with it.
demo: packages-demo $(INSTALLED)
	$(BIN)/python -m tests.demo

# The tests that run QEMU, with the QEMU in VHOSTCOMM_QEMU, else the installed one.
e2e: packages-test $(DEV)
	$(PYTEST) tests/e2e tests/qemu

qemu10: packages-test $(DEV)
	@found=$$(tests/qemu10.sh); status=$$?; [ $$status = 2 ] && exit 0; [ $$status = 0 ] || exit 1; \
	eval "$$found"; echo "with $$VHOSTCOMM_QEMU:"; $(PYTEST) -m qemu tests/e2e tests/qemu

# What a release of Debian can break: Python's version, tshark's, sfdisk's, QEMU's, systemd's and libvirt's, and two guests.
REDUCED := tests/cli/test_streams.py tests/cli/test_versions.py tests/config/test_load.py tests/captures/test_format.py \
	tests/reference/test_man.py tests/wireshark/test_golden.py tests/wireshark/test_tcp.py tests/qemu/test_disk.py \
	tests/qemu/test_disk_init.py tests/qemu/test_detect.py tests/snippet/test_libvirt.py tests/systemd/test_units.py \
	tests/daemon/test_reload.py::test_ended_guests_are_freed_without_a_collection \
	tests/e2e/test_guest.py::test_guest_boots_from_its_disk_and_gets_all_answers tests/e2e/test_control.py::test_freeze_reboot_and_shutdown_over_http

fresh:
	@SUITE=$(SUITE) tests/fresh.sh $(TESTS)

fresh-reduced:
	@SUITE=$(SUITE) tests/fresh.sh $(REDUCED)

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(DEV)
	$(PYTEST) $(TESTS)

# Make the bytecode of the tests and the stand-in guest beforehand: otherwise each process of `unit` makes the first and
# waits for the second. `unit` shows errors.
prepared: $(DEV)
	@$(BIN)/pytest --collect-only -qq >/dev/null 2>&1 || true
	@tests/guest/build.sh >/dev/null 2>&1 || true

quick: MORE := 1
quick: $(DEV)
	$(PYTEST) -m "not hosts and not slow" $(TESTS)

stress: $(DEV)
	$(BIN)/python -m tests.stress $(RUNS) $(TESTS)

coverage: $(DEV)
	$(PYTEST) --cov --cov-report=term

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV)
	$(BIN)/python -m tools

pictures: $(DEV)
	@mkdir -p docs/pictures
	PICTURES=docs/pictures $(BIN)/pytest -q tests/web/test_pictures.py

bench: $(DEV)
	$(BIN)/python bench/codec.py
	$(BIN)/python bench/daemon.py
	$(BIN)/python bench/guests.py
	$(BIN)/python bench/floods.py
	$(BIN)/python bench/calls.py
	$(BIN)/python bench/start.py
	$(BIN)/python -m bench.cluster
	$(BIN)/python -m bench.disks

soak: $(DEV)
	@$(BIN)/python -m tests.soak

# Coverage-guided. PyPI has no atheris for some machines; then this target says so.
fuzz: $(DEV)
	@$(PIP) --only-binary=:all: atheris 2>/dev/null || true
	@$(BIN)/python -m tests.fuzz $(FUZZ_SECONDS)

mutants: $(DEV)
	@$(PIP) mutmut
	@$(BIN)/python -m tests.mutants $(GROUPS)

wheel: wheel-installed wheel-onefile

wheel-installed: $(DEV)
	$(BIN)/python -m tests.wheel

wheel-onefile: $(DEV)
	$(BIN)/python -m tests.wheel onefile

pyz: $(DEV)
	$(BIN)/python -m tools.onefile

# With the date of the commit, so that a commit gives the same bytes at any time.
deb: $(DEV)
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null)} $(BIN)/python -m tools.deb

# Skips tests without their package or permission, and names it. -o stuck: Debian directories and images are made first.
# Two files at once: the file of the engines takes as long as all others. Its tests share the machine's packet filter.
hosts: $(DEV)
	$(BIN)/pytest -q -n 2 --dist loadfile -m hosts -o stuck=1200 tests/hosts

# The container's own scripts, with our qemu-host in their place: VIRTUAL_DSM=checkout make virtual-dsm
virtual-dsm: packages-test pyz
	@[ -n "$$VIRTUAL_DSM" ] || { echo "VIRTUAL_DSM names no checkout of github.com/vdsm/virtual-dsm: VIRTUAL_DSM=DIRECTORY make virtual-dsm"; exit 2; }
	@eval "$$(tests/qemu10.sh || true)"; $(BIN)/pytest -q tests/e2e/test_virtual_dsm.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
