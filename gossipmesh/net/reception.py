"""Receiving connections of a small server: each has a place of one room, or is closed at once.

Ends at the conversation. What is evicted just ends: such a server's clients ask again.
"""

import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from gossipmesh.net.accepting import SHED_AT_ONCE, accept_in_need, accept_on
from gossipmesh.net.descriptors import DescriptorReserve
from gossipmesh.net.places import Party, Place, Room

_DESCRIPTORS_KEPT: Final = 1

PartyOf = Callable[[trio.SocketStream], Party]
Converse = Callable[[trio.SocketStream, Place], Awaitable[None]]


class Reception:
    """One room, what happened to its places, and a line about that at 1, 2, 4, 8, ... times."""

    def __init__(
        self, name: str, tell: Callable[[str], None], *, places_max: int, accepts_per_turn: int = 1
    ) -> None:
        """`accepts_per_turn`: how many come in before those who are in go on.

        With few, who asks has asked before many others have come. With many, nobody waits in the kernel's
        queue, which knows no turns, and which turns newcomers away for a second when it is full.
        """
        self.counts: Counter[str] = Counter()
        self._tell = tell
        self._accepts_per_turn = accepts_per_turn
        self._room = Room(name, self._count, places_max=places_max)
        self._reserve = DescriptorReserve(_DESCRIPTORS_KEPT)

    def _count(self, event: str) -> None:
        self.counts[event] += 1
        count = self.counts[event]
        if count & (count - 1) == 0:
            words = event.replace("_", " ")
            self._tell(f"{words}: {count} so far, {self._room.held_count} connections now")

    async def run(self, listener: socket.socket, party_of: PartyOf, converse: Converse) -> None:
        """Receive whoever comes at `listener`, which does not block, until cancelled; then close it.

        Args:
            listener: where they come.
            party_of: says who one is; an OSError there means that it has left already.
            converse: serves one.
        """
        try:
            async with trio.open_nursery() as nursery:

                def take_queued() -> int:
                    came_count = 0
                    for _ in range(self._accepts_per_turn):
                        try:
                            client, _ = listener.accept()
                        except BlockingIOError:
                            break
                        except ConnectionError:
                            continue  # it left before we looked
                        came_count += 1
                        self._receive(client, party_of, converse, nursery)
                    self._reserve.refill()
                    return came_count

                await accept_on(
                    listener,
                    take_queued,
                    lambda: self._make_room(listener),
                    lambda _error: self._room.count("accept_errors"),
                )
        finally:
            listener.close()
            self._reserve.close()

    def _make_room(self, listener: socket.socket) -> None:
        self._room.count("descriptors_short")
        if self._room.shed(SHED_AT_ONCE):
            return
        came = accept_in_need(listener, self._reserve)
        if came is not None:
            came[0].close()
            self._room.count("refused_descriptors")
        self._reserve.refill()

    def _receive(
        self, client: socket.socket, party_of: PartyOf, converse: Converse, nursery: trio.Nursery
    ) -> None:
        """Give a connection its place, in the order they came, and a task; or close it."""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
        scope = trio.CancelScope()

        def evict() -> bool:
            scope.cancel()
            return True

        try:
            place = self._room.admit((party_of(stream),), evict)
        except OSError:
            place = None
        if place is None:
            client.close()
            return

        async def serve(place: Place) -> None:
            try:
                with scope:
                    await converse(stream, place)
            finally:
                place.leave()
                await trio.aclose_forcefully(stream)

        nursery.start_soon(serve, place)
