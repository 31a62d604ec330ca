"""Golden metrics of a node: what its engine counted, added up per kind of request.

Cardinality is bounded: services and routes are names from documents and files, and the least lately
used series goes when there are too many, counted in `evicted_count`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from gossipmesh.telemetry.histogram import Histogram

SERIES_MAX: Final = 2_000


class TrafficKey(NamedTuple):
    """Requests of one kind; `direction` is outbound or inbound."""

    direction: str
    caller: str
    service: str
    route: str
    protocol: str


class TrafficSeries:
    """What requests of one kind added up to since this agent started."""

    __slots__ = ("duration_ms", "outcomes", "received_bytes", "retries_count", "sent_bytes")

    def __init__(self, bounds_ms: tuple[int, ...]) -> None:
        self.outcomes: dict[tuple[str, str], int] = {}
        self.duration_ms = Histogram(bounds_ms)
        self.received_bytes = 0
        self.sent_bytes = 0
        self.retries_count = 0


class TrafficTable:
    """All series, least lately used first."""

    def __init__(self, bounds_ms: tuple[int, ...], series_max: int = SERIES_MAX) -> None:
        self.evicted_count = 0
        self._bounds_ms = bounds_ms
        self._series_max = series_max
        self._series: OrderedDict[TrafficKey, TrafficSeries] = OrderedDict()

    def series(self, key: TrafficKey) -> TrafficSeries:
        """Return the series of `key`, made when it is new."""
        known = self._series.get(key)
        if known is not None:
            self._series.move_to_end(key)
            return known
        if len(self._series) >= self._series_max:
            self._series.popitem(last=False)
            self.evicted_count += 1
        made = self._series[key] = TrafficSeries(self._bounds_ms)
        return made

    def add(
        self,
        key: TrafficKey,
        outcomes: Iterable[tuple[str, str, int]],
        latency_counts: Sequence[int],
        latency_sum_ms: int,
    ) -> TrafficSeries:
        """Add one interval's (code class, flag, count) and latencies; return the series."""
        series = self.series(key)
        for code_class, flag, count in outcomes:
            series.outcomes[code_class, flag] = series.outcomes.get((code_class, flag), 0) + count
        series.duration_ms.merge(latency_counts, latency_sum_ms)
        return series

    def __iter__(self) -> Iterator[tuple[TrafficKey, TrafficSeries]]:
        return iter(sorted(self._series.items()))
