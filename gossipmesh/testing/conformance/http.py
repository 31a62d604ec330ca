"""Reading and answering HTTP/1.1 as a client or a workload does, one message at a time, from any stream."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

import trio

STATUS: Final = re.compile(rb"HTTP/1\.1 (?=[0-9]{3} )")
READ_BYTES: Final = 65_536
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Peer:
    """One end of a connection; `ended` is `fin` or `reset` once the other end has ended it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.buffer = b""
        self.taken = b""  # all that came, as it came
        self.ended = ""

    async def more(self) -> bool:
        """Read some; False at the end."""
        if self.ended:
            return False
        try:
            data = bytes(await self.stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, OSError):
            self.ended = "reset"
            return False
        if not data:
            self.ended = "fin"
        self.buffer += data
        self.taken += data
        return bool(data)

    async def send(self, data: bytes) -> None:
        """Send all of it; an end that the other side made is found by reading."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, OSError):
            pass

    async def until(self, mark: bytes) -> bytes:
        """Return what comes up to `mark`, with it; empty when the stream ends before."""
        while mark not in self.buffer:
            if not await self.more():
                return b""
        found, _, self.buffer = self.buffer.partition(mark)
        return found + mark

    async def exactly(self, count: int) -> bytes:
        """Return `count` bytes, fewer at the end of the stream."""
        while len(self.buffer) < count and await self.more():
            pass
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    async def rest(self) -> bytes:
        """Return everything until the end."""
        while await self.more():
            pass
        found, self.buffer = self.buffer, b""
        return found

    async def message(self, *, bodiless: bool = False) -> bytes:
        """Return the next message, head, body and trailers, unchunked; empty unless it is whole."""
        head = await self.until(b"\r\n\r\n")
        if not head or bodiless:
            return head
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            body = await self._chunks()
            return b"" if body is None else head + body
        length = re.search(rb"content-length: ([0-9]+)", lowered)
        if length is None:
            return head
        body = await self.exactly(int(length[1]))
        return head + body if len(body) == int(length[1]) else b""

    async def _chunks(self) -> bytes | None:
        parts = []
        while True:
            line = await self.until(b"\r\n")
            size = int(line.split(b";")[0] or b"-1", 16)
            if size < 0:
                return None
            if not size:
                break
            part = await self.exactly(size + 2)
            if len(part) < size + 2:
                return None
            parts.append(part[:-2])
        while (line := await self.until(b"\r\n")) != b"\r\n":
            if not line:
                return None
            parts.append(line)
        return b"".join(parts)


def statuses_in(data: bytes) -> list[int]:
    """Return the statuses of the answers in `data`."""
    return [int(part[:3]) for part in STATUS.split(data)[1:]]


Handler = Callable[[Peer], Awaitable[None]]
