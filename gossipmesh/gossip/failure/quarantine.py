"""How long this node stays out after it was deaf or degraded: it would go again at once.

Whoever is out answers the verdict against it only when its time is over, so that the others need no clock:
they hold it dead until they hold its next incarnation. Rules:
1. The first time is 120 s from the verdict, each next one twice as long, up to 16 min.
2. A verdict is one against an incarnation, and the next one begins at the return: so only a new return and a
   new death after it make the time longer.
3. Thirty quiet minutes after a return all is forgotten; so it is at a restart.
Paper: none; BGP's route flap damping (RFC 2439) is the idea. Deviation: who flapped damps itself, so that
   what all share says when it is over (docs/adr/0026).
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.settings import MonitorSettings
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import Verdict


@kept.part("quarantine")
class Quarantine:
    """Until when we stay out, if we do, and how long that was the last time."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._until = 0
        self._length_ns = 0

    def begin(self, since: Instant) -> Instant:
        """Take a verdict of that moment and return until when we stay out."""
        settings = self._settings
        forgotten = self._length_ns == 0 or since - self._until > settings.quarantine_forget_ns
        longer_ns = min(2 * self._length_ns, settings.quarantine_max_ns)
        self._length_ns = settings.quarantine_ns if forgotten else longer_ns
        self._until = since + self._length_ns
        return Instant(self._until)


def made_at(verdict: Verdict, started: Instant, now: Instant, slot_ns: int) -> Instant:
    """Return when a verdict against us was made, by our own clock.

    It names beats of ours, and who is deaf or degraded sends all the while. The second latest counts: one
    voter alone makes no verdict young.
    """
    heard_by_two = sorted(verdict.beats)[-2:][0]
    return Instant(min(now, started + heard_by_two * slot_ns))
