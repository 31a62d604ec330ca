"""What is judged of a copied state folder; the step itself is for the chaos scenario and its own test."""

from typing import Any

import pytest

from gossipmesh.testing import copied_state
from gossipmesh.testing.evidence import Evidence, FaultFired

ANSWERED = {"mesh": "answered", "proxy": "answered"}
REFUSED = {"mesh": "refused", "proxy": "refused"}
WELL: dict[str, Any] = {
    "exit_code": 78,
    "agent_ended_after_s": 1.2,
    "engine_ended_after_s": 1.4,
    "owner_at": "10.71.0.2:7948",
    "before": ANSWERED,
    "copy": REFUSED,
    "owner": ANSWERED,
    "said": "gossipmesh: node2 runs at 10.71.0.2:7948 too, under the identity ...",
    "owner_runs_on": True,
    "same_engine": True,
    "epochs": [1, 1],
}


def evidence(**detail: Any) -> Evidence:
    fault = FaultFired(3.0, copied_state.COPY_STATE, "node2", count=1, detail={**WELL, **detail})
    return Evidence("test", 1, nodes=["node1", "node2"], faults=[fault])


@pytest.mark.parametrize(
    ("detail", "problem"),
    [
        ({}, None),
        ({"epochs": [1, 5]}, None),
        ({"agent_ended_after_s": 5.1}, "the copy and its engine ended after 5.1 s, bound 5 s"),
        ({"engine_ended_after_s": None}, "the copy and its engine ended after None s, bound 5 s"),
        ({"exit_code": None, "said": ""}, "the copy ended with None: "),
        ({"exit_code": 1}, "the copy ended with 1: gossipmesh: node2 runs"),
        ({"owner_at": "10.71.0.9:7948"}, "the copy ended with 78: "),
        ({"before": REFUSED}, "callers of before were not answered"),
        ({"owner": {**ANSWERED, "mesh": "silent"}}, "callers of owner were not answered"),
        ({"copy": {**REFUSED, "proxy": "answered"}}, "callers of copy were not refused"),
        ({"owner_runs_on": False}, "the owner's agent or engine did not go on"),
        ({"same_engine": False}, "the owner's agent or engine did not go on"),
        ({"epochs": [1, 6]}, "the owner signed from epoch 1 to 6"),
    ],
)
def test_a_copy_ended_and_its_owner_did_not(detail: dict[str, Any], problem: str | None) -> None:
    found = copied_state.finally_copies_ended(evidence(**detail), 5.0)
    assert [item.startswith(f"node2: {problem}") for item in found] == [True] * (problem is not None)


def test_how_long_a_copy_ran_is_its_last_process() -> None:
    assert copied_state.copies_ended_s(evidence()) == [1.4]
    assert copied_state.copies_ended_s(evidence(engine_ended_after_s=None)) == [None]
    assert copied_state.copies_ended_s(Evidence("test", 1, nodes=[])) == []
