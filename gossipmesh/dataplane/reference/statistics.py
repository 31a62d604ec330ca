"""What happened, counted in plain ints and handed over once a second; less often when nothing did.

Ends where numbers become metrics: that is the agent's. Cardinality is bounded; what would be a key too
many is counted under `other`.
"""

from bisect import bisect_left
from typing import Final

from gossipmesh.dataplane.protocol import LATENCY_BUCKETS_MS, Outcome, Statistics, TrafficDelta

TRAFFIC_KEYS_MAX: Final = 4_096
SILENT_MS_MAX: Final = 2_000  # the agent takes 2.5 s without a frame for a reason to ask
TrafficKey = tuple[str, str, str, str, str]
_MILLISECOND_NS: Final = 1_000_000


class Traffic:
    """Sums of one key since the last hand-over."""

    __slots__ = (
        "latency_counts",
        "latency_sum_ns",
        "outcomes",
        "received_bytes",
        "retries_count",
        "sent_bytes",
    )

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], int] = {}
        self.latency_counts = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self.latency_sum_ns = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.retries_count = 0


class Counters:
    """Everything the engine counts."""

    def __init__(self) -> None:
        self._traffic: dict[TrafficKey, Traffic] = {}
        self._counts: dict[str, int] = {}
        self.gauges: dict[str, int] = {}
        self._gauges_told: dict[str, int] = {}
        self._untold_ms = 0

    def add(self, name: str, count: int = 1) -> None:
        """Count something that has a name only."""
        self._counts[name] = self._counts.get(name, 0) + count

    def adjust(self, name: str, step: int) -> None:
        """Move a level up or down."""
        self.gauges[name] = self.gauges.get(name, 0) + step

    def request(
        self,
        key: TrafficKey,
        *,
        code_class: str,
        flag: str,
        latency_ns: int,
        received_bytes: int,
        sent_bytes: int,
        retries_count: int = 0,
    ) -> None:
        """Count one finished request or TCP connection.

        Args:
            key: (direction, caller, service, route, protocol).
        """
        traffic = self._traffic.get(key)
        if traffic is None:
            if len(self._traffic) >= TRAFFIC_KEYS_MAX:
                self.add("statistics_overflow")
                key = (key[0], "other", "other", "other", key[4])
            traffic = self._traffic.setdefault(key, Traffic())
        outcome = (code_class, flag)
        traffic.outcomes[outcome] = traffic.outcomes.get(outcome, 0) + 1
        traffic.latency_counts[bisect_left(LATENCY_BUCKETS_MS, latency_ns / _MILLISECOND_NS)] += 1
        traffic.latency_sum_ns += latency_ns
        traffic.received_bytes += received_bytes
        traffic.sent_bytes += sent_bytes
        traffic.retries_count += retries_count

    def take_due(self, passed_ms: int) -> Statistics | None:
        """Return everything since the last hand-over and start anew; levels stay. Called every second.

        None when nothing moved, unless the last hand-over is so long past that this one is a sign of life: a
        frame wakes two processes. `passed_ms` is the time since the last call.
        """
        self._untold_ms += passed_ms
        moved = self._traffic or self._counts or self.gauges != self._gauges_told
        if not moved and self._untold_ms < SILENT_MS_MAX:
            return None
        traffic, self._traffic = self._traffic, {}
        counts, self._counts = self._counts, {}
        interval_ms, self._untold_ms = self._untold_ms, 0
        self._gauges_told = dict(self.gauges)
        deltas = tuple(_delta(key, sums) for key, sums in sorted(traffic.items(), key=lambda item: item[0]))
        return Statistics(interval_ms, deltas, counts, self._gauges_told)


def _delta(key: TrafficKey, sums: Traffic) -> TrafficDelta:
    direction, caller, service, route, protocol = key
    return TrafficDelta(
        direction=direction,
        caller=caller,
        service=service,
        route=route,
        protocol=protocol,
        outcomes=tuple(Outcome(code, flag, count) for (code, flag), count in sorted(sums.outcomes.items())),
        latency_counts=tuple(sums.latency_counts),
        latency_sum_ms=sums.latency_sum_ns // _MILLISECOND_NS,
        received_bytes=sums.received_bytes,
        sent_bytes=sums.sent_bytes,
        retries_count=sums.retries_count,
    )
