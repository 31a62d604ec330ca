"""The one place that reads time.

Rules:
1. Protocol decisions use `monotonic`; wall time answers "is this credential valid now?" and no more.
2. A core gets `wall_offset_s` once and again when it moves; it never reads a clock itself.
"""

import time
from collections.abc import Callable
from typing import Final, cast

from gossipmesh.model.instant import SECOND_NS, Instant, WallSeconds

# Two that are called several times for each packet, and so the functions themselves: a call around each would
# cost more than the reading. Now, in monotonic nanoseconds since an arbitrary start:
monotonic: Final = cast(Callable[[], Instant], time.monotonic_ns)
# And the CPU time this thread has used, in nanoseconds:
thread_busy_ns: Final = time.thread_time_ns


def wall_ns() -> int:
    """Return civil time in nanoseconds since the Unix epoch, the clock of the kernel's packet stamps."""
    return time.time_ns()


def wall_seconds() -> WallSeconds:
    """Return civil time in whole seconds since the Unix epoch."""
    return WallSeconds(time.time_ns() // SECOND_NS)


def wall_offset_s() -> int:
    """Return what added to `monotonic() // 1e9` gives wall seconds, as of this call."""
    return (time.time_ns() - time.monotonic_ns()) // SECOND_NS


def process_cpu_s() -> float:
    """Return the CPU seconds this process has used, user and system."""
    return time.process_time()
