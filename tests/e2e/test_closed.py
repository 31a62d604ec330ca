"""Who may answer calls: a founder, joiners, a mesh started again from its disks, and one that lost them."""

from pathlib import Path

import pytest

from tests.e2e.test_namespaces import play

CLOSED = "closed: it has heard of no open member what the mesh runs"


@pytest.mark.namespace
def test_a_joiner_that_finds_nobody_answers_no_call_and_a_mesh_on_its_disks_needs_nobody(
    tmp_path: Path,
) -> None:
    told = play("joining", tmp_path / "mesh", "--net", scenes="tests.e2e.closed_scenes")
    assert told["founder"] == [200, "ready"]
    assert told["pushed"] == 0
    assert told["closed"][0] == told["still"][0] == 503
    assert told["still"][1].startswith(CLOSED)
    assert told["check"]["mark"] == "FAIL"
    assert "gossipmesh release --open" in told["check"]["hint"]
    assert told["answered_by"] == ["node2", "node3"]
    assert told["opened"] == [200, "ready"]
    assert told["policy"] == [1]
    assert told["answered_later"] == ["node2", "node3", "node4"]
    assert told["alone"] == [200, "ready"]


@pytest.mark.namespace
def test_a_fleet_without_its_disks_is_opened_by_one_command(tmp_path: Path) -> None:
    told = play("without-disks", tmp_path / "mesh", "--net", scenes="tests.e2e.closed_scenes")
    assert all(status == 503 and said.startswith("closed: ") for status, said in told["closed"])
    assert told["said"].startswith("Open: calls are answered from now on. It was closed, for ")
    assert told["opened"] == [[200, "ready"]] * 4
    assert told["by_hand"] == ["node2"]
    assert told["answered_by"] == ["node2", "node3", "node4"]
