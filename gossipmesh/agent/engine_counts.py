"""What engines counted, added up over their restarts; series are bounded in `telemetry`."""

from gossipmesh.dataplane.protocol import (
    LATENCY_BUCKETS_MS,
    Demand,
    Denial,
    Ejection,
    EngineEvent,
    Statistics,
)
from gossipmesh.telemetry.counters import Counters
from gossipmesh.telemetry.traffic import TrafficKey, TrafficTable


class EngineCounts:
    """What the engine told so far, added up."""

    def __init__(self) -> None:
        self.traffic = TrafficTable(LATENCY_BUCKETS_MS)
        self.counters = Counters()
        self.gauges: dict[str, int] = {}
        self.ejections = Counters()
        self.denials = Counters()
        self.demands_count = 0

    def add(self, event: EngineEvent) -> None:
        """Take one event of the engine."""
        if isinstance(event, Statistics):
            self._add_statistics(event)
        elif isinstance(event, Ejection):
            self.ejections.add(event.upstream, "out" if event.ejected else "back")
        elif isinstance(event, Denial):
            self.denials.add(event.caller, event.service, event.rule)
        elif isinstance(event, Demand):
            self.demands_count += 1

    def _add_statistics(self, statistics: Statistics) -> None:
        for delta in statistics.traffic:
            key = TrafficKey(delta.direction, delta.caller, delta.service, delta.route, delta.protocol)
            outcomes = ((one.code_class, one.flag, one.requests_count) for one in delta.outcomes)
            series = self.traffic.add(key, outcomes, delta.latency_counts, delta.latency_sum_ms)
            series.received_bytes += delta.received_bytes
            series.sent_bytes += delta.sent_bytes
            series.retries_count += delta.retries_count
        for name, count in statistics.counters.items():
            self.counters.add(name, count=count)
        self.gauges = dict(list(statistics.gauges.items())[:100])
