"""Checkers: each must accept evidence of a good run and name what is wrong in a bad one."""

from typing import Any

import pytest

from gossipmesh.testing import checkers
from gossipmesh.testing.agent_log import StatusDeclared
from gossipmesh.testing.evidence import (
    EndpointsSeen,
    EngineSeen,
    Evidence,
    FaultFired,
    FinalState,
    ReadinessSeen,
    RetrySeen,
    StatusSeen,
)
from gossipmesh.testing.scenario import Check, Scenario

NODES = ["node1", "node2", "node3"]


def evidence(**fields: Any) -> Evidence:
    """A run in which node3 was killed at 5 s and seen dead by the others at 9 and 10 s."""
    values: dict[str, Any] = {
        "victims": ["node3"],
        "faults": [FaultFired(5.0, "kill", "node3", count=3)],
        "statuses": [
            StatusSeen(1.0, "node1", "node3", "alive", 0),
            StatusSeen(9.0, "node1", "node3", "dead", 1),
            StatusSeen(10.0, "node2", "node3", "dead", 0),
        ],
        "requests": {"sent": 100, "answered": 100, "failed": 0, "by_outcome": {"ok": 100}},
    }
    return Evidence("test", 1, NODES, **{**values, **fields})


def test_times_to_death_are_measured_from_the_fault() -> None:
    assert checkers.seen_after_fault(evidence(), "node3", "dead") == {"node1": 4.0, "node2": 5.0}
    assert checkers.eventually_victim_seen(evidence(), "dead", within_s=5.0) == []
    late = checkers.eventually_victim_seen(evidence(), "dead", within_s=4.5)
    assert late == ["node2 saw node3 dead after 5.0 s, bound 4.5 s"]


def test_a_member_that_never_saw_the_death_is_named() -> None:
    seen = evidence(statuses=[StatusSeen(9.0, "node1", "node3", "dead", 0)])
    assert checkers.eventually_victim_seen(seen, "dead", within_s=25.0) == ["node2 never saw node3 dead"]


def test_a_status_seen_before_the_fault_does_not_count() -> None:
    seen = evidence(statuses=[StatusSeen(1.0, name, "node3", "dead", 0) for name in ("node1", "node2")])
    assert len(checkers.eventually_victim_seen(seen, "dead", within_s=25.0)) == 2


def test_only_a_victim_may_be_held_dead() -> None:
    assert checkers.anytime_nobody_else_dead(evidence()) == []
    false_death = evidence(statuses=[StatusSeen(2.0, "node1", "node2", "dead", 3)])
    assert checkers.anytime_nobody_else_dead(false_death) == ["node1 held node2 dead at 2.0 s"]


def test_what_an_agent_logged_counts_though_nobody_looked_just_then() -> None:
    logged = [StatusDeclared(6.0, "node1", name, "dead") for name in ("node2", "node3")]
    seen = evidence(statuses=[], declared=logged)
    assert checkers.anytime_nobody_else_dead(seen) == ["node1 held node2 dead at 6.0 s"]
    assert checkers.anytime_victim_never(seen, ("dead",)) == ["node1 held node3 dead at 6.0 s"]
    assert checkers.anytime_victim_never(seen, ("unattended",)) == []


def test_a_fault_that_never_fired_fails_the_run() -> None:
    assert checkers.finally_every_fault_fired(evidence(), expected=1) == []
    silent = evidence(faults=[FaultFired(5.0, "kill", "node3", count=0)])
    assert checkers.finally_every_fault_fired(silent, expected=1) == ["kill on node3 hit nothing"]
    assert checkers.finally_every_fault_fired(evidence(faults=[]), expected=1) == ["0 of 1 faults fired"]


@pytest.mark.parametrize(
    ("requests", "problems"),
    [
        ({"sent": 100, "answered": 100, "failed": 0}, 0),
        ({"sent": 100, "answered": 100, "failed": 1, "by_outcome": {"reset": 1}}, 1),
        ({"sent": 9, "answered": 9, "failed": 0}, 1),
        ({"sent": 100, "answered": 99, "failed": 0}, 1),
        ({}, 1),
    ],
)
def test_requests_are_all_accounted_for(requests: dict[str, Any], problems: int) -> None:
    found = checkers.anytime_requests_succeed(evidence(requests=requests), failed_max=0, sent_min=10)
    assert len(found) == problems, found


def test_an_endpoint_that_went_away_is_noticed_but_not_on_the_victim() -> None:
    full, fewer = {"shop/cart": 4}, {"shop/cart": 3}
    stayed = [EndpointsSeen(1.0, "node1", full), EndpointsSeen(7.0, "node3", fewer)]
    assert checkers.anytime_endpoints_stay(evidence(endpoints=stayed)) == []
    left = [EndpointsSeen(1.0, "node1", full), EndpointsSeen(7.0, "node1", fewer)]
    assert checkers.anytime_endpoints_stay(evidence(endpoints=left)) == [
        "node1 counted 3 of 4 shop/cart at 7.0 s"
    ]
    own = [EndpointsSeen(1.0, "node3", full), EndpointsSeen(7.0, "node3", fewer)]
    assert checkers.anytime_endpoints_stay(evidence(endpoints=own)) == []
    assert len(checkers.anytime_endpoints_stay(evidence(endpoints=own), by_victims=True)) == 1


def test_a_dead_endpoint_is_not_tried_on_and_on() -> None:
    together = [RetrySeen(5.1, 5.3, "node1", "shop/cart", 2), RetrySeen(5.2, 5.4, "node1", "shop/cart", 2)]
    other = [RetrySeen(9.0, 9.1, "node1", "shop/db", 2), RetrySeen(9.0, 9.1, "node2", "shop/cart", 2)]
    before = [RetrySeen(1.0, 1.1, "node1", "shop/cart", 2)]
    seen = evidence(retries=[*before, *together, *other])
    assert checkers.anytime_endpoint_leaves_use(seen, later_max=0) == []
    again = evidence(retries=[*together, RetrySeen(6.0, 6.1, "node1", "shop/cart", 3)])
    assert checkers.anytime_endpoint_leaves_use(again, later_max=1) == []
    assert checkers.anytime_endpoint_leaves_use(again, later_max=0) == [
        "node1 went on trying dead endpoints of shop/cart: first failure known at 5.30 s, "
        "later ones began at [6.0]"
    ]


def test_the_new_agent_must_find_the_same_engine_and_snapshot() -> None:
    before = EngineSeen(1.0, "node3", 70, True, "v1")
    again = EngineSeen(30.0, "node3", 70, True, "v1")
    assert checkers.finally_same_engine(evidence(engines=[before, again])) == []
    other_pid = EngineSeen(30.0, "node3", 71, True, "v1")
    assert checkers.finally_same_engine(evidence(engines=[before, other_pid]))
    other_version = EngineSeen(30.0, "node3", 70, True, "v2")
    assert checkers.finally_same_engine(evidence(engines=[before, other_version]))
    assert checkers.finally_same_engine(evidence(engines=[before, other_version]), same_snapshot=False) == []
    assert checkers.finally_same_engine(evidence(engines=[before, other_pid]), same_snapshot=False)
    assert checkers.finally_same_engine(evidence(engines=[]))
    assert checkers.finally_same_engine(evidence(engines=[before]))


def test_the_gap_ends_when_the_engine_is_ready_for_good() -> None:
    seen = [
        ReadinessSeen(1.0, "node3", True),
        ReadinessSeen(5.2, "node3", False),
        ReadinessSeen(6.1, "node3", True),
    ]
    assert checkers.listener_gap_s(evidence(readiness=seen), "node3", 5.0) == 1.1
    assert checkers.eventually_listeners_back(evidence(readiness=seen), within_s=2.0) == []
    assert checkers.eventually_listeners_back(evidence(readiness=seen), within_s=1.0)
    assert checkers.eventually_listeners_back(evidence(readiness=seen[:2]), within_s=2.0)
    assert checkers.listener_gap_s(evidence(readiness=seen[:1]), "node3", 5.0) == 0.0


def final(node: str, **fields: Any) -> FinalState:
    values: dict[str, Any] = {
        "answered": True,
        "state_sums": {"group": "aa", "documents": "bb"},
        "statuses": dict.fromkeys(NODES, "alive"),
        "policies": {"mesh": "2/cc"},
    }
    return FinalState(node, **{**values, **fields})


def test_final_states_must_agree() -> None:
    good = evidence(finals=[final(node) for node in NODES])
    for check in (checkers.finally_all_alive, checkers.finally_sums_equal, checkers.finally_one_policy):
        assert check(good) == []
    bad = evidence(
        finals=[
            final("node1"),
            final("node2", state_sums={"group": "xx", "documents": "bb"}, policies={"mesh": "2/dd"}),
            FinalState("node3", answered=False),
        ]
    )
    for check in (checkers.finally_all_alive, checkers.finally_sums_equal, checkers.finally_one_policy):
        assert check(bad), check.__name__


def push(code: int, text: str, name: str = "race0", across: tuple[str, ...] = ("node3",)) -> dict[str, Any]:
    told = {"exit_code": code, "stdout": "", "stderr": text}
    return {"name": name, "node": "node1", "across": list(across), **told}


def test_of_racing_pushes_one_wins_and_the_other_is_told() -> None:
    told = evidence(pushes=[push(0, ""), push(1, "superseded by version 1")])
    assert checkers.finally_losers_told(told) == []
    assert checkers.finally_losers_told(evidence(pushes=[push(0, ""), push(0, "")]))
    assert checkers.finally_losers_told(evidence(pushes=[push(0, ""), push(1, "timed out")]))


def test_a_push_that_cannot_reach_all_says_whom() -> None:
    def problems(*pushes: dict[str, Any]) -> list[str]:
        return checkers.finally_waiting_push_told(evidence(pushes=list(pushes)), "lonely")

    assert problems(push(1, "node3: dead, runs no policy", "lonely")) == []
    assert problems(push(0, "all run it", "lonely"))
    assert problems(push(1, "timed out", "lonely")) == ["node3 is out of reach and was not named"]
    assert problems(push(1, "node3", "other"))


def replaced(**detail: Any) -> FaultFired:
    ended = {"agent_ended_after_s": 1.5, "engine_ended_after_s": 1.4, "exit_code": 78}
    ports: dict[str, Any] = {"readiness_open": False, "mesh_port_open": False}
    ports["before"] = {"mesh": "answered", "proxy": "answered"}
    ports["after"] = {"mesh": "refused", "proxy": "refused"}
    said = {"said": "gossipmesh: node1 was enrolled again elsewhere (generation 2, here it is 1): ..."}
    return FaultFired(3.0, "enrol-again", "node1", count=1, detail={**ended, **ports, **said, **detail})


@pytest.mark.parametrize(
    ("detail", "problem"),
    [
        ({}, None),
        ({"agent_ended_after_s": 5.1}, "agent and engine of node1 ended after 5.1 s, bound 5 s"),
        ({"engine_ended_after_s": None}, "agent and engine of node1 ended after None s, bound 5 s"),
        ({"exit_code": 1}, "node1 ended with 1: "),
        ({"said": "gossipmesh: cannot write"}, "node1 ended with 78: gossipmesh: cannot write"),
        ({"readiness_open": True}, "node1 has its readiness_open still"),
        ({"mesh_port_open": True}, "node1 has its mesh_port_open still"),
        ({"after": {"mesh": "refused", "proxy": "answered"}}, "callers of node1 after it were not refused"),
        ({"before": {"mesh": "silent", "proxy": "answered"}}, "callers of node1 before it were not answered"),
    ],
)
def test_an_agent_whose_name_is_anothers_has_ended_with_all_it_served(
    detail: dict[str, Any], problem: str | None
) -> None:
    found = checkers.finally_replaced_agents_ended(evidence(faults=[replaced(**detail)]), 5.0)
    assert [item.startswith(problem) for item in found if problem] == [True] * (problem is not None)
    assert len(found) == (problem is not None)


def test_judge_names_unknown_checkers_and_wrong_parameters() -> None:
    scenario = Scenario(
        "test", "", steps=(), checks=(Check("anytime_typo"), Check("finally_all_alive", {"within_s": 1}))
    )
    verdicts = checkers.judge(evidence(), scenario, faults_expected=1)
    assert [verdict["ok"] for verdict in verdicts] == [True, True, False, False]
