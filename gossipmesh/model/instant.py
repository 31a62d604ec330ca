"""Two kinds of time that never mix.

`Instant` is monotonic and decides everything a protocol does; `WallSeconds` is civil
time and only ever answers "is this credential valid now?". Durations are plain ints
whose names end in `_ns` or `_s`.
"""

from typing import Final, NewType

Instant = NewType("Instant", int)
"""Monotonic nanoseconds since an arbitrary start; comparable within one process only."""

WallSeconds = NewType("WallSeconds", int)
"""Seconds since the Unix epoch, UTC."""

MILLISECOND_NS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000
MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400

NEVER: Final = Instant(2**63 - 1)
"""A deadline that does not come; what a core answers when it waits for input only."""


def after(now: Instant, duration_ns: int) -> Instant:
    """Return the instant `duration_ns` after `now`."""
    return Instant(now + duration_ns)
