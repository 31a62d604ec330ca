"""Looks at the engines of members whose agents are gone: when whose is asked.

Rules:
1. The monitors of such a member take turns, one an interval, so that its engine is asked no more often than
   by one of them.
2. Whoever is unattended no longer is looked at no longer.
Ends at whom to ask; what follows from the answer is `monitor_detector`'s. Paper: none. Deviation: none.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.failure.monitors import Monitors
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.member import MemberStatus


@kept.part("unattended")
class Unattended:
    """The timers `engine`, one for each unattended member; nothing is kept beside them."""

    def __init__(self, ctx: Context, catalog: Catalog, monitors: Monitors) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._monitors = monitors

    def arm(self, member: Member, *, again: bool = False) -> None:
        """Look at a member's engine when it is our turn, or our turn `again`."""
        interval_ns = self._ctx.settings.engine_interval_ns
        ids = self._monitors.of(member.node_id, self._ctx.settings.monitor.monitors_max)
        turn = ids.index(self._catalog.own_id) if self._catalog.own_id in ids else len(ids)
        first_ns = turn * interval_ns + self._ctx.rng.randrange(interval_ns)
        wait_ns = max(1, len(ids)) * interval_ns if again else first_ns
        self._ctx.timers.set(("engine", member.node_id), self._ctx.now + wait_ns)

    def due(self, node_id: bytes) -> Member | None:
        """Return the member whose engine is to be asked now (timer `engine`); None where there is none."""
        member = self.held(node_id)
        if member is not None:
            self.arm(member, again=True)
        return member

    def held(self, node_id: bytes) -> Member | None:
        """Return a member if it is unattended."""
        member = self._catalog.get(node_id)
        return None if member is None or member.status is not MemberStatus.UNATTENDED else member

    def forget(self, node_id: bytes) -> None:
        """Look at a member's engine no more."""
        self._ctx.timers.cancel(("engine", node_id))
