"""Joiners that must stay closed although others are there: run as a program, by `test_opening.py`.

Usage: python -m tests.e2e.opening_scenes kept-off|unverifiable DIRECTORY. Prints what was seen as one JSON
object. Each node is in a network namespace of its own.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trio

from gossipmesh.testing import layout
from gossipmesh.testing.forgery import tampered
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.namespaces import NamespaceNetwork, enter_private_network
from gossipmesh.testing.stolen_node_key import bundle_of, http_service
from gossipmesh.testing.thief import Caller, loot_of
from gossipmesh.testing.waiting import wait_until
from tests.e2e.closed_scenes import FOUR, end, push, readiness_is, row_of, seed

JOINER: Final = "node4"
CLOSED_FOR_S: Final = 5.0
FEWER_S: Final = 100.0  # a minute, and a start of everything
SCOPE: Final = "mesh"
TABLE: Final = "kept_off"

# The same agent, to whom every signature is good: it runs, and offers, what nobody else can verify.
LIAR: Final = [
    sys.executable,
    "-c",
    "import pathlib, sys, trio\n"
    "from gossipmesh.trust.keys import Verifier\n"
    "Verifier.verify = lambda *_: True\n"
    "from gossipmesh.agent.app import run_agent\n"
    "from gossipmesh.agent.config import read_config\n"
    "trio.run(run_agent, read_config(pathlib.Path(sys.argv[-1])))",
]


async def kept_off(directory: Path) -> dict[str, Any]:
    """A joiner is enrolled and its mesh port reachable, and no packet of gossip passes, by UDP or TCP."""
    network = NamespaceNetwork()
    with Mesh(FOUR, network=network, directory=directory) as mesh:
        await begin(mesh, network, directory)
        joiner = mesh.nodes[JOINER]
        network.drop(TABLE, gossip_of(joiner))
        mesh.start_agent(JOINER)
        closed = await readiness_is(joiner, 503, "closed: ")
        callers = callers_of(mesh.nodes["node1"])
        called = await call(callers, joiner)
        await trio.sleep(CLOSED_FOR_S)
        still = await readiness_is(joiner, 503, "closed: ")
        check = await row_of(joiner, "opening")
        beside = await call(callers, mesh.nodes["node2"])
        dropped = network.let_pass(TABLE)
        opened = await readiness_is(joiner, 200)
        await mesh.wait_passing(4, on=["node1"])
        await wait_until("the joiner answers calls", lambda: _not_served(callers, joiner), 20.0)
        return {
            "closed": closed,
            "called": called,
            "still": still,
            "check": check,
            "beside": beside,
            "dropped": dropped,
            "opened": opened,
            "called_later": await call(callers, joiner),
        }


async def unverifiable(directory: Path) -> dict[str, Any]:
    """A joiner meets one member alone, which runs a set nobody can verify; then honest ones come back."""
    network = NamespaceNetwork()
    with Mesh(FOUR, network=network, directory=directory) as mesh:
        await begin(mesh, network, directory)
        liar, joiner = mesh.nodes["node1"], mesh.nodes[JOINER]
        await end(mesh, ["node1"])
        mesh.start_agent("node1", LIAR)
        await readiness_is(liar, 200)
        await offer_forged(liar)
        honest = ["node2", "node3"]
        beside = [(await readiness_is(mesh.nodes[name], 200)) for name in honest]
        refused = [await refusals(mesh.nodes[name]) for name in honest]
        await end(mesh, honest)
        seed(joiner, [f"{liar.host}:{layout.GOSSIP_PORT}"])
        mesh.start_agent(JOINER)
        closed = await readiness_is(joiner, 503, "cannot verify")
        await trio.sleep(FEWER_S - 30.0)  # the minute after which one member would be enough
        still = await readiness_is(joiner, 503, "cannot verify")
        for name in honest:
            mesh.start_agent(name)
        restarted = [(await readiness_is(mesh.nodes[name], 200)) for name in honest]
        opened = await readiness_is(joiner, 200, within_s=FEWER_S)
        policies = (await joiner.ask("/v1/policy/status"))["scopes"]
        return {
            "beside": beside,
            "refused": refused,
            "closed": closed,
            "still": still,
            "restarted": restarted,
            "opened": opened,
            "policy": [row["version"] for row in policies],
        }


async def begin(mesh: Mesh, network: NamespaceNetwork, directory: Path) -> None:
    """Have all but the joiner run, with a policy set in force."""
    await mesh.start_authority(init=True)
    for name, node in mesh.nodes.items():
        network.attach(node.layout.number, mesh.keeper)
        await mesh.prepare_node(name)
        mesh.start_workloads(name)
    for name in mesh.nodes:
        if name != JOINER:
            mesh.start_agent(name)
            await readiness_is(mesh.nodes[name], 200)
    assert await push(mesh, directory) == 0


def gossip_of(node: MeshNode) -> list[str]:
    """Return what matches a node's gossip packets, its own and others', by UDP and TCP."""
    port = layout.GOSSIP_PORT
    return [
        f"ip {side} {node.host} {protocol} {end_} {port}"
        for side in ("saddr", "daddr")
        for protocol in ("udp", "tcp")
        for end_ in ("sport", "dport")
    ]


def callers_of(node: MeshNode) -> dict[str, Caller]:
    """Return who calls mesh ports with each key that a node shows."""
    bundle = bundle_of(node)
    return {one.label: Caller(one, bundle) for one in loot_of(node.directory / "state" / "identity")}


async def call(callers: dict[str, Caller], node: MeshNode) -> dict[str, str]:
    return {label: await caller.call(node, http_service(node)) for label, caller in callers.items()}


async def _not_served(callers: dict[str, Caller], node: MeshNode) -> str | None:
    met = await call(callers, node)
    return None if "served" in met.values() else str(met)


async def offer_forged(liar: MeshNode) -> None:
    """Have the liar run the set in force as somebody without the signer's key would change it."""
    genuine = await liar.ask(f"/v1/policy/set?scope={SCOPE}")
    await liar.ask("/v1/policy/offer", method="POST", body=tampered(genuine))


async def refusals(node: MeshNode) -> Sequence[Any]:
    """Return the version and code a node refused last, once it refused one."""
    seen: list[Any] = []

    async def refused() -> str | None:
        (row,) = (await node.ask("/v1/policy/status"))["scopes"]
        seen[:] = [row["version"], row["refused_version"], bool(row["refused_reason"])]
        return None if row["refused_version"] else "it has refused nothing yet"

    await wait_until(f"{node.name} refuses the forged set", refused, 20.0)
    return seen


SCENES = {"kept-off": kept_off, "unverifiable": unverifiable}

if __name__ == "__main__":
    enter_private_network(["-m", "tests.e2e.opening_scenes", *sys.argv[1:]])
    print(json.dumps(trio.run(SCENES[sys.argv[1]], Path(sys.argv[2]))))
