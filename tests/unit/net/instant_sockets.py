"""Sockets that never make anybody wait: what a loop over them does is bounded by the loop alone."""

import socket
from typing import Any


class Instant(socket.socket):
    """Takes a connected socket's place: all of `arriving` has come, and everything sent is taken at once."""

    def __init__(self, other: socket.socket, arriving: bytes = b"", reads_bytes_max: int = 1 << 30) -> None:
        super().__init__(fileno=other.detach())
        self.setblocking(False)
        self._arriving = memoryview(arriving)
        self._reads_bytes_max = reads_bytes_max
        self.full = False
        self.sent_bytes = 0
        self.sent_bytes_max = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = bytes(self._arriving[: min(size, self._reads_bytes_max)])
        if not flags:
            self._arriving = self._arriving[len(data) :]
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        if self.full:
            raise BlockingIOError
        self.sent_bytes += len(data)
        self.sent_bytes_max = max(self.sent_bytes_max, len(data))
        return len(data)
