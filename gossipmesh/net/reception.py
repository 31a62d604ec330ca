"""Receiving connections of a small server: each has a place of one room, or is closed at once.

Ends at the conversation. What is evicted just ends: such a server's clients ask again.
"""

from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from gossipmesh.net.places import Party, Place, Room


class Reception:
    """One room, what happened to its places, and a line about that at 1, 2, 4, 8, ... times."""

    def __init__(self, name: str, tell: Callable[[str], None], *, places_max: int) -> None:
        self.counts: Counter[str] = Counter()
        self._tell = tell
        self._room = Room(name, self._count, places_max=places_max)

    def _count(self, event: str) -> None:
        self.counts[event] += 1
        count = self.counts[event]
        if count & (count - 1) == 0:
            words = event.replace("_", " ")
            self._tell(f"{words}: {count} so far, {self._room.held_count} connections now")

    async def receive(
        self,
        stream: trio.SocketStream,
        party_of: Callable[[trio.SocketStream], Party],
        converse: Callable[[trio.SocketStream, Place], Awaitable[None]],
    ) -> None:
        """Have `converse` serve a connection in a place of its own, and close it whatever happens.

        `party_of` says who it is; an OSError there means that it has left already.
        """
        scope = trio.CancelScope()

        def evict() -> bool:
            scope.cancel()
            return True

        try:
            place = self._room.admit((party_of(stream),), evict)
        except OSError:
            place = None
        try:
            if place is not None:
                with scope:
                    await converse(stream, place)
        finally:
            if place is not None:
                place.leave()
            await trio.aclose_forcefully(stream)
