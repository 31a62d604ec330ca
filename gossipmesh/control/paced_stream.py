"""Connections that take turns at what they cost: after each piece that arrives, one waits until it is next.

A TLS handshake costs a millisecond of the one loop. A thousand a second from one address must not delay one
from another: sources are served in turn, one burst of work each. A connection that waits for its peer holds
nothing. Within a source those that were answered take turns with those that come, and the newest come first:
a crowd beyond what can be served would else begin with everybody and end with nobody. Ends at bytes; how much
may wait is the room's of `net.places`.
"""

from typing import Final

import trio

from gossipmesh.control.queue import FairQueue
from gossipmesh.net.places import Party

_WAITING_MAX: Final = 65_536  # the room has fewer places: nobody is turned away here


class Turns:
    """Who may go on now; `run` is what hands out the turns."""

    def __init__(self) -> None:
        self._queue: FairQueue[trio.Event] = FairQueue(
            per_party_max=_WAITING_MAX, all_max=_WAITING_MAX, newest_first=True
        )
        self._something = trio.Event()

    async def run(self) -> None:
        """Let one go on after the other, until cancelled."""
        while True:
            turn = self._queue.take()
            if turn is None:
                self._something = trio.Event()
                await self._something.wait()
                continue
            turn.set()
            await trio.lowlevel.checkpoint()

    async def wait(self, source: Party, *, is_answered: bool = False) -> None:
        """Wait until it is this source's turn; `is_answered`: some work was done for this one already."""
        turn = trio.Event()
        self._queue.put(source, is_answered, turn)
        self._something.set()
        await turn.wait()


class PacedStream(trio.abc.Stream):
    """A stream whose owner goes on in its source's turn."""

    def __init__(self, stream: trio.SocketStream, turns: Turns, source: Party) -> None:
        self._stream = stream
        self._turns = turns
        self._source = source
        self._is_answered = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return what arrived, when it is this source's turn."""
        data = await self._stream.receive_some(max_bytes)
        await self._turns.wait(self._source, is_answered=self._is_answered)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; that costs little."""
        self._is_answered = True
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes more."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()
