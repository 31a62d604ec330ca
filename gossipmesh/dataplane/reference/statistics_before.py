"""Statistics as an agent of 0.1 reads them: less is told, and what is told has the same sums."""

from collections.abc import Iterable
from typing import Final

from gossipmesh.dataplane.protocol import (
    DURATION_BUCKETS_MS,
    LATENCY_BUCKETS_MS,
    ConnectionsDelta,
    Outcome,
    RequestsDelta,
    TrafficDelta,
)

# Each bound of today's is one of theirs, so a count has a place where its upper bound is exact.
_PLACES: Final = (
    *(LATENCY_BUCKETS_MS.index(bound) for bound in DURATION_BUCKETS_MS),
    len(LATENCY_BUCKETS_MS),
)

_Key = tuple[str, str, str, str, str]


class _Sums:
    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], int] = {}
        self.latency_counts = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self.latency_sum_us = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.retries_count = 0

    def ended(self, code_class: str, flags: str, count: int) -> None:
        outcome = (code_class, "" if flags == "-" else flags)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count


def traffic_of(
    requests: Iterable[RequestsDelta], connections: Iterable[ConnectionsDelta]
) -> tuple[TrafficDelta, ...]:
    """Return the same traffic by fewer names, sorted by them."""
    found: dict[_Key, _Sums] = {}
    for one in requests:
        key = (one.direction, one.caller, one.service, one.route, one.protocol)
        sums = found.setdefault(key, _Sums())
        code_class = f"{one.response_code // 100}xx" if one.response_code else "0"
        sums.ended(code_class, one.response_flags, one.requests_count)
        for place, count in zip(_PLACES, one.duration_counts, strict=True):
            sums.latency_counts[place] += count
        sums.latency_sum_us += one.duration_sum_us
        _add_bytes(sums, one)
    for other in connections:
        key = (other.direction, other.caller, other.service, other.route, "tcp")
        sums = found.setdefault(key, _Sums())
        if other.closed_count:
            sums.ended("tcp", other.response_flags, other.closed_count)
        _add_bytes(sums, other)
    return tuple(_delta(key, sums) for key, sums in sorted(found.items(), key=lambda item: item[0]))


def _add_bytes(sums: _Sums, one: RequestsDelta | ConnectionsDelta) -> None:
    sums.received_bytes += one.received_bytes
    sums.sent_bytes += one.sent_bytes
    sums.retries_count += one.retries_count


def _delta(key: _Key, sums: _Sums) -> TrafficDelta:
    direction, caller, service, route, protocol = key
    return TrafficDelta(
        direction=direction,
        caller=caller,
        service=service,
        route=route,
        protocol=protocol,
        outcomes=tuple(Outcome(code, flag, count) for (code, flag), count in sorted(sums.outcomes.items())),
        latency_counts=tuple(sums.latency_counts),
        latency_sum_ms=sums.latency_sum_us // 1_000,
        received_bytes=sums.received_bytes,
        sent_bytes=sums.sent_bytes,
        retries_count=sums.retries_count,
    )
