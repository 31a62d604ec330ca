"""What peers say of civil time, beside this node's own clock.

It ends at how far our clock is off; what follows from that is for whoever judges by civil time. Rules:
1. A peer counts once, by what it said last: however often it is asked, it is one of many.
2. Only those count whom we asked, so that nobody brings itself and its friends forward.
3. A clock is off by what lies between the two middle peers, nearest to none. So half of them, all wrong,
   move nothing, and of one or two peers only what all of them say is held.
4. Civil time is kept as its distance to our monotonic time, which nobody sets: what peers said stays right
   when our own clock is set.
Paper: none. Deviation: none.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.model.instant import HOUR_S, SECOND_NS, Instant

_PEERS_MAX: Final = 15  # those asked last; enough for a median that some wrong clocks cannot move
_AGE_NS_MAX: Final = HOUR_S * SECOND_NS  # whoever was silent for longer says nothing of the present
_WALL_S_MAX: Final = 2**40  # what a member says of its clock is its own word, and may be any number


class Skew(NamedTuple):
    """By how many seconds our clock is behind the peers' (less than 0: ahead), and how many peers say so."""

    by_s: int
    peers_count: int


@kept.part("peer clocks")
class PeerClocks:
    """Of each of the peers asked last, where its clock stands: those asked first come first."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    def note(self, node_id: bytes, wall_s: int, arrived: Instant) -> None:
        """Take what a peer that we asked said in a packet that arrived then."""
        self._told.pop(node_id, None)
        self._told[node_id] = (wall_offset_untrusted(wall_s, arrived), arrived)
        if len(self._told) > _PEERS_MAX:
            self._told.popitem(last=False)

    def forget(self, node_id: bytes) -> None:
        """Drop a peer that is a member no more."""
        self._told.pop(node_id, None)

    def skew(self, wall_offset_s: int, now: Instant) -> Skew:
        """Judge a clock that stands so far from our monotonic one."""
        skews = [offset_s - wall_offset_s for offset_s, at in self._told.values() if now - at <= _AGE_NS_MAX]
        return Skew(middle_of(skews), len(skews))


def wall_offset_untrusted(wall_s: int, arrived: Instant) -> int:
    """Return how far the civil time that a peer tells lies from our monotonic time, within bounds."""
    return min(max(wall_s, 0), _WALL_S_MAX) - arrived // SECOND_NS


def middle_of(skews: Iterable[int]) -> int:
    """Return the median of what several clocks say, one value each; 0 for none.

    Of an even number it is what is nearest to 0 of all that lies between the two middle ones.
    """
    ordered = sorted(skews)
    if not ordered:
        return 0
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return max(low, min(high, 0))
