"""Forgets members whose credential has ended, or whose signer Trust names no more (but see `roll`).

Rules:
1. It looks when the next credential ends, at the latest after a minute, and when Trust or civil time changed.
2. An end counts when it has come by our own clock and, while those disagree, by the median of three peers.
3. After civil time jumped ahead nobody is forgotten for ten minutes: a wrong clock would cost us all members,
   on disk as well, and when it is right again there is nobody left to ask.
4. Whoever starts and finds members on its disk whose credentials have ended was away for long or has a wrong
   clock: nobody is forgotten for ten minutes, or until three peers have told what time it is.
Paper: none.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import NEVER, SECOND_NS, Instant

_WAIT_S_MAX: Final = 60
_STEP_S_MIN: Final = 60
_DOUBT_NS: Final = 600 * SECOND_NS


@kept.part("credential watch")
class CredentialWatch:
    """One timer for all members; whom to forget everywhere it returns."""

    def __init__(self, ctx: Context, catalog: Catalog) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._at: Instant = NEVER
        self._doubted_until: Instant = ctx.now
        self._unasked_until: Instant = ctx.now
        self._has_looked = False

    def look(self) -> list[Member]:
        """Return who is a member no more, and look again in time (timer `credentials`)."""
        self._catalog.take_ending()
        credentials = self._catalog.credentials
        self._catalog.note_eligible()
        self._ctx.judge_clock()
        now_s = self._ctx.earliest_s
        if not self._has_looked:
            self._look_at_kept(now_s)
        is_doubted = self._is_doubted()
        gone: list[Member] = []
        next_end: int | None = None
        for member in self._catalog:
            if member.node_id == self._catalog.own_id:
                continue
            has_ended = member.ends <= now_s and not is_doubted
            if has_ended or not credentials.counts(member.signer) or self.is_revoked(member):
                gone.append(member)
            elif next_end is None or member.ends < next_end:
                next_end = member.ends
        self._at = NEVER
        self._look_by(now_s + _WAIT_S_MAX if next_end is None else next_end)
        return gone

    def _look_at_kept(self, now_s: int) -> None:
        """See at the start whether somebody we kept seems to have ended."""
        self._has_looked = True
        own_id = self._catalog.own_id
        if any(member.ends <= now_s for member in self._catalog if member.node_id != own_id):
            self._unasked_until = Instant(self._ctx.now + _DOUBT_NS)

    def _is_doubted(self) -> bool:
        now = self._ctx.now
        return now < self._doubted_until or (now < self._unasked_until and not self._ctx.civil.is_judged)

    def is_revoked(self, member: Member) -> bool:
        """Tell whether Trust revokes a member; those with a tombstone stay, as what they are."""
        return not member.is_revoked and self._catalog.credentials.is_revoked(
            member.name, member.credential.generation
        )

    def keep_up(self) -> None:
        """Look in time for the credentials that have come since."""
        ends = self._catalog.take_ending()
        if ends is not None:
            self._look_by(ends)

    def _look_by(self, ends: int) -> None:
        """Look again when a credential ends, or within a minute."""
        wait_s = min(_WAIT_S_MAX, max(1, ends - self._ctx.earliest_s))
        at = Instant(self._ctx.now + wait_s * SECOND_NS)
        if at < self._at:
            self._at = at
            self._ctx.timers.set(("credentials", None), at)

    def clock_set(self, wall_offset_s: int) -> None:
        """Note that civil time was set; look at the next deadline."""
        if wall_offset_s - self._ctx.wall_offset_s >= _STEP_S_MIN:
            self._doubted_until = Instant(self._ctx.now + _DOUBT_NS)
        self._ctx.wall_offset_s = wall_offset_s
        self._ctx.judge_clock()
        self._ctx.timers.set(("credentials", None), self._ctx.now)
