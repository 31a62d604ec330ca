"""Keeps the endpoints of those who went together, as `mass_death` says, and lets them go.

Rules:
1. Only what happens now counts: a restart, a first table and a renewal tell of deaths long past, all at one
   moment, and are no catastrophe.
2. Who held them back says so, once; they are let go after a while, by the operator, or when their member is
   back.
Paper: none; see `mass_death`.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import EndpointsRetained
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.failure.mass_death import MassDeath
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus


@kept.part("endpoint holds")
class RetainedEndpoints:
    """What deaths do to endpoints, here."""

    def __init__(self, ctx: Context, catalog: Catalog) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._mass_death = MassDeath(ctx.settings.monitor)
        self._whole_at: Instant | None = None

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"mass death": self.release}

    def view_complete(self) -> None:
        """Take deaths for news from now on."""
        self._whole_at = self._ctx.now

    def _is_news(self, member: Member) -> bool:
        if self._whole_at is None or member.changed_at != self._ctx.now:
            return False
        # Whom we never heard in our first minute may have been gone for days when we came.
        is_young = self._ctx.now - self._whole_at < self._ctx.settings.monitor.mass_death_window_ns
        return member.heard_at >= 0 or not is_young

    def died(self, member: Member) -> list[Member]:
        """Count a member that is gone; if too many are, hold their endpoints and return whose."""
        if not self._is_news(member):
            return []
        held = self._mass_death.died(member.node_id, self._catalog.serving_count, self._ctx.now)
        fresh = [
            gone for gone in map(self._catalog.get, held) if gone is not None and not gone.endpoints_retained
        ]
        for gone in fresh:
            gone.endpoints_retained = True
            self._catalog.telling.services(gone)
        if fresh and not self._ctx.timers.pending(("mass death", None)):
            self._ctx.statistics.mass_deaths += 1
            until = self._mass_death.until or self._ctx.now
            self._ctx.notify(EndpointsRetained(len(held)))
            self._ctx.timers.set(("mass death", None), until)
        return fresh

    def returned(self, member: Member) -> None:
        """Note that a member is back, or has left."""
        if member.endpoints_retained or member.status is MemberStatus.ALIVE:
            self._mass_death.returned(member.node_id)
            member.endpoints_retained = False

    def release(self) -> None:
        """Let go the endpoints of those who died together."""
        self._mass_death.end()
        self._ctx.timers.cancel(("mass death", None))
        for member in self._catalog:
            if member.endpoints_retained:
                member.endpoints_retained = False
                self._catalog.telling.services(member)

    def forget(self, node_id: bytes) -> None:
        """Drop a member that is no more."""
        self._mass_death.returned(node_id)
