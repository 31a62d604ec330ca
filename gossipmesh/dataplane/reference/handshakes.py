"""Handshakes under way at the mesh port: so many that nodes find their turn, so few that none is a burden.

A TLS connection whose hello has been answered holds fifty kilobytes until the other end goes on. Rule: one
source at its share, and all of them together, lose their oldest handshake to a newcomer; of all, that of
whoever has most.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from gossipmesh.dataplane.reference.connections import Connection
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits
from gossipmesh.net.places import Party, source_of

_Handshakes = OrderedDict[Connection, None]


class Handshakes:
    """Whose handshakes are under way, each source's in the order they began."""

    def __init__(
        self,
        counters: Counters,
        *,
        of_one_max: int = limits.HANDSHAKES_PER_SOURCE_MAX,
        count_max: int = limits.HANDSHAKES_UNDER_WAY_MAX,
    ) -> None:
        self._counters = counters
        self._of_one_max = of_one_max
        self._count_max = count_max
        self._sources: dict[Party, _Handshakes] = {}
        self.count = 0

    def has_room(self, connection: Connection) -> bool:
        """Tell whether a connection's handshake ends none of its own source's."""
        return len(self._sources.get(source_of(connection.source), ())) < self._of_one_max

    @contextmanager
    def under_way(self, connection: Connection) -> Iterator[None]:
        """Count a handshake while it lasts; it may have to make way, and another's for it."""
        source = source_of(connection.source)
        if len(self._sources.get(source, ())) >= self._of_one_max:
            self._evict(source)
        elif self.count >= self._count_max:
            self._evict(max(self._sources, key=lambda known: len(self._sources[known])))
        self._sources.setdefault(source, OrderedDict())[connection] = None
        self.count += 1
        try:
            yield
        finally:
            self._forget(source, connection)

    def _evict(self, source: Party) -> None:
        oldest = next(iter(self._sources[source]))
        self._forget(source, oldest)
        self._counters.add("handshakes_evicted")
        oldest.end()

    def _forget(self, source: Party, connection: Connection) -> None:
        known = self._sources.get(source)
        if known is not None and connection in known:
            del known[connection]
            self.count -= 1
            if not known:
                del self._sources[source]
