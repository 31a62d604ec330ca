"""A mesh without its authority: the step, and what is judged.

Every process of the authority is killed for good. Then a service that a pattern allows is registered on a
node that never had it, an endpoint dies, TLS keys are turned, and a killed node starts from its disk.
"""

import signal
from typing import Any, Final

import trio

from gossipmesh.model.identity import node_spiffe_id
from gossipmesh.testing import knock, layout
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.load_control import Load
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.waiting import wait_until

NO_AUTHORITY: Final = "no-authority"
HOST: Final = "cart.shop"
CART: Final = "shop/cart"
NEW_ENDPOINT: Final = "node1"
DEAD_ENDPOINT: Final = "node5"
TURNED: Final = "node4"
PARTS: Final = ("new_endpoint_s", "dead_endpoint_s", "keys_turned_s", "cold_start_s")


async def live(mesh: Mesh, victim: str, load: Load, within_s: float) -> dict[str, Any]:
    """Kill the authority, then let the mesh show what it must do without; return how long each took.

    `victim` is the node that is killed and starts again. Each part takes `within_s` at most.
    """
    detail: dict[str, Any] = {"authority_killed": mesh.kill_authority()}
    detail["new_endpoint_s"] = await new_endpoint(mesh, load, within_s)
    detail["dead_endpoint_s"] = await dead_endpoint(mesh, within_s)
    detail |= await turn_keys(mesh, TURNED, NEW_ENDPOINT, within_s)
    detail["cold_start_s"] = await cold_start(mesh, victim, load, within_s)
    return detail


async def new_endpoint(mesh: Mesh, load: Load, within_s: float) -> float:
    """Start a workload where its service never was; return how long after that it was first asked."""
    before, started_s = load.by_server(HOST)[NEW_ENDPOINT], trio.current_time()
    mesh.start_workload(NEW_ENDPOINT, layout.CART_V1)
    mesh.write_service(NEW_ENDPOINT, layout.CART_V1)
    await _wait_asked(load, NEW_ENDPOINT, before, within_s)
    return round(trio.current_time() - started_s, 3)


async def dead_endpoint(mesh: Mesh, within_s: float) -> float:
    """Kill a workload; return when no node counts it as passing any more."""
    mesh.keeper.signal(mesh.nodes[DEAD_ENDPOINT].workloads["cart"].pid, signal.SIGKILL)

    async def gone() -> str | None:
        for node in mesh.nodes.values():
            rows = await node.ask(f"/v1/endpoints?service={CART}")
            if any(row["node"] == DEAD_ENDPOINT and row["health"] == "passing" for row in rows):
                return f"{node.name} sees it passing"
        return None

    return round(await wait_until(f"cart on {DEAD_ENDPOINT} is gone", gone, within_s), 3)


async def turn_keys(mesh: Mesh, name: str, asker: str, within_s: float) -> dict[str, Any]:
    """Turn a node's keys by the command; return when its engine showed others, and whether a peer met them.

    `keys_met`: what another node met that takes the new key of the node and nothing else, and one that takes
    the old one.
    """
    node, by = mesh.nodes[name], mesh.nodes[asker]
    before, started_s = await node.ask("/v1/keys"), trio.current_time()
    await mesh.must("keys", "turn", node=name)

    async def shown() -> str | None:
        now = await node.ask("/v1/keys")
        same = [one for one, pin in before["shown"].items() if now["shown"].get(one, pin) == pin]
        return f"{name} shows the keys of before for {same}" if same else None

    await wait_until(f"{name} shows other keys", shown, within_s)
    took_s = round(trio.current_time() - started_s, 3)

    async def settled() -> str | None:
        now = await node.ask("/v1/keys")
        return None if now["settled"] else f"it is not settled: {now}"

    await wait_until(f"{name} drops its former keys", settled, within_s)
    own = node_spiffe_id(layout.TRUST_DOMAIN, name)
    after = await node.ask("/v1/keys")
    met = [await knock.meets_key(mesh, node, by, one["shown"][own]) for one in (after, before)]
    return {"keys_turned_s": took_s, "identities_turned": len(before["shown"]), "keys_met": met}


async def cold_start(mesh: Mesh, victim: str, load: Load, within_s: float) -> float:
    """Kill all of a node, wait until it is dead, start it; return when it was asked again."""
    node = mesh.nodes[victim]
    await node.status()
    for what in ("agent", "engine", "workloads"):
        node.signal(what, signal.SIGKILL)
    others = [name for name in mesh.nodes if name != victim]
    await mesh.wait_statuses({victim: "dead"}, on=others, timeout_s=within_s)
    before, started_s = load.by_server(HOST)[victim], trio.current_time()
    mesh.start_workloads(victim)
    mesh.start_agent(victim)
    await _wait_asked(load, victim, before, within_s)
    return round(trio.current_time() - started_s, 3)


async def _wait_asked(load: Load, name: str, before: int, within_s: float) -> None:
    async def asked() -> str | None:
        return None if load.by_server(HOST)[name] > before else "no request has reached it"

    await wait_until(f"cart on {name} answers", asked, within_s, interval_s=0.02)


def without_authority_s(evidence: Evidence) -> list[dict[str, float]]:
    """Return for each time the authority was killed how long each part took."""
    return [{part: fault.detail[part] for part in PARTS} for fault in _faults(evidence)]


def _faults(evidence: Evidence) -> list[Any]:
    return [fault for fault in evidence.faults if fault.kind == NO_AUTHORITY]


def finally_lives_without_authority(
    evidence: Evidence, endpoint_s: float, turned_s: float, cold_start_s: float
) -> list[str]:
    """Each part was done in time, and the new keys, and they alone, are met by a peer."""
    bounds = dict(zip(PARTS, (endpoint_s, endpoint_s, turned_s, cold_start_s), strict=True))
    problems = []
    for fault in _faults(evidence):
        problems += [
            f"{part} was {fault.detail[part]}, bound {bound:g}"
            for part, bound in bounds.items()
            if fault.detail[part] > bound
        ]
        if fault.detail["keys_met"] != ["answered", "silent"]:
            problems.append(f"a peer met {fault.detail['keys_met']} by the new key and the old one")
    return problems
