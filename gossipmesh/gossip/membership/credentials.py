"""Which credentials count: signed by a key that Trust names, valid now, and not revoked by Trust.

Ends at one credential: which of two is kept is the catalog's, whose time is over the watch's.
Rules:
1. A tombstone is a credential without keys. It is above every credential of its generation and below, so its
   node is taken out at once, and comes back by a later enrolment alone.
2. What nobody could outbid is refused: a stolen key must not keep a name out for ever.
Paper: none. Deviation: none.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.membership.soundness import require_credential_sound_untrusted
from gossipmesh.gossip.membership.state_sums import Rank
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.identity import node_name_of_spiffe_id
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.trust.records import open_credential_untrusted


@kept.part("credential judge")
class CredentialJudge:
    """Judges credentials by the newest Trust."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
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
            MalformedInput: not signed by the authority, not valid now, revoked by Trust, or of unusable
                fields. Remote's fault. State unchanged.
        """
        credential = open_credential_untrusted(
            record, self._ctx.trust_domain, self.keys(), self._ctx.verifier
        )
        if not is_kept and not self._ctx.holds_now(credential.not_before, credential.ends):
            raise Untrusted("a credential that does not hold now")
        require_credential_sound_untrusted(credential, max(self._ctx.latest_s, credential.not_before))
        name = node_name_of_spiffe_id(credential.spiffe_id) or ""
        if not credential.is_tombstone and self.is_revoked(name, credential.generation):
            raise Untrusted("a credential that Trust revokes")
        return credential

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
