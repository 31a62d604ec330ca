"""Heartbeats to our own monitors, and the watch over those who send them to us.

Rules:
1. One small packet per slot, to each of our monitors in turn, whatever else goes on.
2. Whoever sends us one and has us among its monitors is watched: a turn missed, and a little, is a probe.
3. Asked for life (a suspect ping) we show it to all our monitors, at most once a second.
Paper: none; SWIM's targets are passive. Deviation: a target's own timer, not its reader, proves life, so a
    node that reads late is not silent.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.monitors import Monitors
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.wire.datagram import Heartbeat, encode_message

_MESSAGE: Final = encode_message(Heartbeat())


@kept.part("heartbeats")
class Heartbeats:
    """Both sides of heartbeats; `due` returns a member whose turn passed in silence."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        courier: Courier,
        monitors: Monitors,
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._monitors = monitors
        self._turn = 0
        self._shown_at = -SECOND_NS
        self._watched: dict[bytes, None] = {}

    def start(self) -> None:
        """Begin at a random moment of a slot, the one that the first probe was given.

        A process at rest costs what waking it costs: both go on in step, with one wake-up where they meet.
        """
        slot_ns = self._ctx.settings.monitor.heartbeat_slot_ns
        probe_at = self._ctx.timers.due_at(("probe", None))
        first_ns = (
            self._ctx.rng.randrange(slot_ns) if probe_at is None else (probe_at - self._ctx.now) % slot_ns
        )
        self._ctx.timers.set(("heartbeat", None), self._ctx.now + first_ns)

    @property
    def watched(self) -> list[bytes]:
        """Return whom we watch."""
        return list(self._watched)

    def _own_monitor_ids(self) -> list[bytes]:
        return self._monitors.of(self._catalog.own_id, self._ctx.settings.monitor.monitors_max)

    def beat(self) -> None:
        """Send one to the next of our monitors (timer `heartbeat`)."""
        slot_ns = self._ctx.settings.monitor.heartbeat_slot_ns
        self._ctx.timers.set(("heartbeat", None), self._ctx.now + slot_ns)
        ids = self._own_monitor_ids()
        if ids:
            self._turn += 1
            member = self._catalog.get(ids[self._turn % len(ids)])
            if member is not None:
                self._send(member)

    def _send(self, member: Member) -> None:
        self._ctx.statistics.heartbeats_sent += 1
        self._courier.send(member, [_MESSAGE])

    def show_life(self) -> None:
        """Tell all our monitors that we live, at most once a second."""
        if self._ctx.now - self._shown_at < SECOND_NS:
            return
        self._shown_at = self._ctx.now
        for member in map(self._catalog.get, self._own_monitor_ids()):
            if member is not None:
                self._send(member)

    def received(self, member: Member) -> None:
        """Watch whoever counts on us."""
        if member.node_id in self._watched:
            # The timer moves on at each beat: one that fires only to be set anew costs a whole wake-up.
            self._arm(member, member.heard_at)
        elif self.is_ours(member):
            self._watched[member.node_id] = None
            self._arm(member, self._ctx.now)

    def is_ours(self, member: Member) -> bool:
        """Tell whether we are among a member's monitors."""
        count = self._ctx.settings.monitor.monitors_max
        return self._catalog.own_id in self._monitors.of(member.node_id, count)

    def _period_ns(self, member: Member) -> int:
        settings = self._ctx.settings.monitor
        count = min(settings.monitors_max, max(1, self._monitors.others_count(member.node_id)))
        return settings.heartbeat_slot_ns * count

    def _arm(self, member: Member, since: int) -> None:
        grace_ns = self._ctx.settings.monitor.heartbeat_grace_ns
        due = since + self._period_ns(member) + grace_ns
        self._ctx.timers.set(("watch", member.node_id), due)

    def due(self, node_id: bytes) -> Member | None:
        """Return a member whose turn passed in silence (timer `watch`); watch on, if it is ours."""
        member = self._catalog.get(node_id)
        if member is None:
            self._watched.pop(node_id, None)
            return None
        if member.status is not MemberStatus.ALIVE or not self.is_ours(member):
            self.forget(member)
            return None
        grace_ns = self._ctx.settings.monitor.heartbeat_grace_ns
        if member.heard_at + self._period_ns(member) + grace_ns > self._ctx.now:
            self._arm(member, member.heard_at)
            return None
        self._ctx.statistics.heartbeats_missed += 1
        self._arm(member, self._ctx.now)
        return member

    def misses_one(self, late_ns: int) -> bool:
        """Tell whether somebody we watch should have been heard by now, `late_ns` ago or earlier."""
        watched = (self._catalog.get(node_id) for node_id in self._watched)
        now = self._ctx.now - late_ns
        return any(m is not None and m.heard_at + self._period_ns(m) <= now for m in watched)

    def paused(self) -> None:
        """Give everyone a whole turn after a pause of ours."""
        for node_id in list(self._watched):
            member = self._catalog.get(node_id)
            if member is not None:
                self._arm(member, self._ctx.now)

    def forget(self, member: Member) -> None:
        """Watch a member no more."""
        self._watched.pop(member.node_id, None)
        self._ctx.timers.cancel(("watch", member.node_id))
