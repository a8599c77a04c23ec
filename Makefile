# The words of this project. CI uses the same ones.
PYTHON ?= python3
BIN := .venv/bin
CODE := mesh agents bench tests scripts/docs.py
SEEDS ?= 2000
GATED := hop run1 run3 latency io hotkey state fold coldstart memory

.PHONY: help setup demo check test sim live chaos bench gates docs clean

help:            ## show the words
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16

$(BIN)/mesh: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed (PYTHON=...)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "no venv module: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $(BIN)/mesh

.venv/.dev: $(BIN)/mesh
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch .venv/.dev

setup: .venv/.dev  ## make .venv with everything developers need

demo: $(BIN)/mesh  ## see real events handled by real agents (Ctrl-C ends)
	@$(BIN)/mesh demo

check: .venv/.dev  ## format, lint, types, laws of the house
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_house.py tests/test_docs.py tests/test_readme.py

test: .venv/.dev   ## every test; those against real servers if Java 17, Maven and redis-server are there
	$(BIN)/pytest

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

docs: .venv/.dev   ## write docs/ that are generated from the code
	$(BIN)/python scripts/docs.py

clean:           ## remove what was built and the demo's data
	rm -rf .venv .mesh .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
