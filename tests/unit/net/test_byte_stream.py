"""Whether an idle connection can be used again, on real TCP sockets."""

import select
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from gossipmesh.net.byte_stream import socket_is_stale


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
    assert not socket_is_stale(one)
    one.shutdown(socket.SHUT_WR)  # our own end says nothing of the other's
    assert not socket_is_stale(one)
    other.sendall(b"later")
    assert select.select([one], [], [], 5)[0]
    assert one.recv(10) == b"later"


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
    assert socket_is_stale(one)
    assert socket_is_stale(one)  # and asking takes nothing away


def test_a_connection_that_was_closed_here_is_stale(pair: tuple[socket.socket, socket.socket]) -> None:
    one, _ = pair
    one.close()
    assert socket_is_stale(one)
