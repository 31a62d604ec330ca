"""A policy signer's key is stolen, the scope is shut for good, and one command undoes it: real processes.

The thief has a node as well: what no agent publishes it puts on its disk, and gossip carries it.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model.documents import first_version_of
from gossipmesh.testing import layout
from gossipmesh.testing.admin import AdminError
from gossipmesh.testing.layout import MeshLayout, NodeLayout, ServiceLayout
from gossipmesh.testing.mesh import Mesh
from gossipmesh.trust.keys import SigningKey
from gossipmesh.trust.manifest import BaseSet, SignedSet, build_manifest, sign_set
from gossipmesh.trust.pem import signing_key_from_pem_untrusted
from gossipmesh.wire.codec import encode

NEXT = first_version_of(1)
THIEF = "node3"
CART = ServiceLayout("cart", "v1", "http")


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    nodes = tuple(NodeLayout(f"node{n}", n, (CART,) if n == 2 else ()) for n in (1, 2, 3))
    with Mesh(MeshLayout(nodes)) as mesh:
        trio.run(mesh.start)
        yield mesh


def stolen(key: SigningKey, version: int) -> SignedSet:
    """Return an empty set, which opens everything, of a version of the thief's choice."""
    base = BaseSet(version - 1, b"", {}, {})
    manifest = build_manifest(base, {}, trust_domain=layout.TRUST_DOMAIN, scope="mesh", created=1)
    return sign_set(manifest, {}, [key])


async def refusal(mesh: Mesh, node: str, signed: SignedSet) -> str:
    """Offer a set to a node and return the code it is refused with."""
    with pytest.raises(AdminError) as error:
        await mesh.nodes[node].ask("/v1/policy/offer", method="POST", body=signed.policy_set.to_bytes())
    return error.value.code


async def plant(mesh: Mesh, signed: SignedSet) -> None:
    """Have the thief's agent find a set in force on its own disk."""
    node = mesh.nodes[THIEF]
    assert node.agent is not None
    node.agent.send_signal(signal.SIGTERM)
    await mesh.wait_ended(THIEF)
    store = StateStore(node.directory / "state")
    floor = encode([signed.manifest.version, signed.manifest_hash])
    store.put_all(
        [
            (PersistKind.POLICY_SET, b"mesh", signed.policy_set.to_bytes()),
            (PersistKind.FLOOR, b"mesh", floor),
        ],
        durable=True,
    )
    store.close()
    mesh.start_agent(THIEF)


async def test_a_stolen_signer_is_undone_by_one_command(mesh: Mesh, tmp_path: Path) -> None:
    canary = tmp_path / "canary.yaml"
    layout.write_policy(canary, layout.canary(90, 10))
    assert (await mesh.push(canary, "node1", "--wait")).code == 0
    former = tmp_path / "stolen.key"
    former.touch(mode=0o600)
    former.write_bytes(mesh.signer_key.read_bytes())
    key = signing_key_from_pem_untrusted(former.read_bytes())

    assert await refusal(mesh, "node2", stolen(key, 2**53)) == "generation"
    await plant(mesh, stolen(key, NEXT - 1))
    await mesh.wait_policy(NEXT - 1)
    shut = await mesh.push(canary, "node1", "--wait")
    assert shut.code == 1
    assert "generation" in shut.stderr

    words = ("authority", "rotate", "signer", "policy", "--dir", str(mesh.directory / "authority"))
    told = await mesh.must(*words, "-f", str(canary), node="node2")
    assert "all 3 members run it" in told
    await mesh.wait_policy(NEXT + 1)

    layout.write_policy(canary, layout.canary(50, 50))
    pushed = await mesh.push(canary, "node1", "--wait", "-o", "json")
    assert pushed.code == 0, pushed.stderr
    assert json.loads(pushed.stdout)["version"] == NEXT + 2
    await mesh.wait_policy(NEXT + 2)

    assert await refusal(mesh, "node1", stolen(key, NEXT + 3)) == "signature"
    assert (await mesh.push(canary, "node1", "--accept-signer", key.public.hex(), key=former)).code == 1
    await plant(mesh, stolen(key, NEXT - 1))
    await mesh.wait_policy(NEXT + 2)
