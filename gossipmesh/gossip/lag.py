"""How late this node acts, and what it tells others of it.

Lag is the worst of the last five seconds: how long a packet lay unread, or how late the loop ran.
Rules:
1. Published lag moves in steps, up at once and down only when well below, at most every ten seconds, so
   that roots come to rest.
Paper: none; Lifeguard infers its own slowness from failed probes, here it is measured.
"""

from typing import Final

from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant

_WINDOW_NS: Final = 5 * SECOND_NS
STEPS_MS: Final = (0, 50, 200, 1_000)


class LagMeter:
    """The worst lag noted within the window."""

    __slots__ = ("_at", "_lag_ns")

    def __init__(self) -> None:
        self._lag_ns = 0
        self._at = -_WINDOW_NS

    def note(self, lag_ns: int, now: Instant) -> None:
        """Take one observation; a lesser one counts only once the greater is old."""
        if lag_ns >= self._lag_ns or now - self._at > _WINDOW_NS:
            self._lag_ns = max(0, lag_ns)
            self._at = now

    def current_ns(self, now: Instant) -> int:
        """Return the lag that holds now."""
        return self._lag_ns if now - self._at <= _WINDOW_NS else 0


def step_of(lag_ns: int, published_ms: int) -> int:
    """Return the step to publish for a lag while `published_ms` stands.

    It rises as soon as the next step is reached and falls once lag is below half of the present one.
    """
    lag_ms = lag_ns // MILLISECOND_NS
    reached = max(step for step in STEPS_MS if step <= lag_ms)
    if reached >= published_ms:
        return reached
    return reached if lag_ms < published_ms // 2 else published_ms
