"""Which credentials count: signed by a key that Trust names, valid now, and not revoked by Trust.

Ends at one credential: which of two is kept is the catalog's, whose time is over the watch's.
Rules:
1. A tombstone is a credential without keys. It is above every credential of its generation and below, so its
   node is taken out at once, and comes back by a later enrolment alone.
2. What nobody could outbid is refused: a stolen key must not keep a name out for ever.
3. While the roll is awaited, members whose signer Trust dropped stay; nothing that it signed is taken anew
   but what stands on our own disk.
Paper: none. Deviation: none.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.membership.roll import Roll
from gossipmesh.gossip.membership.soundness import require_credential_sound_untrusted
from gossipmesh.gossip.membership.state_sums import Rank
from gossipmesh.gossip.membership.succession import Succession
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.identity import node_name_of_spiffe_id
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.trust.records import open_credential_untrusted, read_credential_untrusted


class RevokedByTrust(Untrusted):
    """An authentic credential that Trust revokes; whoever holds its key may not know yet."""

    def __init__(self, credential: NodeCredential) -> None:
        super().__init__("a credential that Trust revokes")
        self.credential = credential


@kept.part("credential judge")
class CredentialJudge:
    """Judges credentials by the newest Trust."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.roll = Roll(ctx)
        self.succession = Succession(ctx)
        self._keys_version = -1
        self._keys: dict[bytes, bytes] = {}

    def keys(self) -> dict[bytes, bytes]:
        """Return the authority's document keys; rebuilt when Trust changes."""
        trust = self._ctx.documents.trust
        version = 0 if trust is None else trust.version
        if version != self._keys_version:
            self._keys = self._ctx.documents.credential_keys
            self._keys_version = version
        return self._keys

    def open_untrusted(self, record: SignedRecord, *, is_kept: bool = False) -> NodeCredential:
        """Verify a credential and that it counts now; `is_kept`: whether it has ended is asked later.

        Raises:
            RevokedByTrust: revoked by Trust, and good otherwise. Remote's fault. State unchanged.
            MalformedInput: not signed by the authority, not valid now, or of unusable fields. Remote's fault.
                State unchanged.
        """
        documents = self._ctx.documents
        # What we kept was verified under an older Trust; the roll, here or awaited, says what becomes of it.
        keys = documents.credential_keys_ever if is_kept and self.roll.name else self.keys()
        credential = open_credential_untrusted(record, self._ctx.trust_domain, keys, self._ctx.verifier)
        return self._require_standing_untrusted(credential, is_kept=is_kept)

    def open_listed_untrusted(self, record: SignedRecord) -> NodeCredential:
        """Read a credential on the roll and see that it counts now; that it is genuine its page's hash says.

        Raises:
            MalformedInput: of another key than Trust names, not valid now, revoked by Trust, or of unusable
                fields. State unchanged.
        """
        if not self.is_current(record.key_id):
            raise Untrusted("a credential on the roll that is not signed by any authority key in Trust")
        credential = read_credential_untrusted(record, self._ctx.trust_domain)
        return self._require_standing_untrusted(credential, is_kept=False)

    def _require_standing_untrusted(self, credential: NodeCredential, *, is_kept: bool) -> NodeCredential:
        if not is_kept and not self._ctx.holds_now(credential.not_before, credential.ends):
            raise Untrusted("a credential that does not hold now")
        require_credential_sound_untrusted(credential, max(self._ctx.latest_s, credential.not_before))
        name = node_name_of_spiffe_id(credential.spiffe_id) or ""
        if not credential.is_tombstone and self.is_revoked(name, credential.generation):
            raise RevokedByTrust(credential)
        return credential

    def is_current(self, key_id: bytes) -> bool:
        """Tell whether Trust names the key of this id for credentials."""
        return key_id in self.keys()

    def counts(self, signer: bytes) -> bool:
        """Tell whether a credential that is held counts still, by the id of its key (rule 3)."""
        return self.roll.is_awaited or self.is_current(signer)

    def supersedes(self, key_id: bytes, signer: bytes) -> bool:
        """Tell whether what one key signed counts whatever its order, for the other was dropped from Trust.

        A thief of a dropped key signs any generation; what a key in Trust says is above it.
        """
        return not self.is_current(signer) and self.is_current(key_id)

    def is_revoked(self, name: str, generation: int) -> bool:
        """Tell whether Trust says that this generation of a node's credentials counts no more."""
        trust = self._ctx.documents.trust
        return trust is not None and generation <= trust.revoked.get(name, -1)


def rank_of_credential(credential: NodeCredential) -> Rank:
    """Return a credential's place among those of its name, without a tie-break (rule 1)."""
    return Rank(credential.generation, int(credential.is_tombstone), credential.serial, b"")


def is_replaced(credential: NodeCredential, held: NodeCredential) -> bool:
    """Tell whether a credential of a node counts no more: a later enrolment, or a tombstone, is held."""
    return rank_of_credential(credential)[:2] < rank_of_credential(held)[:2]
