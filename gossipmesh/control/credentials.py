"""Credentials and leaves of a node as the authority signs them.

Rules:
1. A credential lives 45 days and is signed again when it is 10 days old: whenever an authority dies, 34 are
   left at least, and what changes twice a day is leaves, which nobody stores.
2. What is kept is the signed bytes: equal credentials are equal records everywhere.
Ends at values; who gets them is `control.issuing`'s, what is remembered `control.ledger`'s.
"""

from collections.abc import Sequence

import msgspec

from gossipmesh.control.certificates import make_svid, to_pem
from gossipmesh.control.ledger import Enrolment
from gossipmesh.control.roots import Authority
from gossipmesh.model.enrolment import (
    CREDENTIAL_LIFE_S,
    CREDENTIAL_REFRESH_S,
    LEAF_BACKDATE_S,
    IssuedSvid,
)
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import NodeId, node_id_of, node_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.records import NodeCredential, RecordKind, SignedRecord
from gossipmesh.trust.keys import key_id
from gossipmesh.trust.leaf_serial import encode_leaf_serial
from gossipmesh.trust.records import sign_record
from gossipmesh.trust.svid import CertificateRequest
from gossipmesh.wire.codec import decode_untrusted, encode

RECORD_BYTES_MAX = 32_768


def is_fresh(authority: Authority, enrolment: Enrolment, now: WallSeconds) -> bool:
    """Tell whether the credential on record may be answered once more as it is."""
    try:
        record = decode_untrusted(enrolment.credential, SignedRecord, bytes_max=RECORD_BYTES_MAX)
        held = decode_untrusted(record.body, NodeCredential, bytes_max=RECORD_BYTES_MAX)
    except MalformedInput:
        return False  # of a ledger before these were kept
    signed = held.not_before + LEAF_BACKDATE_S
    return (
        record.key_id == key_id(authority.credential_key.public)
        and signed <= now < signed + CREDENTIAL_REFRESH_S
        and (held.generation, held.signing_key, held.exchange_key, held.service_patterns)
        == (enrolment.generation, enrolment.signing_key, enrolment.exchange_key, enrolment.services)
    )


def sign_credential(
    authority: Authority, enrolment: Enrolment, requests: Sequence[CertificateRequest], now: WallSeconds
) -> Enrolment:
    """Return the enrolment with a credential signed now."""
    ends = now + CREDENTIAL_LIFE_S
    spiffe_id, node_id = _identity(authority, enrolment)
    credential = NodeCredential(
        node_id=node_id,
        spiffe_id=spiffe_id,
        generation=enrolment.generation,
        serial=enrolment.serial,
        signing_key=enrolment.signing_key,
        exchange_key=enrolment.exchange_key,
        spki_hashes=tuple(request.spki_hash for request in requests),
        service_patterns=enrolment.services,
        not_before=now - LEAF_BACKDATE_S,
        ends=ends,
    )
    record = sign_record(authority.trust_domain, RecordKind.CREDENTIAL, credential, authority.credential_key)
    return msgspec.structs.replace(enrolment, credential=encode(record), ends=ends)


def make_leaves(
    authority: Authority, enrolment: Enrolment, requests: Sequence[CertificateRequest], now: WallSeconds
) -> tuple[IssuedSvid, ...]:
    """Return a chain for each request, in their order."""
    issuer, key = authority.intermediate, authority.intermediate_key
    issuer_pem = to_pem(issuer).decode()
    _, node_id = _identity(authority, enrolment)
    svids = []
    for index, request in enumerate(requests):
        number = encode_leaf_serial(node_id, enrolment.generation, enrolment.serial, index)
        leaf = make_svid(request.public_key, request.spiffe_id, issuer, key, now, number)
        svids.append(IssuedSvid(request.spiffe_id, to_pem(leaf).decode() + issuer_pem))
    return tuple(svids)


def _identity(authority: Authority, enrolment: Enrolment) -> tuple[str, NodeId]:
    spiffe_id = node_spiffe_id(authority.trust_domain, enrolment.node)
    return spiffe_id, node_id_of(spiffe_id)
