"""Whether an engine still answers callers: asked by another node, and by an application on its own machine.

`python -m gossipmesh.testing.knock mesh HOST PORT NODE IDENTITY [PIN]` shakes hands with the mesh port of
NODE's engine as the node whose identity folder is given, with a PIN taking that key and no other;
`... proxy HOST PORT AUTHORITY` asks a proxy port for a page. Prints one word: `answered`, `refused` (nobody
listens there) or `silent`. It is a process so that it can be started inside another network namespace.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from gossipmesh.agent.identity.identity_store import load_identity
from gossipmesh.model.identity import SHORT_ID_BYTES, node_id_of, node_spiffe_id
from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import HAS_KEY_SETS
from gossipmesh.net.engine_probe import EngineAnswer, Trusted, ask_engine
from gossipmesh.net.interpreter import module_words
from gossipmesh.testing import layout
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.trust.carrier import carrier_root_pem
from gossipmesh.trust.peer_identity import Dialled
from gossipmesh.trust.peer_tables import CredentialTable

TIMEOUT_S: Final = 5.0
COMMAND_TIMEOUT_S: Final = 30.0
NUMBER_BYTES: Final = 8  # a generation, a serial
ASKED_FOR: Final = "cart.shop"
KNOCK: Final = module_words("gossipmesh.testing.knock")


async def knock_mesh(address: Address, node: str, identity_folder: Path, pin: str = "") -> EngineAnswer:
    """Shake hands with the engine of `node` by mTLS, as the node whose identity is kept in a folder.

    With a `pin` (hex) the node is taken for itself by that key alone, whoever issued its certificate.
    """
    identity = load_identity(identity_folder)
    if identity is None:
        raise FileNotFoundError(f"{identity_folder} holds no identity")
    name = f"{node}.node.{identity.trust_domain}"
    expected = node_spiffe_id(identity.trust_domain, node)
    trusted, dialled = Trusted.of_roots(identity.trust_domain, identity.bundle_pem), Dialled(expected)
    if pin:
        short_id = node_id_of(expected)[:SHORT_ID_BYTES]
        entry = short_id + bytes(2 * NUMBER_BYTES) + bytes([HAS_KEY_SETS])
        facts = replace(
            trusted.facts, intermediates=frozenset(), credentials=CredentialTable({short_id[0]: entry})
        )
        trusted = Trusted(facts, identity.bundle_pem, carrier_root_pem(identity.trust_domain))
        dialled = Dialled(expected, short_id, (bytes.fromhex(pin),))
    return await ask_engine([address], name, dialled, identity.node_svid, trusted, TIMEOUT_S)


async def knock_proxy(address: Address, authority: str) -> EngineAnswer:
    """Ask a proxy port for a page, as an application does; any status is an answer."""
    request = f"GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode()
    with trio.move_on_after(TIMEOUT_S):
        try:
            stream = await trio.open_tcp_stream(address.host, address.port)
        except OSError:
            return EngineAnswer.REFUSED
        async with stream:
            try:
                await stream.send_all(request)
                if (await stream.receive_some()).startswith(b"HTTP/"):
                    return EngineAnswer.ANSWERED
            except trio.BrokenResourceError:
                return EngineAnswer.SILENT
    return EngineAnswer.SILENT


async def knock_at(mesh: Mesh, node: MeshNode, by: MeshNode) -> dict[str, str]:
    """Return what another node meets at `node`'s mesh port, and a local application at its proxy."""
    there = [node.host, str(layout.MESH_PORT), node.name, str(by.directory / "state" / "identity")]
    here = [node.local_host, str(layout.PROXY_PORT), ASKED_FOR]
    answers = {}

    async def knock(what: str, number: int, words: list[str]) -> None:
        command = [*mesh.network.prefix(number), *KNOCK, what, *words]
        result = await mesh.keeper.command(command, timeout_s=COMMAND_TIMEOUT_S)
        answers[what] = result.stdout.strip() or f"failed: {result.stderr.strip()[-300:]}"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(knock, "mesh", by.layout.number, there)
        nursery.start_soon(knock, "proxy", node.layout.number, here)
    return answers


async def meets_key(mesh: Mesh, node: MeshNode, by: MeshNode, pin: str) -> str:
    """Return what another node meets at `node`'s mesh port that takes one key for its, and no other."""
    there = [node.host, str(layout.MESH_PORT), node.name, str(by.directory / "state" / "identity"), pin]
    command = [*mesh.network.prefix(by.layout.number), *KNOCK, "mesh", *there]
    result = await mesh.keeper.command(command, timeout_s=COMMAND_TIMEOUT_S)
    return result.stdout.strip() or f"failed: {result.stderr.strip()[-300:]}"


async def _knock(words: list[str]) -> EngineAnswer:
    what, host, port, name, *more = words
    address = Address(host, int(port))
    if what == "mesh":
        return await knock_mesh(address, name, Path(more[0]), *more[1:])
    return await knock_proxy(address, name)


if __name__ == "__main__":
    print(trio.run(_knock, sys.argv[1:]).value)  # noqa: T201
