"""The listening sockets: given by an agent, accepted on as the snapshot says, handed on as duplicates.

Rules: a socket is made once, by an agent, and outlives engines and agents; an explicit upstream port is
accepted on while the snapshot lists it and closed when a snapshot that listed it no longer does.
"""

import socket
from collections.abc import Callable, Mapping
from typing import Final

import trio

from gossipmesh.dataplane.reference.connections import Acceptor, Connections, Door
from gossipmesh.dataplane.reference.rooms import MESH, PROXY, READINESS, Rooms
from gossipmesh.dataplane.reference.state import Applied

# On these ports the other end speaks first. On an upstream's own port it may wait for the server's greeting.
_SPOKEN_TO: Final = (MESH, READINESS, PROXY)
_QUEUED_TURNS_MAX: Final = 256

AcceptorFor = Callable[[str], Acceptor | None]


class Listeners:
    """Every listening socket this engine holds, by name."""

    def __init__(
        self,
        connections: Connections,
        rooms: Rooms,
        nursery: trio.Nursery,
        acceptors: Mapping[str, Acceptor],
    ) -> None:
        self._connections = connections
        self._rooms = rooms
        self._nursery = nursery
        self._acceptors = acceptors
        self._sockets: dict[str, socket.socket] = {}
        self._accepting: dict[str, tuple[trio.CancelScope, Door]] = {}
        self._listed: frozenset[str] = frozenset()
        self._stopped: set[str] = set()

    @property
    def sockets(self) -> dict[str, socket.socket]:
        """Return the sockets held, by name."""
        return dict(self._sockets)

    def accepting(self, name: str) -> bool:
        """Tell whether connections on `name` are taken."""
        return name in self._accepting

    def give(self, sockets: Mapping[str, socket.socket], make: AcceptorFor) -> None:
        """Take sockets over; one of a name already held replaces it."""
        for name, sock in sockets.items():
            self._close(name)
            self._sockets[name] = sock
            self._start(name, make)

    def apply(self, applied: Applied, make: AcceptorFor) -> None:
        """Follow a new snapshot: accept on ports it lists, close those it dropped."""
        listed = frozenset(applied.listeners)
        for name in self._listed - listed:
            self._close(name)
        self._listed = listed
        for name in sorted(listed & self._sockets.keys()):
            self._start(name, make)

    def _start(self, name: str, make: AcceptorFor) -> None:
        acceptor = self._acceptors.get(name) or (make(name) if name in self._listed else None)
        room = self._rooms.of(name)
        if acceptor is None or name in self._accepting or room.name in self._stopped:
            return
        door = Door(room, acceptor, greets=name not in _SPOKEN_TO)
        scope = trio.CancelScope()
        self._accepting[name] = (scope, door)
        self._nursery.start_soon(self._accept, self._sockets[name], scope, door)

    async def _accept(self, sock: socket.socket, scope: trio.CancelScope, door: Door) -> None:
        with scope:
            try:
                await self._connections.accept(sock, door)
            except trio.ClosedResourceError:
                pass

    def stop(self, room: str) -> None:
        """Accept no more into a room. What waits now is served; later ones are refused, unless a duplicate
        of the socket is held elsewhere: then they are for who holds it.
        """
        self._stopped.add(room)
        for name in list(self._sockets):
            if self._rooms.of(name).name == room:
                self._take_queued(name)
                self._close(name)

    def hand_on(self) -> None:
        """Accept on nothing more, now or later: whoever waits in a queue is for the successor."""
        self._stopped |= {self._rooms.of(name).name for name in (MESH, PROXY, READINESS)}
        self.close()

    def _take_queued(self, name: str) -> None:
        if name not in self._accepting:
            return
        door = self._accepting[name][1]
        try:
            for _ in range(_QUEUED_TURNS_MAX):
                if not self._connections.accept_queued(self._sockets[name], door):
                    return
        except OSError:
            pass  # out of descriptors; the connection stays queued

    def close(self) -> None:
        """Close everything."""
        for name in list(self._sockets):
            self._close(name)

    def _close(self, name: str) -> None:
        accepting = self._accepting.pop(name, None)
        if accepting is not None:
            accepting[0].cancel()
        sock = self._sockets.pop(name, None)
        if sock is not None:
            # Without this the duplicate elsewhere would keep our registration with epoll alive.
            trio.lowlevel.notify_closing(sock.fileno())
            sock.close()
