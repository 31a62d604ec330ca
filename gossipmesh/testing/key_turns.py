"""TLS keys that turn: one node is told to, or all nodes but one are waited for."""

from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.waiting import wait_until


class PeersTurned:
    """Asks all nodes but one; what they say first is what later answers are held against."""

    def __init__(self, mesh: Mesh, name: str) -> None:
        self._peers = [node for node in mesh.nodes.values() if node.name != name]
        self._first: dict[str, int] = {}

    async def missing(self) -> str | None:
        """Return who has not turned its keys since it was first asked, or is at it; None when all have."""
        now = {node.name: await node.ask("/v1/keys") for node in self._peers}
        for name, keys in now.items():
            self._first.setdefault(name, keys["turns"])
        waiting = [
            name for name, keys in now.items() if keys["turns"] == self._first[name] or not keys["settled"]
        ]
        return f"keys are as before, or not settled, on {', '.join(waiting)}" if waiting else None


async def turn(mesh: Mesh, name: str, within_s: float = 20.0) -> None:
    """Have a node turn its keys, to the end."""
    node = mesh.nodes[name]
    before = (await node.ask("/v1/keys"))["shown"]
    await mesh.must("keys", "turn", node=name)

    async def turned() -> str | None:
        now = await node.ask("/v1/keys")
        same = [one for one in before if now["shown"].get(one) == before[one]]
        return None if now["settled"] and not same else f"{name}: {now}"

    await wait_until(f"the keys of {name} have turned", turned, within_s)
