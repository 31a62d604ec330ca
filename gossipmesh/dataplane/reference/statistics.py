"""What happened, counted in plain ints and handed over once a second; less often when nothing did.

Ends where numbers become metrics: that is the agent's. Cardinality is bounded; what would be a key too
many is counted under `other`.
"""

from bisect import bisect_left
from functools import partial
from typing import Final

from gossipmesh.dataplane.protocol import (
    DURATION_BUCKETS_MS,
    ConnectionsDelta,
    RequestsDelta,
    Statistics,
)
from gossipmesh.dataplane.reference.statistics_before import traffic_of
from gossipmesh.model.instant import MILLISECOND_NS

TRAFFIC_KEYS_MAX: Final = 4_096
SILENT_MS_MAX: Final = 2_000  # the agent takes 2.5 s without a frame for a reason to ask
RequestsKey = tuple[str, str, str, str, str, str, int, str]
ConnectionsKey = tuple[str, str, str, str, str, str]
_BUCKETS_NS: Final = tuple(bound * MILLISECOND_NS for bound in DURATION_BUCKETS_MS)
_OTHER: Final = "other"

# Returns which of a request's `duration_counts` a duration in nanoseconds belongs to.
duration_bucket: Final = partial(bisect_left, _BUCKETS_NS)


class Requests:
    """Sums of one key since the last hand-over."""

    __slots__ = (
        "duration_counts",
        "duration_sum_ns",
        "received_bytes",
        "requests_count",
        "retries_count",
        "sent_bytes",
    )

    def __init__(self) -> None:
        self.requests_count = 0
        self.retries_count = 0
        self.duration_counts = [0] * (len(_BUCKETS_NS) + 1)
        self.duration_sum_ns = 0
        self.received_bytes = 0
        self.sent_bytes = 0


class Connections:
    """The same of TCP connections."""

    __slots__ = ("closed_count", "opened_count", "received_bytes", "retries_count", "sent_bytes")

    def __init__(self) -> None:
        self.opened_count = 0
        self.closed_count = 0
        self.retries_count = 0
        self.received_bytes = 0
        self.sent_bytes = 0


class Counters:
    """Everything the engine counts."""

    def __init__(self) -> None:
        self._requests: dict[RequestsKey, Requests] = {}
        self._connections: dict[ConnectionsKey, Connections] = {}
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

    def requests(self, key: RequestsKey) -> Requests:
        """Return the sums to add one finished request to.

        Args:
            key: (direction, caller, service, upstream, route, protocol, response code, response flags).
        """
        sums = self._requests.get(key)
        if sums is None:
            if len(self._requests) >= TRAFFIC_KEYS_MAX:
                self.add("statistics_overflow")
                key = (key[0], _OTHER, _OTHER, "", _OTHER, key[5], key[6], key[7])
            sums = self._requests.setdefault(key, Requests())
        return sums

    def connections(self, key: ConnectionsKey) -> Connections:
        """Return the sums to add a TCP connection to, when it opens and when it closes.

        Args:
            key: (direction, caller, service, upstream, route, response flags; none yet when it opens).
        """
        sums = self._connections.get(key)
        if sums is None:
            if len(self._connections) >= TRAFFIC_KEYS_MAX:
                self.add("statistics_overflow")
                key = (key[0], _OTHER, _OTHER, "", _OTHER, key[5])
            sums = self._connections.setdefault(key, Connections())
        return sums

    def take_due(self, passed_ms: int, *, before: bool = False) -> Statistics | None:
        """Return everything since the last hand-over and start anew; levels stay. Called every second.

        None when nothing moved, unless the last hand-over is so long past that this one is a sign of life: a
        frame wakes two processes. `passed_ms` is the time since the last call; `before`: the agent is of 0.1
        and reads `traffic` only.
        """
        self._untold_ms += passed_ms
        moved = self._requests or self._connections or self._counts or self.gauges != self._gauges_told
        if not moved and self._untold_ms < SILENT_MS_MAX:
            return None
        requests = tuple(_requests_delta(key, sums) for key, sums in self._requests.items())
        connections = tuple(_connections_delta(key, sums) for key, sums in self._connections.items())
        self._requests, self._connections = {}, {}
        counts, self._counts = self._counts, {}
        interval_ms, self._untold_ms = self._untold_ms, 0
        self._gauges_told = dict(self.gauges)
        if before:
            return Statistics(interval_ms, traffic_of(requests, connections), counts, self._gauges_told)
        return Statistics(interval_ms, (), counts, self._gauges_told, requests, connections)


def _requests_delta(key: RequestsKey, sums: Requests) -> RequestsDelta:
    return RequestsDelta(
        *key,
        requests_count=sums.requests_count,
        retries_count=sums.retries_count,
        duration_counts=tuple(sums.duration_counts),
        duration_sum_us=sums.duration_sum_ns // 1_000,
        received_bytes=sums.received_bytes,
        sent_bytes=sums.sent_bytes,
    )


def _connections_delta(key: ConnectionsKey, sums: Connections) -> ConnectionsDelta:
    return ConnectionsDelta(
        *key,
        opened_count=sums.opened_count,
        closed_count=sums.closed_count,
        retries_count=sums.retries_count,
        received_bytes=sums.received_bytes,
        sent_bytes=sums.sent_bytes,
    )
