"""Whether this node itself is cut off: it hears nobody, and nobody answers it.

Everyone sends a packet each quarter second, so in a mesh of three or more one comes nearly as often. Rules:
1. Nobody was heard for 1.2 s and somebody's heartbeat is missed, or for 1.35 s: 14 others are asked within
   0.2 s, two first, two of them by TCP as well. None is heard 0.1 s later (twice that where round trips
   are long): this node is isolated, two seconds after the last packet at most.
2. Any authentic packet, any refusal of a port and anything an engine says is contact, and ends it at once.
3. One other member alone says nothing of us: a node of a mesh of two is never isolated, nor one that lags.
4. An isolated node judges nobody: no case is open, no probe is held against anyone, its own health included.
   It asks again every second.
Ends at the flag in the catalogue; `monitor_detector` does what follows.
Paper: none; Lifeguard's local health learns slowly, from one failed probe after another. Deviation: that.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.hearing import Hearing
from gossipmesh.gossip.failure.heartbeats import Heartbeats
from gossipmesh.gossip.failure.prober import Prober
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS

_QUIET_NS: Final = 1_200 * MILLISECOND_NS
_QUIET_NS_MAX: Final = (
    1_450 * MILLISECOND_NS
)  # where few send heartbeats here, none need be missed in so long
_LATE_NS: Final = 100 * MILLISECOND_NS
_WAVES: Final = (2, 4, 8)
_WAVE_GAP_NS: Final = 100 * MILLISECOND_NS
_LAST_WAIT_NS_MAX: Final = 200 * MILLISECOND_NS
_AGAIN_NS: Final = SECOND_NS
_OTHERS_MIN: Final = 2


@kept.part("isolation")
class Isolation:
    """Looks at each beat how long nobody was heard; `due` tells when this node is isolated from now on."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        courier: Courier,
        prober: Prober,
        heartbeats: Heartbeats,
        hearing: Hearing,
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._prober = prober
        self._heartbeats = heartbeats
        self._hearing = hearing
        self._contact_at = int(ctx.now)
        self._asked_at = -1
        self._waves_count = 0
        self._health = 0

    @property
    def began(self) -> bool:
        """Tell whether this node is isolated."""
        return self._catalog.isolated_since >= 0

    def contact(self) -> None:
        """Take what is as good as a packet, or begin anew after a pause of ours."""
        self._contact_at = self._ctx.now

    def _heard_at(self) -> int:
        return max(self._hearing.last_at, self._contact_at)

    def _can_tell(self) -> bool:
        lags = self._ctx.lag.current_ns(self._ctx.now) > self._ctx.settings.monitor.lag_gate_ns
        return not lags and len(self._catalog.reachable) >= _OTHERS_MIN

    def look(self) -> None:
        """Begin to ask others once nobody was heard for long."""
        if self._ctx.now - self._hearing.last_at < _QUIET_NS:
            return  # each beat asks, and nearly always this is the answer
        quiet_ns = self._ctx.now - self._heard_at()
        if self.began or self._asked_at >= 0 or quiet_ns < _QUIET_NS or not self._can_tell():
            return
        if quiet_ns >= _QUIET_NS_MAX or self._heartbeats.misses_one(_LATE_NS):
            self._asked_at, self._waves_count = self._ctx.now, 0
            self._health = self._prober.health.score
            self._ask_wave()

    def _ask_wave(self) -> None:
        self._ask(_WAVES[self._waves_count], by_stream=self._waves_count > 0)
        self._waves_count += 1
        is_last = self._waves_count == len(_WAVES)
        wait_ns = min(self._prober.direct_wait_ns(), _LAST_WAIT_NS_MAX) if is_last else _WAVE_GAP_NS
        self._ctx.timers.set(("isolation", None), self._ctx.now + wait_ns)

    def _ask(self, count: int, *, by_stream: bool) -> None:
        members = self._courier.choose(count, b"")
        for member in members:
            self._prober.ping(member)
        if by_stream and members:
            self._prober.ping_by_stream(members[0])

    def due(self) -> bool:
        """Ask the next ones, or conclude (timer `isolation`)."""
        if self.began:
            self._ask(_WAVES[0], by_stream=True)
            self._ctx.timers.set(("isolation", None), self._ctx.now + _AGAIN_NS)
            return False
        if self._heard_at() >= self._asked_at or not self._can_tell():
            self._asked_at = -1
            return False
        if self._waves_count < len(_WAVES):
            self._ask_wave()
            return False
        self._asked_at = -1
        self._prober.health.score = self._health
        self._catalog.isolated_since = self._heard_at()
        self._ctx.timers.set(("isolation", None), self._ctx.now + _AGAIN_NS)
        return True

    def end(self) -> None:
        """Note contact."""
        self._catalog.isolated_since = -1
        self._ctx.timers.cancel(("isolation", None))
