"""How long a suspected member has to refute.

Paper: Lifeguard IV.B. timeout = max(Min, Max - (Max - Min) ln(C + 1) / ln(K + 1)), with C independent
confirmations beyond the first accuser, K = min(3, n - 2) of them expected, Min = alpha x
max(1, log10(n)) x interval and Max = beta x Min. Deviation: with nobody to confirm (K < 1) it is Min,
as in memberlist.
"""

import math

from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Order
from gossipmesh.testing.swim.settings import SwimTiming

CONFIRMATIONS_MAX = 3


class Suspicion:
    """One member's running suspicion; accusers are distinct, the first one started it."""

    __slots__ = ("accusers", "order", "postponed_count", "started")

    def __init__(self, order: Order, accuser: bytes, now: Instant) -> None:
        self.order = order
        self.accusers = [accuser]
        self.started = now
        self.postponed_count = 0

    def confirm(self, accuser: bytes) -> bool:
        """Count another accuser; False when it says nothing new."""
        if self.knows(accuser):
            return False
        self.accusers.append(accuser)
        return True

    def knows(self, accuser: bytes) -> bool:
        """Tell whether another word of an accuser says nothing new."""
        return accuser in self.accusers or len(self.accusers) > CONFIRMATIONS_MAX

    def deadline(self, timing: SwimTiming, members_count: int) -> Instant:
        """Return when it runs out, as things stand."""
        timeout_ns = suspicion_timeout_ns(timing, members_count, len(self.accusers) - 1)
        return Instant(self.started + timeout_ns)


def suspicion_min_ns(timing: SwimTiming, members_count: int) -> int:
    """Return Min."""
    scale = max(1.0, math.log10(max(1, members_count)))
    return int(timing.suspicion_mult * scale * timing.probe_interval_ns)


def suspicion_timeout_ns(timing: SwimTiming, members_count: int, confirmations: int) -> int:
    """Return the timeout for C = `confirmations` among `members_count` members."""
    shortest_ns = suspicion_min_ns(timing, members_count)
    expected = min(CONFIRMATIONS_MAX, members_count - 2)
    if expected < 1:
        return shortest_ns
    longest_ns = timing.suspicion_max_mult * shortest_ns
    share = math.log(confirmations + 1) / math.log(expected + 1)
    return max(shortest_ns, int(longest_ns - (longest_ns - shortest_ns) * share))
