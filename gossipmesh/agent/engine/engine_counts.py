"""What engines counted, added up over their restarts; series are bounded in `telemetry`.

Reads what today's engine says, and what one of 0.1 says that was kept through an upgrade: of that one the
response code is a class (`5xx`), a subset is not told, and a histogram belongs to the commonest outcome.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from gossipmesh.dataplane.protocol import (
    DURATION_BUCKETS_MS,
    LATENCY_BUCKETS_MS,
    ConnectionsDelta,
    Demand,
    Denial,
    Ejection,
    EngineEvent,
    RequestsDelta,
    Statistics,
    TrafficDelta,
)
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import service_of_spiffe_id
from gossipmesh.telemetry.counters import Counters
from gossipmesh.telemetry.traffic import (
    OTHER,
    UNKNOWN,
    ConnectionLabels,
    ConnectionSeries,
    RequestLabels,
    RequestSeries,
    SeriesTable,
)

_MICROSECONDS_PER_MS: Final = 1_000
_TCP: Final = "tcp"


class EngineCounts:
    """What the engine told so far, added up."""

    def __init__(self) -> None:
        self.requests: SeriesTable[RequestLabels, RequestSeries] = SeriesTable(
            lambda: RequestSeries(DURATION_BUCKETS_MS)
        )
        self.connections: SeriesTable[ConnectionLabels, ConnectionSeries] = SeriesTable(ConnectionSeries)
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
        for requests in statistics.requests:
            self._add_requests(requests, str(requests.response_code))
        for connections in statistics.connections:
            self._add_connections(connections)
        for delta in statistics.traffic:
            self._add_before(delta)
        for name, count in statistics.counters.items():
            self.counters.add(name, count=count)
        if statistics.gauges:  # none come of an engine that drains beside its successor
            self.gauges = dict(list(statistics.gauges.items())[:100])

    def _add_requests(self, delta: RequestsDelta, response_code: str) -> None:
        destination, subset = _destination(delta.service, delta.upstream)
        labels = RequestLabels(
            source_service=_service_of(delta.caller),
            source_principal=delta.caller,
            destination_service=destination,
            destination_subset=subset,
            route=delta.route,
            protocol=delta.protocol,
            response_code=response_code,
            response_flags=delta.response_flags,
            direction=delta.direction,
        )
        series = self.requests.series(labels)
        series.requests_count += delta.requests_count
        series.retries_count += delta.retries_count
        series.duration_us.merge(delta.duration_counts, delta.duration_sum_us)
        series.received_bytes += delta.received_bytes
        series.sent_bytes += delta.sent_bytes

    def _add_connections(self, delta: ConnectionsDelta) -> None:
        destination, subset = _destination(delta.service, delta.upstream)
        labels = ConnectionLabels(
            source_service=_service_of(delta.caller),
            source_principal=delta.caller,
            destination_service=destination,
            destination_subset=subset,
            route=delta.route,
            response_flags=delta.response_flags,
            direction=delta.direction,
        )
        series = self.connections.series(labels)
        series.opened_count += delta.opened_count
        series.closed_count += delta.closed_count
        series.retries_count += delta.retries_count
        series.received_bytes += delta.received_bytes
        series.sent_bytes += delta.sent_bytes

    def _add_before(self, delta: TrafficDelta) -> None:
        """Take what an engine of 0.1 tells: one histogram and one sum of bytes for several outcomes."""
        outcomes = sorted(delta.outcomes, key=lambda one: (-one.requests_count, one.code_class, one.flag))
        for number, one in enumerate(outcomes):
            first = number == 0
            common = (delta.direction, delta.caller, delta.service, "", delta.route)
            received, sent = (delta.received_bytes, delta.sent_bytes) if first else (0, 0)
            retries = delta.retries_count if first else 0
            count, flags = one.requests_count, one.flag or "-"
            if delta.protocol == _TCP:
                self._add_connections(ConnectionsDelta(*common, "", count, 0, 0, received, sent))
                self._add_connections(ConnectionsDelta(*common, flags, 0, count, retries, 0, 0))
                continue
            counts = tuple(_durations(delta.latency_counts)) if first else ()
            total_us = delta.latency_sum_ms * _MICROSECONDS_PER_MS if first else 0
            requests = RequestsDelta(
                *common, delta.protocol, 0, flags, count, retries, counts, total_us, received, sent
            )
            self._add_requests(requests, one.code_class)


def services_of(statistics: Statistics) -> Iterable[str]:
    """Return the services that were called, as their callers named them."""
    told: Iterable[RequestsDelta | ConnectionsDelta | TrafficDelta] = chain(
        statistics.requests, statistics.connections, statistics.traffic
    )
    return dict.fromkeys(delta.service for delta in told if delta.service)


def _destination(service: str, upstream: str) -> tuple[str, str]:
    """Return (service, subset) that was chosen, or the service asked for when none was."""
    chosen, _, subset = upstream.partition("@")
    return chosen or service or UNKNOWN, subset


def _service_of(caller: str) -> str:
    """Return the service an identity belongs to; a node's own calls have none."""
    try:
        return service_of_spiffe_id(caller) or UNKNOWN
    except MalformedInput:
        return OTHER if caller == OTHER else UNKNOWN


def _durations(latency_counts: Sequence[int]) -> Iterator[int]:
    """Fold the buckets of 0.1 into today's, whose bounds are among theirs."""
    start = 0
    for bound in DURATION_BUCKETS_MS:
        end = LATENCY_BUCKETS_MS.index(bound) + 1
        yield sum(latency_counts[start:end])
        start = end
    yield sum(latency_counts[start:])
