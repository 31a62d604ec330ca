"""Whether all nodes but one have turned their TLS keys: what a scenario waits for."""

from gossipmesh.testing.mesh import Mesh


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
