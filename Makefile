# The targets of this project. CI uses the same ones.
PYTHON ?= python3
BIN := .venv/bin
CODE := mesh agents bench tests scripts/docs.py scripts/reference_pages.py scripts/topics_yaml_keys.py \
	scripts/compiled.py scripts/wheel_hook.py scripts/release
# Half of the suite waits for servers and children: two processes take half the time, even on two cores.
WORKERS ?= 2
SEEDS ?= 2000
COVERED := tests/core
COMPARED ?= 100
COVERAGE_MIN := 95
VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
GATED := hop run1 run3 latency io hotkey state fold coldstart memory

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt
# pip is silent for half a minute or says too much: one line for each package that it fetches.
PROGRESS := | awk '/^Collecting /{printf "  %2d %s\n", ++n, $$2; fflush()} /^Installing /{if (n) print "  installing", n, "packages"; fflush()}'

.PHONY: help setup demo check style lint types laws test coverage sim live chaos bench gates gates-strict docs fast compiled pure wheel release clean

help:            ## list the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 22

$(BIN)/mesh: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed (PYTHON=...)"; exit 1; }
	@test -x $(BIN)/python || echo "making .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "no venv module: apt-get install python3-venv"; exit 1; }
	@echo "fetching packages (half a minute, once)"
	@$(PIP) -e . $(PROGRESS)
	@touch $(BIN)/mesh

.venv/.dev: $(BIN)/mesh
	@echo "fetching packages for developers (a minute, once)"
	@$(PIP) -e '.[dev]' $(PROGRESS)
	@touch .venv/.dev

setup: .venv/.dev  ## make .venv with everything developers need

demo: $(BIN)/mesh  ## see real events handled by real agents (Ctrl-C ends)
	@$(BIN)/mesh demo

check: style lint types laws  ## format, lint, types, laws of the house (the hooks of pre-commit run the same)

style: .venv/.dev  ## is the code formatted?
	$(BIN)/ruff format --check $(CODE)

lint: .venv/.dev   ## ruff's rules, those of pyproject.toml
	$(BIN)/ruff check $(CODE)

types: .venv/.dev  ## mypy, strict
	$(BIN)/mypy

laws: .venv/.dev   ## layers, sizes, pages that are generated, paths and links of docs
	$(BIN)/pytest -q tests/test_house.py tests/test_docs.py tests/test_readme.py

test: .venv/.dev   ## every test; those against real servers if Java 17, Maven and redis-server are there
	$(BIN)/pytest -n $(WORKERS) $(TESTS)

coverage: .venv/.dev  ## branch coverage of mesh/core by its own tests; fails below the floor (COVERAGE_MIN)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n $(WORKERS) $(COVERED)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered --fail-under=$(COVERAGE_MIN)

sim: .venv/.dev    ## the whole mesh simulated under faults: SEEDS=2000 worlds, 100000 before a release
	$(BIN)/python -m tests.sim --seeds $(SEEDS)

live: .venv/.dev   ## only the tests against real Kafka and Redis; fails if they cannot run
	MESH_LIVE=required $(BIN)/pytest -m live tests/live

chaos: .venv/.dev  ## every fault at full scale on real Kafka and Redis (two hours); writes docs/reference/reliability.md
	$(BIN)/python -m tests.live.chaos

bench: .venv/.dev  ## all of docs/reference/benchmarks.md: workloads on both logs, growth, peers, plots (20 minutes)
	$(BIN)/python -m bench.full $(BENCH)

gates: .venv/.dev  ## a short measuring (a minute): nothing has fallen below the generous bounds of bench/gates.toml
	$(BIN)/mesh bench $(GATED) --for 1s --to .mesh/gates --gate bench/gates.toml

gates-strict: .venv/.dev  ## which of the wanted numbers the results of `make bench` reach; by hand, no part of CI
	@$(BIN)/python -m bench.gates bench/gates-strict.toml

docs: .venv/.dev   ## write docs/ that are generated from the code
	$(BIN)/python scripts/docs.py

fast: .venv/.dev   ## compile the hot modules in place (a minute or two; needs a C compiler)
	@command -v cc >/dev/null || { echo "no C compiler: apt-get install gcc libc6-dev"; exit 1; }
	$(BIN)/python scripts/compiled.py make

compiled: .venv/.dev  ## the compiled core: it compiles, passes the tests of the core, and simulated worlds go as in pure form
	trap '$(BIN)/python scripts/compiled.py remove; rm -rf .mesh/compiled' EXIT; set -e; mkdir -p .mesh/compiled; \
	$(MAKE) pure; $(BIN)/python -m tests.sim --seeds $(COMPARED) --traces >.mesh/compiled/pure; \
	$(MAKE) fast; $(BIN)/pytest -q -n $(WORKERS) tests/core tests/test_compiled.py; \
	$(BIN)/python -m tests.sim --seeds $(COMPARED) --traces >.mesh/compiled/compiled; \
	cmp .mesh/compiled/pure .mesh/compiled/compiled && echo "$(COMPARED) worlds went alike in both forms"

pure: .venv/.dev   ## undo `make fast`
	$(BIN)/python scripts/compiled.py remove

wheel: .venv/.dev  ## build a wheel in dist/: compiled if a C compiler is there
	@command -v cc >/dev/null || echo "no C compiler, so the wheel is pure: apt-get install gcc libc6-dev"
	MESH_COMPILED=$$(command -v cc >/dev/null && echo 1) $(BIN)/python -m pip wheel --disable-pip-version-check \
		--no-deps --no-build-isolation -w dist .

release: .venv/.dev  ## try a release: version, changelog, wheel, the wheel in a fresh venv (VERSION=0.2.0; GO=--yes commits and tags)
	$(BIN)/python scripts/release $(VERSION) $(GO)

clean:           ## remove what was built and the demo's data
	find mesh -name '*.so' -delete
	rm -rf .venv .mesh .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build .coverage*
