"""The authority is given another key while one node is away: the step, and what is judged.

Named, used, and dropped, by the command. Between `use` and `drop` a day goes by, in which all renew; here
each online node turns its TLS keys, which it has certified with that, and the old one is dropped by force.
Then the node that was away is started from its disk.
"""

import signal
from typing import Any, Final

import trio

from gossipmesh.testing import key_turns, knock
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.traffic_looks import unanswered
from gossipmesh.testing.waiting import WaitedInVain, wait_until

ROTATE: Final = {kind: f"rotate-{kind}" for kind in ("intermediate", "root")}
_LOOK_S: Final = 0.05


async def rotate(kind: str, mesh: Mesh, victim: str, within_s: float) -> dict[str, Any]:
    """Rotate a kind of key while `victim` is away; return how long each part took, None for not `within_s`.

    `named_s`, `dropped_s`: until every node online has the Trust; `renewed_s`: until all of them show keys
    and credentials issued by the new one; `whole_s`: from the start of the victim's agent until it and all
    others have each other as alive, hold the same, and applications on it and on another node are answered.
    `met`: what it meets at another's mesh port then, and another at its own.
    """
    node, online = mesh.nodes[victim], [name for name in mesh.nodes if name != victim]
    await node.status()
    killed = {what: len(node.signal(what, signal.SIGKILL)) for what in ("agent", "engine", "workloads")}
    await mesh.wait_ended(victim)
    await mesh.wait_statuses({victim: "dead"}, on=online, timeout_s=within_s)
    detail: dict[str, Any] = {"killed": killed}
    words = ("authority", "rotate", kind, "--dir", str(mesh.directory / "authority"), "--step")
    await mesh.must(*words, "name", node=online[0])
    detail["named_s"] = round(await mesh.wait_sums_equal(online, within_s), 3)
    await mesh.must(*words, "use", node=online[0])
    started_s = trio.current_time()
    for name in online:
        await key_turns.turn(mesh, name, within_s)
    detail["renewed_s"] = round(trio.current_time() - started_s, 3)
    await mesh.wait_sums_equal(online, within_s)
    await mesh.must(*words, "drop", "--force", node=online[0])
    detail["dropped_s"] = round(await mesh.wait_sums_equal(online, within_s), 3)
    return detail | await _come_back(mesh, victim, online, within_s)


async def _come_back(mesh: Mesh, victim: str, online: list[str], within_s: float) -> dict[str, Any]:
    """Start the node that was away; return when it was whole, and what engines say to each other then."""
    mesh.start_workloads(victim)
    started_s = trio.current_time()
    mesh.start_agent(victim)
    node, other = mesh.nodes[victim], mesh.nodes[online[0]]

    async def missing() -> str | None:
        others = {name: await mesh.nodes[name].status() for name in online}
        own = await node.status()
        differing = [name for name, told in others.items() if told["state_sums"] != own["state_sums"]]
        if differing:
            return f"{victim} holds other than {', '.join(differing)}"
        dead = [name for name, status in (await node.statuses()).items() if status != "alive"]
        blind = [name for name in online if (await mesh.nodes[name].statuses()).get(victim) != "alive"]
        if dead or blind:
            return f"{victim} holds {dead} not alive, {blind} do not hold it alive"
        return await unanswered(mesh, [victim, online[0]])

    try:
        await wait_until(f"{victim} is whole", missing, within_s, interval_s=_LOOK_S)
        whole_s = round(trio.current_time() - started_s, 3)
    except WaitedInVain as error:
        return {"whole_s": None, "missing": str(error), "met": []}
    met = [await knock.knock_at(mesh, *pair) for pair in ((other, node), (node, other))]
    return {"whole_s": whole_s, "met": [one["mesh"] for one in met]}


def finally_who_was_away_is_whole(evidence: Evidence, whole_s: float, rotations: int) -> list[str]:
    """After each of so many rotations who was away was whole in time, and engines take each other."""
    faults = [fault for fault in evidence.faults if fault.kind in ROTATE.values()]
    problems = [] if len(faults) == rotations else [f"{len(faults)} of {rotations} rotations were made"]
    for fault in faults:
        detail = fault.detail
        if not all(detail["killed"].values()):
            problems.append(f"not all of {fault.node} was away: {detail['killed']}")
        if detail["whole_s"] is None or detail["whole_s"] > whole_s:
            why = detail.get("missing", "")
            problems.append(
                f"{fault.kind}: {fault.node} whole after {detail['whole_s']}, bound {whole_s:g} {why}"
            )
        elif detail["met"] != ["answered", "answered"]:
            problems.append(f"{fault.kind}: engines to and from {fault.node} met {detail['met']}")
    return problems
