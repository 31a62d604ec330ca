"""A stolen join token and a stolen Ed25519 key, used against real processes; and what undoes each."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gossipmesh.agent.identity.identity_store import NodeIdentity, load_identity
from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model.records import IdentityPins, KeySet, RecordKind, SignedRecord
from gossipmesh.net.entropy import random_bytes
from gossipmesh.testing import layout
from gossipmesh.testing.layout import MeshLayout, NodeLayout, ServiceLayout
from gossipmesh.testing.mesh import GOSSIPMESH, Mesh, MeshNode
from gossipmesh.testing.stolen_node_key import bundle_of, call_all
from gossipmesh.testing.thief import REFUSED, SERVED, Caller, Loot, loot_of
from gossipmesh.testing.waiting import wait_until
from gossipmesh.trust.carrier import carrier_leaf_pem
from gossipmesh.trust.leaf_serial import encode_leaf_serial
from gossipmesh.trust.pins import pin_of
from gossipmesh.trust.records import sign_record
from gossipmesh.trust.svid import LEAF_ENTROPY_BYTES, leaf_key_pem, spki_of_key
from gossipmesh.wire.codec import decode_untrusted, encode

CART = ServiceLayout("cart", "v1", "http")
OWNER, THIEF = "node3", "node4"
EXIT_REPLACED, EXIT_REVOKED = 78, 77
WITHIN_S = 30.0


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    """Four nodes, none started; the last is the thief's machine."""
    nodes = tuple(NodeLayout(f"node{n}", n, (CART,)) for n in (1, 2, 3, 4))
    with Mesh(MeshLayout(nodes)) as mesh:
        yield mesh


async def begin(mesh: Mesh, *names: str) -> None:
    await mesh.start_authority(init=True)
    for name in mesh.nodes:
        await mesh.prepare_node(name)
        mesh.start_workloads(name)
    for name in names:
        mesh.start_agent(name)
    await mesh.wait_statuses(dict.fromkeys(names, "alive"), on=names, timeout_s=40.0)


def callers_with(folder: Path, bundle_pem: bytes) -> dict[str, Caller]:
    return {one.label: Caller(one, bundle_pem) for one in loot_of(folder / "state" / "identity")}


async def wait_met(what: str, callers: dict[str, Caller], nodes: list[MeshNode]) -> None:
    """Wait until a call with one of the keys is served at each node, or all are refused at each."""

    async def met() -> str | None:
        rows = (await call_all(callers, nodes)).values()
        held = [SERVED in row.values() if what == SERVED else set(row.values()) == {REFUSED} for row in rows]
        return None if all(held) else f"{rows}"

    await wait_until(f"the thief is {what}", met, WITHIN_S)


async def join_by(mesh: Mesh, token: Path, node: MeshNode) -> tuple[int, str]:
    """Start an agent that has to enrol with a token; return its exit code and its sentence."""
    words = ["agent", "--config", str(node.config_path), "--token-file", str(token)]
    done = await mesh.keeper.command([*GOSSIPMESH, *words], timeout_s=60.0)
    return done.code, done.stderr


async def test_a_stolen_join_token_is_told_to_its_node_and_undone_by_enrolling_it(mesh: Mesh) -> None:
    """Whoever redeems it first is the node, once; the owner hears so, and a new token ends the thief."""
    await begin(mesh, "node1", "node2")
    owner, thief = mesh.nodes[OWNER], mesh.nodes[THIEF]
    token = owner.directory / "token"
    stolen = thief.directory / "token"
    stolen.write_bytes(token.read_bytes())
    mesh.start_agent(THIEF)
    await mesh.wait_statuses({OWNER: "alive"}, on=["node1", "node2"], timeout_s=40.0)
    others = [mesh.nodes["node1"], mesh.nodes["node2"]]
    callers = callers_with(thief.directory, bundle_of(thief))
    await wait_met(SERVED, callers, others)

    code, said = await join_by(mesh, token, owner)
    assert code == 1
    assert "was used already" in said

    assert thief.agent is not None
    anew = owner.directory / "anew"
    await mesh.create_token(OWNER, anew)
    document = json.loads(owner.config_path.read_text())
    document["spec"]["tokenFile"] = str(anew)
    layout.write_document(owner.config_path, document)
    mesh.start_agent(OWNER)
    await mesh.wait_ended(THIEF)
    assert thief.agent.returncode == EXIT_REPLACED
    await mesh.wait_statuses({OWNER: "alive"}, on=["node1", "node2", OWNER], timeout_s=40.0)
    await wait_met(REFUSED, callers, others)
    await wait_met(SERVED, callers_with(owner.directory, bundle_of(owner)), others)


def forged_key_set(identity: NodeIdentity, held: SignedRecord, key_pem: bytes) -> SignedRecord:
    """Return a key set of a node, signed with its key above its own; it lists a TLS key of the thief's."""
    keys = decode_untrusted(held.body, KeySet, bytes_max=65_536)
    entries = tuple(
        IdentityPins(one.path, (pin_of(f"spiffe://{identity.trust_domain}{one.path}", spki_of_key(key_pem)),))
        for one in keys.entries
    )
    forged = KeySet(keys.node_id, keys.generation, keys.epoch, keys.sequence + 100, entries)
    return sign_record(identity.trust_domain, RecordKind.KEY_SET, forged, identity.signing)


async def plant(mesh: Mesh, name: str, owner: NodeIdentity, key_pem: bytes) -> None:
    """Have an agent find a forged key set of another node on its own disk; gossip carries it on."""
    node = mesh.nodes[name]
    assert node.agent is not None
    node.agent.send_signal(signal.SIGTERM)
    await mesh.wait_ended(name)
    store = StateStore(node.directory / "state")
    node_id = owner.credential_body.node_id
    kept = store.get(PersistKind.MEMBER, node_id)
    assert kept is not None
    records = list(decode_untrusted(kept, tuple[SignedRecord, ...], bytes_max=1_048_576))
    (at,) = (at for at, record in enumerate(records) if record.kind == RecordKind.KEY_SET)
    records[at] = forged_key_set(owner, records[at], key_pem)
    store.put_all([(PersistKind.MEMBER, bytes(node_id), encode(tuple(records)))], durable=True)
    store.close()
    mesh.start_agent(name)


async def test_a_stolen_ed25519_key_is_told_everywhere_overruled_and_ended_by_a_revocation(
    mesh: Mesh,
) -> None:
    """The thief lists a TLS key of its own for a node that lives; that node signs above it and says so."""
    await begin(mesh, *mesh.nodes)
    owner = mesh.nodes[OWNER]
    identity = load_identity(owner.directory / "state" / "identity")
    assert identity is not None
    key_pem = leaf_key_pem(random_bytes(LEAF_ENTROPY_BYTES))
    number = encode_leaf_serial(identity.credential_body.node_id, identity.credential_body.generation, 0, 0)
    shown = carrier_leaf_pem(identity.trust_domain, identity.spiffe_id, key_pem, number)
    thief = {"thief": Caller(Loot("own key", identity.spiffe_id, shown, key_pem), bundle_of(owner))}
    others = [mesh.nodes["node1"], mesh.nodes["node2"]]
    await wait_met(REFUSED, thief, others)

    await plant(mesh, THIEF, identity, key_pem)

    async def told() -> str | None:
        rows = await owner.ask("/v1/check")
        found = [row for row in rows if row["name"] == "foreign keys" and row["mark"] == "FAIL"]
        members = await mesh.nodes["node1"].ask("/v1/members")
        (member,) = (row for row in members if row["name"] == OWNER)
        return None if found and "foreign-keys" in member["features"] else f"{rows[-3:]}, {member}"

    await wait_until("the theft is told by its node and seen by others", told, WITHIN_S)
    await wait_met(REFUSED, thief, others)
    own = callers_with(owner.directory, bundle_of(owner))
    await wait_met(SERVED, own, others)

    words = ("authority", "revoke", OWNER, "--dir", str(mesh.directory / "authority"))
    said = await mesh.must(*words, "--wait", node="node1")
    assert "all 3 members hold it" in said
    await mesh.wait_ended(OWNER)
    assert owner.agent is not None
    assert owner.agent.returncode == EXIT_REVOKED
    await wait_met(REFUSED, own | thief, others)
