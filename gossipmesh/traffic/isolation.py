"""Whether this node itself is cut off: several others out of reach at once, and none reached since.

A node that loses its network sees every other node fail. Taking endpoints out one by one, within a share
and a retry budget made for others' faults, would cost seconds of failures with a healthy endpoint at home.
Rules:

1. Out of reach is a node whose connection was not made in time or found no route, or that acknowledges
   nothing. A refusal, an alert or any answer is contact, and contact with any other node ends all.
2. Isolated: `NODES_MIN` of them within `WINDOW_NS`, without contact in between.
3. Then this node's own endpoints come first, then nodes not known to be out of reach, then the rest.
"""

from typing import Final

from gossipmesh.model.instant import MILLISECOND_NS, Instant

NODES_MIN: Final = 2
WINDOW_NS: Final = 1_500 * MILLISECOND_NS  # a connect timeout of 1 s and half as much again
_NODES_REMEMBERED_MAX: Final = 64


class Isolation:
    """What one node knows of its own contact with others. `own` is its name; it never counts."""

    def __init__(self, own: str = "") -> None:
        self.own = own
        self.isolated = False
        self.since = Instant(0)
        self._lost: dict[str, Instant] = {}

    def unreached(self, node: str, now: Instant) -> bool:
        """Note that `node` was out of reach; True when that makes this node isolated."""
        if node == self.own:
            return False
        if not self.isolated:
            self._lost = {name: at for name, at in self._lost.items() if now - at <= WINDOW_NS}
        if node in self._lost or len(self._lost) < _NODES_REMEMBERED_MAX:
            self._lost[node] = now
        if self.isolated or len(self._lost) < NODES_MIN:
            return False
        self.isolated = True
        self.since = min(self._lost.values())
        return True

    def reached(self, node: str) -> tuple[str, ...]:
        """Note contact with `node`; return the nodes that were lost when it ends an isolation, else ()."""
        if not self._lost or node == self.own:
            return ()
        lost, was_isolated = tuple(self._lost), self.isolated
        self._lost, self.isolated = {}, False
        return lost if was_isolated else ()

    def is_lost(self, node: str) -> bool:
        """Tell whether this node is isolated and `node` among those it does not reach."""
        return self.isolated and node in self._lost

    def rank(self, node: str) -> int:
        """Return how likely `node` is reached: 0 for this one, 1 for those not tried, 2 for the lost."""
        return 0 if node == self.own else 2 if node in self._lost else 1
