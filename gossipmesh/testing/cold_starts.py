"""A node that starts from its disk, the authority and all its seeds gone: the step, and what is judged.

Power goes at once for the node and its seeds, so that nobody saw it go; the seeds come back when it is over.
"""

import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from gossipmesh.testing import layout, openings
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.load import Target, ask_once
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.waiting import WaitedInVain, wait_until

COLD_START: Final = "cold-start"
PARTS: Final = ("open_s", "serves_s", "member_s")
HOST: Final = "cart.shop"
PROCESSES: Final = ("agent", "engine")
_LOOK_S: Final = 0.05

Condition = Callable[[], Awaitable[str | None]]


async def cold_start(mesh: Mesh, name: str, within_s: float) -> dict[str, Any]:
    """Kill the authority, a node and its seeds, and start the node; return after how long it was what.

    Times count from the start of its agent's process, and are None when not `within_s`: `open_s` until its
    engine answers calls, by its agent's word; `serves_s` until an application there was answered through it
    (by another node, where the node does not run cart itself); `member_s` until all who are left have the
    new run as alive, and it has them.
    """
    node, seeds = mesh.nodes[name], seeds_of(mesh, name)
    left = [other for other in mesh.nodes.values() if other.name not in (name, *seeds)]
    before = {other.name: (await _row_of(name, other))["order"][:2] for other in left}
    detail: dict[str, Any] = {"authority_killed": mesh.kill_authority()}
    detail["killed"] = {gone: await _kill(mesh, gone) for gone in (*seeds, name)}
    started_s = trio.current_time()
    mesh.start_agent(name)

    async def timed(part: str, missing: Condition) -> None:
        try:
            await wait_until(f"{part} of {name}", missing, within_s, interval_s=_LOOK_S)
            detail[part] = round(trio.current_time() - started_s, 3)
        except WaitedInVain:
            detail[part] = None

    async def is_member() -> str | None:
        statuses = await node.statuses()
        for other in left:
            row = await _row_of(name, other)
            if row["status"] != "alive" or row["order"][:2] <= before[other.name]:
                return f"{other.name} has {row}"
            if statuses.get(other.name) != "alive":
                return f"{name} has {other.name} {statuses.get(other.name)}"
        return None

    conditions: tuple[Condition, ...] = (
        lambda: openings.closed_at(node),
        lambda: _unanswered(mesh, node),
        is_member,
    )
    async with trio.open_nursery() as nursery:
        for part, missing in zip(PARTS, conditions, strict=True):
            nursery.start_soon(timed, part, missing)
    for seed in seeds:
        mesh.start_agent(seed)
    return detail


def seeds_of(mesh: Mesh, name: str) -> list[str]:
    """Return the nodes at the addresses that a node is configured to start from."""
    places = json.loads(mesh.nodes[name].config_path.read_text())["spec"]["seeds"]
    return [other.name for other in mesh.nodes.values() if f"{other.host}:{layout.GOSSIP_PORT}" in places]


async def _kill(mesh: Mesh, name: str) -> int:
    """Kill a node's agent and engine; return how many processes that were."""
    node = mesh.nodes[name]
    await node.status()
    hit = [pid for what in PROCESSES for pid in node.signal(what, signal.SIGKILL)]
    await mesh.wait_ended(name)
    return len(hit)


async def _row_of(name: str, at: MeshNode) -> dict[str, Any]:
    rows: list[dict[str, Any]] = await at.ask("/v1/members")
    return next(row for row in rows if row["name"] == name)


async def _unanswered(mesh: Mesh, node: MeshNode) -> str | None:
    """Ask for a page at a node's proxy port as an application does; None when it came."""
    answer = await ask_once(Target(node.name, node.local_host, mesh.proxy_port, HOST))
    return answer.error or None


def cold_starts_s(evidence: Evidence) -> list[dict[str, float | None]]:
    """Return for each cold start after how long the node was what."""
    return [{part: fault.detail[part] for part in PARTS} for fault in _faults(evidence)]


def _faults(evidence: Evidence) -> list[Any]:
    return [fault for fault in evidence.faults if fault.kind == COLD_START]


def finally_cold_starts_are_quick(evidence: Evidence, serves_s: float, member_s: float) -> list[str]:
    """Whoever started from its disk alone answered and was answered, and was a member, in time."""
    bounds = dict(zip(PARTS, (serves_s, serves_s, member_s), strict=True))
    problems = []
    for fault in _faults(evidence):
        living = [name for name, count in fault.detail["killed"].items() if count != len(PROCESSES)]
        problems += [f"not all of {name} was killed" for name in living]
        for part, bound in bounds.items():
            took_s = fault.detail[part]
            if took_s is None or took_s > bound:
                problems.append(f"{part} of {fault.node} was {took_s}, bound {bound:g}")
    return problems
