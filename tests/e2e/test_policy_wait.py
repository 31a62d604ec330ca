"""`policy push --wait` tells the truth: when all take it, when one is down, when one refuses."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.testing import layout
from gossipmesh.testing.mesh import Mesh

# An older build: the same agent without the feature that routes need; called as `... agent --config FILE`.
OLDER_BUILD = [
    sys.executable,
    "-c",
    "import pathlib, sys, trio\n"
    "from gossipmesh.wire import versions\n"
    "versions.POLICY_FEATURES = tuple(name for name in versions.POLICY_FEATURES if name != 'http-route')\n"
    "from gossipmesh.agent.app import run_agent\n"
    "from gossipmesh.agent.config import read_config\n"
    "trio.run(run_agent, read_config(pathlib.Path(sys.argv[-1])))",
]


async def push(
    mesh: Mesh, tmp_path: Path, v2_weight: int, *options: str, wait: str = "--wait"
) -> tuple[int, dict[str, Any], str]:
    path = tmp_path / "canary.yaml"
    layout.write_policy(path, layout.canary(100 - v2_weight, v2_weight))
    result = await mesh.push(path, "node1", wait, "-o", "json", *options)
    return result.code, json.loads(result.stdout or "{}"), result.stderr


async def replace(mesh: Mesh, name: str, *program: list[str]) -> None:
    """Have a node leave and come back, by another build or by this one."""
    agent = mesh.nodes[name].agent
    assert agent is not None
    agent.send_signal(signal.SIGTERM)
    await mesh.wait_ended(name)
    mesh.start_agent(name, *program)
    await mesh.wait_statuses(dict.fromkeys(mesh.nodes, "alive"), timeout_s=40.0)


async def test_when_all_take_it_the_push_says_so(mesh: Mesh, tmp_path: Path) -> None:
    code, told, stderr = await push(mesh, tmp_path, 10)
    assert (code, stderr) == (0, "")
    assert sorted(told["reached"]) == sorted(mesh.nodes)
    for node in mesh.nodes.values():
        (scope,) = (await node.ask("/v1/policy/status"))["scopes"]
        assert (scope["version"], scope["hash"]) == (told["version"], told["hash"])


async def test_a_node_that_refuses_is_named_with_its_reason(mesh: Mesh, tmp_path: Path) -> None:
    """It keeps the policy it had, and says why everywhere one may ask."""
    await replace(mesh, "node5", OLDER_BUILD)
    code, told, stderr = await push(mesh, tmp_path, 20, "--timeout", "15s")
    assert code == 1, told
    assert [refusal["member"] for refusal in told["refused"]] == ["node5"]
    assert "node5" in stderr
    status = json.loads(await mesh.must("policy", "status", "-o", "json", node="node1"))
    (row,) = [row for row in status if row["member"] == "node5"]
    assert row["state"] == "refused"
    assert row["refused_version"] == told["version"]
    assert row["refused_reason"]
    await replace(mesh, "node5")
    await mesh.wait_policy(told["version"], on=["node5"])


async def test_a_node_that_cannot_be_reached_is_named_and_catches_up(mesh: Mesh, tmp_path: Path) -> None:
    """Stopped, it is to the others what a node behind a cut is; what they published waits for it."""
    node = mesh.nodes["node3"]
    assert node.signal("agent", signal.SIGSTOP)
    try:
        # All others confirm within this, on a busy machine too; `all`, since it is given up meanwhile.
        code, told, stderr = await push(mesh, tmp_path, 25, "--timeout", "10s", wait="--wait=all")
    finally:
        assert node.signal("agent", signal.SIGCONT)
    assert code == 1
    assert [missing["member"] for missing in told["missing"]] == ["node3"]
    assert "node3" not in told["reached"]
    assert "node3" in stderr
    await mesh.wait_policy(told["version"], on=["node3"])
    await mesh.wait_statuses(dict.fromkeys(mesh.nodes, "alive"))


async def test_a_node_that_goes_down_is_named_and_not_waited_for(mesh: Mesh, tmp_path: Path) -> None:
    """Alive when the wait begins, it is dead a moment later; only `--wait=all` goes on waiting."""
    node = mesh.nodes["node4"]
    await node.status()
    for what in ("agent", "engine", "workloads"):
        assert node.signal(what, signal.SIGKILL)
    code, told, stderr = await push(mesh, tmp_path, 30, "--timeout", "60s")
    assert (code, told["missing"]) == (0, []), told
    assert [absent["member"] for absent in told["absent"]] == ["node4"]
    assert "warning: not waited for: node4 (dead, " in stderr
    code, told, stderr = await push(mesh, tmp_path, 31, "--timeout", "10s", wait="--wait=all")
    assert code == 1
    assert [missing["member"] for missing in told["missing"]] == ["node4"]
    assert "not confirmed by node4 (dead, " in stderr


@pytest.mark.parametrize("words", [["members"], ["services"], ["check"], ["endpoints", "shop/cart"]])
async def test_readers_answer_on_a_real_mesh(mesh: Mesh, words: list[str]) -> None:
    rows = json.loads((await mesh.gossipmesh(*words, "-o", "json", node="node1")).stdout)
    assert rows
    table = await mesh.gossipmesh(*words, node="node1")
    assert table.stderr == ""
    assert len(table.stdout.splitlines()) >= len(rows)
