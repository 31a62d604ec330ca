"""After a death on a real mesh: `why` names who spoke, and what a survivor recorded is replayed."""

import json
import signal
import sys
from pathlib import Path

import trio

from gossipmesh.testing.mesh import Mesh


async def test_a_death_is_explained_and_replayed(mesh: Mesh, tmp_path: Path) -> None:
    *survivors, victim = mesh.nodes
    await mesh.nodes[victim].status()
    for what in ("engine", "agent"):
        assert mesh.nodes[victim].signal(what, signal.SIGKILL)
    await mesh.wait_statuses({victim: "dead"}, on=survivors)
    reader = survivors[0]

    told = json.loads(await mesh.must("why", victim, "-o", "json", node=reader))
    assert told["member"]["status"] == "dead"
    assert [entry["class"] for entry in told["entries"] if entry["kind"] == "applied"] == ["dead"]
    screen = await mesh.must("why", victim, node=reader)
    assert "took the verdict" in screen
    rows = json.loads(await mesh.must("members", "-o", "json", node=reader))
    assert {row["name"]: row["reachability"] for row in rows}[victim] == "stale"

    file = tmp_path / "flight.gmr"
    await mesh.must("debug", "record", "--out", str(file), node=reader)
    command = [sys.executable, "-m", "gossipmesh.testing.simulator", "replay", str(file), "--json"]
    replayed = await trio.run_process(command, capture_stdout=True, check=False)
    result = json.loads(replayed.stdout)
    assert result["differences"] == [], result["differences"]
    assert result["matched_count"] == result["steps_count"] > 100
    assert {row["name"]: row["status"] for row in result["state"]["members"]}[victim] == "dead"
    assert [entry["kind"] for entry in result["history"]].count("applied") >= 1
