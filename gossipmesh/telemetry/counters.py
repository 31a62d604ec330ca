"""Counters by name and labels, as plain numbers."""

from typing import Final

LABEL_SETS_MAX: Final = 1_000


class Counters:
    """Counts per label set of one family; label sets beyond the bound are counted in `overflow_count`."""

    __slots__ = ("_counts", "_label_sets_max", "overflow_count")

    def __init__(self, label_sets_max: int = LABEL_SETS_MAX) -> None:
        self.overflow_count = 0
        self._label_sets_max = label_sets_max
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str, count: int = 1) -> None:
        """Add `count` under `labels`."""
        if labels not in self._counts and len(self._counts) >= self._label_sets_max:
            self.overflow_count += count
            return
        self._counts[labels] = self._counts.get(labels, 0) + count

    def get(self, *labels: str) -> int:
        """Return the count under `labels`."""
        return self._counts.get(labels, 0)

    def items(self) -> list[tuple[tuple[str, ...], int]]:
        """Return (labels, count), sorted by labels."""
        return sorted(self._counts.items())
