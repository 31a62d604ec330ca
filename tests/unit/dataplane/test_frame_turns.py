"""Work per turn on the control socket: frames that have come already, and frames of megabytes."""

import socket

import pytest
import trio

from gossipmesh.dataplane.frame_socket import FrameSocket
from gossipmesh.model import limits
from tests.unit.net.fairness import watched

CALLS_MAX = limits.TURN_BYTES_MAX // limits.TURN_CALL_BYTES


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("size", [0, 1, 9, 1_000, 70_000])
async def test_frames_that_have_come_let_others_run(size: int) -> None:
    left, right = socket.socketpair()
    count = min(40_000, 8_000_000 // (size + 4))
    frames, sender = FrameSocket(left), FrameSocket(right)
    async with trio.open_nursery() as nursery, watched() as witness:
        nursery.start_soon(sender.send, framed(bytes(size)) * count)
        for _ in range(count):
            assert await frames.receive_untrusted() == bytes(size)
            witness.worked()
    frames.close()
    sender.close()
    assert witness.gap_max <= 2 * CALLS_MAX


async def test_one_frame_of_sixteen_megabytes_is_read_and_sent_in_turns() -> None:
    left, right = socket.socketpair()
    for sock in (left, right):  # so large that the sockets alone make nobody wait
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 20)
    frames, sender = FrameSocket(left), FrameSocket(right)
    body = bytes(limits.ENGINE_FRAME_BYTES_MAX)
    async with trio.open_nursery() as nursery, watched() as witness:
        nursery.start_soon(sender.send, framed(body))
        before = witness.runs_count
        assert await frames.receive_untrusted() == body
        assert witness.runs_count - before >= len(body) // (2 * limits.TURN_BYTES_MAX)
    frames.close()
    sender.close()
