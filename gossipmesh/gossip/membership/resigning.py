"""What becomes of members when their credentials are signed anew: the roll's word against the dropped key's.

Ends at the catalog. Rules:
1. What a dropped key signed loses to the roll, whatever its generation: a thief of that key signs any. What a
   key in Trust signed is settled as ever, by generation, tombstone and serial.
2. A record on the roll is proven by its page's hash, which Trust names: its signature is for those who get it
   without the roll.
3. Who shows a credential of a key that is not in our Trust, and proves the very keys of the member that we
   hold, is that member, and taken for no more than we hold of it. So nodes of different Trust meet, and the
   older one learns the newer.
Paper: none. Deviation: none.
"""

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.membership.catalog import Catalog, Change
from gossipmesh.gossip.membership.credentials import rank_of_credential
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import NodeCredential, RecordKind, SignedRecord
from gossipmesh.wire.codec import decode_untrusted


def held_by_keys(ctx: Context, catalog: Catalog, record: SignedRecord) -> NodeCredential | None:
    """Return the credential we hold of whom a record names, if it is of the same keys and counts (rule 3).

    None: nobody of that name and those keys is a member here; the record is to be judged by its signature.
    """
    if record.kind != RecordKind.CREDENTIAL or catalog.credentials.is_current(record.key_id):
        return None
    try:
        offered = decode_untrusted(record.body, NodeCredential, bytes_max=limits.RECORD_BYTES_MAX)
    except MalformedInput:
        return None
    member = catalog.get(offered.node_id)
    if member is None or member.is_revoked or member.node_id == catalog.own_id:
        return None
    held = member.credential
    is_same = (offered.generation, offered.signing_key, offered.exchange_key) == (
        held.generation,
        held.signing_key,
        held.exchange_key,
    )
    counts = ctx.holds_now(held.not_before, held.ends) and catalog.credentials.counts(member.signer)
    return held if is_same and counts else None


def take_listed_untrusted(
    catalog: Catalog, credential: NodeCredential, record: SignedRecord
) -> Change | None:
    """Take another node's credential that stands on the roll; None when it changes nothing that we hold.

    Raises:
        Untrusted: there is no room for another member. State unchanged.
    """
    member = catalog.get(credential.node_id)
    if member is None:
        return catalog.install_credential(credential, record)
    held = member.records[RecordKind.CREDENTIAL]
    if not has_dropped_signer(catalog, member):
        is_newer = rank_of_credential(credential) > rank_of_credential(member.credential)
        return catalog.install_credential(credential, record) if is_newer else None
    if held.body == record.body:
        catalog.resign(member, record)
        return None
    return catalog.install_credential(credential, record)


def has_dropped_signer(catalog: Catalog, member: Member) -> bool:
    """Tell whether a member's credential was signed by a key that Trust names no more."""
    return not catalog.credentials.is_current(member.signer)
