# make demo    hoster at work on real OpenZFS, in micro-VMs; nothing of this machine's is touched
# make test    everything that can be checked: installs what it needs, then `make check` and all tests
# make check   formatting, lint, types and layers; seconds
# make unit    the tests that need no lab
# make bench-pump   what a stream costs, and how well a speed limit is kept; `make bench-plan` the same of planning
# make bench-replicate   what many small VMs cost in the lab, and what one channel for all would save; an hour
# make faults  thousands of runs with accidents on a model of ZFS, each from its seed; minutes
# make sweep   everything killed before and after every command, cut and switched off, and 10,000 snapshots, in the lab; hours
# make test-matrix  what depends on OpenZFS, on 2.1, 2.3 and 2.4, and from 2.3 to 2.1; an hour and more
# make lab     two nodes to play with, until Ctrl-C
# make clean   what was built here; `make clean-lab` also the cached images

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help demo test check unit lab-test test-matrix lab bench-pump bench-plan bench-replicate faults sweep host-tools clean clean-lab

help:
	@sed -n 's/^# //p' Makefile

$(READY): pyproject.toml requirements-dev.txt
	@python3 -c 'import ensurepip' 2>/dev/null || lab/install-host-tools
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "hoster needs Python 3.11 or later"; exit 1; }
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

host-tools:
	@lab/install-host-tools

demo: $(READY) host-tools
	$(BIN)/python -m lab.demo

check: $(READY)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --quiet tests/unit/test_house.py tests/unit/model tests/unit/planning \
	    --cov=hoster.model --cov=hoster.planning --cov-branch --cov-fail-under=100 --cov-report=term:skip-covered

unit: $(READY)
	$(BIN)/pytest -m "not lab"

# Two labs side by side: with one alone, a core is idle most of the time.
test: check host-tools
	$(BIN)/pytest -n 2 --dist loadgroup

lab-test: $(READY) host-tools
	$(BIN)/pytest -m lab

test-matrix: $(READY) host-tools
	$(BIN)/python -m tests.lab.matrix

sweep: $(READY) host-tools
	HOSTER_SWEEP=every $(BIN)/pytest -s tests/lab/test_interruption.py tests/lab/test_power_cuts.py \
	    tests/lab/test_parting.py tests/lab/test_rollback.py tests/lab/test_names.py tests/lab/test_takeover.py \
	    tests/lab/test_killed_moves.py tests/lab/test_cireset.py tests/lab/test_migration.py \
	    -k "killed or ten_thousand or full_target_pool or moves_to_and_fro"

faults: $(READY)
	$(BIN)/python -m tests.campaign --runs 5000 --seed 1
	$(BIN)/python -m tests.campaign --planted --runs 500

bench-pump: $(READY)
	$(BIN)/python -m bench.pump

bench-plan: $(READY)
	$(BIN)/python -m bench.plan

bench-replicate: $(READY) host-tools
	$(BIN)/python -m bench.channel

lab: $(READY) host-tools
	$(BIN)/python -m lab up

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage dist
	find . -name __pycache__ -prune -exec rm -rf {} +

clean-lab:
	python3 -m lab clean
