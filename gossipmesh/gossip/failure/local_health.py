"""How much this node distrusts itself.

Paper: Lifeguard IV.A (LHM). The score rises with a failed probe, each missed nack and a refutation of
ourselves, falls with a success; interval and timeouts are multiplied by score + 1.
"""

from gossipmesh.gossip.base import kept


@kept.part("local health")
class LocalHealth:
    """The score, 0 (healthy) to `maximum` - 1 (memberlist counts 8 values)."""

    __slots__ = ("_maximum", "score")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self.score = 0

    def add(self, delta: int) -> None:
        """Change the score within its bounds."""
        self.score = min(max(self.score + delta, 0), self._maximum - 1)

    def scale(self, duration_ns: int) -> int:
        """Return the duration times (score + 1)."""
        return duration_ns * (self.score + 1)
