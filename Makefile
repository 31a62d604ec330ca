# Each target sets up what it needs (tools/setup.py) and hands over to Python.
PYTHON ?= python3
RUN := .venv/bin/python
SEEDS ?= 0-49
MINUTES ?= 20

.PHONY: demo test test-long lint frozen bench bench-gossip chaos sim sim-full fuzz mutants explore clean

demo:
	@$(PYTHON) tools/setup.py demo
	@.venv/bin/gossipmesh demo

# By two processes; what starts real meshes comes last and by one alone (tests/side_by_side.py).
test:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m pytest -n 2 -m "not long"

# What takes real meshes for minutes: stolen keys, dead authorities, upgrades, moves, other clocks, the release before.
test-long:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m pytest -m long

lint:
	@$(PYTHON) tools/setup.py test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

# Whether the core still does, packet by packet, what the frozen list says.
frozen:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m gossipmesh.testing.frozen

bench:
	@$(PYTHON) tools/setup.py bench
	@$(RUN) -m bench.run
	@$(RUN) -m bench.mesh_pair

bench-gossip:
	@$(PYTHON) tools/setup.py bench
	@$(RUN) -m bench.gossip --docs

# Half an hour; as root, because floods are another user's, and networks and disks are of their own.
chaos:
	@$(PYTHON) tools/setup.py test
	@for scenario in leave-rejoin-all isolated-caller; do $(RUN) -m chaos.run $$scenario --seed 1 || exit 1; done
	@$(RUN) -m bench.under_attack
	@$(RUN) -m chaos.soak --minutes $(MINUTES)

sim:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m gossipmesh.testing.simulator steady --nodes 200 --loss 0.05 --seeds $(SEEDS)

# A day of CPU the first time; what out/grid.jsonl already holds of this behaviour is not run again.
sim-full:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m gossipmesh.testing.simulator all --nodes 30 --seeds $(SEEDS)
	@for nodes in 50 200; do for detector in monitors swim; do $(RUN) -m gossipmesh.testing.simulator \
		grid --nodes $$nodes --detector $$detector --seeds 0-199 --out out/grid.jsonl || exit 1; done; done

fuzz:
	@$(PYTHON) tools/setup.py test
	@GOSSIPMESH_FUZZ_INPUTS=1000000 GOSSIPMESH_FUZZ_DECODER_INPUTS=1000000 $(RUN) -m pytest -v tests/fuzz

mutants:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m tests.mutants

explore:
	@$(PYTHON) tools/setup.py test
	@$(RUN) -m gossipmesh.testing.explorer all --nodes 3

clean:
	@rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist out
