"""What is made of news at nodes whose UDP is dropped: bounds, medians, and where datagrams can be dropped."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from chaos.run import news_s
from gossipmesh.agent.admin.member_checks import MemberChecks
from gossipmesh.agent.admin.mesh_checks import MeshView, check_standing
from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.lost_udp import eventually_news_arrives, lose, not_told, spread, still_told
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.namespaces import NamespaceNetwork
from tests.unit.agent.admin.member_rows import WALL_S, itself, member


def news(turn: str, **fields: Any) -> dict[str, Any]:
    return {"turn": turn, "policy": 0.1, "service": 0.2, "own_service": 0.3, **fields}


def evidence(*rows: dict[str, Any]) -> Evidence:
    return Evidence("tcp-only", 1, nodes=["n1", "n2"], news=list(rows))


def problems(*rows: dict[str, Any]) -> list[str]:
    return eventually_news_arrives(evidence(*rows), within_s=2.0, turns_min=2)


def test_all_news_in_time_is_well() -> None:
    assert problems(news("one"), news("two", own_service=2.0)) == []


def test_news_that_was_late_or_never_came_is_told_by_its_kind() -> None:
    assert problems(news("one", policy=2.1), news("two", service=None)) == [
        "one: policy after 2.1 s, bound 2 s",
        "two: service after None s, bound 2 s",
    ]


def test_too_little_news_proves_nothing() -> None:
    assert problems(news("one")) == ["news was spread 1 times, of at least 2"]


def test_runs_are_summed_up_kind_by_kind() -> None:
    runs = [{"measures": {"news_s": [news("one", policy=policy_s)]}} for policy_s in (0.4, 0.1, None, 0.2)]
    told = news_s([*runs, {"measures": {}}])
    assert told["policy"] == {"runs": 3, "p50": 0.2, "max": 0.4}
    assert told["own_service"] == {"runs": 4, "p50": 0.3, "max": 0.3}
    assert news_s([{"measures": {}}]) == {}


def test_on_loopback_no_datagram_is_dropped(tmp_path: Path) -> None:
    with Mesh(directory=tmp_path) as mesh, pytest.raises(OperatorError, match="namespaces"):
        lose(mesh, "node2", 100)


@pytest.mark.parametrize(("percent", "some"), [(100, ""), (20, " numgen random mod 100 < 20")])
def test_what_is_dropped_is_gossip_by_udp_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, percent: int, some: str
) -> None:
    dropped: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(NamespaceNetwork, "__init__", lambda self: None)
    monkeypatch.setattr(NamespaceNetwork, "drop", lambda self, *rules: dropped.append(rules))
    with Mesh(directory=tmp_path, network=NamespaceNetwork()) as mesh:
        lose(mesh, "node2", percent)
    host = "10.71.0.2"
    assert dropped == [
        ("gossipmesh_udp_2", [f"ip {way} {host} udp dport 7948{some}" for way in ("saddr", "daddr")])
    ]


class Node:
    """An agent's answers, as its checks make them of members' rows."""

    def __init__(self, name: str, log: Path, *, tcp_only: tuple[str, ...]) -> None:
        self.name = name
        others = [other for other in ("node1", "node2", "node3") if other != name]
        lost = {"reachability": "TCP only", "datagram_s": 38.0}
        self.rows = [
            itself(name),
            *(member(other, **(lost if other in tcp_only else {})) for other in others),
        ]
        view, checks = MeshView(), MemberChecks(WALL_S)
        for row in self.rows:
            view.take(row)
            checks.take(row)
        self.answers = {
            "/v1/members": self.rows,
            "/v1/check": check_standing(view, [], 100.0, [], {}),
            "/v1/check/all": {"checks": checks.rows()},
        }
        said = "member is reached by TCP only" if tcp_only else "nothing"
        log.write_text(said)

    async def ask(self, path: str) -> Any:
        return self.answers[path]


class Nodes:
    """As much of a mesh as is asked."""

    def __init__(self, directory: Path, **tcp_only: tuple[str, ...]) -> None:
        self.keeper = self
        self._directory = directory
        self.nodes = {
            name: Node(name, self.log_path(f"{name}-agent"), tcp_only=found)
            for name, found in tcp_only.items()
        }

    def log_path(self, name: str) -> Path:
        return self._directory / name


async def test_all_who_must_say_it_are_asked(tmp_path: Path) -> None:
    told: Any = Nodes(tmp_path, node1=("node3",), node2=("node3",), node3=("node1", "node2"))
    assert await not_told(told, "node3") is None
    assert await still_told(told) == "members on node1: ['node3']"
    told = Nodes(tmp_path, node1=("node3",), node2=(), node3=("node1", "node2"))
    assert await not_told(told, "node3") == "members on node2: node3 is reachable"
    told = Nodes(tmp_path, node1=("node3",), node2=("node3",), node3=())
    assert await not_told(told, "node3") == "check on node3 says []"
    told = Nodes(tmp_path, node1=(), node2=(), node3=())
    assert await still_told(told) is None


async def test_news_is_timed_from_where_it_was_given_to_where_it_came_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    given_s = {"node1": 3.0, "node2": 3.4, "node3": 3.5}
    mesh: Any = SimpleNamespace(nodes={name: SimpleNamespace(name=name) for name in given_s})

    async def has(node: Any) -> bool:
        return trio.current_time() - began_s >= given_s[node.name]

    began_s = trio.current_time()
    took_s = await spread(mesh, "node1", trio.lowlevel.checkpoint, has, 2.0)
    assert took_s is not None
    assert abs(took_s - 0.5) <= 0.05
    given_s["node3"] = 1_000.0
    began_s = trio.current_time()
    assert await spread(mesh, "node1", trio.lowlevel.checkpoint, has, 2.0) is None
