"""A quorum's votes as one record that anybody can check: made here, verified here.

Rules:
1. Valid is: one vote per voter, each signed, each of a monitor of rank <= 10, as many as a quorum of what
   this node sees, about one incarnation, within `beats_apart_max` beats, and of causes that allow the status.
2. What is cheap is checked first; signatures last, all of them, but before a ranking that is not at hand: a
   vote that was not verified counts for nothing, neither for the quorum nor for how late, or of what cause,
   the verdict is.
3. About ourselves we ask less: signatures and two voters. Whoever holds it believes it, so it is answered.
   What else it says (deaf, in vain) only verified votes say.
Paper: none. Deviation: a vote names an incarnation, not one sequence in it, since monitors may hold different
    states of their target.
"""

import msgspec

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.failure.accusations import Accusations
from gossipmesh.gossip.failure.monitors import Monitors, panel_of
from gossipmesh.gossip.failure.votes import verdict_of
from gossipmesh.gossip.membership.catalog import Catalog, Checks
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import (
    SEQUENCE_WHOLE,
    Cause,
    RecordKind,
    SignedRecord,
    Verdict,
    VerdictVote,
    Vote,
)
from gossipmesh.trust.records import BadSignature, vote_bytes, vote_of
from gossipmesh.wire.codec import decode_untrusted, encode


class NotYetJudged(Untrusted):
    """A verdict that a newcomer, whose view may be a part, leaves for later."""


def make_verdict(votes: list[Vote], status: MemberStatus) -> SignedRecord:
    """Return the record of a quorum; its votes agree on target and incarnation."""
    first = votes[0]
    parts = tuple(
        VerdictVote(vote.cause, vote.voter, vote.sequence, vote.beat, vote.signature)
        for vote in sorted(votes, key=lambda vote: vote.voter)
    )
    return record_of(
        Verdict(first.node_id, first.generation, first.epoch, SEQUENCE_WHOLE, int(status), parts)
    )


def record_of(verdict: Verdict) -> SignedRecord:
    """Return a verdict as it travels; its votes are all that signs it."""
    return SignedRecord(int(RecordKind.VERDICT), encode(verdict), b"")


def decode_verdict_untrusted(record: SignedRecord) -> Verdict:
    """Read a verdict; verifies nothing but its form.

    Raises:
        MalformedInput: not such a record. Remote's fault. State unchanged.
    """
    if record.kind != RecordKind.VERDICT or record.signature or record.key_id:
        raise Untrusted("a verdict with a signature of its own")
    verdict = decode_untrusted(record.body, Verdict, bytes_max=limits.RECORD_BYTES_MAX)
    if encode(verdict) != record.body:
        raise Untrusted("a verdict in another encoding than the one")
    if verdict.sequence != SEQUENCE_WHOLE:
        raise Untrusted("a verdict against a part of an incarnation")
    if verdict.status not in (MemberStatus.DEAD, MemberStatus.UNATTENDED):
        raise Untrusted("a verdict of a status nobody may condemn")
    if not 0 < len(verdict.votes) <= limits.VERDICT_VOTES_MAX:
        raise Untrusted("a verdict of too many votes, or none")
    voters = [vote.voter for vote in verdict.votes]
    if voters != sorted(dict.fromkeys(voters)) or verdict.node_id in voters:
        raise Untrusted("a verdict with one voter twice, out of order, or with its target's own vote")
    return verdict


@kept.part("verdict judge")
class VerdictJudge:
    """Checks verdicts and votes by what this node knows of members."""

    def __init__(
        self,
        ctx: Context,
        monitors: Monitors,
        catalog: Catalog,
    ) -> None:
        self._ctx = ctx
        self._monitors = monitors
        self._catalog = catalog
        self.accusations = Accusations(monitors)
        self.view_is_whole = False

    def needed(self, target: bytes) -> int:
        """Return how many votes condemn a target; 0: no number does."""
        maximum = self._ctx.settings.monitor.monitors_max
        return panel_of(self._monitors.others_count(target), maximum).quorum

    def monitors_of(self, target: bytes) -> list[bytes]:
        """Return the ids of a target's monitors, best first."""
        return self._monitors.of(target, self._ctx.settings.monitor.monitors_max)

    def is_monitor(self, target: bytes, node_id: bytes) -> bool:
        """Tell whether a member is among the monitors of a target."""
        return node_id in self.monitors_of(target)

    def require_monitor_untrusted(self, target: bytes, voter: bytes) -> None:
        """Refuse a voter that is none of the target's monitors, by a rank that allows for views that differ.

        Raises:
            Untrusted: Remote's fault. State unchanged.
        """
        if self._catalog.get(voter) is None:
            raise Untrusted("a vote of somebody unknown")
        if self._monitors.rank_as_if(target, voter) > self._ctx.settings.monitor.voter_rank_max:
            raise Untrusted("a vote of a member that is no monitor of its target")

    def require_signed_untrusted(self, vote: Vote, checks: Checks) -> None:
        """Verify a vote's signature by its voter's credential.

        Raises:
            MalformedInput: it does not hold, or no check is left. Remote's fault. State unchanged.
        """
        voter = self._catalog.get(vote.voter)
        if voter is None:
            raise Untrusted("a vote of somebody unknown")
        checks.spend_untrusted()
        self._ctx.statistics.signature_checks += 1
        message = vote_bytes(self._ctx.trust_domain, vote)
        if not self._ctx.verifier.verify(voter.credential.signing_key, message, vote.signature):
            raise BadSignature("a vote whose signature does not verify")

    def require_valid_untrusted(self, verdict: Verdict, checks: Checks) -> None:
        """Refuse a verdict that is none.

        Raises:
            NotYetJudged: our own view may be a part only. State unchanged.
            MalformedInput: rule 1 does not hold. Remote's fault. State unchanged.
        """
        votes = [vote_of(verdict, part) for part in verdict.votes]
        if any(vote.cause not in tuple(Cause) for vote in votes):
            raise Untrusted("a vote of an unknown cause")
        if not self.view_is_whole:
            raise NotYetJudged("a verdict that came before our view was whole")
        needed = self.needed(verdict.node_id)
        if len(votes) < needed:
            raise Untrusted("a verdict of fewer votes than a quorum")
        is_ranked = self._monitors.has_ranked(verdict.node_id)
        if not is_ranked:
            # A ranking costs as much as there are members, and is made for nobody who cannot show signatures.
            self._require_all_signed_untrusted(votes, checks)
        for vote in votes:
            self.require_monitor_untrusted(verdict.node_id, vote.voter)
        found = verdict_of(votes, needed, self._ctx.settings.monitor.beats_apart_max)
        if found is None or found[0] < verdict.status:
            raise Untrusted("a verdict without a quorum that belongs together")
        if len(votes) != len(_within(votes, self._ctx.settings.monitor.beats_apart_max)):
            raise Untrusted("a verdict of votes of different times")
        if is_ranked:
            self._require_all_signed_untrusted(votes, checks)

    def _require_all_signed_untrusted(self, votes: list[Vote], checks: Checks) -> None:
        for vote in votes:
            self.require_signed_untrusted(vote, checks)

    def answerable_untrusted(self, verdict: Verdict, checks: Checks) -> Verdict:
        """Return a verdict about ourselves with its verified votes alone (rule 3).

        Raises:
            MalformedInput: fewer than two members signed it. Remote's fault. State unchanged.
        """
        if len(verdict.votes) < 2:
            raise Untrusted("a verdict of one voter")
        verified = list(verdict.votes[:2])
        for part in verified:
            self.require_signed_untrusted(vote_of(verdict, part), checks)
        for part in verdict.votes[2:]:
            try:
                self.require_signed_untrusted(vote_of(verdict, part), checks)
            except MalformedInput as error:
                self._ctx.refused(type(error).__name__)
                continue
            verified.append(part)
        return msgspec.structs.replace(verdict, votes=tuple(verified))

    def is_valid(self, verdict: Verdict) -> bool:
        """Tell whether a verdict we hold would still be accepted by somebody new, signatures aside."""
        votes = [vote_of(verdict, part) for part in verdict.votes]
        needed = self.needed(verdict.node_id)
        rank_max = self._ctx.settings.monitor.voter_rank_max
        ranked = all(
            self._catalog.get(vote.voter) is not None
            and self._monitors.rank_as_if(verdict.node_id, vote.voter) <= rank_max
            for vote in votes
        )
        return ranked and 0 < needed <= len(votes)


def _within(votes: list[Vote], beats_apart_max: int) -> list[Vote]:
    latest = max(vote.beat for vote in votes)
    return [vote for vote in votes if latest - vote.beat <= beats_apart_max]


def is_of_the_deaf(verdict: Verdict) -> bool:
    """Tell whether a verdict rests on deaf and degraded votes: its target sends all the while."""
    firm = sum(1 for vote in verdict.votes if vote.cause in (Cause.DEAF, Cause.DEGRADED))
    return 2 * firm > len(verdict.votes)


def brings_quarantine(verdict: Verdict) -> bool:
    """Tell whether a verdict's target would be back at once, and go again.

    Whoever is held unattended is in use, so there is nothing to keep it out of.
    """
    return verdict.status == MemberStatus.DEAD and is_of_the_deaf(verdict)


def voter_names(verdict: Verdict, catalog: Catalog) -> str:
    """Return who voted, for people."""
    members = ((catalog.get(vote.voter), vote) for vote in verdict.votes)
    return ", ".join(
        f"{vote.voter.hex()[:8] if member is None else member.name}: {Cause(vote.cause).label}"
        for member, vote in members
    )
