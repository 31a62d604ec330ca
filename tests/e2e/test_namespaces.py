"""What needs a namespace: a mesh on IPv6 only, and a disk that is full, or slow, under a running agent."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def play(name: str, directory: Path, *namespace: str, scenes: str = "tests.e2e.scenes") -> dict[str, Any]:
    """Run a scene of a module inside a namespace and return what it saw."""
    inside = [sys.executable, "-m", scenes, name, str(directory)]
    script = 'ip link set lo up && exec "$@"' if "--net" in namespace else 'exec "$@"'
    command = ["unshare", *namespace, "--", "sh", "-c", script, "sh", *inside]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert result.returncode == 0, result.stderr[-3000:]
    told: dict[str, Any] = json.loads(result.stdout)
    return told


@pytest.mark.namespace
def test_a_mesh_on_ipv6_alone(tmp_path: Path) -> None:
    """Enrolment, gossip, mTLS, explicit ports, policy and re-attachment, with no IPv4 address in use."""
    told = play("ipv6", tmp_path / "mesh", "--net")
    assert told["addresses"] == [[f"[fd71::{n}]:7948", f"[fd71::{n}]:15008"] for n in (1, 2)]
    assert told["answer"]["node"] == "node1"
    assert told["answer"]["upstream"]["node"] == "node2"
    assert told["answer"]["upstream"]["upstream"]["service"] == "db"
    assert told["pushed"] == 0
    assert told["engine_starts_after_kill"] == 0


@pytest.mark.namespace
def test_a_configured_address_that_is_lost_is_an_error_and_no_other_is_told(tmp_path: Path) -> None:
    told = play("lost-address", tmp_path / "mesh", "--net")
    lost = told["lost"]["evidence"]
    assert lost["lost"]["spec.gossip.bind"] == "fd71::2"
    assert (lost["changes"], lost["held_back"]) == (0, 0)
    assert "change the key and restart the agent" in told["lost"]["hint"]
    assert told["told"]["node2"] == "[fd71::2]:7948", "another address was there, and told to nobody"
    assert any("which spec.gossip.bind names" in line for line in told["errors"])
    assert told["back"]["evidence"]["lost"] == {}
    assert told["answer"]["upstream"]["node"] == "node2"


@pytest.mark.namespace
def test_a_full_disk_ends_the_agent_in_a_sentence_and_leaves_its_state(tmp_path: Path) -> None:
    """The engine serves on, `--wait=all` says who is missing, and with room again nothing was lost."""
    told = play("full-disk", tmp_path / "mesh", "--mount")
    assert told["pushed"] == [0, 1]
    for end in told["ends"]:
        assert (end["code"], end["tracebacks"]) == (1, 0), end
        assert end["said"].startswith("gossipmesh: cannot ")
        assert "No space left on device" in end["said"]
        assert "free some space" in end["said"]
    assert told["engine_runs"] is True
    assert told["answer"]["upstream"]["node"] == "node2"
    assert told["kept"] == {"damage": [], "floor": 1, "identity": True}
    assert told["engine_pids"][0] == told["engine_pids"][1]
    before, after = told["incarnations"]
    assert after["generation"] == before["generation"]
    assert after["epoch"] > before["epoch"]


@pytest.mark.namespace
def test_a_disk_that_takes_longer_than_a_silence_costs_no_life(tmp_path: Path) -> None:
    """Every durable write of one node takes 5 s, and nobody is given up: no incarnation ends anywhere."""
    told = play("slow-disk", tmp_path / "mesh", "--net")
    for push in told["pushed"]:
        assert push["code"] == 1
        assert "not in force here after 3 s: this node's disk has not taken it yet" in push["said"]
    before, after = told["incarnations"]
    assert before == after
    assert told["answer"]["upstream"]["node"] == "node2"


@pytest.mark.namespace
def test_an_access_log_never_fills_the_disk(tmp_path: Path) -> None:
    """Twice the disk in lines, then a disk others filled: no request fails, and an agent can start."""
    told = play("logs-on-a-small-disk", tmp_path / "mesh", "--mount")
    assert told["failed"] == 0
    assert 500_000 < told["used"] <= 4_194_304 // 4 + 65_536
    lasting, filled = told["free"]
    assert lasting > 0.5
    assert filled > 0.03
    assert told["shed"] > 0
    assert told["same_engine"]
    assert told["last"]["response_code"] == 200
    assert told["unreadable"] == []
