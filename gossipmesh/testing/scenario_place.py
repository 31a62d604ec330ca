"""Where the mesh of a chaos scenario lives, and what its agents are configured with for it."""

from typing import Any

from gossipmesh.testing import address_moves
from gossipmesh.testing.namespaces import LoopbackNetwork, NamespaceNetwork
from gossipmesh.testing.scenario import Scenario, needs_root


def place_of(scenario: Scenario) -> dict[str, Any]:
    """Return the network of a scenario's mesh, and its `config`, as `Mesh` takes them."""
    config = {"keyPeriod": scenario.mesh.key_period} if scenario.mesh.key_period else {}
    if scenario.mesh.addresses == "found":
        return {"network": address_moves.MovableNetwork(), "config": address_moves.EVERYWHERE | config}
    return {"network": NamespaceNetwork() if needs_root(scenario) else LoopbackNetwork(), "config": config}
