"""What is judged of the courses of events that have a module each, and what is told of them."""

from collections.abc import Callable
from typing import Any

import pytest

from gossipmesh.testing.clock_skew import finally_a_wrong_clock_alarms
from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.key_rotations import finally_who_was_away_is_whole
from gossipmesh.testing.mixed_versions import finally_versions_live_together
from gossipmesh.testing.month_without_signers import finally_a_month_went_by
from gossipmesh.testing.plays import BREAKING, PLAYS, plays_s
from gossipmesh.testing.scenario import PLAY_STEPS
from gossipmesh.testing.stolen_signer import finally_the_theft_is_undone
from gossipmesh.testing.suspensions import finally_who_was_suspended_returned

Judge = Callable[[Evidence], list[str]]

AWAY: dict[str, Any] = {
    "killed": {"agent": 1, "engine": 1, "workloads": 1},
    "named_s": 0.4,
    "whole_s": 3.2,
    "met": ["answered", "answered"],
}
SKEWED: dict[str, Any] = {
    "ahead_alarmed_s": 12.0,
    "ahead_right_s": 11.0,
    "behind_alarmed_s": 9.0,
    "behind_right_s": 13.0,
    "others_alarmed": [],
}
SUSPENDED: dict[str, Any] = {
    "stopped": {"node1": 2},
    "flows_s": 1.0,
    "whole_s": 4.0,
    "failed": [],
    "certificates_ended": True,
}
MONTH: dict[str, Any] = {
    "new_endpoint_s": 1.5,
    "agent_back_s": 3.0,
    "turns": {"node1": 4, "node2": 3},
    "certificates_ended": True,
}
STOLEN: dict[str, Any] = {
    "far_ahead": "generation",
    "shut": True,
    "all_run_it": True,
    "undone_s": 3.0,
    "pushed_again": 0,
    "signed_after": "signature",
    "named_after": 1,
}
MIXED: dict[str, Any] = {
    "older": ["node1"],
    "refused": ["node1"],
    "pushed": 0,
    "engines": {"node1": "the engine is of an older build"},
}


def evidence(kind: str, detail: dict[str, Any]) -> Evidence:
    fault = FaultFired(1.0, kind, "node2", count=1, detail=detail)
    return Evidence("test", 1, nodes=["node1", "node2"], faults=[fault])


def away(found: Evidence) -> list[str]:
    return finally_who_was_away_is_whole(found, 5.0, 1)


def skewed(found: Evidence) -> list[str]:
    return finally_a_wrong_clock_alarms(found, 60.0)


def suspended(found: Evidence) -> list[str]:
    return finally_who_was_suspended_returned(found, 5.0, 20.0)


def a_month(found: Evidence) -> list[str]:
    return finally_a_month_went_by(found, 3.0, 10.0, 3)


def stolen(found: Evidence) -> list[str]:
    return finally_the_theft_is_undone(found, 10.0)


JUDGES: dict[str, tuple[Judge, dict[str, Any]]] = {
    "rotate-root": (away, AWAY),
    "skew-clock": (skewed, SKEWED),
    "suspend": (suspended, SUSPENDED),
    "signers-off": (a_month, MONTH),
    "steal-signer": (stolen, STOLEN),
    "mix-versions": (finally_versions_live_together, MIXED),
}


@pytest.mark.parametrize("kind", JUDGES)
def test_what_went_well_is_well(kind: str) -> None:
    judge, detail = JUDGES[kind]
    assert judge(evidence(kind, detail)) == []


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("rotate-root", {"whole_s": 5.1}, "node2 whole after 5.1, bound 5"),
        ("rotate-root", {"whole_s": None, "missing": "node1 differs"}, "bound 5 node1 differs"),
        ("rotate-root", {"met": ["answered", "silent"]}, "met ['answered', 'silent']"),
        ("rotate-root", {"killed": {"agent": 1, "engine": 0}}, "not all of node2 was away"),
        ("skew-clock", {"behind_alarmed_s": None}, "behind_alarmed_s of node2 was None"),
        ("skew-clock", {"ahead_right_s": 61.0}, "was 61.0, bound 60"),
        ("skew-clock", {"others_alarmed": ["node1"]}, "['node1'] say that their clocks are off"),
        ("suspend", {"stopped": {"node1": 1}}, "not every agent and engine was stopped"),
        ("suspend", {"whole_s": None}, "whole_s was None, bound 20"),
        ("suspend", {"failed": ["node1 asks for cart.shop: timeout"]}, "node1 asks for cart.shop"),
        ("suspend", {"certificates_ended": False}, "thirty days did not go by"),
        ("signers-off", {"turns": {"node1": 2, "node2": 0}}, "keys turned less than 3 times"),
        ("signers-off", {"new_endpoint_s": 3.5}, "new_endpoint_s was 3.5, bound 3"),
        ("signers-off", {"certificates_ended": False}, "thirty days did not go by"),
        ("steal-signer", {"far_ahead": ""}, "far_ahead was '', not 'generation'"),
        ("steal-signer", {"undone_s": 10.5}, "undone after 10.5 s, bound 10"),
        ("mix-versions", {"refused": []}, "refused for [], though ['node1']"),
        ("mix-versions", {"pushed": 1}, "a policy that both know was not taken"),
        ("mix-versions", {"engines": {"node1": "fine"}}, "does not say that its engine is older: fine"),
    ],
)
def test_what_went_wrong_is_told(kind: str, changes: dict[str, Any], told: str) -> None:
    judge, detail = JUDGES[kind]
    (problem,) = judge(evidence(kind, {**detail, **changes}))
    assert told in problem


def test_an_agent_that_was_restarted_counts_its_turns_anew() -> None:
    assert a_month(evidence("signers-off", {**MONTH, "turns": {"node1": 3, "node2": 1}})) == []


def test_a_rotation_that_was_not_made_is_told() -> None:
    assert finally_who_was_away_is_whole(Evidence("test", 1, nodes=[]), 5.0, 3) == [
        "0 of 3 rotations were made"
    ]


def test_every_play_of_a_scenario_is_there_and_what_it_took_is_told() -> None:
    assert sorted(PLAYS) == sorted(PLAY_STEPS)
    assert set(BREAKING) == {"rotate-intermediate", "rotate-root", "steal-credential-key", "steal-signer"}
    assert plays_s(evidence("rotate-root", AWAY)) == {"rotate-root": {"named_s": 0.4, "whole_s": 3.2}}
