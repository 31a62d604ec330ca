"""Whether a figure sampled over time grows: a slope that outliers do not bend, held against its own noise.

The first half of a run is left out: caches, pools and arenas fill. Of the second half the slope is the median
of the slopes of all pairs (Theil-Sen), the noise the spread around that line (1.4826 times the median
deviation, which for normal noise is its standard deviation). What grows less over the half than NOISES of
noise, or than one step of the figure itself, is flat.
"""

import itertools
import statistics
from collections.abc import Sequence
from typing import Final

import msgspec

SETTLED_SHARE: Final = 0.5
NOISES: Final = 3.0
SAMPLES_MIN: Final = 8
MAD_TO_SIGMA: Final = 1.4826


class Growth(msgspec.Struct, frozen=True):
    """How a figure grew over the second half of a run; units are the figure's own."""

    samples: int
    span_s: float
    median: float
    slope_per_min: float
    noise: float
    grown: float
    bound: float

    @property
    def is_flat(self) -> bool:
        """Tell whether it grew no more than its bound; too few samples tell nothing and are not flat."""
        return self.samples >= SAMPLES_MIN and self.grown <= self.bound


def growth_of(samples: Sequence[tuple[float, float]], step: float) -> Growth:
    """Judge `samples` (seconds, figure), ascending in time; `step` is the least change that counts."""
    start_s = samples[0][0] + (samples[-1][0] - samples[0][0]) * SETTLED_SHARE if samples else 0.0
    kept = [(at_s, value) for at_s, value in samples if at_s >= start_s]
    if len(kept) < 2:
        return Growth(len(kept), 0.0, kept[0][1] if kept else 0.0, 0.0, 0.0, 0.0, step)
    slope_per_s = statistics.median(
        (later - earlier) / (later_s - earlier_s)
        for (earlier_s, earlier), (later_s, later) in itertools.combinations(kept, 2)
        if later_s > earlier_s
    )
    span_s = kept[-1][0] - kept[0][0]
    residuals = [value - slope_per_s * at_s for at_s, value in kept]
    middle = statistics.median(residuals)
    noise = MAD_TO_SIGMA * statistics.median(abs(residual - middle) for residual in residuals)
    return Growth(
        samples=len(kept),
        span_s=round(span_s, 1),
        median=round(statistics.median(value for _, value in kept), 2),
        slope_per_min=round(slope_per_s * 60, 4),
        noise=round(noise, 3),
        grown=round(slope_per_s * span_s, 3),
        bound=round(max(NOISES * noise, step), 3),
    )
