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


async def wait_told_by_all(mesh: Mesh, node: str, expected: dict[str, list[str]]) -> tuple[int, Any]:
    """Wait until `check --all` tells these faults and no other; return its exit code and what it told.

    What a busy machine makes a member for a moment (late, unheard) is told as well, and goes by.
    """
    seen: list[tuple[int, Any]] = []

    async def told() -> str | None:
        seen.append(await checked(mesh, node, "--all"))
        found = wrong(seen[-1][1]["checks"])
        return None if found == expected else str(found)

    await wait_until(f"`check --all` on {node} tells {expected}", told, FOUND_S)
    return seen[-1]


async def wait_failing(mesh: Mesh, node: str, expected: set[str]) -> None:
    """Wait until a node's own `check` FAILs for these and nothing else, and exits accordingly."""

    async def told() -> str | None:
        code, rows = await checked(mesh, node)
        failing = {row["name"] for row in rows if row["mark"] == "FAIL"}
        assert code == (1 if failing else 0), rows
        return None if failing == expected else str(failing)

    await wait_until(f"`check` on {node} FAILs for {sorted(expected)}", told, FOUND_S)


async def wait_screen(mesh: Mesh, node: str, *lines: str) -> None:
    """Wait until the screen of `check --all` has all these lines."""

    async def shown() -> str | None:
        screen = (await mesh.gossipmesh("check", "--all", node=node)).stdout
        missing = [line for line in lines if line not in screen]
        return f"without {missing}: {screen}" if missing else None

    await wait_until(f"the screen of `check --all` on {node}", shown, FOUND_S)


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
        code, told = await wait_told_by_all(mesh, "node1", {"seeds": []})
        assert (code, told["ok"]) == (1, False)
        screen = await mesh.gossipmesh("check", node="node1")
        assert f"FAIL  seeds: nobody answers at any of 2: {', '.join(NOBODY)}" in screen.stdout
        assert "why: this node is a mesh of its own" in screen.stdout


async def test_one_without_seeds_is_a_mesh_and_well() -> None:
    with Mesh(LONE) as mesh:
        await mesh.start()
        await wait_serving(mesh, "node1")
        await wait_failing(mesh, "node1", set())
        code, told = await wait_told_by_all(mesh, "node1", {})
        assert (code, told["ok"], len(told["members"])) == (0, True, 1)


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
        code, told = await wait_told_by_all(mesh, "node1", expected)
        assert (code, told["ok"], told["seen_by"]) == (1, False, "node1")
        assert sorted(row["name"] for row in told["members"]) == sorted(mesh.nodes)
        await wait_screen(
            mesh,
            "node1",
            "2 of 5 have nothing wrong",
            "FAIL  policy: node4 runs mesh:0, others 1 (refused 1: ",
            "FAIL  dead: node3 for ",
            "s ahead of the others",
        )
        # Each node's own check is of itself: one is well though others are not, and one is behind.
        await wait_failing(mesh, "node2", set())
        await wait_failing(mesh, "node4", {"policy", "policy of others"})
        await wait_failing(mesh, "node5", {"clock"})
