"""Signing and checking the records of GOSSIP: credentials by the authority, the rest by their owners.

Ends at the signature and the types; whether a record is newer, allowed or due is the catalog's to say.
Rules:
1. The signature covers a domain separator, the trust domain, the kind and the exact body.
2. A credential is checked against the document keys that Trust names for the role `credential`.
3. Nothing is returned that was not verified in the same call, but for a credential that a hash in Trust
   proves.
Spec: EdDSA per RFC 8032. Deviation: records use this compact form and not DSSE, which would cost
    some 120 bytes in every datagram; documents, which rest in files and archives, use DSSE.
"""

import struct
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from gossipmesh.model import limits
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.identity import node_id_of, node_name_of_spiffe_id
from gossipmesh.model.records import (
    KeySet,
    NodeCredential,
    NodeState,
    RecordKind,
    ServiceSet,
    SignedRecord,
    Verdict,
    VerdictVote,
    Vote,
)
from gossipmesh.trust.keys import SigningKey, Verifier, is_public_key, key_id
from gossipmesh.wire.codec import decode_untrusted, encode

T = TypeVar("T")

_VOTE: Final = struct.Struct("!16sQQB16sQQ")

_SHAPES: Mapping[RecordKind, type[Any]] = {
    RecordKind.CREDENTIAL: NodeCredential,
    RecordKind.NODE_STATE: NodeState,
    RecordKind.SERVICE_SET: ServiceSet,
    RecordKind.KEY_SET: KeySet,
}


class BadSignature(Untrusted):
    """A record that its owner did not sign, or not so."""


def signed_bytes(trust_domain: str, kind: int, body: bytes) -> bytes:
    """Return what a record's signature covers."""
    domain = trust_domain.encode()
    return b"gossipmesh record v1\0" + bytes((kind, len(domain))) + domain + body


def sign_record(trust_domain: str, kind: int, value: Any, key: SigningKey) -> SignedRecord:
    """Encode and sign a record; a credential carries the id of the authority key that signed it."""
    body = encode(value)
    name = key_id(key.public) if kind == RecordKind.CREDENTIAL else b""
    return SignedRecord(int(kind), body, key.sign(signed_bytes(trust_domain, kind, body)), name)


def as_signed(record: SignedRecord) -> SignedRecord:
    """Return a verified record without the key id of an owner's, which is not signed."""
    if record.kind == RecordKind.CREDENTIAL or not record.key_id:
        return record
    return SignedRecord(record.kind, record.body, record.signature)


def vote_bytes(trust_domain: str, vote: Vote) -> bytes:
    """Return what a vote's signature covers: a fixed layout, so that a verdict need not repeat it.

    Raises:
        Untrusted: an id or a number beyond its field. Remote's fault. State unchanged.
    """
    domain = trust_domain.encode()
    if len(vote.node_id) != 16 or len(vote.voter) != 16:
        raise Untrusted("a vote without node ids")
    try:
        body = _VOTE.pack(
            vote.node_id, vote.generation, vote.epoch, vote.cause, vote.voter, vote.sequence, vote.beat
        )
    except struct.error:
        raise Untrusted("a vote beyond its fields") from None
    return b"gossipmesh vote v1\0" + bytes((len(domain),)) + domain + body


def vote_of(verdict: Verdict, part: VerdictVote) -> Vote:
    """Return one vote of a verdict as it was signed."""
    return Vote(
        node_id=verdict.node_id,
        generation=verdict.generation,
        epoch=verdict.epoch,
        cause=part.cause,
        voter=part.voter,
        sequence=part.sequence,
        beat=part.beat,
        signature=part.signature,
    )


def open_credential_untrusted(
    record: SignedRecord, trust_domain: str, authority_keys: Mapping[bytes, bytes], verifier: Verifier
) -> NodeCredential:
    """Verify a credential and return it.

    Args:
        record: as received.
        authority_keys: key id -> public key, those Trust names for the role `credential`.

    Raises:
        MalformedInput: undecodable, unknown signer, bad signature, or an id that is not the
            hash of its SPIFFE ID. Remote's fault. State unchanged.
    """
    public_key = authority_keys.get(record.key_id)
    if record.kind != RecordKind.CREDENTIAL or public_key is None:
        raise Untrusted("a credential not signed by any authority key in Trust")
    credential: NodeCredential = _open(record, trust_domain, public_key, verifier)
    return _require_of_domain_untrusted(credential, trust_domain)


def read_credential_untrusted(record: SignedRecord, trust_domain: str) -> NodeCredential:
    """Return a credential that something else than its signature proves: a hash that Trust names.

    Raises:
        MalformedInput: undecodable, or an id that is not the hash of its SPIFFE ID. State unchanged.
    """
    credential = decode_untrusted(record.body, NodeCredential, bytes_max=limits.RECORD_BYTES_MAX)
    return _require_of_domain_untrusted(credential, trust_domain)


def _require_of_domain_untrusted(credential: NodeCredential, trust_domain: str) -> NodeCredential:
    if credential.node_id != node_id_of(credential.spiffe_id):
        raise Untrusted("a credential whose node id is not the hash of its SPIFFE ID")
    if not credential.spiffe_id.startswith(f"spiffe://{trust_domain}/node/"):
        raise Untrusted("a credential of another trust domain")
    if node_name_of_spiffe_id(credential.spiffe_id) is None:
        raise Untrusted("a credential of an identity that is no node's own")
    if credential.signing_key and not is_public_key(credential.signing_key):
        raise Untrusted("a credential over what is no Ed25519 key of anybody")
    return credential


def open_owned_untrusted(
    record: SignedRecord, trust_domain: str, owner_key: bytes, verifier: Verifier
) -> Any:
    """Verify a record signed by a member and return its `NodeState`, `ServiceSet` or `KeySet`.

    Raises:
        MalformedInput: undecodable, unknown kind, or not signed with `owner_key`.
            Remote's fault. State unchanged.
    """
    if record.kind == RecordKind.CREDENTIAL:
        raise Untrusted("a credential where an owner's record was due")
    return _open(record, trust_domain, owner_key, verifier)


def _open(record: SignedRecord, trust_domain: str, public_key: bytes, verifier: Verifier) -> Any:
    if len(record.body) > limits.RECORD_BYTES_MAX:
        raise Untrusted(f"a record of {len(record.body)} bytes, {limits.RECORD_BYTES_MAX} allowed")
    try:
        shape = _SHAPES[RecordKind(record.kind)]
    except (ValueError, KeyError):
        raise Untrusted(f"a record of the unknown kind {record.kind}") from None
    message = signed_bytes(trust_domain, record.kind, record.body)
    if not verifier.verify(public_key, message, record.signature):
        raise BadSignature(f"a {shape.__name__} whose signature does not verify")
    return decode_untrusted(record.body, shape, bytes_max=limits.RECORD_BYTES_MAX)


def open_opaque_untrusted(
    record: SignedRecord, trust_domain: str, owner_key: bytes, verifier: Verifier
) -> None:
    """Verify a record of a kind this build does not know, so that it can be kept and passed on.

    Raises:
        MalformedInput: a known kind, beyond limits, or not signed with `owner_key`.
            Remote's fault. State unchanged.
    """
    if record.kind in tuple(RecordKind) or not 0 < record.kind < 256:
        raise Untrusted(f"a record of kind {record.kind} where an unknown one was due")
    if len(record.body) > limits.RECORD_BYTES_MAX:
        raise Untrusted(f"a record of {len(record.body)} bytes, {limits.RECORD_BYTES_MAX} allowed")
    if not verifier.verify(owner_key, signed_bytes(trust_domain, record.kind, record.body), record.signature):
        raise BadSignature("a record of unknown kind whose signature does not verify")
