"""What is made of a node that was declared dead twice: who declared it, and whether all hold the same."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.agent_log import StatusDeclared
from gossipmesh.testing.evidence import Evidence, FaultFired, StatusSeen
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.mutes import (
    eventually_dead_as_often,
    eventually_views_stay_equal,
    mute,
    views_differ,
)
from gossipmesh.testing.namespaces import NamespaceNetwork

NODES = ["n1", "n2", "n3"]
OVER = FaultFired(10.0, "mute", "n3", count=99, detail={"healed_s": 40.0})


def evidence(**fields: Any) -> Evidence:
    return Evidence("dead-twice", 1, nodes=NODES, victims=["n3"], faults=[OVER], **fields)


def declared(observer: str, *statuses: str) -> list[StatusDeclared]:
    return [StatusDeclared(float(at_s), observer, "n3", status) for at_s, status in enumerate(statuses)]


def seen(*held: tuple[float, str, str]) -> list[StatusSeen]:
    """Return who began when to hold n3 in what status."""
    return [StatusSeen(at_s, observer, "n3", status, 0) for at_s, observer, status in held]


def test_each_other_node_has_declared_it_as_often() -> None:
    twice = declared("n1", "dead", "alive", "dead")
    assert eventually_dead_as_often(evidence(declared=[*twice, *declared("n2", "dead", "dead")]), 2) == []
    once = evidence(declared=[*twice, *declared("n2", "dead", "alive")])
    assert eventually_dead_as_often(once, 2) == ["n2 declared n3 dead 1 times, of at least 2"]


@pytest.mark.parametrize(
    ("held", "holds"),
    [
        (((11.0, "n1", "dead"), (12.0, "n2", "dead"), (90.0, "n1", "alive"), (91.0, "n2", "alive")), True),
        (((11.0, "n1", "dead"), (11.0, "n2", "alive"), (52.0, "n1", "alive")), True),
        (((11.0, "n1", "dead"), (11.0, "n2", "alive"), (54.0, "n1", "alive")), False),
        (((90.0, "n1", "alive"), (90.0, "n2", "dead"), (94.0, "n2", "alive")), False),
        (((90.0, "n1", "dead"), (90.0, "n2", "alive"), (95.0, "n3", "alive")), False),
    ],
    ids=["at one moment", "equal in time", "equal too late", "apart again", "apart to the end"],
)
def test_views_are_equal_soon_after_the_outage_and_stay_so(
    held: tuple[tuple[float, str, str], ...], holds: bool
) -> None:
    """Ten seconds after its end at 40 s, and but for three seconds of difference at a time."""
    problems = eventually_views_stay_equal(evidence(statuses=seen(*held)), within_s=10.0, differ_s_max=3.0)
    assert (not problems) is holds, problems


def test_an_outage_that_never_ended_proves_nothing() -> None:
    assert eventually_views_stay_equal(Evidence("x", 1, nodes=NODES), 10.0, 3.0) == ["no outage has ended"]


class Node:
    """What a node says of its members and its sums."""

    def __init__(self, name: str, status: str, group: str = "ab") -> None:
        self.name, self._status, self._group = name, status, group

    async def statuses(self) -> dict[str, str]:
        return {"n3": self._status}

    async def status(self) -> dict[str, Any]:
        return {"state_sums": {"group": self._group}}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (Node("n2", "dead"), None),
        (Node("n2", "alive"), "n1 holds {'n3': 'dead'} with {'group': 'ab'}, n2 {'n3': 'alive'}"),
        (Node("n2", "dead", "cd"), "n2 {'n3': 'dead'} with {'group': 'cd'}"),
    ],
)
async def test_views_differ_by_a_status_or_by_a_sum(other: Node, says: str | None) -> None:
    mesh: Any = SimpleNamespace(nodes={"n1": Node("n1", "dead"), "n2": other})
    found = await views_differ(mesh)
    assert (found is None) is (says is None)
    assert (says or "") in (found or "")


def test_on_loopback_nobody_is_muted(tmp_path: Path) -> None:
    with Mesh(directory=tmp_path) as mesh, pytest.raises(OperatorError, match="namespaces"):
        mute(mesh, "node2", 80)


def test_what_is_dropped_is_sent_by_the_muted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(NamespaceNetwork, "__init__", lambda self: None)
    monkeypatch.setattr(NamespaceNetwork, "drop", lambda self, *rules: dropped.append(rules))
    with Mesh(directory=tmp_path, network=NamespaceNetwork()) as mesh:
        mute(mesh, "node2", 80)
    sent = "ip saddr 10.71.0.2"
    assert dropped == [("gossipmesh_mute", [f"{sent} tcp sport 15008", f"{sent} numgen random mod 100 < 80"])]
