"""Memory of processes that run for months: collections that do not stop the loop, free pages given back.

A member's records are values without cycles, yet a full collection looks at everything that holds them:
50 ms for ten thousand members, in the middle of a step. What is loaded at the start lives as long as the
process, and full collections come a hundred times more rarely; what cycles there are die young.
"""

import ctypes
import gc
from typing import Final

_THRESHOLDS: Final = (10_000, 20, 1_000)


def calm_collector() -> None:
    """Put what is loaded by now out of the collector's sight, and full collections far apart."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    give_back()


def give_back() -> None:
    """Return free pages of the heap to the kernel; glibc does that by itself for the topmost only."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
