"""From the members of the last run to a catalog: everything is verified again as if a stranger had sent it.

Ends at the catalog; verdicts are handed on, because only a detector can judge them.
Paper: none. Deviation: none.
"""

from typing import Final

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.settings import RestoredState
from gossipmesh.gossip.membership.catalog import MEMBER_BYTES_MAX, Catalog, Checks
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import RecordKind, SignedRecord
from gossipmesh.wire.codec import decode_untrusted

_SIGNED: Final = (RecordKind.NODE_STATE, RecordKind.SERVICE_SET, RecordKind.KEY_SET)


def restore_members(
    ctx: Context, catalog: Catalog, restored: RestoredState
) -> tuple[int, list[SignedRecord]]:
    """Take back the members; return the epoch of our own records among them, and the verdicts."""
    kept: list[SignedRecord] = []
    verdicts: list[SignedRecord] = []
    for node_id, value in restored.members[: limits.MEMBERS_MAX]:
        try:
            records = decode_restored_untrusted(value)
        except MalformedInput:
            ctx.refused("restored member damaged")
            continue
        if node_id == catalog.own_id:
            records = tuple(r for r in records if r.kind != RecordKind.CREDENTIAL)
        verdicts += [r for r in records if r.kind == RecordKind.VERDICT]
        kept += [r for r in records if r.kind != RecordKind.VERDICT]
    # Credentials first: what a member signed is verified by its own.
    for record in sorted(kept, key=lambda record: record.kind):
        try:
            catalog.restore_untrusted(record, Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX))
        except MalformedInput as error:
            ctx.refused(type(error).__name__)
    own = catalog.get(catalog.own_id)
    assert own is not None
    signed = [catalog.ledger.get(kind, own.node_id) for kind in _SIGNED]
    return max((item.rank.epoch for item in signed if item is not None), default=0), verdicts


def decode_restored_untrusted(value: bytes) -> tuple[SignedRecord, ...]:
    """Read back one `Persist(MEMBER)` value.

    Raises:
        MalformedInput: the file was damaged. State unchanged.
    """
    return decode_untrusted(value, tuple[SignedRecord, ...], bytes_max=16 * MEMBER_BYTES_MAX)
