"""Seeds that once failed, and what was wrong; each must stay green."""

import pytest

from gossipmesh.testing.simulator.__main__ import run_seed
from gossipmesh.trust.keys import Verifier

REGRESSIONS = [
    # A member could drive another's epoch beyond what anyone reads, by a record nobody verified.
    ("byzantine-records", 1, 12, 0.05),
    # Nobody asked the engine of an unattended member for half an interval times the members.
    ("kill-agent", 1, 12, 0.05),
    ("kill-agent", 8, 12, 0.05),
    # Hellos waited ever longer and threw their cookie away: ten seconds of loss kept a node out.
    ("swarm", 4, 12, 0.2),
]


@pytest.mark.parametrize(("scenario", "seed", "nodes_count", "loss_ratio"), REGRESSIONS)
def test_a_seed_that_failed_is_green(scenario: str, seed: int, nodes_count: int, loss_ratio: float) -> None:
    result = run_seed(
        scenario, seed, nodes_count=nodes_count, loss_ratio=loss_ratio, verifier=Verifier(200_000)
    )
    assert result["failures"] == [], result["traceback"]
