"""Signed records: every way to pass off one thing as another is refused."""

from collections.abc import Callable

import msgspec
import pytest

from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.identity import NodeId, node_id_of
from gossipmesh.model.records import RecordKind, ServiceSet, SignedRecord
from gossipmesh.testing.builders import TrustDomainBuilder
from gossipmesh.trust.keys import Verifier, key_id
from gossipmesh.trust.records import open_credential_untrusted, open_owned_untrusted, sign_record

BUILDER = TrustDomainBuilder()
NODE = BUILDER.node("n1")
OTHER = BUILDER.node("n2")
KEYS = {key_id(BUILDER.credential_key.public): BUILDER.credential_key.public}
SERVICES = ServiceSet(NODE.node_id, 1, 1, 1, ())


def credential(**changes: object) -> SignedRecord:
    """Return n1's credential, changed and then rightly signed."""
    value = open_credential_untrusted(NODE.credential, "mesh.test", KEYS, Verifier())
    changed = msgspec.structs.replace(value, **changes)
    return sign_record("mesh.test", RecordKind.CREDENTIAL, changed, BUILDER.credential_key)


def test_a_credential_opens() -> None:
    opened = open_credential_untrusted(NODE.credential, "mesh.test", KEYS, Verifier())
    assert opened.spiffe_id == "spiffe://mesh.test/node/n1"
    assert opened.signing_key == NODE.signing.public


FOREIGN = "spiffe://evil.test/node/n1"
SERVICE = "spiffe://mesh.test/ns/shop/svc/cart"
CREDENTIALS_REFUSED: list[tuple[str, Callable[[], SignedRecord]]] = [
    ("another id than its name's", lambda: credential(node_id=NodeId(b"\x00" * 16))),
    ("another trust domain", lambda: credential(spiffe_id=FOREIGN, node_id=node_id_of(FOREIGN))),
    ("a service's identity", lambda: credential(spiffe_id=SERVICE, node_id=node_id_of(SERVICE))),
    ("self-signed", lambda: sign_record("mesh.test", RecordKind.CREDENTIAL, SERVICES, NODE.signing)),
    ("unknown signer", lambda: msgspec.structs.replace(NODE.credential, key_id=b"nobody!!")),
    ("tampered", lambda: msgspec.structs.replace(NODE.credential, body=NODE.credential.body + b"\x00")),
    ("another kind", lambda: msgspec.structs.replace(NODE.credential, kind=int(RecordKind.NODE_STATE))),
]


@pytest.mark.parametrize(
    "make", [row[1] for row in CREDENTIALS_REFUSED], ids=[r[0] for r in CREDENTIALS_REFUSED]
)
def test_refuses_a_credential(make: Callable[[], SignedRecord]) -> None:
    with pytest.raises(MalformedInput):
        open_credential_untrusted(make(), "mesh.test", KEYS, Verifier())


def test_a_credential_of_another_mesh_does_not_verify_here() -> None:
    """The trust domain is part of what is signed, so even one key in two meshes confuses neither."""
    with pytest.raises(Untrusted):
        open_credential_untrusted(NODE.credential, "other.test", KEYS, Verifier())


def test_owned_records_open_with_their_owners_key_only() -> None:
    record = sign_record("mesh.test", RecordKind.SERVICE_SET, SERVICES, NODE.signing)
    assert open_owned_untrusted(record, "mesh.test", NODE.signing.public, Verifier()) == SERVICES
    with pytest.raises(Untrusted):
        open_owned_untrusted(record, "mesh.test", OTHER.signing.public, Verifier())


@pytest.mark.parametrize(
    "kind", [RecordKind.NODE_STATE, RecordKind.VERDICT, RecordKind.CREDENTIAL, 4, 99, -1, 300]
)
def test_a_record_does_not_pass_as_another_kind(kind: int) -> None:
    record = sign_record("mesh.test", RecordKind.SERVICE_SET, SERVICES, NODE.signing)
    with pytest.raises(MalformedInput):
        open_owned_untrusted(
            msgspec.structs.replace(record, kind=int(kind)), "mesh.test", NODE.signing.public, Verifier()
        )


def test_a_record_too_large_is_refused_before_its_signature_is_checked() -> None:
    verifier = Verifier()
    huge = SignedRecord(int(RecordKind.NODE_STATE), b"\x00" * 20_000, bytes(64))
    with pytest.raises(Untrusted):
        open_owned_untrusted(huge, "mesh.test", NODE.signing.public, verifier)
    assert verifier.computed_count == 0


def test_later_fields_are_ignored_so_that_records_can_grow() -> None:
    grown = [*msgspec.to_builtins(SERVICES, builtin_types=(bytes,)), "a field of the next release"]
    record = sign_record("mesh.test", RecordKind.SERVICE_SET, grown, NODE.signing)
    assert open_owned_untrusted(record, "mesh.test", NODE.signing.public, Verifier()) == SERVICES


def test_a_credential_over_a_key_of_small_order_is_refused() -> None:
    """With such a key one signature holds for messages nobody signed."""
    domain = TrustDomainBuilder()
    credential = open_credential_untrusted(
        domain.node("vm1").credential, "mesh.test", domain.documents().credential_keys, Verifier()
    )
    weak = msgspec.structs.replace(credential, signing_key=(1).to_bytes(32, "little"))
    record = sign_record("mesh.test", RecordKind.CREDENTIAL, weak, domain.credential_key)
    with pytest.raises(Untrusted, match="no Ed25519 key of anybody"):
        open_credential_untrusted(record, "mesh.test", domain.documents().credential_keys, Verifier())


def test_credentials_are_small() -> None:
    """One must leave room for others in a datagram."""
    assert len(NODE.credential.body) < 300
