"""Taking a node out of the mesh: a credential of the next generation that names no keys.

Rules:
1. The ledger says so first: from then on the node renews nothing, and its unspent tokens are spent.
2. Asked again, the same bytes are answered, so that they can be handed to the mesh as often as needed.
3. It counts as long as anything of the former generations could: a credential's whole life from now.
Ends at the record; an agent hands it to the mesh.
"""

from dataclasses import dataclass

import msgspec

from gossipmesh.control.ledger import Enrolment, Ledger
from gossipmesh.control.roots import Authority
from gossipmesh.model.enrolment import CREDENTIAL_LIFE_S, LEAF_BACKDATE_S
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.identity import is_label, node_id_of, node_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.records import NodeCredential, RecordKind
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.codec import encode


@dataclass(frozen=True)
class Revocation:
    """A tombstone as it travels, and the generation up to which it revokes."""

    node: str
    generation: int
    record: bytes
    is_new: bool


def take_out(
    authority: Authority,
    ledger: Ledger,
    node: str,
    now: WallSeconds,
    *,
    what: str,
    generation: int | None = None,
) -> Revocation:
    """Revoke a node, on record, and return its tombstone.

    Args:
        node: its name.
        now: wall seconds.
        what: `revoked` or `forgotten`, for the log.
        generation: the one that is revoked with all before it; None: the newest on record.

    Raises:
        OperatorError: a node that is not on record and no generation given, or a disk that refuses. State
            unchanged.
    """
    if not is_label(node):
        raise OperatorError(f"{node!r} cannot be a node's name")
    with ledger.changing():
        known = ledger.enrolment(node)
        if known is None and generation is None:
            raise OperatorError(
                f"{node} is not on record here; if it was enrolled after the backup this authority was "
                "restored from, give its generation (`gossipmesh members -o json`) with --generation"
            )
        newest = 0 if known is None else known.generation
        revoked = max(newest, generation or 0)
        if known is not None and known.revoked is not None and revoked == newest:
            return Revocation(node, newest - 1, known.credential, is_new=False)
        serial = max(0 if known is None else known.serial + 1, now)
        record, ends = _tombstone(authority, node, revoked + 1, serial, now)
        ledger.log.append(now, what, node=node, generation=revoked, serial=serial)
        ledger.spend_tokens(now, node)
        ledger.put_enrolment(_taken_out(known, node, revoked + 1, serial, record, ends, now))
    return Revocation(node, revoked, record, is_new=True)


def _tombstone(
    authority: Authority, node: str, generation: int, serial: int, now: WallSeconds
) -> tuple[bytes, int]:
    spiffe_id = node_spiffe_id(authority.trust_domain, node)
    ends = now + CREDENTIAL_LIFE_S
    body = NodeCredential(
        node_id=node_id_of(spiffe_id),
        spiffe_id=spiffe_id,
        generation=generation,
        serial=serial,
        signing_key=b"",
        exchange_key=b"",
        spki_hashes=(),
        service_patterns=(),
        not_before=now - LEAF_BACKDATE_S,
        ends=ends,
    )
    record = sign_record(authority.trust_domain, RecordKind.CREDENTIAL, body, authority.credential_key)
    return encode(record), ends


def _taken_out(
    known: Enrolment | None,
    node: str,
    generation: int,
    serial: int,
    record: bytes,
    ends: int,
    now: WallSeconds,
) -> Enrolment:
    if known is None:
        return Enrolment(node, generation, serial, b"", b"", (), now, ends, record, revoked=now)
    return msgspec.structs.replace(
        known, generation=generation, serial=serial, credential=record, ends=ends, revoked=now
    )
