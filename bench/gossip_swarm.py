"""A mesh of signed members that only exist on paper, and a node made for it; for measurements of one core."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from gossipmesh.gossip.base.settings import GossipSettings, NodeKeys, NodeProfile, RestoredState
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.documents import Signer, SignerRole, TrustDocument
from gossipmesh.model.identity import (
    node_id_of,
    node_path,
    node_spiffe_id,
    service_path,
    workloads_path,
)
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.model.records import (
    IdentityPins,
    KeySet,
    NodeCredential,
    NodeState,
    RecordKind,
    ServiceSet,
    SignedRecord,
)
from gossipmesh.model.service import ServiceEntry
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, seal_envelope
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier
from gossipmesh.trust.pins import PIN_BYTES
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.codec import encode
from gossipmesh.wire.versions import FEATURES

WALL_OFFSET_S: Final = 1_700_000_000
MESH_PORT: Final = 15008
START: Final = Instant(SECOND_NS)


def _seed(name: str) -> bytes:
    return random.Random(name).randbytes(32)


@dataclass(frozen=True)
class Identity:
    """A node's keys and the credential an authority signed for them."""

    name: str
    address: Address
    signing: SigningKey
    exchange: ExchangeKey
    credential: SignedRecord


@dataclass(frozen=True)
class Swarm:
    """Who signs for the members, where they are said to be, and which services each has, by number.

    `pins_each`: how many TLS keys a member lists for each of its identities; 0: it signs no key set.
    """

    domain: str
    authority: SigningKey
    trust_envelopes: tuple[bytes, ...]
    address_of: Callable[[int], Address]
    services_of: Callable[[int], tuple[str, ...]]
    pins_each: int = 0

    def identity(self, number: int) -> Identity:
        """Return the identity of node `number`."""
        name = f"node-{number}"
        signing, exchange = SigningKey(_seed("sign " + name)), ExchangeKey(_seed("exchange " + name))
        spiffe_id = node_spiffe_id(self.domain, name)
        credential = NodeCredential(
            node_id=node_id_of(spiffe_id),
            spiffe_id=spiffe_id,
            generation=1,
            serial=1,
            signing_key=signing.public,
            exchange_key=exchange.public,
            spki_hashes=(_seed("spki " + name),),
            service_patterns=("shop/*",),
            not_before=0,
            ends=2**33,
        )
        record = sign_record(self.domain, RecordKind.CREDENTIAL, credential, self.authority)
        return Identity(name, self.address_of(number), signing, exchange, record)

    def records_of(self, number: int) -> tuple[bytes, bytes]:
        """Return (node id, kept value) of a member: a credential, a state, its services and its keys."""
        who = self.identity(number)
        node_id = node_id_of(node_spiffe_id(self.domain, who.name))
        state = NodeState(
            node_id=node_id,
            generation=1,
            epoch=1,
            sequence=2,
            name=who.name,
            gossip_addresses=(who.address,),
            mesh_addresses=(Address(who.address.host, MESH_PORT),),
            phase=0,
            build="0.3.0",
            wire_min=1,
            wire_max=1,
            features=FEATURES,
            run_id=random.Random(number).getrandbits(60) + 1,
        )
        entries = tuple(
            ServiceEntry(name, f"shop/{name}", "http", 1, False, 100, (("zone", "a"),))
            for name in self.services_of(number)
        )
        services = ServiceSet(node_id, 1, 1, 3, entries)
        records = [
            who.credential,
            sign_record(self.domain, RecordKind.NODE_STATE, state, who.signing),
            sign_record(self.domain, RecordKind.SERVICE_SET, services, who.signing),
        ]
        if self.pins_each:
            keys = KeySet(node_id, 1, 1, 4, self._entries_of(number))
            records.append(sign_record(self.domain, RecordKind.KEY_SET, keys, who.signing))
        return node_id, encode(records)

    def _entries_of(self, number: int) -> tuple[IdentityPins, ...]:
        """Return what a member lists: for itself, its workloads and each of its services."""
        name = f"node-{number}"
        services = [service_path(f"shop/{service}") for service in self.services_of(number)]
        paths = sorted([node_path(name), workloads_path(name), *services])
        pins = random.Random(f"pins {number}")
        return tuple(
            IdentityPins(path, tuple(pins.randbytes(PIN_BYTES) for _ in range(self.pins_each)))
            for path in paths
        )

    def node(
        self,
        number: int,
        members: tuple[tuple[bytes, bytes], ...] = (),
        *,
        now: Instant = START,
        wall_offset_s: int = WALL_OFFSET_S,
    ) -> GossipNode:
        """Return node `number`, which holds these members from an earlier run."""
        who = self.identity(number)
        verifier = Verifier(4_096)
        documents = TrustedDocuments(trust_domain=self.domain, verifier=verifier, features=FEATURES)
        for envelope in self.trust_envelopes:
            documents.load_trust_untrusted(envelope)
        return GossipNode(
            settings=GossipSettings(),
            trust_domain=self.domain,
            keys=NodeKeys(who.credential, who.signing, who.exchange),
            profile=NodeProfile(who.name, (who.address,), (Address(who.address.host, MESH_PORT),), "0.3.0"),
            documents=documents,
            verifier=verifier,
            restored=RestoredState(1, members),
            rng=random.Random(number),
            now=now,
            wall_offset_s=wall_offset_s,
        )


def paper_swarm(pins_each: int = 0) -> Swarm:
    """Return a swarm with an authority of its own, two services a member, at addresses nobody listens on."""
    domain = "mesh.example"
    authority, root = SigningKey(_seed("authority")), SigningKey(_seed("root"))
    trust = TrustDocument(
        version=1,
        trust_domain=domain,
        root_certificates=("pem",),
        intermediates=(),
        root_keys=(root.public.hex(),),
        root_threshold=1,
        signers=(Signer("authority", SignerRole.CREDENTIAL, authority.public.hex()),),
    )
    envelope = seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(trust), [root])
    return Swarm(
        domain,
        authority,
        (envelope.to_bytes(),),
        lambda number: Address(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 7948),
        lambda number: ("cart", "pay"),
        pins_each,
    )
