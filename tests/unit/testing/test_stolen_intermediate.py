"""What a run must show of certificates by a stolen intermediate and by the carrier."""

from typing import Any

import pytest

from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.stolen_intermediate import STEAL_INTERMEDIATE, finally_a_forger_is_nobody

CART = "cart.cart.shop.mesh.test"
KEY = "/ns/shop/svc/cart: carrier"
BEFORE = {"peers_refused_unlisted": 6, "peers_refused_carried": 3}
AFTER = {"peers_refused_unlisted": 8, "peers_refused_carried": 4}
LOGGED = {"peer_refused[unlisted]": 6, "peer_refused[carried]": 3}
REFUSED = {f"{CART}: intermediate, a later serial number": 2, f"{CART}: carrier": 1}
WELL: dict[str, Any] = {
    "called": {"node1": {KEY: "refused"}},
    "refused_callers": {"node1": BEFORE},
    "statuses": [{"node1": "unattended"}, {"node1": "dead"}],
    "own_keys": {"believed": {f"{CART}: its own keys": 3}, "refused": {}},
    "forged": {"believed": {}, "refused": REFUSED},
    "refusals": {"node1": AFTER},
    "logged": {"node1": LOGGED},
    "engines_said": {"node1": 3},
}


def judge(**changes: Any) -> list[str]:
    fault = FaultFired(1.0, STEAL_INTERMEDIATE, "node2", count=1, detail={**WELL, **changes})
    return finally_a_forger_is_nobody(Evidence("stolen-intermediate", 1, nodes=["node1"], faults=[fault]))


def test_a_forger_whom_nobody_believed_is_well() -> None:
    assert judge() == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"called": {"node1": {KEY: "served"}}}, f"node1 served {KEY}"),
        ({"own_keys": {"believed": {}, "refused": {}}}, "nobody came to the false server"),
        ({"forged": {"believed": {f"{CART}: carrier": 1}, "refused": REFUSED}}, "a caller believed"),
        (
            {"forged": {"believed": {}, "refused": {f"{CART}: carrier": 1}}},
            "no caller was shown a certificate of the intermediate",
        ),
        ({"statuses": [{"node1": "unattended"}] * 2}, "node1 held it unattended at the end"),
        ({"engines_said": {"node1": 0}}, "no engine that calls says in its log"),
        ({"refusals": {"node1": BEFORE}}, "no engine that calls counts unlisted"),
        (
            {"logged": {"node1": {"peer_refused[unlisted]": 6}}},
            "the access log of node1 does not say carried",
        ),
    ],
)
def test_whoever_believed_a_forger_is_told(changes: dict[str, Any], problem: str) -> None:
    found = judge(**changes)
    assert found
    assert found[0].startswith(f"node2: {problem}")


def test_a_refusal_that_no_engine_counts_is_told() -> None:
    found = judge(refusals={"node1": {"peers_refused_unlisted": 8}})
    assert any("the metrics of node1 do not count carried" in problem for problem in found)
