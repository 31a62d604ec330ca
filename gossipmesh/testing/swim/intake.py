"""What follows from a claim: who is told, who is suspected, how we answer for ourselves.

Rules, beside those of `gossip.intake`:
1. A death or unattended claim whose subject was heard moments ago is held back while the subject is told.
2. Claims ride in the share of verdicts; of a suspicion one for each accuser that confirms it.
Paper: SWIM section 4.2, Lifeguard IV.A (refuting costs local health). Deviation: rule 1, see `detector`.
"""

from typing import Final

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.intake import Intake
from gossipmesh.gossip.membership.catalog import Change, Checks
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.gossip.membership.soundness import require_order_untrusted
from gossipmesh.gossip.repair.haste import Haste
from gossipmesh.model.member import MemberStatus, NodePhase, Order
from gossipmesh.model.records import RecordKind, SignedRecord
from gossipmesh.testing.swim.catalog import ClaimChange, SwimCatalog
from gossipmesh.testing.swim.claims import CLAIM, Claim
from gossipmesh.testing.swim.detector import SwimDetector
from gossipmesh.testing.swim.member import SwimMember, claimed
from gossipmesh.testing.swim.settings import LAN
from gossipmesh.testing.swim.suspicion import suspicion_min_ns
from gossipmesh.wire.datagram import peek_order_untrusted

QUEUED_AS: Final = int(RecordKind.VERDICT)
"""The kind a claim has in the queue of updates: that of verdicts, of which there are none here."""


class SwimIntake(Intake):
    """Merges records from one sender and does what follows from each, claims among them."""

    def __init__(
        self,
        ctx: Context,
        catalog: SwimCatalog,
        courier: Courier,
        own: OwnRecords,
        detector: SwimDetector,
        haste: Haste,
    ) -> None:
        super().__init__(ctx, catalog, courier, own, detector, haste)
        self._claims = catalog
        self._suspecter = detector
        self._held: dict[bytes, tuple[ClaimChange, int]] = {}
        catalog.contradicted = self._contradicted

    def follow(self, change: Change, sender: Member | None) -> None:
        """Queue, forward and act on one change, wherever it came from (None: ourselves)."""
        if isinstance(change, ClaimChange):
            self._follow_claim(change, sender)
        else:
            super().follow(change, sender)

    def _contradicted(self, member: SwimMember) -> bool:
        return (
            member.status is MemberStatus.ALIVE
            and member.heard_at >= 0
            and self._ctx.now - member.heard_at < 2 * LAN.probe_interval_ns
        )

    def _follow_claim(self, change: ClaimChange, sender: Member | None) -> None:
        member, claim = claimed(change.member), change.claim
        if member.node_id == self._own.node_id:
            self._refute(claim, sender)
            return
        label = MemberStatus(claim.status).label
        if change.held:
            self._note(member, "beaten-by-life", claim.accuser, label)
            self._hold(change)
            return
        own = claim.accuser == self._own.node_id
        said = "vote-sent" if own else "vote-received"
        if member.claim is not claim:
            # Our own confirmations were counted by the detector when it signed them.
            if own or self._suspecter.confirm(member, claim.accuser):
                self._note(member, said, claim.accuser, label)
                self._courier.enqueue((QUEUED_AS, member.node_id, claim.accuser), change.message)
            return
        self._note(member, said, claim.accuser, label)
        self._courier.queue.drop_subject(QUEUED_AS, member.node_id)
        suspect = claim.status == MemberStatus.SUSPECT
        key = (QUEUED_AS, bytes(member.node_id), bytes(claim.accuser) if suspect else b"")
        self._courier.enqueue(key, change.message)
        self._suspecter.status_changed(member, claim.accuser)
        if not suspect:
            self._note(member, "applied", claim.accuser, label)
            self._courier.push([change.message], b"" if sender is None else sender.node_id)

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"held claim": self._release}

    def _hold(self, change: ClaimChange) -> None:
        member = change.member
        self._held[member.node_id] = (change, self._ctx.now)
        self._courier.send(
            member, [self._suspecter.ping_message(self._suspecter.next_sequence()), change.message]
        )
        wait_ns = suspicion_min_ns(LAN, self._catalog.serving_count)
        self._ctx.timers.set(("held claim", member.node_id), self._ctx.now + wait_ns)

    def _release(self, node_id: bytes) -> None:
        """Apply a held claim, unless its subject refuted it or was heard again."""
        change, since = self._held.pop(node_id)
        member, claim = claimed(change.member), change.claim
        if member.held is None or member.held is not claim or change.record is None:
            return
        if member.heard_at > since and self._contradicted(member):
            self._hold(change)
            return
        member.held = None
        applied = self._claims.merge_held(member, claim, change.record)
        if applied is not None:
            self.follow(applied, None)

    def _about_us(self, record: SignedRecord, sender: Member | None, checks: Checks) -> bool:
        """Deal with what others say we signed, or claim of us; True when nothing is left to merge."""
        if record.kind != CLAIM:
            return super()._about_us(record, sender, checks)
        node_id, generation, epoch, sequence = peek_order_untrusted(record.body)
        if node_id != self._own.node_id:
            return False
        require_order_untrusted(record.kind, epoch, sequence, self._ctx.wall_s)
        if Order(generation, epoch, sequence) == self._own.state.order:
            return False
        # Against an order we did not sign, or one that our newest state has overtaken.
        self._answer(sender)
        return True

    def _refute(self, claim: Claim, sender: Member | None) -> None:
        """Answer a claim against us that our newest state does not beat yet."""
        if self._own.phase is NodePhase.LEFT:
            return
        label = MemberStatus(claim.status).label
        self._note(self._own_member(), "refuted", claim.accuser, label, "claimed by it")
        if claim.status == MemberStatus.DEAD:
            self._own.raise_epoch(claim.epoch, "answer", (None if sender is None else bytes(sender.node_id),))
        else:
            self._answer_anew(sender)
