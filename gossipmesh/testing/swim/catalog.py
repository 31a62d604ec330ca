"""The catalog with claims: one member's word against an order of another's state, in place of verdicts.

Rules:
1. Status: (order, rank) of the owner's state or of a claim against an order, whichever is greater; a claim
   stands until a state of higher order comes.
2. State sums count standing unattended and dead claims. Suspicion comes and goes; it is neither counted nor
   kept.
3. Nobody is condemned in advance: a claim waits until what its subject signed is here.
Paper: SWIM section 4.2. Deviation: see `gossip.membership.catalog`.
"""

from collections.abc import Callable
from typing import Final

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.gossip.membership.catalog import (
    Catalog,
    Change,
    Checks,
    UnknownOwner,
    order_tuple,
    pack_records,
)
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.soundness import require_order_untrusted
from gossipmesh.gossip.membership.state_sums import Item, Rank
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.member import MemberStatus, NodePhase, Order
from gossipmesh.model.records import NodeState, RecordKind, SignedRecord
from gossipmesh.testing.swim.claims import (
    CLAIM,
    Claim,
    read_claim_untrusted,
    require_claimable_untrusted,
    require_signed_untrusted,
)
from gossipmesh.testing.swim.member import SwimMember, claimed
from gossipmesh.testing.swim.settings import SwimStatistics
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import encode_message, peek_order_untrusted

_VERDICT: Final = int(RecordKind.VERDICT)


class ClaimChange(Change, frozen=True, kw_only=True):
    """A claim was merged, or is about ourselves, or `held` back; the caller sees to it."""

    claim: Claim


class SwimCatalog(Catalog):
    """All members, as the product's catalog holds them, and what is claimed of them."""

    member_class = SwimMember
    verdict_kind = CLAIM

    def __init__(self, ctx: Context, own_id: bytes, counts: SwimStatistics) -> None:
        super().__init__(ctx, own_id)
        self._counts = counts
        self.contradicted: Callable[[SwimMember], bool] = lambda member: False
        self.says_nothing: Callable[[SwimMember, bytes], bool] = lambda member, accuser: False

    def merge_untrusted(self, record: SignedRecord, checks: Checks) -> Change | None:
        """Merge one record from outside; None when it says nothing new.

        Raises:
            MalformedInput: unreadable, unsigned, not allowed, a verdict, or `checks` are used up.
                Remote's fault. State unchanged.
        """
        if record.kind not in (CLAIM, _VERDICT):
            return super().merge_untrusted(record, checks)
        node_id, generation, epoch, sequence = peek_order_untrusted(record.body)
        require_order_untrusted(record.kind, epoch, sequence, self._ctx.wall_s)
        member = self.get(node_id)
        if member is None:
            raise UnknownOwner(node_id)
        if record.kind == _VERDICT:
            raise Untrusted("a verdict of the other detector's kind")
        return self._merge_claim(claimed(member), record, Order(generation, epoch, sequence), checks)

    def merge_held(self, member: SwimMember, claim: Claim, record: SignedRecord) -> ClaimChange | None:
        """Apply a verified claim that was held back; None when it was overtaken meanwhile."""
        if self._claim_is_stale(member, claim):
            return None
        return self._apply_claim(member, claim, record)

    def install_state(self, member: Member, state: NodeState, record: SignedRecord) -> Change:
        """Take a verified state, newer than the one held, and let go of what it refutes."""
        subject = claimed(member)
        if subject.claim is not None and subject.claim.order < state.order:
            self._drop_claim(subject)
        if subject.held is not None and subject.held.order < state.order:
            subject.held = None
        return super().install_state(member, state, record)

    def _open_claim_untrusted(self, record: SignedRecord, checks: Checks) -> Claim:
        offered = read_claim_untrusted(record)
        accuser = self.get(offered.accuser)
        if accuser is None:
            raise UnknownOwner(offered.accuser)
        require_claimable_untrusted(offered)
        checks.spend_untrusted()
        self._ctx.statistics.signature_checks += 1
        key = accuser.credential.signing_key
        require_signed_untrusted(record, self._ctx.trust_domain, key, self._ctx.verifier)
        return offered

    def _merge_claim(
        self, member: SwimMember, record: SignedRecord, order: Order, checks: Checks
    ) -> Change | None:
        offered = read_claim_untrusted(record)
        own = member.node_id == self.own_id
        if order > member.order:
            # Nobody may be condemned in advance: a claim waits until what its subject signed is here.
            raise UnknownOwner(member.node_id)
        stale = not own and self._claim_is_stale(member, offered)
        # A confirmation comes a dozen times; what is counted already need not be verified again.
        news = self._claim_confirms(member, offered) and not self.says_nothing(member, offered.accuser)
        if stale and not news:
            self._stale()
            return None
        claim = self._open_claim_untrusted(record, checks)
        if own or self._claim_confirms(member, claim):
            # A refutation or a confirmation is the caller's; neither changes what is held.
            return _unapplied(member, claim, record)
        if claim.status >= MemberStatus.UNATTENDED and self.contradicted(member):
            member.held = claim
            self._counts.claims_held += 1
            return _unapplied(member, claim, record, held=True)
        return self._apply_claim(member, claim, record)

    def _claim_confirms(self, member: SwimMember, claim: Claim) -> bool:
        held = member.claim
        return (
            held is not None
            and held.status == MemberStatus.SUSPECT == claim.status
            and held.order == claim.order
            and held.accuser != claim.accuser
        )

    def _claim_is_stale(self, member: SwimMember, claim: Claim) -> bool:
        if claim.order < member.order or (member.state is not None and member.state.phase == NodePhase.LEFT):
            return True
        held = member.claim
        return held is not None and (claim.order, claim.status) <= (held.order, held.status)

    def _apply_claim(self, member: SwimMember, claim: Claim, record: SignedRecord) -> ClaimChange:
        before = None if member.state is None else member.status
        member.claim = claim
        member.messages[record.kind] = encode_message(record)
        counted = claim.status >= MemberStatus.UNATTENDED
        rank = Rank(*order_tuple(claim.order), bytes((claim.status,)))
        content = bytes((record.kind,)) + encode([claim.node_id, order_tuple(claim.order), claim.status])
        digest = int.from_bytes(self.ledger.digest(content), "big")
        self.ledger.put(record.kind, member.node_id, Item(rank, digest) if counted else None)
        self._settled(member, before, False)
        if member.status is not MemberStatus.SUSPECT:
            self._persist(member)
        message = member.messages[record.kind]
        return ClaimChange(member, record.kind, message, before, False, record, claim=claim)

    def _drop_claim(self, member: SwimMember) -> None:
        member.claim = None
        member.messages.drop(CLAIM)
        self.ledger.put(CLAIM, member.node_id, None)

    def _forget_records(self, member: Member) -> None:
        super()._forget_records(member)
        subject = claimed(member)
        subject.claim = subject.held = None

    def _persist(self, member: Member) -> None:
        messages = (
            message
            for kind, message in member.messages.items()
            if kind != CLAIM or member.status >= MemberStatus.UNATTENDED
        )
        self._ctx.persist(PersistKind.MEMBER, member.node_id, pack_records(messages))


def _unapplied(member: SwimMember, claim: Claim, record: SignedRecord, *, held: bool = False) -> ClaimChange:
    message = encode_message(record)
    return ClaimChange(member, record.kind, message, member.status, False, record, held, claim=claim)
