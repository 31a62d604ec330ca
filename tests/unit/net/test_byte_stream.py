"""Whether an idle connection can be used again, on real TCP sockets."""

import os
import select
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from gossipmesh.net.byte_stream import StaleCheck


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one TCP connection; the first does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = socket.create_connection(listener.getsockname())
        one, _ = listener.accept()
        one.setblocking(False)
        with one, other:
            yield one, other


def reset(other: socket.socket) -> None:
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()


def test_an_idle_connection_is_not_stale_and_stays_as_it_is(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    one, other = pair
    check = StaleCheck(one)
    assert not check.answer()
    one.shutdown(socket.SHUT_WR)  # our own end says nothing of the other's
    assert not check.answer()
    other.sendall(b"later")
    assert select.select([one], [], [], 5)[0]
    assert check.answer()
    assert one.recv(10) == b"later"
    assert not check.answer()


@pytest.mark.parametrize(
    "end",
    [
        lambda other: other.sendall(b"x"),
        lambda other: other.shutdown(socket.SHUT_WR),
        socket.socket.close,
        reset,
    ],
    ids=["bytes", "end", "close", "reset"],
)
def test_whatever_the_other_end_did_makes_it_stale(
    pair: tuple[socket.socket, socket.socket], end: Callable[[socket.socket], object]
) -> None:
    one, other = pair
    end(other)
    assert select.select([one], [], [], 5)[0]
    check = StaleCheck(one)
    assert check.answer()
    assert check.answer()  # and asking takes nothing away


def test_a_connection_that_was_closed_here_is_stale(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    asked_before, asked_after = StaleCheck(one), StaleCheck(one)
    assert not asked_before.answer()
    descriptor = one.fileno()
    one.close()
    os.dup2(other.fileno(), descriptor)  # its number is another's now, which may be idle
    with socket.socket(fileno=descriptor):
        assert asked_before.answer()
        assert asked_after.answer()
