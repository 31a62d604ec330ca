"""When many members go at once it is more likely our view than their end: their endpoints are kept.

Rules:
1. More than 30 % of the members, and at least two, gone within a minute: all of those are held.
2. Held endpoints stay offered until an hour has passed, the operator ends it, or their member is back.
Paper: none; Envoy's panic threshold is the idea (better a doubtful endpoint than none).
"""

from collections import deque

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.settings import MonitorSettings
from gossipmesh.model.instant import Instant

_LEAST = 2


@kept.part("mass death")
class MassDeath:
    """Deaths of the last minute, and whether they are held."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._deaths: deque[tuple[int, bytes]] = deque()
        self.until: Instant | None = None

    def died(self, node_id: bytes, serving_count: int, now: Instant) -> list[bytes]:
        """Note a death and return whose endpoints are to be held: none, or all of this minute's."""
        settings = self._settings
        self._forget_older(now - settings.mass_death_window_ns)
        self.returned(node_id)
        self._deaths.append((now, node_id))
        if self.until is None:
            everybody = serving_count + len(self._deaths)
            many = 100 * len(self._deaths) > settings.mass_death_percent * everybody
            if not many or len(self._deaths) < _LEAST:
                return []
            self.until = Instant(now + settings.mass_death_retain_ns)
        return [gone for _, gone in self._deaths]

    def returned(self, node_id: bytes) -> None:
        """Note that a member is back, or no member any more."""
        self._deaths = deque(pair for pair in self._deaths if pair[1] != node_id)

    def end(self) -> None:
        """Let held endpoints go; deaths so far are no reason to hold again."""
        self.until = None
        self._deaths.clear()

    def _forget_older(self, at: int) -> None:
        while self._deaths and self._deaths[0][0] < at:
            self._deaths.popleft()
