"""Nodes whose addresses change under them: the network that does it, the step, what is seen and judged.

Such nodes have one address on their link, and keep what is theirs alone (workloads, proxy, API) on the
loopback of their namespace, as the machine of a lease does. Times of a move count from when the new address
is there and the old one is not.
"""

from typing import Any, Final

import trio

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing import layout
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.namespaces import GATEWAY_NUMBER, NamespaceNetwork, run_tool
from gossipmesh.testing.request_checkers import failures
from gossipmesh.testing.waiting import WaitedInVain, wait_until

MOVE: Final = "move"
EVERYWHERE: Final = {
    "gossip": {"bind": f"0.0.0.0:{layout.GOSSIP_PORT}"},
    "mesh": {"bind": f"0.0.0.0:{layout.MESH_PORT}"},
}
"""What an agent is configured with that is to find its address itself."""


class MovableNetwork(NamespaceNetwork):
    """Namespaces whose addresses can be replaced; `host` is where a node is now."""

    def __init__(self) -> None:
        self._hosts: dict[int, str] = {}
        self._moves_count = 0
        super().__init__()

    def host(self, number: int) -> str:
        """Return where node `number` is now: 10.71.0.NUMBER until it is moved."""
        return self._hosts.get(number, super().host(number))

    def local(self, number: int) -> str:
        """Return where what is a node's own listens."""
        return "127.0.0.1"

    async def move(self, number: int, gap_s: float) -> dict[str, Any]:
        """Replace a node's address; with a negative gap the new one comes first, and stays beside the old."""
        old, new = self.host(number), self._fresh(number)
        if gap_s < 0:
            self._add(number, new)
            await trio.sleep(-gap_s)
            self._remove(number, old)
        else:
            self._remove(number, old)
            await trio.sleep(gap_s)
            self._add(number, new)
        self._lead(number, new)
        self._hosts[number] = new
        return {"old": old, "new": new, "gap_s": gap_s}

    def _fresh(self, number: int) -> str:
        self._moves_count += 1
        return f"10.71.{self._moves_count}.{number}"

    def _add(self, number: int, host: str) -> None:
        run_tool(*self.prefix(number), "ip", "address", "add", f"{host}/32", "dev", "eth0")
        run_tool("ip", "route", "add", f"{host}/32", "dev", f"gm{number}")

    def _remove(self, number: int, host: str) -> None:
        run_tool(*self.prefix(number), "ip", "address", "del", f"{host}/32", "dev", "eth0")

    def _lead(self, number: int, host: str) -> None:
        """Set the routes that went with the old address, as whoever took the lease does."""
        gateway = NamespaceNetwork.host(self, GATEWAY_NUMBER)
        for words in (f"{gateway}/32 dev eth0", f"default via {gateway} src {host}"):
            run_tool(*self.prefix(number), "ip", "route", "replace", *words.split())


async def move(mesh: Mesh, name: str, gap_s: float, within_s: float) -> dict[str, Any]:
    """Give a node another address; return what it was, and after how long all others had it.

    `found_after_s` None: not `within_s`.
    """
    if not isinstance(mesh.network, MovableNetwork):
        raise OperatorError('a node can be moved where `addresses = "found"` only')
    node = mesh.nodes[name]
    detail = await mesh.network.move(node.layout.number, gap_s)
    node.host = detail["new"]
    others = [other for other in mesh.nodes.values() if other is not node]

    async def found() -> str | None:
        for other in others:
            rows = {row["name"]: row for row in await other.ask("/v1/members")}
            seen = (rows[name]["gossip_address"], rows[name]["mesh_address"], rows[name]["status"])
            wanted = (f"{node.host}:{layout.GOSSIP_PORT}", f"{node.host}:{layout.MESH_PORT}", "alive")
            if seen != wanted:
                return f"{other.name} sees {seen}"
        return None

    try:
        took_s = await wait_until(f"{name} is found at {node.host}", found, within_s)
    except WaitedInVain as error:
        return {**detail, "found_after_s": None, "seen": str(error)}
    return {**detail, "found_after_s": round(took_s, 3)}


def moves_s(evidence: Evidence) -> list[dict[str, Any]]:
    """Return for each move when all others had the address, and since when all traffic flowed.

    `flows_after_s`: the last request to or from the moved node that failed, or took over half a second,
    was sent so long after the address was there; 0 when there was none.
    """
    rows = []
    moves = [fault for fault in evidence.faults if fault.kind == MOVE]
    ends_s = [*(fault.detail["began_s"] for fault in moves[1:]), float("inf")]
    for fault, until_s in zip(moves, ends_s, strict=False):
        late = [
            outcome.at_s - fault.at_s
            for outcome in [*failures(evidence), *evidence.slow]
            if fault.detail["began_s"] <= outcome.at_s < until_s
        ]
        rows.append(
            {
                "gap_s": fault.detail["gap_s"],
                "found_after_s": fault.detail["found_after_s"],
                "flows_after_s": round(max([0.0, *late]), 3),
                "disturbed": len(late),
            }
        )
    return rows


def eventually_who_moved_is_found(evidence: Evidence, within_s: float, sent_min: int) -> list[str]:
    """After each move all others have the address, and traffic to and from it flows, `within_s`."""
    problems = []
    rows = moves_s(evidence)
    if not rows:
        problems.append("nobody moved")
    sent = evidence.requests.get("sent", 0)
    if sent < sent_min:
        problems.append(f"{sent} requests were sent, at least {sent_min} are needed to prove anything")
    for row in rows:
        gap = f"the move with a gap of {row['gap_s']:g} s"
        if row["found_after_s"] is None or row["found_after_s"] > within_s:
            problems.append(f"{gap}: found after {row['found_after_s']} s, bound {within_s:g} s")
        if row["flows_after_s"] > within_s:
            problems.append(f"{gap}: requests failed until {row['flows_after_s']} s, bound {within_s:g} s")
    return problems
