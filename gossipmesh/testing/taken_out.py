"""A node taken out of a mesh while it runs, timed: gone from each member, its agent and its engine ended."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

import trio

from gossipmesh.control.ledger import Ledger
from gossipmesh.control.revoking import take_out
from gossipmesh.control.roots import load_authority
from gossipmesh.model.errors import OperatorError
from gossipmesh.net.clock import wall_seconds
from gossipmesh.testing import departures, enrolments
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.waiting import WaitedInVain

FORGET: Final = "forget"
EXIT_CODE: Final = 77
_LOOK_S: Final = 0.02
_SAID_LENGTH_MAX: Final = 500


async def forget(mesh: Mesh, name: str, within_s: float) -> dict[str, Any]:
    """Have the authority take a running node out, and hand its tombstone to one of the others.

    All times count from that moment and are None when not `within_s`: `gone_after_s` says of each other node
    when its `members` did not name it any more. Then the agent is started from its disk (`from_disk`),
    and the node enrolled again (`anew_s`).
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
    code = None if node.agent is None else node.agent.poll()
    log = mesh.keeper.log_path(f"{name}-agent").read_text(errors="replace").strip()
    return {
        "gone_after_s": gone,
        "agent_ended_after_s": ended.get("agent"),
        "engine_ended_after_s": ended.get("engine"),
        "exit_code": code,
        "said": log.splitlines()[-1][-_SAID_LENGTH_MAX:],
        "from_disk": await _start_from_disk(mesh, node, others, within_s),
        "anew_s": await _come_back(mesh, node, within_s),
    }


async def _start_from_disk(
    mesh: Mesh, node: MeshNode, others: Sequence[MeshNode], within_s: float
) -> dict[str, Any]:
    """Start an agent whose node was taken out; return how it ended, and who named it meanwhile."""
    mesh.start_agent(node.name)
    agent, named = node.agent, set[str]()
    if agent is None:
        raise OperatorError(f"the agent of {node.name} was not started")
    with trio.move_on_after(within_s):
        while agent.poll() is None:
            for other in others:
                named |= {other.name} if node.name in await other.statuses() else set()
            await trio.sleep(_LOOK_S)
    return {"exit_code": agent.poll(), "named_by": sorted(named)}


async def _come_back(mesh: Mesh, node: MeshNode, within_s: float) -> float | None:
    """Enrol the node again; return how long it took until everybody saw it alive, None: not `within_s`."""
    started_s = trio.current_time()
    try:
        await enrolments.enrol_anew(mesh, node, within_s)
    except WaitedInVain:
        return None
    return round(trio.current_time() - started_s, 3)


async def _watch_gone(other: MeshNode, name: str, started_s: float, gone: dict[str, float | None]) -> None:
    while True:
        if name not in await other.statuses():
            break
        await trio.sleep(_LOOK_S)
    gone[other.name] = round(trio.current_time() - started_s, 3)


def finally_the_forgotten_are_gone(evidence: Evidence, within_s: float, ended_within_s: float) -> list[str]:
    """Nodes that were taken out were gone from each member in time, ended, and came back by a token alone."""
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
        if detail["from_disk"] != {"exit_code": EXIT_CODE, "named_by": []}:
            problems.append(f"{fault.node} started from its disk: {detail['from_disk']}")
        if detail["anew_s"] is None:
            problems.append(f"{fault.node} did not come back by a new enrolment")
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
