# Each target sets up what it needs (tools/setup.py) and hands over to Python.
PYTHON ?= python3
RUN := .venv/bin/python
SEEDS ?= 0-49

.PHONY: demo test lint bench bench-gossip sim fuzz mutants explore clean

demo:
	@$(PYTHON) tools/setup.py demo
	@.venv/bin/gossipmesh demo

test:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m pytest

lint:
	@$(PYTHON) tools/setup.py test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench:
	@$(PYTHON) tools/setup.py bench
	@$(RUN) -m bench.run

bench-gossip:
	@$(PYTHON) tools/setup.py bench
	@$(RUN) -m bench.gossip --docs

sim:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m gossipmesh.testing.simulator steady --nodes 200 --loss 0.05 --seeds $(SEEDS)

fuzz:
	@$(PYTHON) tools/setup.py test
	@GOSSIPMESH_FUZZ_INPUTS=1000000 $(RUN) -m pytest tests/fuzz

mutants:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m tests.mutants

explore:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m gossipmesh.testing.explorer all --nodes 3

clean:
	@rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist out
