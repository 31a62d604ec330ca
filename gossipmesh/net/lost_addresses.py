"""Mesh connections by an address that this machine has lost: they are ended, for nothing passes there.

The kernel keeps them: what is sent is neither delivered nor refused, and each request by one would wait for
TCP_USER_TIMEOUT. Rules:
1. Looked at when the kernel tells that an address came or went, or every few seconds where it tells nothing.
2. Both directions end at once: who waits there goes on as with any connection that broke, and the pool hands
   an idle one out no more. TLS tells a cut answer from a whole one.
"""

import socket
from contextlib import closing
from typing import Final

import trio

from gossipmesh.net.address_news import AddressNews, has_address
from gossipmesh.net.byte_stream import MESH_SOCKETS

_REST_S: Final = 60.0
_POLL_S: Final = 3.0
_MAPPED_PREFIX: Final = "::ffff:"


class LostAddresses:
    """Ends mesh connections of this process that an address went from under; `run` it."""

    def __init__(self) -> None:
        self.ended_count = 0

    async def run(self) -> None:
        """Look until cancelled."""
        with closing(AddressNews()) as news:
            while True:
                await news.wait(_REST_S if news.is_told else _POLL_S)
                self.look()
                await trio.lowlevel.checkpoint()

    def look(self) -> None:
        """End the connections by addresses that are gone. Cost: O(mesh connections), one getsockname each."""
        by_host: dict[str, list[socket.socket]] = {}
        for sock in list(MESH_SOCKETS):
            host = _local_host(sock)
            if host is not None:
                by_host.setdefault(host, []).append(sock)
        for host, sockets in by_host.items():
            if not has_address(host):
                self._end(sockets)

    def _end(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            MESH_SOCKETS.discard(sock)
            self.ended_count += 1
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed here, or not connected yet: its connect fails by itself


def _local_host(sock: socket.socket) -> str | None:
    try:
        host = str(sock.getsockname()[0])
    except OSError:
        return None
    return host.removeprefix(_MAPPED_PREFIX) if "." in host else host
