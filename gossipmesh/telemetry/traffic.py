"""Golden metrics of a node: what its engine counted, added up per kind of request or TCP connection.

Cardinality is bounded: every name in a label is one that catalogue, policy or a certificate vouches for, and
the least lately used series goes when there are too many. What it held is added to one named `other`, so
that sums never go back, and counted in `evicted_count`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Generic, NamedTuple, Protocol, Self, TypeVar

from gossipmesh.telemetry.histogram import Histogram

SERIES_MAX: Final = 1_000
UNKNOWN: Final = "unknown"
OTHER: Final = "other"


class RequestLabels(NamedTuple):
    """Requests of one kind; `direction` is outbound or inbound, `response_flags` `-` for none."""

    source_service: str
    source_principal: str
    destination_service: str
    destination_subset: str
    route: str
    protocol: str
    response_code: str
    response_flags: str
    direction: str

    @property
    def folded(self) -> "RequestLabels":
        """Return what is left of the name of a series that is no longer kept by itself."""
        code_class = f"{self.response_code[0]}xx" if len(self.response_code) == 3 else self.response_code
        flags = "-" if self.response_flags == "-" else OTHER
        return RequestLabels(OTHER, OTHER, OTHER, "", OTHER, self.protocol, code_class, flags, self.direction)


class ConnectionLabels(NamedTuple):
    """TCP connections of one kind; `response_flags` is empty for those that were opened."""

    source_service: str
    source_principal: str
    destination_service: str
    destination_subset: str
    route: str
    response_flags: str
    direction: str

    @property
    def folded(self) -> "ConnectionLabels":
        """Return what is left of the name of a series that is no longer kept by itself."""
        flags = self.response_flags if self.response_flags in ("", "-") else OTHER
        return ConnectionLabels(OTHER, OTHER, OTHER, "", OTHER, flags, self.direction)


class RequestSeries:
    """What requests of one kind added up to since this agent started."""

    __slots__ = ("duration_us", "received_bytes", "requests_count", "retries_count", "sent_bytes")

    def __init__(self, bounds_ms: tuple[int, ...]) -> None:
        self.requests_count = 0
        self.retries_count = 0
        self.duration_us = Histogram(bounds_ms)
        self.received_bytes = 0
        self.sent_bytes = 0

    def merge(self, other: Self) -> None:
        """Add another series."""
        self.requests_count += other.requests_count
        self.retries_count += other.retries_count
        self.duration_us.merge(other.duration_us.counts, other.duration_us.total)
        self.received_bytes += other.received_bytes
        self.sent_bytes += other.sent_bytes


class ConnectionSeries:
    """The same of TCP connections."""

    __slots__ = ("closed_count", "opened_count", "received_bytes", "retries_count", "sent_bytes")

    def __init__(self) -> None:
        self.opened_count = 0
        self.closed_count = 0
        self.retries_count = 0
        self.received_bytes = 0
        self.sent_bytes = 0

    def merge(self, other: Self) -> None:
        """Add another series."""
        self.opened_count += other.opened_count
        self.closed_count += other.closed_count
        self.retries_count += other.retries_count
        self.received_bytes += other.received_bytes
        self.sent_bytes += other.sent_bytes


class _Labels(Protocol):
    @property
    def folded(self) -> Self: ...

    def __lt__(self, other: Self, /) -> bool: ...

    def __hash__(self) -> int: ...


class _Series(Protocol):
    def merge(self, other: Self, /) -> None: ...


_L = TypeVar("_L", bound=_Labels)
_S = TypeVar("_S", bound=_Series)


class SeriesTable(Generic[_L, _S]):
    """All series of one kind, least lately used first, and what those no longer kept added up to."""

    def __init__(self, make: Callable[[], _S], series_max: int = SERIES_MAX) -> None:
        self.evicted_count = 0
        self._make = make
        self._series_max = series_max
        self._series: OrderedDict[_L, _S] = OrderedDict()
        self._folded: dict[_L, _S] = {}  # by directions, code classes and protocols: a handful

    def series(self, labels: _L) -> _S:
        """Return the series of `labels`, made when it is new."""
        known = self._series.get(labels)
        if known is not None:
            self._series.move_to_end(labels)
            return known
        if len(self._series) >= self._series_max:
            old_labels, old = self._series.popitem(last=False)
            self._folded.setdefault(old_labels.folded, self._make()).merge(old)
            self.evicted_count += 1
        made = self._series[labels] = self._make()
        return made

    def __iter__(self) -> Iterator[tuple[_L, _S]]:
        return iter(sorted([*self._series.items(), *self._folded.items()], key=lambda item: item[0]))
