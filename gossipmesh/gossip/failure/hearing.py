"""Since when this node hears others without a break, whoever they are.

Ends at what follows from that: whether a verdict is news (`answering`).
Paper: none. Deviation: none.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.model.instant import Instant


@kept.part("hearing")
class Hearing:
    """The last packet of anybody, and the first of the row it belongs to; -1 before there is one."""

    def __init__(self, silence_ns: int) -> None:
        """`silence_ns`: a longer gap between two packets is a break."""
        self._silence_ns = silence_ns
        self.last_at = -1
        self.since = -1

    def heard(self, arrived: Instant) -> None:
        """Take an authentic packet."""
        if arrived - self.last_at > self._silence_ns or self.since < 0:
            self.since = arrived
        if arrived > self.last_at:
            self.last_at = arrived
