"""Message bodies: a reader over one connection, and the three ways a body can end.

Spec: RFC 9112 section 6 and 7. Deviation: chunk extensions and trailers are read, checked and dropped;
no trailer is merged into a head.
"""

import re
from typing import Final

from gossipmesh.dataplane.reference.http1 import BadMessage, check_head_start_untrusted
from gossipmesh.model import limits
from gossipmesh.net.byte_stream import ByteStream
from gossipmesh.net.turns import TURN

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


class ConnectionCut(OSError):
    """The stream ended inside a message. Remote's fault. State: close it."""


class MessageReader:
    """A stream and what has been read of it and not yet used.

    What is buffered is walked through, not cut off piece by piece: a message of many tiny pieces costs no
    more than its bytes, and each piece counts as work of the turn.
    """

    __slots__ = ("_data", "_used", "received_bytes", "stream")

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self._data = b""
        self._used = 0  # how much of _data has been handed on
        self.received_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Return how much is buffered."""
        return len(self._data) - self._used

    @property
    def buffer(self) -> bytes:
        """Return what is buffered, and leave it there. Cost: a copy of it, when some has been used."""
        if self._used:
            self._data, self._used = self._data[self._used :], 0
        return self._data

    def take_buffered(self) -> bytes:
        """Return what is buffered, and forget it."""
        data = self.buffer
        self._data = b""
        return data

    async def fill(self) -> bool:
        """Read more into the buffer; False at the end of the stream."""
        data = await self.stream.receive()
        if not data:
            return False
        self.received_bytes += len(data)
        self._data = self._data[self._used :] + data if self.pending_bytes else data
        self._used = 0
        return True

    def _take(self, count: int) -> bytes:
        """Return the next `count` bytes, all of which are buffered."""
        data, used = self._data, self._used
        TURN.spend(0)  # its bytes were counted when they were read
        if used == 0 and count == len(data):
            self._data = b""
            return data
        self._used = used + count
        return data[used : used + count]

    async def read_head_untrusted(self) -> bytes | None:
        """Return the next head, its empty line included; None when the stream ended before one began.

        Raises:
            BadMessage: it cannot become a head. Remote's fault. State: close it.
            OSError: the connection broke or ended within. State: close it.
        """
        searched = 0
        while True:
            if TURN.over():
                await TURN.rest()
            end = self._data.find(b"\r\n\r\n", self._used + searched)
            if end >= 0:
                return self._take(end + 4 - self._used)
            buffer = self.buffer
            if buffer:
                check_head_start_untrusted(buffer)
                searched = max(0, len(buffer) - 3)
            if not await self.fill():
                if buffer:
                    raise ConnectionCut("the stream ended inside a head")
                return None

    async def read_line_untrusted(self) -> bytes:
        """Return the next line of a chunked body, without its CRLF.

        Raises:
            BadMessage: too long, or a bare CR or LF. Remote's fault. State: close it.
            OSError: the connection broke or ended within. State: close it.
        """
        while True:
            if TURN.over():
                await TURN.rest()
            used, searched = self._used, self._used + limits.HTTP_CHUNK_LINE_BYTES_MAX + 2
            end = self._data.find(b"\r\n", used, searched)
            line = self._data[used : searched if end < 0 else end]
            if len(line) > limits.HTTP_CHUNK_LINE_BYTES_MAX or b"\n" in line or b"\r" in line[:-1]:
                raise BadMessage("a chunk line too long, or with a bare CR or LF")
            if end >= 0:
                if line.endswith(b"\r"):
                    raise BadMessage("a bare CR in a chunk line")
                self._take(len(line) + 2)
                return line
            if not await self.fill():
                raise ConnectionCut("the stream ended inside a chunk line")

    async def read_exactly(self, count: int) -> bytes:
        """Return `count` bytes.

        Raises:
            OSError: the connection broke or ended before. State: close it.
        """
        while self.pending_bytes < count:
            if not await self.fill():
                raise ConnectionCut("the stream ended inside a body")
        if TURN.over():
            await TURN.rest()
        return self._take(count)

    async def read_some(self, count_max: int) -> bytes:
        """Return up to `count_max` bytes, at least one; `b""` at the end of the stream."""
        if TURN.over():
            await TURN.rest()
        if not self.pending_bytes and not await self.fill():
            return b""
        return self._take(min(self.pending_bytes, count_max))


class MessageBody:
    """A body on its way: `next` until it answers `b""`."""

    __slots__ = ("_chunked", "_owes_break", "_reader", "_remaining", "finished")

    def __init__(self, reader: MessageReader, *, content_length: int | None, chunked: bool) -> None:
        self._reader = reader
        self._chunked = chunked
        self._owes_break = False  # a chunk's data is handed on before the CRLF behind it is read
        # Of the body, or of the current chunk; None: until the stream ends.
        self._remaining: int | None = 0 if chunked else content_length
        self.finished = not chunked and content_length == 0

    async def next(self) -> bytes:
        """Return the next decoded bytes, `b""` once the body has ended. A cancelled call loses nothing.

        Raises:
            BadMessage: the chunking is unreadable. Remote's fault. State: close it.
            OSError: the connection broke or ended within. State: close it.
        """
        if self.finished:
            return b""
        if self._chunked:
            return await self._next_of_chunks()
        if self._remaining is None:
            data = await self._reader.read_some(limits.HTTP_REPLAY_BODY_BYTES_MAX)
            self.finished = not data
            return data
        data = await self._reader.read_some(self._remaining)
        if not data:
            raise ConnectionCut("the stream ended inside a body")
        self._remaining -= len(data)
        self.finished = self._remaining == 0
        return data

    async def _next_of_chunks(self) -> bytes:
        if self._owes_break:
            if await self._reader.read_exactly(2) != b"\r\n":
                raise BadMessage("a chunk that does not end where it said")
            self._owes_break = False
        if not self._remaining:
            match = _CHUNK_LINE.fullmatch(await self._reader.read_line_untrusted())
            if match is None:
                raise BadMessage("a chunk size that is none")
            self._remaining = int(match[1], 16)
            if self._remaining == 0:
                await self._skip_trailers()
                self.finished = True
                return b""
        data = await self._reader.read_some(self._remaining)
        if not data:
            raise ConnectionCut("the stream ended inside a chunk")
        self._remaining -= len(data)
        self._owes_break = self._remaining == 0
        return data

    async def _skip_trailers(self) -> None:
        size = 0
        while True:
            line = await self._reader.read_line_untrusted()
            if not line:
                return
            size += len(line)
            if size > limits.HTTP_HEAD_BYTES_MAX or _TRAILER.fullmatch(line) is None:
                raise BadMessage("trailers too long or unreadable")


def chunk(data: bytes) -> bytes:
    """Return one chunk; `data` is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
