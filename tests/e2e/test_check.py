"""`check` on real processes: seeds that nobody answers; `--all` on a mesh where three members are wrong."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from gossipmesh.testing import layout
from gossipmesh.testing.layout import MeshLayout, NodeLayout
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.waiting import wait_until
from tests.e2e.test_policy_wait import OLDER_BUILD

LONE = MeshLayout((NodeLayout("node1", 1, ()),))
FIVE = MeshLayout(tuple(NodeLayout(f"node{number}", number, ()) for number in range(1, 6)))
NOBODY = ["127.250.250.1:7948", "127.250.250.2:7948"]
FOUND_S = 30.0  # the rounds of probes have come to everybody in eight

# An agent whose machine's clock is five minutes ahead; called as `... agent --config FILE`.
CLOCK_AHEAD = [
    sys.executable,
    "-c",
    "import pathlib, sys, trio\n"
    "from gossipmesh.net import clock\n"
    "seconds, offset = clock.wall_seconds, clock.wall_offset_s\n"
    "clock.wall_seconds, clock.wall_offset_s = lambda: seconds() + 300, lambda: offset() + 300\n"
    "from gossipmesh.agent.app import run_agent\n"
    "from gossipmesh.agent.config import read_config\n"
    "trio.run(run_agent, read_config(pathlib.Path(sys.argv[-1])))",
]


async def checked(mesh: Mesh, node: str, *words: str) -> tuple[int, Any]:
    """Return the exit code of `check` and what it told as data."""
    result = await mesh.gossipmesh("check", *words, "-o", "json", node=node)
    return result.code, json.loads(result.stdout)


def wrong(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the members by what is wrong with them."""
    return {row["name"]: row["evidence"].get("members", []) for row in rows if row["mark"] != "ok"}


async def wait_serving(mesh: Mesh, node: str) -> None:
    """Wait until the engine of a node that nobody else waits for answers."""

    async def answers() -> str | None:
        engine = (await mesh.nodes[node].status())["engine"]
        return None if engine["answering"] and engine["acked"] else str(engine)

    await wait_until(f"the engine of {node} answers", answers, FOUND_S)


async def test_seeds_that_nobody_answers_fail_in_words() -> None:
    with Mesh(LONE, config={"seeds": NOBODY}) as mesh:
        await mesh.start()
        code, rows = await checked(mesh, "node1")
        assert code == 1
        # Its engine waits for the mesh's policies, in vain, and FAILs too until it has waited long enough.
        assert [row["ok"] for row in rows if row["name"] == "seeds"] == [False]
        code, told = await checked(mesh, "node1", "--all")
        assert (code, told["ok"], wrong(told["checks"])) == (1, False, {"seeds": []})
        screen = await mesh.gossipmesh("check", node="node1")
        assert f"FAIL  seeds: nobody answers at any of 2: {', '.join(NOBODY)}" in screen.stdout
        assert "why: this node is a mesh of its own" in screen.stdout


async def test_one_without_seeds_is_a_mesh_and_well() -> None:
    with Mesh(LONE) as mesh:
        await mesh.start()
        await wait_serving(mesh, "node1")
        assert (await mesh.gossipmesh("check", node="node1")).code == 0
        code, told = await checked(mesh, "node1", "--all")
        assert (code, told["ok"], wrong(told["checks"]), len(told["members"])) == (0, True, {}, 1)


async def test_one_dead_one_behind_and_one_wrong_clock_are_named_and_nothing_else(tmp_path: Path) -> None:
    expected = {"dead": ["node3"], "policy": ["node4"], "clock": ["node5"]}
    with Mesh(FIVE) as mesh:
        await mesh.start({"node4": OLDER_BUILD, "node5": CLOCK_AHEAD})
        policy = tmp_path / "canary.yaml"
        layout.write_policy(policy, layout.canary(90, 10))
        pushed = await mesh.push(policy, "node1")
        assert "node4 refused it" in pushed.stderr
        await mesh.wait_policy(1, on=["node1", "node2", "node5"])
        await mesh.nodes["node3"].status()
        for what in ("engine", "agent"):
            assert mesh.nodes["node3"].signal(what, signal.SIGKILL)
        seen: list[Any] = []

        async def all_told() -> str | None:
            seen.append(await checked(mesh, "node1", "--all"))
            return None if wrong(seen[-1][1]["checks"]) == expected else str(wrong(seen[-1][1]["checks"]))

        await wait_until(f"`check --all` tells {expected}", all_told, FOUND_S)
        code, told = seen[-1]
        assert (code, told["ok"], told["seen_by"]) == (1, False, "node1")
        assert sorted(row["name"] for row in told["members"]) == sorted(mesh.nodes)
        screen = (await mesh.gossipmesh("check", "--all", node="node1")).stdout
        assert "2 of 5 have nothing wrong" in screen
        assert "FAIL  policy: node4 runs mesh:0, others 1 (refused 1: " in screen
        assert "FAIL  dead: node3 for " in screen
        assert "s ahead of the others" in screen
        # Each node's own check is of itself: one is well though others are not, and one is behind.
        assert (await mesh.gossipmesh("check", node="node2")).code == 0
        code, rows = await checked(mesh, "node4")
        assert code == 1
        assert {row["name"] for row in rows if row["mark"] == "FAIL"} == {"policy", "policy of others"}
        code, rows = await checked(mesh, "node5")
        assert [row["name"] for row in rows if row["mark"] == "FAIL"] == ["clock"]
