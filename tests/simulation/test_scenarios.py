"""The real cores in the simulator: ten seeds of `steady`, some of every other scenario."""

import pytest

from gossipmesh.testing.simulator.__main__ import VERDICTS_MAX, run_seed
from gossipmesh.testing.simulator.hardships import ON_REQUEST
from gossipmesh.testing.simulator.scenarios import SCENARIOS
from gossipmesh.trust.keys import Verifier

STEADY_SEEDS = range(1, 11)
OTHER_SEEDS = {
    "crash": (1,),
    "kill-agent": (3,),
    "unattended-limit": (1,),
    "partition-heal": (1,),
    "racing-pushes": (1,),
    "rejoin-without-seed": (1,),
    "byzantine-policy": (1,),
    "byzantine-records": (2,),
    "leave": (1,),
    "pause": (1,),
    "rack": (1,),
    "large": (1,),
    "lost-disk": (1,),
    "renewal": (1,),
    "trust-rotation": (1,),
    "swarm": (1,),
    "copied-state": (1, 2),
}
HARDSHIPS = sorted({*SCENARIOS} - {*OTHER_SEEDS, *ON_REQUEST, "steady"})  # whoever adds one has it run here
SWIM_SEEDS = {"crash": (1,), "kill-agent": (1,), "partition-heal": (1,), "pause": (1,)}
OTHERS_NODES_COUNT = 12
HARDSHIP_NODES = {"minority": 5, "long-table": 14, "partition-10-min": 6, "partition-forgotten": 6}
HARDSHIP_NODES_COUNT = 9
HARDSHIP_LOSS = {"idle-with-keys": 0.01}  # its bound is on bytes, and what is lost is sent again
EQUAL_ROOTS_S_MAX = 10.0


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    """One memo of pure signature checks for the whole module, as the command line has."""
    return Verifier(VERDICTS_MAX)


@pytest.mark.parametrize("seed", STEADY_SEEDS)
def test_thirty_nodes_under_loss_come_to_equal_roots_without_a_false_death(
    seed: int, verifier: Verifier
) -> None:
    """Deaths are checked all the while, state sums from the last change on."""
    result = run_seed("steady", seed, nodes_count=30, loss_ratio=0.05, verifier=verifier)
    assert result["failures"] == [], result["traceback"]
    assert result["equal_roots_worst_s"] <= EQUAL_ROOTS_S_MAX
    assert result["faults"]["loss"] > 100
    assert result["checks_remembered"] > 0


@pytest.mark.parametrize(
    ("scenario", "seed"), [(name, seed) for name, seeds in OTHER_SEEDS.items() for seed in seeds]
)
def test_a_scenario_holds(scenario: str, seed: int, verifier: Verifier) -> None:
    result = run_seed(scenario, seed, nodes_count=OTHERS_NODES_COUNT, loss_ratio=0.05, verifier=verifier)
    assert result["failures"] == [], result["traceback"]


@pytest.mark.parametrize(
    ("scenario", "seed", "detector"),
    [
        *((name, 1, "monitors") for name in HARDSHIPS),
        *((name, seed, "swim") for name, seeds in SWIM_SEEDS.items() for seed in seeds),
    ],
)
def test_a_hardship_is_borne(scenario: str, seed: int, detector: str, verifier: Verifier) -> None:
    result = run_seed(
        scenario,
        seed,
        nodes_count=HARDSHIP_NODES.get(scenario, HARDSHIP_NODES_COUNT),
        loss_ratio=HARDSHIP_LOSS.get(scenario, 0.05),
        verifier=verifier,
        detector=detector,
    )
    assert result["failures"] == [], result["traceback"]
