"""The release before and this build in one mesh, and the way from the one to the other: the step, its judge.

Every other node runs the release. Keys turn on this build's, a policy both know runs everywhere, one the
release does not know is refused by name; then its agents are replaced, one after the other, and their
engines serve on.
"""

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gossipmesh.testing import key_turns, layout
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.older import older_program

MIX_VERSIONS: Final = "mix-versions"
MESH_POLICY: Final = {
    "apiVersion": "gossipmesh.dev/v1",
    "kind": "MeshPolicy",
    "metadata": {"name": "all", "namespace": layout.NAMESPACE},
    "spec": {"unregistered": "workloads"},
}


def programs(mesh: Mesh) -> dict[str, list[str]]:
    """Unpack the release; return what stands for `gossipmesh` on the first node, the third, and so on.

    Raises:
        OperatorError: this clone does not hold the release.
    """
    older = older_program(mesh.directory / "older")
    return dict.fromkeys(list(mesh.nodes)[::2], older)


async def mix_versions(mesh: Mesh, victim: str, within_s: float) -> dict[str, Any]:
    """Let both builds live together, and replace the older agents; `victim` is a node of this build.

    `refused`: whom the command names that cannot take a policy only this build knows. `upgraded_s`: by node,
    how long its agent took to be replaced. `engines`: what `check` says of keys on each of those then.
    """
    older = list(mesh.nodes)[::2]
    await mesh.wait_sums_equal(timeout_s=within_s)
    await key_turns.turn(mesh, victim, within_s)
    pushed = await mesh.push(write_mesh_policy(mesh.directory), victim)
    named = [name for name in mesh.nodes if f"{name} (mesh-policy)" in pushed.stderr]
    detail: dict[str, Any] = {"older": older, "refused": named if pushed.code == 1 else []}
    canary = mesh.directory / "canary.yaml"
    layout.write_policy(canary, layout.canary(50, 50))
    detail["pushed"] = (await mesh.push(canary, victim, "--wait")).code
    detail["upgraded_s"] = {name: await replace_agent(mesh, name) for name in older}
    detail["engines"] = {name: (await check_row(mesh, name, "keys"))["detail"] for name in older}
    await mesh.wait_sums_equal(timeout_s=within_s)
    return detail


async def replace_agent(mesh: Mesh, name: str, program: Sequence[str] | None = None) -> float:
    """Start an agent on a node's state folder in place of the one that runs; return how long it took.

    Raises:
        AssertionError: its engine is another one than before.
    """
    node = mesh.nodes[name]
    engine = (await node.status())["engine"]["pid"]
    node.signal("agent", signal.SIGUSR2)
    took_s = await mesh.wait_ended(name)
    mesh.start_agent(name, program)
    took_s += await mesh.wait_ready()
    now = (await node.status())["engine"]["pid"]
    if now != engine:
        raise AssertionError(f"the engine of {name} was {engine} and is {now}")
    return round(took_s, 3)


async def check_row(mesh: Mesh, name: str, what: str) -> dict[str, Any]:
    """Return a row of a node's `check`."""
    rows: list[dict[str, Any]] = json.loads((await mesh.gossipmesh("check", "-o", "json", node=name)).stdout)
    return next(row for row in rows if row["name"] == what)


def write_mesh_policy(folder: Path) -> Path:
    """Write a policy that the release does not know."""
    path = folder / "mesh.yaml"
    layout.write_policy(path, [MESH_POLICY])
    return path


def finally_versions_live_together(evidence: Evidence) -> list[str]:
    """What only this build knows was refused by the names of the others; what both know was taken."""
    problems = []
    for fault in (fault for fault in evidence.faults if fault.kind == MIX_VERSIONS):
        detail = fault.detail
        if detail["refused"] != detail["older"]:
            problems.append(f"refused for {detail['refused']}, though {detail['older']} are of the release")
        if detail["pushed"] != 0:
            problems.append("a policy that both know was not taken")
        problems += [
            f"`check` on {name} does not say that its engine is older: {told}"
            for name, told in detail["engines"].items()
            if "the engine is of an older build" not in told
        ]
    return problems
