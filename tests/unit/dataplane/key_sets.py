"""A fleet whose nodes sign key sets, as engines are told of it: who lists which keys, who is revoked.

Certificates are made as an authority makes them, and by the carrier; a thief may have made others.
"""

from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.model.identity import node_id_of, node_spiffe_id, service_spiffe_id
from gossipmesh.model.snapshot import HAS_KEY_SETS, SnapshotEndpoint, UpstreamSection
from gossipmesh.testing.peer_sections import peer_sections
from gossipmesh.traffic.sections import Snapshot, encode_section, make_snapshot
from gossipmesh.trust.carrier import carrier_leaf_pem, carrier_root_pem
from gossipmesh.trust.leaf_serial import encode_leaf_serial
from gossipmesh.trust.pins import pin_of
from gossipmesh.trust.svid import read_leaf_key_untrusted
from tests.conformance.peers.certificates import Leaf, ca, key_pem, p256
from tests.unit.dataplane.certificates import TRUST_DOMAIN
from tests.unit.dataplane.engine_kit import CART, WEB, Node

GENERATION, SERIAL = 1_700_000_000, 1_700_000_500
ROOT = ca("gossipmesh root", 101)
ISSUING = ca("gossipmesh issuing", 102, ROOT)
CARRIER = carrier_root_pem(TRUST_DOMAIN)
_SERVICES = (CART, WEB, service_spiffe_id(TRUST_DOMAIN, "shop/db"))


def short_id(node: str) -> bytes:
    return node_id_of(node_spiffe_id(TRUST_DOMAIN, node))[:8]


def pin(spiffe_id: str, pem: bytes) -> bytes:
    key = read_leaf_key_untrusted(pem).public_key()
    return pin_of(spiffe_id, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def identity(
    spiffe_id: str, node: str, label: int, *, generation: int = GENERATION, serial: int = SERIAL
) -> Identity:
    """Return an identity with both its leaves; keys of one label are one key."""
    key = p256(label)
    number = encode_leaf_serial(node_id_of(node_spiffe_id(TRUST_DOMAIN, node)), generation, serial, 0)
    chain = Leaf(spiffe_id, key, number).signed(ISSUING)
    pem = b"".join(one.public_bytes(Encoding.PEM) for one in chain)
    carried = carrier_leaf_pem(TRUST_DOMAIN, spiffe_id, key_pem(key), number)
    return Identity(spiffe_id, pem, key_pem(key), carried)


def carried_only(one: Identity) -> Identity:
    """Return an identity whose authority is gone for good."""
    return msgspec.structs.replace(one, chain_pem=b"")


@dataclass
class Fleet:
    """Who lists which keys. `labels`: node -> label of the key it uses for all it is."""

    labels: dict[str, int]
    said: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    hears: bool = True
    revoked_leaves: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for node in self.labels:
            self.said.setdefault(node, (GENERATION, SERIAL, HAS_KEY_SETS))

    def identities(self, node: str) -> list[Identity]:
        """Return what a node's agent gives its engine."""
        names = (node_spiffe_id(TRUST_DOMAIN, node), *_SERVICES)
        return [identity(name, node, self.labels[node]) for name in names]

    def pins(self, node: str, spiffe_id: str) -> tuple[bytes, ...]:
        """Return what a node's key set lists."""
        return (pin(spiffe_id, key_pem(p256(self.labels[node]))),)

    def told(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with what is known of the fleet, its endpoints' pins among it."""
        sections = peer_sections(
            (ISSUING.pem,),
            {
                one: short_id(node)
                for node in self.labels
                for name in (node_spiffe_id(TRUST_DOMAIN, node), *_SERVICES)
                for one in self.pins(node, name)
                if node in self.said
            },
            {short_id(node): numbers for node, numbers in self.said.items()},
            hears=self.hears,
            revoked_leaves=self.revoked_leaves,
        )
        plain = {name: snapshot.sections[digest] for name, digest in snapshot.root.items()}
        for name in snapshot.root:
            section = snapshot.section(name)
            if isinstance(section, UpstreamSection):
                endpoints = tuple(self._with_pins(one) for one in section.endpoints)
                plain[name] = encode_section(msgspec.structs.replace(section, endpoints=endpoints))
        return make_snapshot({**plain, **{name: encode_section(one) for name, one in sections.items()}})

    def _with_pins(self, endpoint: SnapshotEndpoint) -> SnapshotEndpoint:
        return msgspec.structs.replace(endpoint, pins=self.pins(endpoint.node, endpoint.spiffe_id))

    async def identify(self, node: Node, *instead: Identity) -> None:
        """Give a node's engine its identities, or others in their place."""
        others = {one.spiffe_id: one for one in instead}
        own = [others.get(one.spiffe_id, one) for one in self.identities(node.name)]
        roots = ROOT.pem.encode()
        await node.client.apply_identities(own, roots, CARRIER)

    async def tell(self, node: Node, snapshot: Snapshot) -> None:
        """Give a node's engine a snapshot with what is known of the fleet."""
        await node.client.apply_snapshot(self.told(snapshot))
