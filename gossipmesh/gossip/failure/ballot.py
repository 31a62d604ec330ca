"""Votes of this node: cast, repeated and taken back; counted with those of others until a quorum agrees.

Ends at the verdict, which is returned to whoever asked for the vote. Rules:
1. A vote goes to the target's other monitors only, and is repeated at each tick while it holds.
2. Who heard no beat of its target votes with the lowest that at least two others agree on.
3. Whoever holds a quorum of fresh votes makes the verdict; nobody waits for another to make it.
Paper: none; SWIM's accuser is alone. Deviation: that.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.local_health import LocalHealth
from gossipmesh.gossip.failure.verdicts import VerdictJudge, make_verdict
from gossipmesh.gossip.failure.votes import VoteBox
from gossipmesh.gossip.membership.catalog import Catalog, order_start
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.model.records import Cause, SignedRecord, Vote
from gossipmesh.wire.datagram import Unvote, encode_message

_EPOCH_SHIFT: Final = 32


@kept.part("ballot")
class Ballot:
    """The votes held here, and the last one of ours about each target."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        courier: Courier,
        own: OwnRecords,
        judge: VerdictJudge,
        health: LocalHealth,
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._own = own
        self._judge = judge
        self._health = health
        self.votes = VoteBox(ctx.settings.monitor)
        self._vote_count = 0
        self._last_votes: dict[bytes, int] = {}

    def may_watch(self, member: Member) -> bool:
        """Tell whether we are among a member's monitors, and know enough to be one."""
        return self._judge.view_is_whole and self._judge.is_monitor(member.node_id, self._own.node_id)

    def monitors_of(self, member: Member) -> list[Member]:
        """Return the other monitors of a member."""
        ids = [node_id for node_id in self._judge.monitors_of(member.node_id) if node_id != self._own.node_id]
        others = [self._catalog.get(node_id) for node_id in ids]
        return [other for other in others if other is not None]

    def cast(self, member: Member, cause: Cause) -> SignedRecord | None:
        """Sign a vote and send it to the other monitors; return the verdict that it completes, if any."""
        if member.state is None:
            return None
        self._vote_count += 1
        beat = self._last_beat(member, order_start(member.state.order))
        vote = Vote(
            node_id=member.node_id,
            generation=member.state.generation,
            epoch=member.state.epoch,
            cause=int(cause),
            voter=self._own.node_id,
            sequence=(self._own.epoch << _EPOCH_SHIFT) + self._vote_count,
            beat=beat,
            signature=b"",
        )
        vote = self._own.sign_vote(vote)
        self._ctx.statistics.votes_sent += 1
        if member.node_id not in self._last_votes:
            self._ctx.statistics.votes_cast += 1
            self._note(member, "vote-sent", cause.label, f"last beat {beat}")
        self._last_votes[member.node_id] = vote.sequence
        message = encode_message(vote)
        for other in self.monitors_of(member):
            self._courier.send(other, [message])
        self.votes.put(vote, self._ctx.now)
        return self.count(member)

    def _last_beat(self, member: Member, life: tuple[int, int]) -> int:
        if member.beat_run == member.run and member.beat:
            return member.beat
        return self.votes.beat_of_others(member.node_id, life, self._own.node_id, self._ctx.now)

    def withdraw(self, member: Member) -> None:
        """Take our vote back, if there is one."""
        sequence = self._last_votes.pop(member.node_id, None)
        if sequence is None:
            return
        self._ctx.statistics.unvotes += 1
        self.votes.withdraw(member.node_id, self._own.node_id, sequence, self._ctx.now)
        message = encode_message(Unvote(member.node_id, sequence))
        for other in self.monitors_of(member):
            self._courier.send(other, [message])

    def count(self, member: Member) -> SignedRecord | None:
        """Return a verdict once a quorum of fresh votes agrees on more than what is held."""
        if member.state is None or not self._judge.view_is_whole:
            return None
        needed = self._judge.needed(member.node_id)
        incarnation = order_start(member.state.order)
        found = self.votes.quorum(member.node_id, incarnation, needed, self._ctx.now)
        if found is None or found[0] < member.status:
            return None
        held = member.verdict
        if found[0] == member.status and (held is None or self._judge.is_valid(held)):
            return None
        self._ctx.statistics.verdicts_made += 1
        self._note(member, "verdict", "", f"{found[0].label} by {len(found[1])} votes")
        return make_verdict(found[1], found[0])

    def settle(self, node_id: bytes) -> None:
        """Forget the votes about a member, and those it cast: it is gone, or no member any more."""
        self._last_votes.pop(node_id, None)
        self.votes.drop(node_id)
        self.votes.drop_voter(node_id)

    def _note(self, member: Member, kind: str, cause: str, detail: str) -> None:
        score = self._health.score
        self._ctx.history.note(self._ctx.now, member.node_id, kind, self._own.node_id, cause, detail, score)
