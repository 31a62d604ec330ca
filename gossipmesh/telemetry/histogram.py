"""A histogram with fixed bounds, as plain counts."""

from collections.abc import Sequence


class Histogram:
    """Counts per bucket; `counts` has one more entry than `bounds`, for what is above the last."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def merge(self, counts: Sequence[int], total: int) -> None:
        """Add another histogram's counts, given in the same bounds; a foreign length is cut to ours."""
        for index, count in enumerate(counts[: len(self.counts)]):
            self.counts[index] += count
        self.total += total

    def cumulative(self) -> list[tuple[str, int]]:
        """Return (upper bound, count at or below it), ending with +Inf."""
        running = 0
        buckets: list[tuple[str, int]] = []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            running += count
            buckets.append((bound, running))
        return buckets
