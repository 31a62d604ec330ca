"""A stolen credential key, for tests: Trust that drops it, the roll, and what its thief signs."""

from collections.abc import Iterable

import msgspec

from gossipmesh.model.documents import Signer, SignerRole, TrustDocument
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import NodeCredential, RecordKind, SignedRecord
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, decode_envelope_untrusted, seal_envelope
from gossipmesh.trust.keys import SigningKey, key_id
from gossipmesh.trust.records import sign_record
from gossipmesh.trust.roll import Roll, make_roll
from gossipmesh.wire.versions import MEMBER_FEATURES
from tests.unit.gossip.group import (
    AUTHORITY,
    DOMAIN,
    ROOT,
    Group,
    credential_of,
    key_of,
    trust_envelope,
)

NEXT = key_of("the next authority")
NEXT_ID = key_id(NEXT.public)


def signed(credential: NodeCredential, key: SigningKey = AUTHORITY) -> SignedRecord:
    """Return a credential as a key signs it; the stolen one, if not said."""
    return sign_record(DOMAIN, RecordKind.CREDENTIAL, credential, key)


def tombstone_of(name: str, generation: int = 2) -> NodeCredential:
    """Return what takes a name out of the mesh."""
    credential = credential_of(name, generation=generation)
    return msgspec.structs.replace(credential, signing_key=b"", exchange_key=b"", service_patterns=())


def roll_of(credentials: Iterable[NodeCredential], key: SigningKey = NEXT) -> Roll:
    """Return the roll of these, signed anew."""
    ordered = sorted(credentials, key=lambda credential: credential.node_id)
    return make_roll(DOMAIN, [signed(credential, key) for credential in ordered])


def dropping(roll: Roll | None, version: int = 2, keys: Iterable[SigningKey] = (NEXT,)) -> bytes:
    """Return a version of Trust that names these credential keys alone, and this roll."""
    opened = decode_envelope_untrusted(trust_envelope(version))
    document = msgspec.json.decode(opened.payload, type=TrustDocument)
    named = tuple(
        Signer(f"authority-{number}", SignerRole.CREDENTIAL, key.public.hex())
        for number, key in enumerate(keys, 2)
    )
    others = tuple(signer for signer in document.signers if signer.role is SignerRole.POLICY)
    changed = msgspec.structs.replace(
        document, signers=(*named, *others), roll="" if roll is None else roll.name
    )
    return seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(changed), [ROOT]).to_bytes()


def mesh(names: str, *, and_not: str = "") -> Group:
    """Return a mesh at rest of nodes of this build; hosts of `and_not` are down."""
    group = Group(f"{names} {and_not}".strip())
    group.features = MEMBER_FEATURES
    first, *others = names.split()
    group.start(first)
    for name in others:
        group.start(name, first)
    group.run(6)
    assert group.converged()
    return group


def give_trust(group: Group, at: str, envelope: bytes) -> None:
    """Offer Trust to a node."""
    group.perform(group.hosts[at], group.node(at).offer_trust(envelope, Instant(group.now)))


def give_roll(group: Group, at: str, roll: Roll) -> None:
    """Offer each piece of a roll to a node."""
    for piece in roll.pieces:
        group.perform(group.hosts[at], group.node(at).offer_roll(piece, Instant(group.now)))


def give_credential(group: Group, at: str, record: SignedRecord) -> None:
    """Offer a credential to a node."""
    group.perform(group.hosts[at], group.node(at).offer_credential(record, Instant(group.now)))


def signers_at(group: Group, at: str) -> dict[str, bytes]:
    """Return whose key signed each member's credential, as a node holds it."""
    return {member.name: bytes(member.signer) for member in group.node(at)._catalog}


def all_by(group: Group, names: str, key_id: bytes = NEXT_ID) -> bool:
    """Tell whether every running node holds just these members, all signed by one key."""
    expected = dict.fromkeys(names.split(), key_id)
    running = [name for name, host in group.hosts.items() if host.node is not None]
    return all(signers_at(group, name) == expected for name in running)
