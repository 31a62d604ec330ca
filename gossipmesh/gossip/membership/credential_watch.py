"""Forgets members whose credential has ended, or whose signer Trust names no more.

Rules:
1. It looks when the next credential ends, at the latest after a minute, and when Trust or civil time changed.
2. After civil time jumped ahead nobody is forgotten for ten minutes: a wrong clock would cost us all members,
   on disk as well, and when it is right again there is nobody left to ask.
Paper: none.
"""

from collections.abc import Callable
from typing import Final

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import NEVER, SECOND_NS, Instant

_WAIT_S_MAX: Final = 60
_STEP_S_MIN: Final = 60
_DOUBT_NS: Final = 600 * SECOND_NS


class CredentialWatch:
    """One timer for all members; `forget` drops a member everywhere."""

    def __init__(self, ctx: Context, catalog: Catalog, *, forget: Callable[[Member], None]) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._forget = forget
        self._at: Instant = NEVER
        self._doubted_until: Instant = ctx.now

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"credentials": self.look}

    def look(self) -> None:
        """Forget who is a member no more, and look again in time."""
        keys = self._catalog.credential_keys()
        self._catalog.note_eligible()
        wall_s, is_doubted = self._ctx.wall_s, self._ctx.now < self._doubted_until
        for member in list(self._catalog):
            gone = (member.ends <= wall_s and not is_doubted) or member.signer not in keys
            if gone and member.node_id != self._catalog.own_id:
                self._forget(member)
        ends = min((m.ends for m in self._catalog if m.node_id != self._catalog.own_id), default=None)
        self._at = NEVER
        self.ending(wall_s + _WAIT_S_MAX if ends is None else ends)

    def ending(self, ends: int) -> None:
        """Look again when a credential ends, or within a minute."""
        wait_s = min(_WAIT_S_MAX, max(1, ends - self._ctx.wall_s))
        at = Instant(self._ctx.now + wait_s * SECOND_NS)
        if at < self._at:
            self._at = at
            self._ctx.timers.set(("credentials", None), at)

    def clock_set(self, wall_offset_s: int) -> None:
        """Take that civil time was set; look at the next deadline."""
        if wall_offset_s - self._ctx.wall_offset_s >= _STEP_S_MIN:
            self._doubted_until = Instant(self._ctx.now + _DOUBT_NS)
        self._ctx.wall_offset_s = wall_offset_s
        self._ctx.timers.set(("credentials", None), self._ctx.now)
