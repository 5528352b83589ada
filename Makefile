# Everything a developer or a CI job calls. `make help` lists it.
# Python has to be one that every Unix user may execute, because Slurm's jobs and the tests run it
# as ordinary users; a Python below /root is not.
PYTHON ?= /usr/bin/python3
export PYTHON

BUILD := build
VENV := $(BUILD)/venv
PYTEST_ARGS ?=
# Most tests wait more than they compute: a worker keeps a fifth of a core busy. Those of
# `make test-fast` compute, and each worker collects all of them first.
WORKERS ?= $(shell echo $$((4 * $$(nproc))))
FAST_WORKERS ?= $(shell echo $$(($$(nproc) + 1)))

FAST := -m "not slurm and not slow and not variant" --hypothesis-profile=fast

# The releases of Debian whose Slurms `make test` goes through beside this machine's own.
SUITES ?= trixie sid
SUITE ?= $(firstword $(SUITES))

.PHONY: help demo test test-here test-releases test-slurm test-fast soak check dev docs clean packages venv

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo:  ## a private Slurm with simulated GPUs, shown step by step (root; KEEP=1 leaves it running)
	@contrib/dev/install-packages demo
	@$(PYTHON) contrib/demo/demo.py run $(if $(KEEP),--keep)

test: packages venv  ## lint, types and all tests, against the built wheel (root for all of them)
	@status=0; \
	$(MAKE) --no-print-directory test-here || status=1; \
	$(if $(PYTEST_ARGS),,$(MAKE) --no-print-directory test-releases || status=1;) exit $$status

test-here:
	@RERUN_ALONE=20 contrib/dev/beside contrib/dev/check $(VENV) -- \
	  contrib/dev/run-tests $(VENV) -n $(WORKERS) $(PYTEST_ARGS)

# Only the modules that have such tests: each worker collects them, and its Python has compiled none.
test-releases: venv
	@contrib/dev/install-packages suites
	@files=$$(grep -rl --include='test_*.py' 'mark\.release' tests); \
	status=0; for suite in $(SUITES); do \
	  RERUN_ALONE=20 contrib/suites/test $(BUILD) $$suite -n $(WORKERS) -m release $$files || status=1; \
	done; exit $$status

test-slurm: venv  ## the tests on a real Slurm, in a Debian SUITE=trixie or sid with its Slurm (root)
	@contrib/dev/install-packages suites
	@contrib/suites/test $(BUILD) $(SUITE) -n $(WORKERS) $(or $(PYTEST_ARGS),-m slurm)

test-fast: venv  ## the tests that boot no Slurm and take no time, in a minute
	@contrib/dev/run-tests $(VENV) -n $(FAST_WORKERS) $(FAST) $(PYTEST_ARGS)

soak: packages venv  ## load and faults on a private Slurm, judged by what tasks recorded (root; MINUTES=20 SEED=… STORE=single)
	@$(PYTHON) contrib/soak/soak.py $(VENV) --minutes $(or $(MINUTES),20) $(if $(SEED),--seed $(SEED)) \
	  --store $(or $(STORE),single) $(SOAK_ARGS)

check: venv  ## lint, formatting, types and import contracts
	@contrib/dev/check $(VENV)

dev:  ## an editable installation with all tools in .venv
	@contrib/dev/install-packages test
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -qq --editable ".[embedded,web,dev]"
	@echo "ready: .venv/bin/pytest, .venv/bin/canhazgpu"

packages:
	@contrib/dev/install-packages test
	@contrib/dev/install-packages browser
	@contrib/dev/install-packages accounting

venv:
	@contrib/dev/build-venv $(BUILD)

docs: venv  ## write what is generated: the reference of keys, the manual pages
	@$(VENV)/bin/python contrib/dev/configuration-reference
	@$(VENV)/bin/python contrib/manual-pages/manual_pages.py

clean:  ## remove what was built
	rm -rf $(BUILD) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
