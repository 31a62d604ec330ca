"""Message bodies: a reader over one connection, and the three ways a body can end.

Spec: RFC 9112 section 6 and 7. Deviation: chunk extensions are read, checked and dropped. Trailers are
kept apart; none is merged into a head.
"""

import re
from typing import Final

import trio

from gossipmesh.dataplane.reference.http1 import (
    OUTER_LIMITS,
    BadMessage,
    FieldsTooLarge,
    HeaderList,
    HeadLimits,
    check_head_start_untrusted,
)
from gossipmesh.model import limits
from gossipmesh.net.byte_stream import ByteStream
from gossipmesh.net.turns import TURN

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_CHUNK_START: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]{0,4000})?\r\n")
_TRAILER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_CHUNKS_PER_LOOK_MAX: Final = 64  # 8 calls, what a request costs: a turn is over by one look at most
_CHUNKS_PER_CALL: Final = 8  # reading one that is buffered costs that part of a call: a microsecond


class ConnectionCut(OSError):
    """The stream ended inside a message. Remote's fault. State: close it."""


class MessageReader:
    """A stream and what has been read of it and not yet used.

    What is buffered is walked through, not cut off piece by piece: a message of many tiny pieces costs no
    more than its bytes, and each piece counts as work of the turn.
    """

    __slots__ = ("_begins", "_data", "_used", "head_limits", "received_bytes", "scanned_bytes", "stream")

    def __init__(
        self, stream: ByteStream, head_limits: HeadLimits = OUTER_LIMITS, begins: bytes = b""
    ) -> None:
        """`begins`: how every head that comes by it begins; what does not is refused at once."""
        self.stream = stream
        self._begins = begins
        self.head_limits = head_limits
        self._data = b""
        self._used = 0  # how much of _data has been handed on
        self.received_bytes = 0
        self.scanned_bytes = 0  # looked at in search of heads' ends; in proportion to what came

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
        return self.took(await self.stream.receive())

    def took(self, data: bytes) -> bool:
        """Add to the buffer what the stream has just brought; False when that was its end."""
        if not data:
            return False
        self.received_bytes += len(data)
        self._data = self._data[self._used :] + data if self._used < len(self._data) else data
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

        Once begun, a head has limits.HTTP_HEAD_TIMEOUT_S to become whole. Cost: O(its bytes), in however
        many pieces it comes. A call that was cancelled leaves a reader of no use.

        Raises:
            BadMessage: it cannot become a head, or took too long. Remote's fault. State: close it.
            OSError: the connection broke or ended within. State: close it.
        """
        if TURN.over():
            await TURN.rest()
        if self._used == len(self._data) and not self.took(await self.stream.receive()):
            return None
        head = self.take_head()
        if head is not None:
            return head
        with trio.move_on_after(limits.HTTP_HEAD_TIMEOUT_S):
            return await self._read_pieces_of_head_untrusted()
        raise BadMessage(f"the head took longer than {limits.HTTP_HEAD_TIMEOUT_S} s")

    def take_head(self) -> bytes | None:
        """Return the next head if it is buffered whole, else None and leave it."""
        end = self._data.find(b"\r\n\r\n", self._used)
        if end < 0:
            return None
        self.scanned_bytes += end - self._used
        return self._take(end + 4 - self._used)

    async def _read_pieces_of_head_untrusted(self) -> bytes:
        head, checked = bytearray(self.take_buffered()), 0
        while True:
            self.scanned_bytes += len(head) - checked
            end = head.find(b"\r\n\r\n", max(0, checked - 3))
            if end >= 0:
                TURN.spend(0)
                self._data, self._used = bytes(head[end + 4 :]), 0
                return bytes(head[: end + 4])
            check_head_start_untrusted(head, checked, self.head_limits, self._begins)
            checked = len(head)
            data = await self.stream.receive()
            if not data:
                raise ConnectionCut("the stream ended inside a head")
            self.received_bytes += len(data)
            head += data

    def take_chunks(self, pieces: list[bytes], bytes_max: int) -> int:
        """Move the data of chunks that are buffered whole to `pieces`; return how much that was.

        Stops before whatever is not plainly a chunk, the last one included, and once it has `bytes_max` or
        has looked at many.
        """
        data, position, size, count = self._data, self._used, 0, 0
        while size < bytes_max and count < _CHUNKS_PER_LOOK_MAX:
            start = _CHUNK_START.match(data, position)
            if start is None:
                break
            begin = start.end()
            end = begin + int(start[1], 16)
            if end == begin or data[end : end + 2] != b"\r\n":
                break
            pieces.append(data[begin:end])
            size += end - begin
            position = end + 2
            count += 1
        self._used = position
        TURN.spend(limits.TURN_CALL_BYTES * (count // _CHUNKS_PER_CALL))
        return size

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

    def take_whole(self, count: int) -> bytes | None:
        """Return the next `count` bytes if all of them are buffered, else None and leave them."""
        return self._take(count) if len(self._data) - self._used >= count else None

    async def read_some(self, count_max: int) -> bytes:
        """Return up to `count_max` bytes, at least one; `b""` at the end of the stream."""
        if TURN.over():
            await TURN.rest()
        if not self.pending_bytes and not await self.fill():
            return b""
        return self._take(min(self.pending_bytes, count_max))


class MessageBody:
    """A body on its way: `next` until it answers `b""`; then `trailers` has what came behind it."""

    __slots__ = (
        "_chunked",
        "_ending",
        "_joined",
        "_joined_bytes",
        "_owes_break",
        "_reader",
        "_remaining",
        "_trailers_bytes",
        "finished",
        "trailers",
    )

    def __init__(self, reader: MessageReader, *, content_length: int | None, chunked: bool) -> None:
        self._reader = reader
        self._chunked = chunked
        self._owes_break = False  # a chunk's data is handed on before the CRLF behind it is read
        # Of the body, or of the current chunk; None: until the stream ends.
        self._remaining: int | None = 0 if chunked else content_length
        self._joined: list[bytes] = []  # data of small chunks, to be handed on as one
        self._joined_bytes = 0
        self._ending = False  # the last chunk's size has been read
        self._trailers_bytes = 0
        self.trailers: HeaderList = []
        self.finished = not chunked and content_length == 0

    async def next(self) -> bytes:
        """Return the next decoded bytes, `b""` once the body has ended. A cancelled call loses nothing.

        Chunks that have arrived already come joined, up to limits.HTTP_JOINED_BYTES_MAX and one chunk.

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
        if self._ending:
            return await self._end_untrusted()
        if self._owes_break:
            if await self._reader.read_exactly(2) != b"\r\n":
                raise BadMessage("a chunk that does not end where it said")
            self._owes_break = False
        if not self._remaining:
            await self._join_chunks()
            if self._joined:
                joined, self._joined, self._joined_bytes = self._joined, [], 0
                return joined[0] if len(joined) == 1 else b"".join(joined)
            match = _CHUNK_LINE.fullmatch(await self._reader.read_line_untrusted())
            if match is None:
                raise BadMessage("a chunk size that is none")
            self._remaining = int(match[1], 16)
            if self._remaining == 0:
                self._ending = True
                return await self._end_untrusted()
        data = await self._reader.read_some(self._remaining)
        if not data:
            raise ConnectionCut("the stream ended inside a chunk")
        self._remaining -= len(data)
        self._owes_break = self._remaining == 0
        return data

    async def _join_chunks(self) -> None:
        """Collect chunks that have arrived whole; waits for none."""
        while self._joined_bytes < limits.HTTP_JOINED_BYTES_MAX:
            if TURN.over():
                await TURN.rest()
            room = limits.HTTP_JOINED_BYTES_MAX - self._joined_bytes
            size = self._reader.take_chunks(self._joined, room)
            self._joined_bytes += size
            if not size:
                return

    async def _end_untrusted(self) -> bytes:
        """Read the trailers, from where a cancelled call left off."""
        allowed = self._reader.head_limits
        while line := await self._reader.read_line_untrusted():
            self._trailers_bytes += len(line)
            match = _TRAILER.fullmatch(line)
            if match is None:
                raise BadMessage("a trailer that is no header field")
            if self._trailers_bytes > allowed.bytes_max or len(self.trailers) == allowed.fields_count_max:
                raise FieldsTooLarge("trailers too many or too large")
            self.trailers.append((match[1].lower(), match[2].rstrip(b" \t")))
        self.finished = True
        return b""


def chunk(data: bytes) -> bytes:
    """Return one chunk; `data` is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: HeaderList) -> bytes:
    """Return the end of a chunked body."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + b"".join(b"%b: %b\r\n" % trailer for trailer in trailers) + b"\r\n"
