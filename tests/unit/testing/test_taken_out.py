"""What a run must show of a node that was taken out of the mesh."""

from typing import Any

import pytest

from gossipmesh.testing.evidence import FaultFired
from gossipmesh.testing.taken_out import FORGET, finally_the_forgotten_are_gone, gone_s
from tests.unit.testing.test_checkers import evidence

GONE = {"node2": 0.1, "node3": 0.4}


def forgotten(**detail: Any) -> FaultFired:
    ended = {"agent_ended_after_s": 1.5, "engine_ended_after_s": 1.4, "exit_code": 77}
    said = {"said": "gossipmesh: node1 was revoked (generation 2 counts no more): ..."}
    back = {"from_disk": {"exit_code": 77, "named_by": []}, "anew_s": 2.5}
    whole = {"gone_after_s": GONE, **ended, **said, **back, **detail}
    return FaultFired(3.0, FORGET, "node1", count=1, detail=whole)


@pytest.mark.parametrize(
    ("detail", "problem"),
    [
        ({}, None),
        ({"gone_after_s": GONE | {"node3": 1.1}}, "node3 had node1 for 1.1 s more, bound 1 s"),
        ({"gone_after_s": GONE | {"node3": None}}, "node3 had node1 for None s more"),
        ({"agent_ended_after_s": 5.1}, "agent_ended_after_s of node1: 5.1, bound 5 s"),
        ({"engine_ended_after_s": None}, "engine_ended_after_s of node1: None"),
        ({"exit_code": 78}, "node1 ended with 78: "),
        ({"said": "gossipmesh: cannot write"}, "node1 ended with 77: gossipmesh: cannot write"),
        ({"from_disk": {"exit_code": None, "named_by": []}}, "node1 started from its disk: "),
        ({"from_disk": {"exit_code": 77, "named_by": ["node2"]}}, "node1 started from its disk: "),
        ({"anew_s": None}, "node1 did not come back by a new enrolment"),
    ],
)
def test_the_forgotten_are_gone_and_have_ended(detail: dict[str, Any], problem: str | None) -> None:
    found = finally_the_forgotten_are_gone(evidence(faults=[forgotten(**detail)]), 1.0, 5.0)
    assert [item.startswith(problem) for item in found if problem] == [True] * (problem is not None)
    assert len(found) == (problem is not None)


def test_the_last_member_to_let_go_is_told() -> None:
    kept = forgotten(gone_after_s=GONE | {"node4": None})
    assert gone_s(evidence(faults=[forgotten(), kept])) == [0.4]
