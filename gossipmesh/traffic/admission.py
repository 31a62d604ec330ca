"""Refusing early: how much one upstream may hold at a time (response flag `UO`).

Rule: one local user may hold what the limit says, all of them twice as much. Whoever hangs on to all it may
have, with uploads that never end or idle tunnels, leaves as much for others.
"""

from typing import Final

from gossipmesh.model.snapshot import LimitsSection

_ALL_USERS: Final = 2  # times the limit


class Admission:
    """Connections and requests of one upstream against the snapshot's limits; a tunnel is a request as well.

    A yes must be given back by its `release_*`; a no is counted and changes nothing else.
    """

    def __init__(self, section: LimitsSection) -> None:
        self._connections_max = section.upstream_connections
        self._requests_max = section.upstream_requests
        self.connections_count = 0
        self.requests_count = 0
        self._held: dict[int | None, int] = {}  # requests by uid; nobody's is none
        self.overflows_count = 0

    def update(self, section: LimitsSection) -> None:
        """Take new limits; what is held above them is kept until it ends."""
        self._connections_max = section.upstream_connections
        self._requests_max = section.upstream_requests

    def admit_connection(self) -> bool:
        """Take a place for a connection; False at the limit."""
        if self.connections_count >= _ALL_USERS * self._connections_max:
            self.overflows_count += 1
            return False
        self.connections_count += 1
        return True

    def release_connection(self) -> None:
        """Give a connection's place back."""
        assert self.connections_count > 0
        self.connections_count -= 1

    def admit_request(self, uid: int | None = None) -> bool:
        """Take a place for a request of `uid`; False at the limit. None: nobody knows whose."""
        held_count = self._held.get(uid, 0)
        if held_count >= self._requests_max or self.requests_count >= _ALL_USERS * self._requests_max:
            self.overflows_count += 1
            return False
        self.requests_count += 1
        self._held[uid] = held_count + 1
        return True

    def release_request(self, uid: int | None = None) -> None:
        """Give a request's place back."""
        held_count = self._held.pop(uid)
        self.requests_count -= 1
        if held_count > 1:
            self._held[uid] = held_count - 1
