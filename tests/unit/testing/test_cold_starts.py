"""What is judged of a node that starts from its disk alone."""

from pathlib import Path
from typing import Any

import pytest

from gossipmesh.testing import layout
from gossipmesh.testing.cold_starts import (
    COLD_START,
    cold_starts_s,
    finally_cold_starts_are_quick,
    seeds_of,
)
from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.mesh import Mesh

WELL: dict[str, Any] = {"open_s": 1.2, "serves_s": 1.5, "member_s": 2.0}


def evidence(**changes: Any) -> Evidence:
    fault = FaultFired(1.0, COLD_START, "node5", count=3, detail={**WELL, "killed": {"node5": 2}, **changes})
    return Evidence("cold-start", 1, nodes=["node5"], faults=[fault])


def judge(**changes: Any) -> list[str]:
    return finally_cold_starts_are_quick(evidence(**changes), 3.0, 10.0)


def test_what_was_done_in_time_is_well() -> None:
    assert judge() == []
    assert cold_starts_s(evidence()) == [WELL]


@pytest.mark.parametrize(
    ("part", "took_s", "bound"),
    [("open_s", 3.1, 3), ("serves_s", 3.1, 3), ("serves_s", None, 3), ("member_s", 10.5, 10)],
)
def test_what_came_late_or_never_is_told(part: str, took_s: float | None, bound: int) -> None:
    assert judge(**{part: took_s}) == [f"{part} of node5 was {took_s}, bound {bound}"]


def test_what_was_not_killed_is_told() -> None:
    assert judge(killed={"node1": 2, "node5": 1}) == ["not all of node5 was killed"]


def test_seeds_are_the_nodes_at_the_configured_addresses(tmp_path: Path) -> None:
    with Mesh(directory=tmp_path) as mesh:
        node = mesh.nodes["node4"]
        node.directory.mkdir()
        seeds = [f"{mesh.nodes[name].host}:{layout.GOSSIP_PORT}" for name in ("node1", "node2")]
        config = layout.agent_config(node.host, node.directory, tmp_path / "token", seeds)
        layout.write_document(node.config_path, config)
        assert seeds_of(mesh, "node4") == ["node1", "node2"]
