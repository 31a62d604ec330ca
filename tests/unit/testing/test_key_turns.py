"""When a scenario that waits for the turn of all peers' keys goes on."""

from types import SimpleNamespace
from typing import Any, cast

import trio

from gossipmesh.testing.key_turns import PeersTurned
from gossipmesh.testing.mesh import Mesh


class Node:
    """Answers /v1/keys."""

    def __init__(self, name: str, turns: int) -> None:
        self.name = name
        self.keys: dict[str, Any] = {"turns": turns, "settled": True}

    async def ask(self, path: str) -> dict[str, Any]:
        assert path == "/v1/keys"
        return self.keys


def test_everybody_but_the_victim_has_turned_once_more_than_at_first_and_is_settled() -> None:
    victim, one, other = nodes = Node("victim", 0), Node("one", 1), Node("other", 0)
    mesh = cast(Mesh, SimpleNamespace(nodes={node.name: node for node in nodes}))
    peers = PeersTurned(mesh, victim.name)
    assert trio.run(peers.missing) == "keys are as before, or not settled, on one, other"
    one.keys["turns"] = 2
    assert trio.run(peers.missing) == "keys are as before, or not settled, on other"
    other.keys = {"turns": 1, "settled": False}
    assert trio.run(peers.missing) == "keys are as before, or not settled, on other"
    other.keys["settled"] = True
    assert trio.run(peers.missing) is None
