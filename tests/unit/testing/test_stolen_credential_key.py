"""What a run must show of a credential key that was stolen."""

from typing import Any

import pytest

from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.stolen_credential_key import (
    ENDED_WITH,
    NODE,
    OUT,
    OVER,
    STEAL_CREDENTIAL_KEY,
    TAKEN,
    finally_a_stolen_credential_key_is_undone,
)

REFUSED = dict.fromkeys((NODE, OVER, OUT), "credential")
WELL: dict[str, Any] = {
    "before": {"node1": dict.fromkeys((NODE, OVER, OUT), TAKEN)},
    "after": {"node1": REFUSED, "node2": REFUSED},
    "ended": ENDED_WITH,
    "command_s": 1.0,
    "roll_s": 1.4,
    "back_s": 3.0,
    "answered": 200,
    "failed": 0,
    "refused_peers": {"node1": {}, "node2": {}},
}


def evidence(**changes: Any) -> Evidence:
    fault = FaultFired(1.0, STEAL_CREDENTIAL_KEY, "node3", count=1, detail={**WELL, **changes})
    return Evidence("stolen-credential-key", 1, nodes=["node1"], faults=[fault])


def judge(**changes: Any) -> list[str]:
    return finally_a_stolen_credential_key_is_undone(evidence(**changes), back_within_s=5.0)


def test_a_thief_that_got_somewhere_before_and_nowhere_after_is_well() -> None:
    assert judge() == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"before": {"node1": REFUSED}}, f"before, node1 answered credential to {NODE}: this proves nothing"),
        ({"after": {"node2": {OUT: TAKEN}}}, f"after, node2 answered {TAKEN} to {OUT}"),
        ({"ended": {OVER: 78, OUT: None}}, "the agents whose names were taken ended with"),
        ({"failed": 1}, "1 requests failed"),
        ({"answered": 20}, "0 requests failed of 20"),
        ({"refused_peers": {"node1": {"peers_refused_unlisted": 2}}}, "node1 refused peers"),
        ({"back_s": 5.1}, "all were back after 5.1 s, bound 5 s"),
    ],
)
def test_anything_else_is_told(changes: dict[str, Any], problem: str) -> None:
    told = judge(**changes)
    assert told
    assert told[0].startswith(problem)


def test_a_run_without_the_theft_proves_nothing() -> None:
    nothing = Evidence("stolen-credential-key", 1, nodes=["node1"], faults=[])
    assert finally_a_stolen_credential_key_is_undone(nothing, back_within_s=5.0)
