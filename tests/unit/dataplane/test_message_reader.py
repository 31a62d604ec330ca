"""What a message reader has buffered: walked through in bounded turns, at the cost of its bytes."""

import socket

import pytest
import trio

from gossipmesh.dataplane.reference.body import MessageBody, MessageReader
from gossipmesh.model import limits
from gossipmesh.net.byte_stream import ByteStream, PlainStream
from tests.unit.net.fairness import watched

CALLS_MAX = limits.TURN_BYTES_MAX // limits.TURN_CALL_BYTES


class Arrived(PlainStream):
    """A stream of which everything has come already, in pieces of a size."""

    def __init__(self, data: bytes, piece_bytes: int) -> None:
        super().__init__(socket.socket())
        self._pieces = [data[start : start + piece_bytes] for start in range(0, len(data), piece_bytes)]
        self._pieces.reverse()

    async def receive(self) -> bytes:
        return self._pieces.pop() if self._pieces else b""


def chunks(count: int, size: int = 1) -> bytes:
    return (b"%x\r\n" % size + b"a" * size + b"\r\n") * count + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("count", "piece_bytes"),
    [(600_000, 10_000_000), (100_000, 65_536), (20_000, 7), (3_000, 1)],
    ids=["one buffer", "reads of 64 KiB", "reads of seven", "reads of one"],
)
async def test_a_body_of_one_byte_chunks_lets_others_run(count: int, piece_bytes: int) -> None:
    """The whole of it in one buffer would take hours if each chunk cost a copy of the rest."""
    stream: ByteStream = Arrived(chunks(count), piece_bytes)
    body = MessageBody(MessageReader(stream), content_length=None, chunked=True)
    size = 0
    async with watched() as witness:
        while data := await body.next():
            size += len(data)
            witness.worked()
    stream.close()
    assert size == count
    assert witness.gap_max <= 2 * CALLS_MAX


async def test_pipelined_heads_let_others_run() -> None:
    head = b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"
    reader = MessageReader(Arrived(head * 20_000, 65_536))
    async with watched() as witness:
        while await reader.read_head_untrusted() == head:
            witness.worked()
    reader.stream.close()
    assert witness.pieces_count == 20_000
    assert witness.gap_max <= 2 * CALLS_MAX


async def test_what_is_taken_in_every_way_adds_up() -> None:
    reader = MessageReader(Arrived(b"line\r\nexactly-some-rest", 100))
    assert await reader.read_line_untrusted() == b"line"
    assert await reader.read_exactly(7) == b"exactly"
    assert reader.pending_bytes == 10
    assert await reader.read_some(5) == b"-some"
    assert reader.buffer == b"-rest"
    assert reader.take_buffered() == b"-rest"
    assert (reader.pending_bytes, reader.buffer) == (0, b"")
    assert await reader.read_some(5) == b""
    reader.stream.close()


async def test_a_read_cancelled_at_its_rest_loses_nothing() -> None:
    count = 3 * limits.HTTP_JOINED_BYTES_MAX
    reader = MessageReader(Arrived(chunks(count), count * 10))
    body, size, cancelled = MessageBody(reader, content_length=None, chunked=True), 0, 0
    while not body.finished:
        with trio.CancelScope() as scope:
            scope.cancel()
            size += len(await body.next())
        if scope.cancelled_caught:
            cancelled += 1
            size += len(await body.next())
    reader.stream.close()
    assert size == count
    assert cancelled >= 3


async def test_what_is_buffered_whole_is_taken_and_less_is_left() -> None:
    reader = MessageReader(Arrived(b"abcdef", 4))
    assert reader.take_whole(0) == b""
    assert reader.take_whole(1) is None
    await reader.fill()
    assert reader.take_whole(5) is None
    assert reader.take_whole(3) == b"abc"
    assert reader.take_whole(2) is None
    await reader.fill()
    assert reader.take_whole(3) == b"def"
    assert reader.pending_bytes == 0
    reader.stream.close()
