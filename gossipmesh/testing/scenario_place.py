"""Where the mesh of a chaos scenario lives, what its agents run, and what they are configured with for it."""

from typing import Any

from gossipmesh.testing import address_moves, mixed_versions
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.namespaces import LoopbackNetwork, NamespaceNetwork
from gossipmesh.testing.scenario import Scenario, needs_root
from gossipmesh.testing.shifted_clocks import ShiftedClocks


def place_of(scenario: Scenario) -> dict[str, Any]:
    """Return the network of a scenario's mesh, and its `config`, as `Mesh` takes them."""
    config = {"keyPeriod": scenario.mesh.key_period} if scenario.mesh.key_period else {}
    if scenario.mesh.addresses == "found":
        return {"network": address_moves.MovableNetwork(), "config": address_moves.EVERYWHERE | config}
    return {"network": NamespaceNetwork() if needs_root(scenario) else LoopbackNetwork(), "config": config}


async def start_mesh(scenario: Scenario, mesh: Mesh) -> None:
    """Start everything, each node with what the scenario has it run, and wait until all serve.

    Raises:
        OperatorError: what it is to run is not on this machine, or does not start.
    """
    if scenario.mesh.programs == "older":
        await mesh.start(mixed_versions.programs(mesh))
        return
    if scenario.mesh.programs == "faketime":
        clocks = ShiftedClocks(mesh)
        mesh.programs.update({name: clocks.program(name) for name in mesh.nodes})
        await mesh.start()
        clocks.unlink_shared_memory()
        return
    await mesh.start()
