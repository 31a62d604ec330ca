"""Whether nodes of a mesh under test answer calls: what a scenario waits for."""

from gossipmesh.testing.mesh import Mesh, MeshNode


async def not_open(mesh: Mesh) -> str | None:
    """Return which node answers no call yet, and why; None when all do."""
    for node in mesh.nodes.values():
        why = await closed_at(node)
        if why is not None:
            return why
    return None


async def closed_at(node: MeshNode) -> str | None:
    """Return why a node answers no call yet; None when it does."""
    status = await node.status()
    if status["opening"]["closed"]:
        return f"{node.name} is closed: {status['opening']['why']}"
    if not (status["engine"]["acked"] and status["engine"]["answering"]):
        return f"the engine of {node.name} is {status['engine']}"
    return None
