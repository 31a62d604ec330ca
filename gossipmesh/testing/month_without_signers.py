"""Thirty days go by with no signer at all, under load: the step, and what is judged.

The authority is killed for good. A day takes two seconds, in which keys go on turning by a period as short
(the scenario's `key_period`); certificates end on the first. A service comes to a node that never had it,
an agent is killed and starts from its disk, with a clock that is weeks on.
"""

import signal
from typing import Any, Final

import trio

from gossipmesh.model.instant import DAY_S
from gossipmesh.testing import layout
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.shifted_clocks import ShiftedClocks
from gossipmesh.testing.waiting import wait_until

SIGNERS_OFF: Final = "signers-off"
DAYS: Final = 30
NEW_ENDPOINT: Final = "node1"
CART: Final = "shop/cart"
_A_DAY_S: Final = 2.0
# Clocks are set within a second of each other: engines show a certificate until five minutes before its end.
_LAST_OF_THE_DAY_S: Final = (600, 120)


async def live_without_signers(mesh: Mesh, victim: str, within_s: float) -> dict[str, Any]:
    """Kill the authority, let thirty days pass and return what came of them.

    `new_endpoint_s`: from the start of a workload until everybody counts it; `agent_back_s`: from the start
    of the victim's agent until all others have it as alive; `turns`: how often each node turned its keys.
    """
    clocks, names = ShiftedClocks(mesh), list(mesh.nodes)
    before = {name: (await _told(node, "/v1/keys", within_s))["turns"] for name, node in mesh.nodes.items()}
    detail: dict[str, Any] = {"authority_killed": mesh.kill_authority()}
    for short_of_a_day_s in _LAST_OF_THE_DAY_S:
        clocks.set(names, DAY_S - short_of_a_day_s)
        await trio.sleep(_A_DAY_S)
    for day in range(1, DAYS + 1):
        clocks.set(names, day * DAY_S)
        if day == DAYS // 3:
            detail["new_endpoint_s"] = await _new_endpoint(mesh, within_s)
        elif day == 2 * DAYS // 3:
            detail["agent_back_s"] = await _restart_agent(mesh, victim, within_s)
            before[victim] = 0
        await trio.sleep(_A_DAY_S)
    now = {name: (await _told(node, "/v1/keys", within_s))["turns"] for name, node in mesh.nodes.items()}
    turned = {name: turns - before[name] for name, turns in now.items()}
    return {**detail, "turns": turned, "certificates_ended": await clocks.certificates_ended(within_s)}


async def _told(node: MeshNode, path: str, within_s: float) -> Any:
    """Return what an agent answers; on a busy machine it may not do so at once."""
    answers: list[Any] = []

    async def asked() -> str | None:
        answers.append(await node.ask(path))
        return None

    await wait_until(f"{node.name} answers {path}", asked, within_s)
    return answers[-1]


async def _new_endpoint(mesh: Mesh, within_s: float) -> float:
    rows = await _told(mesh.nodes[NEW_ENDPOINT], "/v1/services", within_s)
    passing = sum(row["passing"] for row in rows if row["service"] == CART)
    mesh.start_workload(NEW_ENDPOINT, layout.CART_V1)
    mesh.write_service(NEW_ENDPOINT, layout.CART_V1)
    return round(await mesh.wait_passing(passing + 1, timeout_s=within_s, service=CART), 3)


async def _restart_agent(mesh: Mesh, name: str, within_s: float) -> float:
    """Kill a node's agent, start it again at once, and wait until its engine has it and all have it alive."""
    node = mesh.nodes[name]
    node.signal("agent", signal.SIGKILL)
    await mesh.wait_ended(name)
    started_s = trio.current_time()
    mesh.start_agent(name)

    async def back() -> str | None:
        told = (await node.status())["engine"]
        return None if told["attached"] and told["acked"] else str(told)

    await wait_until(f"{name} is back", back, within_s)
    ShiftedClocks(mesh).unlink_shared_memory()
    await mesh.wait_statuses({name: "alive"}, timeout_s=within_s)
    return round(trio.current_time() - started_s, 3)


def finally_a_month_went_by(
    evidence: Evidence, endpoint_s: float, agent_s: float, turns_min: int
) -> list[str]:
    """Certificates ended, keys turned so often on every node but the one restarted, and news came in time."""
    problems = []
    for fault in (fault for fault in evidence.faults if fault.kind == SIGNERS_OFF):
        detail = fault.detail
        if not detail["certificates_ended"]:
            problems.append("certificates hold still: thirty days did not go by")
        rare = {name: count for name, count in detail["turns"].items() if count < turns_min}
        if rare.keys() - {fault.node}:
            problems.append(f"keys turned less than {turns_min} times: {rare}")
        for part, bound_s in (("new_endpoint_s", endpoint_s), ("agent_back_s", agent_s)):
            if detail[part] > bound_s:
                problems.append(f"{part} was {detail[part]}, bound {bound_s:g}")
    return problems
