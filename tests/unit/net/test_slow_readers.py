"""A mesh connection's other end that reads nothing is waited for, one that is gone is not."""

import socket
from collections.abc import Iterator

import pytest

from gossipmesh.model import limits
from gossipmesh.net.byte_stream import MESH_SOCKETS, TCP_USER_TIMEOUT, USER_TIMEOUT_MS, set_options
from gossipmesh.net.slow_readers import SendQueue, SlowReaders, patience_ms

LONG = limits.SLOW_READER_TIMEOUT_MS


@pytest.mark.parametrize(
    ("queue", "patience"),
    [
        (SendQueue(0, 0, 0), USER_TIMEOUT_MS),
        (SendQueue(0, 3, 0), USER_TIMEOUT_MS),
        (SendQueue(0, 3, 100_000), USER_TIMEOUT_MS),  # on their way: the kernel sends them again
        (SendQueue(0, 0, 1), LONG),
        (SendQueue(1, 0, 100_000), LONG),
        (SendQueue(2, 0, 100_000), USER_TIMEOUT_MS),  # nobody answers any more
    ],
)
def test_only_who_answers_that_it_has_no_room_is_waited_for(queue: SendQueue, patience: int) -> None:
    assert patience_ms(queue) == patience


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        writer = socket.create_connection(listener.getsockname())
        reader, _ = listener.accept()
    with writer, reader:
        writer.setblocking(False)
        reader.setblocking(False)
        set_options(writer, mesh=True)
        yield writer, reader


def _patience(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT)


def _fill(writer: socket.socket) -> int:
    sent = 0
    while True:
        try:
            sent += writer.send(bytes(65_536))
        except BlockingIOError:
            return sent


def test_a_closed_window_is_waited_for_until_it_opens(pair: tuple[socket.socket, socket.socket]) -> None:
    writer, reader = pair
    watch = SlowReaders()
    watch.look(writer)
    assert _patience(writer) == USER_TIMEOUT_MS
    owed = _fill(writer)
    while _patience(writer) == USER_TIMEOUT_MS:  # what is on its way is acknowledged first
        watch.look(writer)
    assert _patience(writer) == LONG
    reader.setblocking(True)
    while owed:
        owed -= len(reader.recv(1_048_576))
    watch.look(writer)
    assert _patience(writer) == USER_TIMEOUT_MS


def test_what_is_closed_is_forgotten(pair: tuple[socket.socket, socket.socket]) -> None:
    writer, _ = pair
    assert writer in MESH_SOCKETS
    writer.close()
    SlowReaders().look(writer)
    assert writer not in MESH_SOCKETS


def test_a_connection_that_is_not_the_meshs_is_left_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    _, reader = pair
    set_options(reader, mesh=False)
    assert reader not in MESH_SOCKETS
