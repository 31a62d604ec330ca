"""Whether a verdict that comes in takes effect: new, valid, and not older than what was heard of its target.

Ends at the catalogue, which keeps it; what follows is the detector's, and ours to answer `intake`'s. Rules:
1. What is overtaken is found before anything is verified, so that echoes cost nothing.
2. A verdict of the same name replaces the held one only where that would convince nobody any more.
3. One against ourselves is never merged: it is returned with its verified votes, to be answered.
Paper: none; SWIM merges whatever claims the highest order. Deviation: that.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.failure.life_first import LifeFirst
from gossipmesh.gossip.failure.verdicts import VerdictJudge, decode_verdict_untrusted
from gossipmesh.gossip.membership.catalog import Catalog, Change, Checks, UnknownOwner, order_start
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import SignedRecord, Verdict
from gossipmesh.trust.records import vote_of
from gossipmesh.wire.datagram import encode_message


@kept.part("verdict merger")
class VerdictMerger:
    """Judges verdicts of others and has the catalogue keep those that hold."""

    def __init__(self, ctx: Context, catalog: Catalog, judge: VerdictJudge, life: LifeFirst) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._judge = judge
        self._life = life

    def merge_untrusted(self, record: SignedRecord, checks: Checks) -> Change | None:
        """Merge one verdict; None when it says nothing new, `held` when its target is to be asked first.

        Raises:
            MalformedInput: unreadable, not a quorum's, about somebody unknown, or `checks` are used up.
                Remote's fault. State unchanged.
        """
        member, _ = self._catalog.subject_untrusted(record)
        verdict = decode_verdict_untrusted(record)
        if member.node_id == self._catalog.own_id:
            verdict = self._judge.answerable_untrusted(verdict, checks)
            return self._unmerged(member, verdict, record, held=False)
        if member.state is None or order_start(verdict.order) > order_start(member.order):
            raise UnknownOwner(member.node_id)
        renews = _is_same(member.verdict, verdict)
        if _is_stale(member, verdict) and not (renews and self._convinces_anew(member, verdict)):
            self._ctx.statistics.records_stale += 1
            return None
        self._judge.require_valid_untrusted(verdict, checks)
        if not renews and self._life.beats(member, verdict):
            return self._unmerged(member, verdict, record, held=True)
        return self._catalog.install_verdict(member, verdict, record)

    def restore(self, records: list[SignedRecord]) -> None:
        """Take back verdicts of the last run; this node judged them then, so signatures suffice."""
        for record in records:
            checks = Checks(limits.VERDICT_VOTES_MAX)
            try:
                verdict = decode_verdict_untrusted(record)
                member = self._catalog.get(verdict.node_id)
                for part in verdict.votes:
                    self._judge.require_signed_untrusted(vote_of(verdict, part), checks)
            except MalformedInput as error:
                self._ctx.refused(type(error).__name__)
                continue
            incarnation = (verdict.generation, verdict.epoch)
            if member is not None and member.state and order_start(member.state.order) == incarnation:
                self._catalog.install_verdict(member, verdict, record)

    def _convinces_anew(self, member: Member, verdict: Verdict) -> bool:
        held = member.verdict
        return held is not None and not self._judge.is_valid(held) and self._judge.is_valid(verdict)

    def _unmerged(self, member: Member, verdict: Verdict, record: SignedRecord, *, held: bool) -> Change:
        message = encode_message(record)
        return Change(
            member,
            record.kind,
            message,
            member.status,
            False,
            record=record,
            held=held,
            verdict=verdict,
        )


def _is_same(held: Verdict | None, offered: Verdict) -> bool:
    return held is not None and (offered.order, offered.status) == (held.order, held.status)


def _is_stale(member: Member, verdict: Verdict) -> bool:
    if verdict.order < member.order or member.status is MemberStatus.LEFT:
        return True
    held = member.verdict
    return held is not None and (verdict.order, verdict.status) <= (held.order, held.status)
