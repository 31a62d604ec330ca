"""Which dates may be now, where our own clock may be wrong.

It ends at the answer whether a credential holds; who is forgotten for one that does not is for
`membership.credential_watch`. Rules:
1. While the median of three or more peers says that our clock is off, a credential holds if it holds by
   either of the two: nobody is forgotten, and no renewal is refused, on our clock's word alone.
2. A clock below the newest date that the authority signed, in a credential we verified, counts as that date.
   No reading of a clock is ever kept: one that was years ahead for a moment would be believed for ever.
3. What is dated ahead is taken up to a tolerance, which that date itself does not move: whoever may sign
   dates could else lead us ahead step by step.
4. Both are told once when they begin and once when they end. Two clocks that are each off by the tolerance
   differ by twice as much, and that is nothing to tell of.
Paper: none. Deviation: none.
"""

from typing import Final, NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.model import limits
from gossipmesh.model.instant import MINUTE_S, SECOND_NS, Instant

PEERS_MIN: Final = 3  # of fewer nobody can tell whose clock is off
_OFF_S: Final = 15 * MINUTE_S  # off once beyond this, and no more once below the next
_RIGHT_AGAIN_S: Final = 10 * MINUTE_S
# Of the few peers that a node meets first one may be the only one whose clock is off.
_FEW_FOR_NS: Final = 30 * SECOND_NS
_NOT_OFF: Final = -1


class Turn(NamedTuple):
    """What has just begun (True) or ended (False) to hold of our clock; None: as it was."""

    is_off: bool | None = None
    is_below_records: bool | None = None


@kept.part("civil time")
class CivilTime:
    """What holds of our clock; `wall_s` is its reading, everywhere here."""

    __slots__ = ("_is_below", "_is_told", "_off_since", "_peers_ahead_s", "_peers_count", "_signed_s")

    def __init__(self) -> None:
        self._signed_s = 0
        self._peers_ahead_s = self._peers_count = 0
        self._off_since = _NOT_OFF
        self._is_told = self._is_below = False

    @property
    def is_off(self) -> bool:
        """Tell whether our clock is held to be off, and that was told."""
        return self._is_told

    @property
    def is_judged(self) -> bool:
        """Tell whether enough peers have told their clocks to judge ours."""
        return self._peers_count >= PEERS_MIN

    def signed(self, not_before: int) -> None:
        """Take a date that the authority signed and we verified."""
        self._signed_s = max(self._signed_s, not_before)

    def below_records_s(self, wall_s: int) -> int:
        """Return how far our clock is below the newest signed date; 0 if it is not."""
        return max(0, self._signed_s - wall_s)

    def latest(self, wall_s: int) -> int:
        """Return the latest date that may be now."""
        if self._peers_ahead_s > 0:
            wall_s += self._believed_ahead_s
        # Asked for each record that comes, so two numbers are compared in place.
        return wall_s if wall_s > self._signed_s else self._signed_s

    def earliest(self, wall_s: int) -> int:
        """Return the earliest date that may be now."""
        return max(min(wall_s, wall_s + self._believed_ahead_s), self._signed_s)

    def has_begun(self, not_before: int, wall_s: int) -> bool:
        """Tell whether what is dated so may be taken."""
        latest_s = max(wall_s, wall_s + self._believed_ahead_s)
        return not_before <= max(latest_s + limits.CLOCK_TOLERANCE_S, self._signed_s)

    @property
    def _believed_ahead_s(self) -> int:
        return self._peers_ahead_s if self.is_judged else 0

    def judge(self, wall_s: int, behind_s: int, peers_count: int, now: Instant) -> Turn:
        """Take how far our clock is behind so many peers (less than 0: ahead); return what turns by that."""
        bound_s = _OFF_S if self._off_since == _NOT_OFF else _RIGHT_AGAIN_S
        is_off = abs(behind_s) > bound_s
        self._peers_ahead_s, self._peers_count = (behind_s if is_off else 0), peers_count
        if not is_off:
            self._off_since = _NOT_OFF
        elif self._off_since == _NOT_OFF:
            self._off_since = now
        is_sure = is_off and (self.is_judged or now - self._off_since >= _FEW_FOR_NS)
        is_told = is_sure or (self._is_told and is_off)
        is_below = self.below_records_s(wall_s) > limits.CLOCK_TOLERANCE_S
        turn = Turn(
            None if is_told is self._is_told else is_told, None if is_below is self._is_below else is_below
        )
        self._is_told, self._is_below = is_told, is_below
        return turn
