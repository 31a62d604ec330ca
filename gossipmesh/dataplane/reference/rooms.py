"""The engine's rooms: which places a listener's connections take, and who it is that comes.

Rules: the mesh port, the node's own ports and readiness share no places; whoever sits on this machine is told
apart by uid, others by address; all of it together fits the descriptors this process may have.
"""

import logging
import socket
from typing import Final

import trio

from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits
from gossipmesh.model.member import Address
from gossipmesh.net.descriptors import descriptors_max
from gossipmesh.net.places import Party, Room, source_of, uid_party
from gossipmesh.net.socket_owner import SocketOwners

log = logging.getLogger("gossipmesh.engine")

MESH: Final = "mesh"
PROXY: Final = "proxy"
READINESS: Final = "readiness"
LOCAL: Final = "local"

# A request takes the caller's connection, one to an endpoint or workload, and now and then one more.
_DESCRIPTORS_PER_PLACE: Final = 3
_DESCRIPTORS_KEPT_MAX: Final = 128  # listeners, the agent, logs, certificates on their way into OpenSSL
_TOLD_AGAIN_S: Final = 30.0

PeerName = tuple[str, int]


class Rooms:
    """One room for other nodes, one for this node's applications, one for readiness."""

    def __init__(self, counters: Counters, owners: SocketOwners) -> None:
        self._counters = counters
        self._owners = owners
        self._told_at: dict[str, float] = {}
        spare = limits.SPARE_PLACES_MAX
        places = _places_max(limits.DOWNSTREAM_CONNECTIONS_MAX)
        few = max(4, places // 16)
        self.mesh = Room(MESH, counters.add, places_max=places, spare_places_max=min(spare, few))
        self.local = Room(LOCAL, counters.add, places_max=places, spare_places_max=min(spare, few))
        self.readiness = Room(READINESS, counters.add, places_max=min(limits.READINESS_PLACES_MAX, 2 * few))

    def of(self, listener: str) -> Room:
        """Return the room of a listener's connections."""
        if listener == MESH:
            return self.mesh
        return self.readiness if listener == READINESS else self.local

    def resize(self, connections_max: int) -> None:
        """Have room for so many connections, or for as many as descriptors allow."""
        places = _places_max(connections_max)
        self.mesh.resize(places)
        self.local.resize(places)

    def who(self, room: Room, client: socket.socket, peer: PeerName) -> tuple[Party, int | None]:
        """Return which party a newcomer is, and its uid; None: not of this machine, or nobody knows."""
        own = client.getsockname()
        if room is not self.local and peer[0] != own[0]:
            return source_of(peer[0]), None
        try:
            uid = self._owners.uid_of(Address(peer[0], peer[1]), Address(own[0], own[1]))
        except OSError:
            self._counters.add("owner_lookup_errors")
            uid = None
        return uid_party(uid), uid

    def shed(self, count_max: int) -> int:
        """Evict up to `count_max` for their descriptors, what matters least first; return how many."""
        shed_count = 0
        for room in (self.local, self.mesh):
            shed_count += room.shed(count_max - shed_count)
        return shed_count

    def tell(self) -> None:
        """Once a second: measure how full each room is, and say so when one is."""
        now = trio.current_time()
        for room in (self.mesh, self.local, self.readiness):
            full = room.take_full()
            self._counters.gauges[f"{room.name}_connections"] = room.held_count
            self._counters.gauges[f"{room.name}_full"] = int(full)
            if full and now >= self._told_at.get(room.name, 0.0):
                self._told_at[room.name] = now + _TOLD_AGAIN_S
                log.warning("%s is full: %d connections, each busy", room.name, room.held_count)


def _places_max(connections_max: int) -> int:
    """Return how many places each of the two large rooms has."""
    descriptors = descriptors_max()
    kept = min(_DESCRIPTORS_KEPT_MAX, descriptors // 4)
    return max(4, min(connections_max, (descriptors - kept) // _DESCRIPTORS_PER_PLACE) // 2)
