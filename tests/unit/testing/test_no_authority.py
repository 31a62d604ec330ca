"""What is judged of a mesh without its authority."""

from typing import Any

import pytest

from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.no_authority import (
    NO_AUTHORITY,
    finally_lives_without_authority,
    without_authority_s,
)

WELL: dict[str, Any] = {
    "authority_killed": 7,
    "new_endpoint_s": 1.9,
    "dead_endpoint_s": 1.1,
    "keys_turned_s": 0.4,
    "cold_start_s": 4.0,
    "keys_met": ["answered", "silent"],
}


def evidence(**changes: Any) -> Evidence:
    fault = FaultFired(1.0, NO_AUTHORITY, "node3", count=1, detail={**WELL, **changes})
    return Evidence("authority-dead", 1, nodes=["node3"], faults=[fault])


def judge(**changes: Any) -> list[str]:
    return finally_lives_without_authority(evidence(**changes), 3.0, 5.0, 10.0)


def test_what_was_done_in_time_is_well() -> None:
    assert judge() == []
    assert without_authority_s(evidence()) == [
        {"new_endpoint_s": 1.9, "dead_endpoint_s": 1.1, "keys_turned_s": 0.4, "cold_start_s": 4.0}
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"new_endpoint_s": 3.1}, "new_endpoint_s was 3.1, bound 3"),
        ({"dead_endpoint_s": 3.1}, "dead_endpoint_s was 3.1, bound 3"),
        ({"keys_turned_s": 6.0}, "keys_turned_s was 6.0, bound 5"),
        ({"cold_start_s": 11.0}, "cold_start_s was 11.0, bound 10"),
        ({"keys_met": ["answered", "answered"]}, "met ['answered', 'answered'] by the new key and the old"),
        ({"keys_met": ["silent", "silent"]}, "met ['silent', 'silent'] by the new key and the old one"),
    ],
)
def test_what_came_late_or_was_not_met_is_told(changes: dict[str, Any], problem: str) -> None:
    (found,) = judge(**changes)
    assert problem in found
