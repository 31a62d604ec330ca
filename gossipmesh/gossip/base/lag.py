"""How late this node acts, and what it tells others of it.

Lag is the worst of the last five seconds: how long a packet lay unread, or how late the loop ran.
Rules:
1. There is no moment between the worst leaving the window and the next observation: whoever reads late would
   believe itself prompt just then, and judge and be judged by it.
2. Published lag moves in steps, up at once and down only when well below, at most every ten seconds, so
   that state sums come to rest.
Paper: none; Lifeguard infers its own slowness from failed probes, here it is measured.
"""

from collections import deque
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.model.instant import MILLISECOND_NS, Instant

_SLOT_NS: Final = 100 * MILLISECOND_NS
_WINDOW_SLOTS: Final = 50
STEPS_MS: Final = (0, 50, 200, 1_000)


@kept.part("lag")
class LagMeter:
    """The worst lag noted within the window, by slots: (slot, lag), oldest and greatest first."""

    __slots__ = ("_worst",)

    def __init__(self) -> None:
        self._worst: deque[tuple[int, int]] = deque(maxlen=_WINDOW_SLOTS + 1)

    def note(self, lag_ns: int, now: Instant) -> None:
        """Take one observation; a lesser one counts once the greater are old."""
        if lag_ns <= 0:
            return
        worst, slot = self._worst, now // _SLOT_NS
        while worst and worst[-1][1] <= lag_ns:
            worst.pop()
        if not worst or worst[-1][0] != slot:
            worst.append((slot, lag_ns))

    def current_ns(self, now: Instant) -> int:
        """Return the lag that holds now."""
        worst, oldest = self._worst, now // _SLOT_NS - _WINDOW_SLOTS
        while worst and worst[0][0] < oldest:
            worst.popleft()
        return worst[0][1] if worst else 0


def step_of(lag_ns: int, published_ms: int) -> int:
    """Return the step to publish for a lag while `published_ms` stands.

    It rises as soon as the next step is reached and falls once lag is below half of the present one.
    """
    lag_ms = lag_ns // MILLISECOND_NS
    if not published_ms and lag_ms < STEPS_MS[1]:
        return 0  # every packet asks, and nearly always this is the answer
    reached = max(step for step in STEPS_MS if step <= lag_ms)
    if reached >= published_ms:
        return reached
    return reached if lag_ms < published_ms // 2 else published_ms
