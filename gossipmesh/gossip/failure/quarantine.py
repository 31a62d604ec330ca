"""Keeps out, for a while, members that come back from being deaf or degraded: they would go again at once.

Rules:
1. The first return waits 120 s after the verdict, each next twice as long, up to 16 min.
2. Thirty quiet minutes after a return all is forgotten.
Paper: none; BGP's route flap damping (RFC 2439) is the idea. Simulated with the first step only.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.settings import MonitorSettings
from gossipmesh.model.instant import Instant


@kept.part("quarantines")
class Quarantines:
    """When each member that was deaf or degraded may return."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._held: dict[bytes, tuple[int, int]] = {}

    def condemned(self, node_id: bytes, now: Instant) -> Instant:
        """Note a verdict and return until when its target stays out."""
        settings = self._settings
        until, length_ns = self._held.get(node_id, (0, 0))
        forgotten = length_ns == 0 or now - until > settings.quarantine_forget_ns
        length_ns = settings.quarantine_ns if forgotten else min(2 * length_ns, settings.quarantine_max_ns)
        self._held[node_id] = (now + length_ns, length_ns)
        return Instant(now + length_ns)

    def until(self, node_id: bytes, now: Instant) -> Instant | None:
        """Return until when a member stays out; None when it may be back."""
        until, _ = self._held.get(node_id, (0, 0))
        return Instant(until) if until > now else None

    def forget(self, node_id: bytes) -> None:
        """Drop a member that is no more."""
        self._held.pop(node_id, None)
