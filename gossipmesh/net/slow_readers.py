"""Mesh connections whose other end reads nothing for a while, told apart from those whose other end is gone.

TCP_USER_TIMEOUT ends a connection whose bytes nobody acknowledges; but Linux counts from a closed window as
well, however promptly the other end answers that it is full (tcp_probe_timer). Whoever paused a download, an
upload's workload or a tunnel for ten seconds lost it. Rules:

1. Who answers probes and has no room is waited for as long as a connection may idle; who does not is not.
2. The kernel ends connections; here is only said how long it waits. Looking late costs nothing but that.
"""

import socket
import struct
from typing import Final, NamedTuple

import trio

from gossipmesh.model import limits
from gossipmesh.net.byte_stream import MESH_SOCKETS, TCP_USER_TIMEOUT, USER_TIMEOUT_MS

LOOK_S: Final = 2.0  # a few times within USER_TIMEOUT_MS
_LOOKS_PER_PASS: Final = 128
_UNANSWERED_MAX: Final = 1  # the one that is on its way
# struct tcp_info of linux/tcp.h: tcpi_probes, tcpi_unacked and tcpi_notsent_bytes (since Linux 4.6).
_INFO: Final = struct.Struct("=3xB20xI116xI")


class SendQueue(NamedTuple):
    """What the kernel holds of one connection's bytes, and how often it asked in vain for room."""

    unanswered_probes_count: int
    unacked_segments_count: int
    unsent_bytes: int


def patience_ms(queue: SendQueue) -> int:
    """Return how long the kernel is to wait for the other end, given what it waits with.

    Bytes unsent and none on their way: with TCP_NODELAY that is a closed window and nothing else.
    """
    full = queue.unsent_bytes > 0 and queue.unacked_segments_count == 0
    if full and queue.unanswered_probes_count <= _UNANSWERED_MAX:
        return limits.SLOW_READER_TIMEOUT_MS
    return USER_TIMEOUT_MS


class SlowReaders:
    """Looks at every mesh connection of this process; `run` it."""

    def __init__(self) -> None:
        self._waited_for: set[socket.socket] = set()  # longer than others

    async def run(self) -> None:
        """Look until cancelled. Cost: O(mesh connections) each time, one getsockopt each."""
        while True:
            await trio.sleep(LOOK_S)
            for index, sock in enumerate(list(MESH_SOCKETS)):
                if index % _LOOKS_PER_PASS == 0:
                    await trio.lowlevel.checkpoint()
                self.look(sock)

    def look(self, sock: socket.socket) -> None:
        """Have the kernel wait for one connection's other end as long as it deserves now."""
        try:
            queue = SendQueue(*_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)))
            wanted_ms = patience_ms(queue)
            longer = wanted_ms != USER_TIMEOUT_MS
            if longer == (sock in self._waited_for):
                return
            sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, wanted_ms)
            if longer:
                self._waited_for.add(sock)
            else:
                self._waited_for.discard(sock)
        except OSError:  # closed here
            self._waited_for.discard(sock)
            MESH_SOCKETS.discard(sock)
