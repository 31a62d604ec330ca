"""A whole fleet is suspended, and resumed thirty days later, no signer being left: the step, its judge.

All agents and engines stand still while their clocks go on by thirty days, as those of suspended machines do;
certificates have ended by then. The authority was killed before.
"""

import signal
from typing import Any, Final

import trio

from gossipmesh.model.instant import DAY_S
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.shifted_clocks import ShiftedClocks
from gossipmesh.testing.traffic_looks import unanswered
from gossipmesh.testing.waiting import WaitedInVain, wait_until

SUSPEND: Final = "suspend"
DAYS: Final = 30
_STOOD_S: Final = 15.0  # longer than it takes to hold somebody dead
_ASKED: Final = 20


async def suspend(mesh: Mesh, victim: str, within_s: float) -> dict[str, Any]:
    """Stop every agent and engine, resume them thirty days later; return when what was so again.

    `flows_s`: an application on each node was answered by each service; `whole_s`: all hold each other alive,
    and the same. Then each node asks so often for each service, `failed` is what came of those not answered.
    """
    mesh.kill_authority()
    clocks, names, stopped = ShiftedClocks(mesh), list(mesh.nodes), {}
    for name, node in mesh.nodes.items():
        await node.status()
        stopped[name] = len(_signal(mesh, name, signal.SIGSTOP))
    try:
        await trio.sleep(_STOOD_S)
        clocks.set(names, DAYS * DAY_S)
    finally:
        for name in names:
            _signal(mesh, name, signal.SIGCONT)
    started_s = trio.current_time()
    detail: dict[str, Any] = {"stopped": stopped}

    async def timed(part: str, missing: Any) -> None:
        try:
            await wait_until(part, missing, within_s)
            detail[part] = round(trio.current_time() - started_s, 3)
        except WaitedInVain as error:
            detail[part], detail[f"{part} lacks"] = None, str(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timed, "flows_s", lambda: unanswered(mesh, names))
        nursery.start_soon(timed, "whole_s", lambda: _not_whole(mesh))
    failed = [await unanswered(mesh, names) for _ in range(_ASKED)]
    ended = await clocks.certificates_ended(within_s)
    return {**detail, "failed": [one for one in failed if one], "certificates_ended": ended}


def _signal(mesh: Mesh, name: str, number: signal.Signals) -> list[int]:
    return [pid for what in ("agent", "engine") for pid in mesh.nodes[name].signal(what, number)]


async def _not_whole(mesh: Mesh) -> str | None:
    statuses = {name: await node.statuses() for name, node in mesh.nodes.items()}
    wrong = {name: held for name, held in statuses.items() if held != dict.fromkeys(mesh.nodes, "alive")}
    if wrong:
        return f"not everybody is alive: {wrong}"
    sums = [(await node.status())["state_sums"] for node in mesh.nodes.values()]
    return None if all(one == sums[0] for one in sums) else f"state sums {sums}"


def finally_who_was_suspended_returned(evidence: Evidence, flows_s: float, whole_s: float) -> list[str]:
    """All stood still, their certificates ended meanwhile, and everything was as before in time."""
    problems = []
    for fault in (fault for fault in evidence.faults if fault.kind == SUSPEND):
        detail = fault.detail
        if set(detail["stopped"].values()) != {2}:
            problems.append(f"not every agent and engine was stopped: {detail['stopped']}")
        if not detail["certificates_ended"]:
            problems.append("certificates hold still: thirty days did not go by")
        for part, bound_s in (("flows_s", flows_s), ("whole_s", whole_s)):
            if detail[part] is None or detail[part] > bound_s:
                problems.append(
                    f"{part} was {detail[part]}, bound {bound_s:g}: {detail.get(f'{part} lacks')}"
                )
        problems += detail["failed"]
    return problems
