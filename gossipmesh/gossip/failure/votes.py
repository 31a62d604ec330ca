"""Votes about each target: collected from its monitors, good for two seconds, one per voter.

Rules:
1. A vote counts from its arrival, for `vote_life_ns`; the voter repeats it while it holds.
2. Of one voter only a higher sequence replaces; a withdrawal is remembered, so that a late vote stays dead.
3. A quorum must agree on the incarnation and have heard the target within `beats_apart_max` beats, so that
   votes of different hours cannot be put together.
Paper: none; docs/GOSSIP.md, "Failure detection", 5 and 6.
"""

from typing import Final, NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.settings import MonitorSettings
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import Cause, Vote

DEADLY: Final = (Cause.SILENT, Cause.REFUSED, Cause.DEAF, Cause.DEGRADED)
_VOTERS_MAX: Final = 16


@kept.value("held vote")
class _Held(NamedTuple):
    vote: Vote | None
    sequence: int
    arrived: Instant


@kept.part("vote box")
class VoteBox:
    """All votes this node holds."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._votes: dict[bytes, dict[bytes, _Held]] = {}

    def is_new(self, vote: Vote) -> bool:
        """Tell whether a vote says more than what is held of its voter; asked before its signature."""
        held = self._votes.get(vote.node_id, {}).get(vote.voter)
        return held is None or vote.sequence > held.sequence

    def put(self, vote: Vote, now: Instant) -> bool:
        """Take a verified vote of a monitor; False when it says nothing new or there is no room."""
        voters = self._votes.setdefault(vote.node_id, {})
        if not self.is_new(vote):
            return False
        if vote.voter not in voters and len(voters) >= _VOTERS_MAX:
            oldest = min(voters, key=lambda voter: (voters[voter].arrived, voter))
            if now - voters[oldest].arrived <= self._settings.vote_life_ns:
                return False
            del voters[oldest]  # a target that lives long outlives its monitors
        voters[vote.voter] = _Held(vote, vote.sequence, now)
        return True

    def withdraw(self, target: bytes, voter: bytes, sequence: int, now: Instant) -> bool:
        """Take back a voter's votes up to a sequence; False when there was none to take back."""
        voters = self._votes.get(target)
        held = None if voters is None else voters.get(voter)
        if voters is None or held is None or held.sequence > sequence:
            return False
        voters[voter] = _Held(None, sequence, now)
        return held.vote is not None

    def drop(self, target: bytes) -> None:
        """Forget everything about a target."""
        self._votes.pop(target, None)

    def drop_voter(self, voter: bytes) -> None:
        """Forget what a member said, because it is no more, or began a new life."""
        for voters in self._votes.values():
            voters.pop(voter, None)

    def fresh(self, target: bytes, incarnation: tuple[int, int], now: Instant) -> list[Vote]:
        """Return the votes that count now, by voter."""
        held = self._votes.get(target, {})
        return [
            entry.vote
            for _, entry in sorted(held.items())
            if entry.vote is not None
            and now - entry.arrived <= self._settings.vote_life_ns
            and (entry.vote.generation, entry.vote.epoch) == incarnation
        ]

    def beat_of_others(self, target: bytes, incarnation: tuple[int, int], own_id: bytes, now: Instant) -> int:
        """Return the lowest beat of what most others heard last, two of them or more; else 0 (rule 4)."""
        heard = [vote for vote in self.fresh(target, incarnation, now) if vote.beat and vote.voter != own_id]
        agreed = _together(heard, self._settings.beats_apart_max)
        return agreed[0].beat if len(agreed) >= 2 else 0

    def quorum(
        self, target: bytes, incarnation: tuple[int, int], needed: int, now: Instant
    ) -> tuple[MemberStatus, list[Vote]] | None:
        """Return what a quorum found and its votes; None while there is none."""
        return verdict_of(self.fresh(target, incarnation, now), needed, self._settings.beats_apart_max)


def verdict_of(
    votes: list[Vote], needed: int, beats_apart_max: int
) -> tuple[MemberStatus, list[Vote]] | None:
    """Return dead if enough votes that belong together say so, else unattended, else None.

    A vote that the target is dead also says that its agent is gone.
    """
    deadly = _together([vote for vote in votes if vote.cause in DEADLY], beats_apart_max)
    if 0 < needed <= len(deadly):
        return MemberStatus.DEAD, deadly[:needed]
    gone = _together(votes, beats_apart_max)
    if 0 < needed <= len(gone):
        return MemberStatus.UNATTENDED, gone[:needed]
    return None


def _together(votes: list[Vote], beats_apart_max: int) -> list[Vote]:
    """Return the most votes whose beats lie within the span, the latest such group."""
    ordered = sorted(votes, key=lambda vote: (vote.beat, vote.voter))
    best: list[Vote] = []
    first = 0
    for last, vote in enumerate(ordered):
        while vote.beat - ordered[first].beat > beats_apart_max:
            first += 1
        if last - first + 1 >= len(best):
            best = ordered[first : last + 1]
    return best
