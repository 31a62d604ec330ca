"""Refusing early: how much one upstream may hold at a time (response flag `UO`)."""

from gossipmesh.model.snapshot import LimitsSection


class Admission:
    """Connections and requests of one upstream against the snapshot's limits.

    A yes must be given back by its `release_*`; a no is counted and changes nothing else.
    """

    def __init__(self, section: LimitsSection) -> None:
        self._connections_max = section.upstream_connections
        self._requests_max = section.upstream_requests
        self.connections_count = 0
        self.requests_count = 0
        self.overflows_count = 0

    def update(self, section: LimitsSection) -> None:
        """Take new limits; what is held above them is kept until it ends."""
        self._connections_max = section.upstream_connections
        self._requests_max = section.upstream_requests

    def admit_connection(self) -> bool:
        """Take a place for a connection; False at the limit."""
        if self.connections_count >= self._connections_max:
            self.overflows_count += 1
            return False
        self.connections_count += 1
        return True

    def release_connection(self) -> None:
        """Give a connection's place back."""
        assert self.connections_count > 0
        self.connections_count -= 1

    def admit_request(self) -> bool:
        """Take a place for a request; False at the limit."""
        if self.requests_count >= self._requests_max:
            self.overflows_count += 1
            return False
        self.requests_count += 1
        return True

    def release_request(self) -> None:
        """Give a request's place back."""
        assert self.requests_count > 0
        self.requests_count -= 1
