"""Pings to the gone, each with what is held against it, so that any partition heals by itself.

Rules:
1. One of the gone is pinged at a time, in turn, whatever else goes on; a living one answers with a later
   incarnation.
2. Each time it is tried at the next of its addresses.
Paper: none; memberlist gossips to the dead for a while. Deviation: for as long as they are held gone.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.prober import Prober
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.model.records import RecordKind


@kept.part("obituaries")
class Obituaries:
    """Whose turn it is."""

    def __init__(self, ctx: Context, catalog: Catalog, courier: Courier, prober: Prober) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._prober = prober
        self._turn = 0

    def start(self) -> None:
        """Begin, in step with our heartbeats."""
        interval_ns = self._ctx.settings.obituary_interval_ns
        self._ctx.timers.set(("obituary", None), self._ctx.on_beat(self._ctx.now + interval_ns))

    def deadlines(self) -> Deadlines:
        """Return the kind of timer set here, and what it is for."""
        return {"obituary": self._due}

    def _due(self) -> None:
        self.start()
        own_id = self._catalog.own_id
        gone = [m for m in self._catalog if m.verdict is not None and m.address and m.node_id != own_id]
        if not gone:
            return
        self._turn = (self._turn + 1) % len(gone)
        member = gone[self._turn]
        self._ctx.statistics.obituaries += 1
        member.address_index += 1
        messages = [self._prober.fresh_ping(member), member.messages[RecordKind.VERDICT]]
        self._courier.send(member, messages, fill=False)
