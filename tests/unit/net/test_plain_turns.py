"""Work per turn on a plain connection, whatever the size of its pieces."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gossipmesh.model import limits
from gossipmesh.net.byte_stream import SEND_BYTES_MAX, PlainStream
from tests.unit.net.fairness import watched
from tests.unit.net.instant_sockets import Instant

CALLS_MAX = limits.TURN_BYTES_MAX // limits.TURN_CALL_BYTES


@asynccontextmanager
async def instant(arriving: bytes, reads_bytes_max: int) -> AsyncIterator[PlainStream]:
    ours, theirs = socket.socketpair()
    theirs.send(b"!")  # so that the kernel calls it readable
    stream = PlainStream(Instant(ours, arriving, reads_bytes_max))
    try:
        yield stream
    finally:
        stream.close()
        theirs.close()


@pytest.mark.parametrize("reads_bytes_max", [1 << 30, 10_000, 1], ids=["whole reads", "10 kB", "a byte"])
async def test_reading_what_has_come_lets_others_run(reads_bytes_max: int) -> None:
    size = 20_000_000 if reads_bytes_max > 1 else 3_000
    async with instant(bytes(size), reads_bytes_max) as stream, watched() as witness:
        total = 0
        while data := await stream.receive():
            total += len(data)
            witness.worked(len(data))
    assert total == size
    assert witness.gap_max <= 2 * limits.TURN_BYTES_MAX


@pytest.mark.parametrize("size", [1, 5_000, 49_152, 50_000_000])
async def test_sending_to_who_takes_everything_lets_others_run(size: int) -> None:
    async with instant(b"", 1) as stream, watched() as witness:
        for _ in range(max(1, min(2_000_000 // size, 200_000))):
            await stream.send_all(bytes(size))
            witness.worked()
        if size > limits.TURN_BYTES_MAX:
            assert witness.runs_count >= size // (2 * limits.TURN_BYTES_MAX)
        else:
            assert witness.gap_max <= 2 * (limits.TURN_BYTES_MAX // (size + limits.TURN_CALL_BYTES) + 1)
        assert isinstance(stream.socket, Instant)
        assert stream.socket.sent_bytes_max <= SEND_BYTES_MAX
