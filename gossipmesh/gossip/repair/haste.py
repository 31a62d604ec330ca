"""Comparisons that are opened soon, because something has come that packets do not carry, or not in time.

Ends at whom to compare with. Paper: none. Deviation: none.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import MILLISECOND_NS

_ROUNDS: Final = 3
HASTY_GAP_NS: Final = 150 * MILLISECOND_NS


@kept.part("haste")
class Haste:
    """A few members that we compare with, one after the other."""

    def __init__(self, ctx: Context, catalog: Catalog) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._members: list[Member] = []

    def hasten(self) -> None:
        """Compare with a few random members soon."""
        chosen = [member for member in self._catalog.reachable if member.run]
        self._members = self._ctx.rng.sample(chosen, min(_ROUNDS, len(chosen)))
        if not self._ctx.timers.pending(("hasten", None)):
            wait_ns = self._ctx.rng.randrange(HASTY_GAP_NS)
            self._ctx.timers.set(("hasten", None), self._ctx.now + wait_ns)

    def next(self) -> Member | None:
        """Return whom to compare with now (timer `hasten`)."""
        member = self._members.pop() if self._members else None
        if self._members:
            self._ctx.timers.set(("hasten", None), self._ctx.now + HASTY_GAP_NS)
        return member
