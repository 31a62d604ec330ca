"""A node taken out of a mesh while it runs, timed: gone from each member, its agent and its engine ended."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

import trio

from gossipmesh.control.ledger import Ledger
from gossipmesh.control.revoking import take_out
from gossipmesh.control.roots import load_authority
from gossipmesh.net.clock import wall_seconds
from gossipmesh.testing import departures
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh, MeshNode

FORGET: Final = "forget"
EXIT_CODE: Final = 77
_LOOK_S: Final = 0.02
_SAID_LENGTH_MAX: Final = 500


async def forget(mesh: Mesh, name: str, within_s: float) -> dict[str, Any]:
    """Have the authority take a running node out, and hand its tombstone to one of the others.

    All times count from that moment and are None when not `within_s`: `gone_after_s` says of each other node
    when its `members` did not name it any more. The node is none of the mesh's nodes then.
    """
    node = mesh.nodes[name]
    engine, agent = (await node.status())["engine"]["pid"], node.pids("agent")[0]
    directory = mesh.directory / "authority"
    made = take_out(load_authority(directory), Ledger(directory), name, wall_seconds(), what="forgotten")
    body = json.dumps({"record": base64.b64encode(made.record).decode()}).encode()
    others = [other for other in mesh.nodes.values() if other is not node]
    started_s = trio.current_time()
    await others[0].ask("/v1/credentials", method="POST", body=body)
    gone: dict[str, float | None] = {other.name: None for other in others}
    ended: dict[str, float | None] = {}

    async def watch() -> None:
        ended.update(await departures.watch_ends({"agent": agent, "engine": engine}, started_s, within_s))

    with trio.move_on_after(within_s + 1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for other in others:
                nursery.start_soon(_watch_gone, other, name, started_s, gone)
    del mesh.nodes[name]
    log = mesh.keeper.log_path(f"{name}-agent").read_text(errors="replace").strip()
    return {
        "gone_after_s": gone,
        "agent_ended_after_s": ended.get("agent"),
        "engine_ended_after_s": ended.get("engine"),
        "exit_code": None if node.agent is None else node.agent.poll(),
        "said": log.splitlines()[-1][-_SAID_LENGTH_MAX:],
    }


async def _watch_gone(other: MeshNode, name: str, started_s: float, gone: dict[str, float | None]) -> None:
    while True:
        if name not in await other.statuses():
            break
        await trio.sleep(_LOOK_S)
    gone[other.name] = round(trio.current_time() - started_s, 3)


def finally_the_forgotten_are_gone(evidence: Evidence, within_s: float, ended_within_s: float) -> list[str]:
    """Nodes that were taken out were gone from each member in time, and ended in words and for good."""
    problems = []
    for fault in (fault for fault in evidence.faults if fault.kind == FORGET):
        detail = fault.detail
        for name, after_s in detail["gone_after_s"].items():
            if after_s is None or after_s > within_s:
                problems.append(f"{name} had {fault.node} for {after_s} s more, bound {within_s:g} s")
        for what in ("agent_ended_after_s", "engine_ended_after_s"):
            if detail[what] is None or detail[what] > ended_within_s:
                problems.append(f"{what} of {fault.node}: {detail[what]}, bound {ended_within_s:g} s")
        if detail["exit_code"] != EXIT_CODE or f"{fault.node} was revoked" not in detail["said"]:
            problems.append(f"{fault.node} ended with {detail['exit_code']}: {detail['said']}")
    return problems


def gone_s(evidence: Evidence) -> list[float]:
    """Return when the last member had let each forgotten node go; those that somebody kept are left out."""
    found = []
    for fault in (fault for fault in evidence.faults if fault.kind == FORGET):
        times: Sequence[float | None] = list(fault.detail["gone_after_s"].values())
        known = [seconds for seconds in times if seconds is not None]
        if len(known) == len(times):
            found.append(max(known))
    return found
