"""The real cores in the simulator: ten seeds of `steady`, some of every other scenario."""

import pytest

from gossipmesh.testing.simulator.__main__ import VERDICTS_MAX, run_seed
from gossipmesh.testing.simulator.scenarios import SCENARIOS
from gossipmesh.trust.keys import Verifier

STEADY_SEEDS = range(1, 11)
OTHER_SEEDS = {
    "crash": (1, 2),
    "kill-agent": (3,),
    "partition-heal": (1, 2),
    "racing-pushes": (1, 2),
    "rejoin-without-seed": (1, 2),
    "byzantine-policy": (1,),
    "byzantine-records": (2,),
    "leave": (1, 2),
    "pause": (1, 2),
    "rack": (1, 2),
    "large": (1,),
    "lost-disk": (1,),
    "renewal": (1,),
    "trust-rotation": (1, 2),
    "swarm": (1, 2),
}
OTHERS_NODES_COUNT = 12
EQUAL_ROOTS_S_MAX = 10.0


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    """One memo of pure signature checks for the whole module, as the command line has."""
    return Verifier(VERDICTS_MAX)


def test_every_scenario_is_run_here() -> None:
    assert sorted([*OTHER_SEEDS, "steady"]) == sorted(SCENARIOS)


@pytest.mark.parametrize("seed", STEADY_SEEDS)
def test_thirty_nodes_under_loss_come_to_equal_roots_without_a_false_death(
    seed: int, verifier: Verifier
) -> None:
    """Deaths are checked all the while, roots from the last change on."""
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
