"""What happens once a record was merged: who is told, and how we answer for ourselves.

Rules:
1. Records about ourselves never overwrite what we sign; they make us sign something higher.
2. An answer begins a new epoch, and so waits until that is on disk; until then we sign what we signed before.
3. What is new is queued; deaths, new incarnations, refutations and services go on at once, but of
   newcomers only so many a second.
4. A key set of ours that we did not sign, above the one we did, is told as a theft of our key and signed
   above: it lists keys that whoever calls us would take for ours.
Paper: SWIM section 4.2, Lifeguard IV.A (refuting costs local health). Deviation: a death is a quorum's word.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.budgets import KeyedBudgets, TokenBucket
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import ForeignKeySet, IdentityCopied
from gossipmesh.gossip.base.writes import Continuations
from gossipmesh.gossip.dissemination.courier import MESSAGES_BYTES_MAX, Courier
from gossipmesh.gossip.failure.detector import Detector
from gossipmesh.gossip.membership.catalog import (
    Catalog,
    Change,
    Checks,
    UnknownOwner,
    order_start,
    order_tuple,
)
from gossipmesh.gossip.membership.key_sets import key_set_of
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import OwnRecords, hear_of_successor
from gossipmesh.gossip.membership.soundness import (
    require_keys_allowed_untrusted,
    require_order_untrusted,
    state_is_sound,
)
from gossipmesh.gossip.repair.haste import Haste
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import Address, MemberStatus, NodePhase, Order
from gossipmesh.model.records import (
    RETIRED_KINDS,
    KeySet,
    NodeCredential,
    NodeState,
    RecordKind,
    SignedRecord,
    Verdict,
)
from gossipmesh.trust.records import BadSignature
from gossipmesh.wire.codec import decode_untrusted
from gossipmesh.wire.datagram import Want, encode_message, peek_order_untrusted
from gossipmesh.wire.versions import FOREIGN_KEYS

_ANSWER_GAP_NS = 200 * MILLISECOND_NS
_NEWCOMERS_PER_S = 2  # first states and first service sets; what joins one by one is never held back
_NEWCOMERS_BURST = 6
_NOWHERE = Address("0.0.0.0", 0)
_YOUNG_NS = 60 * SECOND_NS
_OUTBID_YOUNG_MAX = 1  # an older disk of ours is outbid once
_OUTBID_MAX = 2
_ID_WITHIN_BYTES = 26  # of a body: 16 of a node id, behind headers of an array and of bytes, 5 at most each
# Read once: a member of an enum costs 0.1 us each time in Python 3.11.
_VERDICT = int(RecordKind.VERDICT)


@kept.part("intake")
class Intake:
    """Merges records from one sender and does what follows from each."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        courier: Courier,
        own: OwnRecords,
        detector: Detector,
        haste: Haste,
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._own = own
        self._detector = detector
        self._outbid_count = 0
        self._faults = KeyedBudgets(
            limits.BAD_SIGNATURES_PER_MEMBER_PER_S, limits.BAD_SIGNATURES_PER_MEMBER_BURST, keys_max=1_024
        )
        self._newcomers = TokenBucket(_NEWCOMERS_PER_S, _NEWCOMERS_BURST, ctx.now)
        self._refuted_at = -SECOND_NS
        self._haste = haste

    def take(self, record: SignedRecord, sender: Member | None, checks: Checks) -> None:
        """Merge one record from outside; refusals are counted, never raised."""
        if sender is not None and not self._faults.allows(sender.node_id, self._ctx.now):
            self._ctx.refused("sender over budget")
            return
        try:
            if self._about_us(record, sender, checks):
                return
            change = self._merge_untrusted(record, checks)
        except UnknownOwner as unknown:
            self._ctx.refused("unknown owner")
            if sender is not None:
                self._want(sender, unknown.node_id)
            return
        except MalformedInput as error:
            self._ctx.refused(type(error).__name__)
            if isinstance(error, BadSignature) and sender is not None:
                self._faults.take_key(sender.node_id, self._ctx.now)
            return
        if change is not None:
            self.follow(change, sender)

    def offer_untrusted(self, record: SignedRecord) -> None:
        """Take a credential that was handed to us, not told by a peer.

        Raises:
            MalformedInput: no credential that holds now. Whoever made it is at fault. State unchanged.
        """
        if record.kind != RecordKind.CREDENTIAL:
            raise Untrusted("a record that is no credential")
        checks = Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX)
        if self._about_us(record, None, checks):
            return
        change = self._catalog.merge_untrusted(record, checks)
        if change is not None:
            self.follow(change, None)

    def _merge_untrusted(self, record: SignedRecord, checks: Checks) -> Change | None:
        if record.kind == _VERDICT:
            return self._detector.merge_verdict_untrusted(record, checks)
        return self._catalog.merge_untrusted(record, checks)

    def _want(self, sender: Member, node_id: bytes) -> None:
        """Ask for what makes a record readable, unless so many start that comparisons bring it sooner."""
        if not self._newcomers.allows(self._ctx.now):
            return
        if sender.told_at >= 0 and self._ctx.now - sender.told_at < _ANSWER_GAP_NS:
            return
        sender.told_at = self._ctx.now
        wants = [
            encode_message(Want(int(kind), node_id))
            for kind in (RecordKind.CREDENTIAL, RecordKind.NODE_STATE)
        ]
        self._courier.send(sender, wants)

    def follow(self, change: Change, sender: Member | None) -> None:
        """Queue, forward and act on one change, wherever it came from (None: ourselves)."""
        if change.kind == RecordKind.VERDICT:
            self._follow_verdict(change, sender)
            return
        member = change.member
        if len(change.message) > MESSAGES_BYTES_MAX:
            self._haste.hasten()
        if member.is_revoked:
            self._bury(member, sender)
        self._courier.enqueue((change.kind, member.node_id, b""), change.message)
        urgent: list[bytes] = [change.message] if member.is_revoked else []
        if change.kind == RecordKind.NODE_STATE:
            if member.verdict_message is None:
                self._courier.queue.drop_subject(RecordKind.VERDICT, member.node_id)
            before = change.status_before
            if before is not None and _is_doubted(before) and member.status is MemberStatus.ALIVE:
                order = member.order
                told = f"was {before.label}, answers as {order.generation}.{order.epoch}"
                self._note(member, "refuted", member.node_id, detail=told)
            self._detector.status_changed(member)
            if change.fresh_incarnation:
                urgent = [member.messages[RecordKind.CREDENTIAL], change.message]
            elif (
                change.status_before != member.status
                or member.node_id == self._own.node_id
                or member.restarting_until > self._ctx.now  # its monitors must know before it is gone
            ):
                urgent = [change.message]
        elif change.kind in (RecordKind.SERVICE_SET, RecordKind.KEY_SET):
            urgent = [change.message]
        if urgent and change.fresh_incarnation and self._one_of_many(change):
            return
        self._courier.push(urgent, b"" if sender is None else sender.node_id)

    def _bury(self, member: Member, sender: Member | None) -> None:
        """Let nothing wait for a member whose tombstone came; its streams end with this step."""
        self._courier.forget(member.node_id)
        self._detector.forget(member)
        generation = member.credential.generation
        self._note(member, "revoked", _id_of(sender) or b"", detail=f"below generation {generation}")

    def _one_of_many(self, change: Change) -> bool:
        """Tell whether so many start at once that word of this one is left to ticks and comparisons.

        A newcomer that everybody forwards to a few costs each member a few packets; a storm of them would
        cost the square. Whoever answers a verdict is forwarded at once, however many do.
        """
        before = change.status_before
        if change.member.node_id == self._own.node_id or (before is not None and _is_doubted(before)):
            return False
        if self._newcomers.take(self._ctx.now):
            return False
        self._ctx.statistics.eager_limited += 1
        return True

    def _follow_verdict(self, change: Change, sender: Member | None) -> None:
        """Answer it, if it is about us, or leave it to the detector."""
        member, verdict = change.member, change.verdict
        assert verdict is not None
        if member.node_id == self._own.node_id:
            self._refute_verdict(change, verdict, sender)
        else:
            self._detector.verdict_merged(change, sender)

    def _refute_verdict(self, change: Change, verdict: Verdict, sender: Member | None) -> None:
        """Begin a new incarnation above a verdict against ours, at most once a second."""
        if self._own.phase is NodePhase.LEFT or self._ctx.now - self._refuted_at < SECOND_NS:
            return
        if self._own.epoch_ahead > verdict.epoch:
            return  # the answer is being written
        if self._detector.answers_later(change):
            return
        self._refuted_at = self._ctx.now
        names = f"{MemberStatus(verdict.status).label} by {len(verdict.votes)} votes"
        self._note(self._own_member(), "refuted", self._own.node_id, detail=names)
        self._own.raise_epoch(verdict.epoch, "answer", (_id_of(sender),))

    def continuations(self) -> Continuations:
        """Return what goes on here after a durable write, by its kind."""
        return {"answer": self._answer_in_epoch, "outbid": self._outbid_in_epoch}

    def _answer_in_epoch(self, subject: tuple[int, bytes | None]) -> None:
        """Answer a verdict by the incarnation that is on disk now."""
        epoch, sender_id = subject
        self._own.begin_epoch(epoch)
        self._answer_anew(self._sender_of(sender_id))

    def _outbid_in_epoch(self, subject: tuple[int, bool]) -> None:
        """Sign what we have to say in the incarnation that is on disk now, by a new run where that is due."""
        epoch, renews_run = subject
        if renews_run:
            self._own.renew_run()
        self._own.begin_epoch(epoch)
        self.follow(self._own.publish_state(), None)
        self.resign_services()
        self.resign_keys()

    def _sender_of(self, sender_id: bytes | None) -> Member | None:
        """Return who it was, if it is a member still."""
        return None if sender_id is None else self._catalog.get(sender_id)

    def _about_us(self, record: SignedRecord, sender: Member | None, checks: Checks) -> bool:
        """Deal with what others say we signed, or hold against us; True when nothing is left to merge."""
        if bytes(self._own.node_id) not in record.body[:_ID_WITHIN_BYTES]:
            return False
        if record.kind == RecordKind.CREDENTIAL:
            return self._is_own_credential(record, checks)
        node_id, generation, epoch, sequence = peek_order_untrusted(record.body)
        if node_id != self._own.node_id or record.kind in RETIRED_KINDS:
            return False
        require_order_untrusted(record.kind, epoch, sequence, self._ctx.latest_s)
        order = Order(generation, epoch, sequence)
        if record.kind == RecordKind.VERDICT:
            if order_start(order) == (self._own.generation, self._own.epoch):
                # What keeps us out is told us by everybody, again and again; only our own answer is due.
                return sender is not None and self._own_member().verdict is not None
            if order_start(order) < (self._own.generation, self._own.epoch):
                self._answer(sender)
            return True
        if record.kind == RecordKind.KEY_SET:
            return self._is_own_key_set(record, order, sender, checks)
        if order_start(order) < (self._own.generation, self._own.epoch):
            return record.kind == RecordKind.NODE_STATE
        if record.kind == RecordKind.NODE_STATE:
            self._foreign_state(record, order, sender, checks)
            return True
        held = self._catalog.ledger.get(record.kind, node_id)
        if held is not None and held.rank[:3] >= (generation, epoch, sequence):
            return True
        if self._is_outbidding(order):
            return True
        # We did not send this record of our incarnation: our disk is an older one, or a copy of it is in use.
        own = self._catalog.get(self._own.node_id)
        assert own is not None
        self._catalog.verify_owned_untrusted(record, own, checks)
        self.outbid(epoch, None if sender is None else sender.address)
        return True

    def _is_own_credential(self, record: SignedRecord, checks: Checks) -> bool:
        """Look at a credential of our name, if it is of a later generation; nothing is left to merge."""
        offered = decode_untrusted(record.body, NodeCredential, bytes_max=limits.RECORD_BYTES_MAX)
        if offered.generation > self._own.generation or offered.is_tombstone:
            credential = self._catalog.open_credential_untrusted(record, checks)
            hear_of_successor(self._ctx, self._catalog, credential, record)
        return True

    def _answer(self, sender: Member | None) -> None:
        """Send our state to whoever still holds against us what it has overtaken."""
        if sender is None or (sender.told_at >= 0 and self._ctx.now - sender.told_at < _ANSWER_GAP_NS):
            return
        sender.told_at = self._ctx.now
        own = self._catalog.get(self._own.node_id)
        assert own is not None
        self._courier.send(sender, [own.messages[RecordKind.NODE_STATE]])

    def _foreign_state(
        self, record: SignedRecord, order: Order, sender: Member | None, checks: Checks
    ) -> None:
        own = self._catalog.get(self._own.node_id)
        assert own is not None
        if order < self._own.state.order or record.body == own.records[RecordKind.NODE_STATE].body:
            return
        if self._is_outbidding(order):
            return
        state = self._catalog.verify_owned_untrusted(record, own, checks)
        if not isinstance(state, NodeState) or not state_is_sound(state, own.name):
            raise Untrusted("a state of ours that contradicts our credential or its limits")
        self._ctx.refused("own record not ours")
        if not self._own.contest(state):
            self.outbid(order.epoch, state.gossip_addresses[0])

    def _is_own_key_set(
        self, record: SignedRecord, order: Order, sender: Member | None, checks: Checks
    ) -> bool:
        """Deal with a key set that names us; False when it is one of ours from before our disk was lost.

        One that is above ours, and is of keys that we do not know, was signed by a thief of our key (rule 4).
        """
        own = self._own_member()
        held = self._catalog.ledger.get(record.kind, own.node_id)
        if order.generation != self._own.generation:
            raise Untrusted("a record of another generation than its owner's credential")
        if held is not None and (
            order_tuple(order) < held.rank[:3] or record.body == own.records[record.kind].body
        ):
            return True
        if self._is_outbidding(order):
            return True
        is_earlier = order_start(order) < (self._own.generation, self._own.epoch)
        if is_earlier and self._own.keys_signed_at < 0:
            return False
        keys = self._catalog.verify_owned_untrusted(record, own, checks)
        if not isinstance(keys, KeySet):
            raise Untrusted("a record of another kind than it says")
        require_keys_allowed_untrusted(keys, own.name, own.credential)
        self._ctx.refused("own keys not ours")
        if self._own.keys_signed_at >= 0 and not self._own.knows_keys(keys):
            paths = tuple(entry.path for entry in keys.entries)
            self._ctx.notify(ForeignKeySet(order.epoch, order.sequence, paths))
            if self._own.say(FOREIGN_KEYS):
                self.follow(self._own.publish_state(), None)
        if is_earlier:
            self.resign_keys()
        else:
            self.outbid(order.epoch, None if sender is None else sender.address)
        return True

    def outbid(
        self, epoch: int, address: Address | None, *, was_followed: bool = False, was_told: bool = False
    ) -> None:
        """Sign above records that carry our name and are not ours, which came from `address` (None: unknown).

        Once that is an older disk of ours. Whoever then signs above us again lives, and cannot be asked, or
        would have been (`was_told`): one of the two ends, the one that began less than a minute ago if either
        did. As each answers the other, the two never reach their limits at once.

        Args:
            was_followed: others took packets of another run for ours, so we go on by a new one. Whoever has
                run for a minute takes that for granted: what it meets is no disk of before its start.
        """
        if epoch < self._own.epoch_ahead:
            return
        is_young = self._ctx.now - self._ctx.started < _YOUNG_NS
        if not was_told:
            self._outbid_count += 1
            if self._outbid_count > (_OUTBID_YOUNG_MAX if is_young else _OUTBID_MAX):
                self._ctx.notify(IdentityCopied(address or _NOWHERE))
                return
        self._own.raise_epoch(epoch, "outbid", (was_followed or not is_young,))

    def _is_outbidding(self, order: Order) -> bool:
        """Tell whether an epoch above a foreign record of ours is being written: more of them are no news."""
        ahead = (self._own.generation, self._own.epoch_ahead)
        return self._own.epoch_ahead > self._own.epoch and order_start(order) < ahead

    def resign_services(self) -> None:
        """Sign our services under our newest incarnation, if there are any."""
        own = self._catalog.get(self._own.node_id)
        if own is not None and own.entries is not None:
            self.follow(self._own.publish_services(own.entries), None)

    def resign_keys(self) -> None:
        """Sign our key set under our newest incarnation, if there is one."""
        message = self._own_member().messages.keys
        change = None if message is None else self._own.publish_keys(key_set_of(message).entries)
        if change is not None:
            self.follow(change, None)

    def _own_member(self) -> Member:
        own = self._catalog.get(self._own.node_id)
        assert own is not None
        return own

    def _note(self, member: Member, kind: str, by: bytes, cause: str = "", detail: str = "") -> None:
        """Write into the journal that `why` shows."""
        health = self._detector.health.score
        self._ctx.history.note(self._ctx.now, member.node_id, kind, NodeId(by), cause, detail, health)

    def _answer_anew(self, sender: Member | None) -> None:
        """Sign our state anew and have everyone know at once."""
        self._ctx.statistics.refutations += 1
        self._detector.health.add(1)
        change = self._own.publish_state()
        own_id = bytes(self._own.node_id)
        self._courier.enqueue((change.kind, own_id, b""), change.message, refutation=True)
        if sender is not None:
            self._courier.send(sender, [change.message])
        self._courier.push([change.message], b"" if sender is None else sender.node_id)


def _id_of(sender: Member | None) -> bytes | None:
    return None if sender is None else bytes(sender.node_id)


def _is_doubted(status: MemberStatus) -> bool:
    """Tell whether others hold something against a member of that status."""
    return MemberStatus.ALIVE < status < MemberStatus.LEFT
