"""What a run must show of a node whose keys were stolen."""

from typing import Any

import pytest

from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.stolen_node_key import (
    CUT,
    STEAL_NODE_KEY,
    finally_stolen_keys_are_useless,
    thefts_s,
)

KEY = "/node/node1: current key"
HELD = {kind: {"after_s": 1.4, "came": ""} for kind in ("request", "websocket", "tcp")}
WELL: dict[str, Any] = {
    "turned_s": 1.2,
    "turned": {"node2": {KEY: "refused"}},
    "keys": 1,
    "before": {"node2": {KEY: "served"}},
    "after": {"node2": {KEY: "refused"}},
    "enrolled_again": {"node2": {KEY: "refused"}},
    "anew": {"node2": {KEY: "served"}},
    "told_s": 1.5,
    "held": HELD,
    "refused_after_s": {"node2": 1.3, "node3": 1.9},
    "exit_code": 77,
    "engine_ended": True,
    "refusals": {"node2": {"peers_refused_revoked": 4, "peers_cut": 3}},
    "logged": {"node2": {"peer_refused[revoked]": 4, CUT: 2}},
}


def evidence(**changes: Any) -> Evidence:
    fault = FaultFired(1.0, STEAL_NODE_KEY, "node1", count=1, detail={**WELL, **changes})
    return Evidence("stolen-node-key", 1, nodes=["node1"], faults=[fault])


def test_a_thief_that_was_refused_and_cut_off_is_well() -> None:
    assert finally_stolen_keys_are_useless(evidence(), 5.0, 1.0) == []
    assert thefts_s(evidence()) == [{"turned_s": 1.2, "told_s": 1.5, "refused_s": 1.9, "closed_s": 1.4}]


def held(kind: str, **changes: Any) -> dict[str, Any]:
    return {"held": HELD | {kind: {**HELD[kind], **changes}}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"turned": {"node2": {KEY: "served"}}}, f"turned, at node2: {KEY} was served, not refused"),
        ({"before": {"node2": {KEY: "refused"}}}, f"before, at node2: {KEY} was refused, not served"),
        ({"after": {"node2": {KEY: "served"}}}, f"after, at node2: {KEY} was served, not refused"),
        ({"enrolled_again": {"node2": {KEY: "served"}}}, "enrolled_again, at node2"),
        ({"anew": {"node2": {KEY: "refused"}}}, "anew, at node2"),
        (held("tcp", after_s=5.1), "its tcp was open after 5 s"),
        ({"held": HELD | {"websocket": None}}, "its websocket was open after 5 s: None"),
        (held("request", came="HTTP/1.1 200 OK"), "its request was answered"),
        ({"refused_after_s": {"node2": 1.3, "node3": None}}, "new calls were refused after"),
        ({"refused_after_s": {"node2": 1.3, "node3": 5.1}}, "new calls were refused after"),
        ({"refused_after_s": {"node2": 2.6, "node3": 2.9}}, "who was told at 1.5 s refused new calls after"),
        ({"exit_code": 0}, "its agent ended with 0"),
        ({"engine_ended": False}, "its agent ended with 77, engine ended: False"),
        ({"refusals": {"node2": {"peers_cut": 3}}}, "the metrics of node2 say nothing of refused peers"),
        ({"refusals": {"node2": {"peers_refused_revoked": 1}}}, "connections that were cut are not counted"),
        ({"logged": {"node2": {CUT: 2}}}, "the access log of node2 says nothing"),
        ({"logged": {"node2": {"peer_refused[revoked]": 4}}}, "no access log says that anything was cut off"),
    ],
)
def test_what_a_thief_could_do_is_told(changes: dict[str, Any], problem: str) -> None:
    (found,) = finally_stolen_keys_are_useless(evidence(**changes), 5.0, 1.0)
    assert found.startswith(f"node1: {problem}")


def test_a_connection_that_never_ended_has_no_time() -> None:
    assert thefts_s(evidence(held=HELD | {"tcp": None})) == [
        {"turned_s": 1.2, "told_s": 1.5, "refused_s": 1.9}
    ]
