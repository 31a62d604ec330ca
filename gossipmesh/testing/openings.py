"""Whether every node of a mesh under test answers calls: what a scenario waits for."""

from gossipmesh.testing.mesh import Mesh


async def not_open(mesh: Mesh) -> str | None:
    """Return which node answers no call yet, and why; None when all do."""
    for name, node in mesh.nodes.items():
        status = await node.status()
        if status["opening"]["closed"]:
            return f"{name} is closed: {status['opening']['why']}"
        if not (status["engine"]["acked"] and status["engine"]["answering"]):
            return f"the engine of {name} is {status['engine']}"
    return None
