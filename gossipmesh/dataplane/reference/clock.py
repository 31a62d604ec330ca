"""The engine's clock: trio's, which tests may drive."""

import trio

from gossipmesh.model.instant import SECOND_NS, Instant


def now() -> Instant:
    """Return now, monotonic."""
    return Instant(int(trio.current_time() * SECOND_NS))
