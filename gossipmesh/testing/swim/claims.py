"""Claims: what one member says of another, signed by whoever says it, and their kind on the wire.

The product refuses this kind of record (`model.records.RETIRED_KINDS`); a mesh of this core takes no other
verdict. Ends at the signature. Paper: SWIM section 4.2. Deviation: none.
"""

from typing import Final

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.identity import NodeId
from gossipmesh.model.member import MemberStatus, Order
from gossipmesh.model.records import SignedRecord
from gossipmesh.trust.keys import SigningKey, Verifier
from gossipmesh.trust.records import BadSignature, sign_record, signed_bytes
from gossipmesh.wire.codec import decode_untrusted

CLAIM: Final = 4
"""The kind of a claim's record."""

_CLAIMABLE: Final = (MemberStatus.SUSPECT, MemberStatus.UNATTENDED, MemberStatus.DEAD)


class Claim(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a member says of another: suspect, unattended or dead, against one `Order` of its state.

    The first four fields name the subject; the accuser signs.
    """

    node_id: NodeId
    generation: int
    epoch: int
    sequence: int
    status: int
    accuser: NodeId

    @property
    def order(self) -> Order:
        """Return the order of the subject's state the claim is made against."""
        return Order(self.generation, self.epoch, self.sequence)


def sign_claim(
    trust_domain: str, key: SigningKey, accuser: NodeId, subject: NodeId, order: Order, status: MemberStatus
) -> tuple[Claim, SignedRecord]:
    """Return a claim of `accuser`, whose key this is, and its record."""
    claim = Claim(subject, order.generation, order.epoch, order.sequence, int(status), accuser)
    return claim, sign_record(trust_domain, CLAIM, claim, key)


def read_claim_untrusted(record: SignedRecord) -> Claim:
    """Read a claim without its signature.

    Raises:
        MalformedInput: not a claim. Remote's fault. State unchanged.
    """
    return decode_untrusted(record.body, Claim, bytes_max=limits.RECORD_BYTES_MAX)


def require_claimable_untrusted(claim: Claim) -> None:
    """Refuse a status that nobody may claim of another.

    Raises:
        Untrusted: Remote's fault. State unchanged.
    """
    if claim.status not in _CLAIMABLE:
        raise Untrusted("a claim of a status nobody may claim")


def require_signed_untrusted(
    record: SignedRecord, trust_domain: str, accuser_key: bytes, verifier: Verifier
) -> None:
    """Verify that the accuser signed a claim.

    Raises:
        BadSignature: it did not. Remote's fault. State unchanged.
    """
    message = signed_bytes(trust_domain, record.kind, record.body)
    if not verifier.verify(accuser_key, message, record.signature):
        raise BadSignature("a claim whose signature does not verify")
