"""A server of a thief's at the address of a dead node: what it shows to callers, and who believed it."""

import socket
import ssl
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import trio

from gossipmesh.net.tls import TlsStream, select_by_name, server_context
from gossipmesh.testing import layout
from gossipmesh.testing.thief import Loot

SAID: Final = b'{"service": "cart", "version": "v1", "node": "the thief\'s"}'
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(SAID), SAID)
_BACKLOG: Final = 64
_RETRY_S: Final = 0.01
_TIMEOUT_S: Final = 10.0


class Shown(NamedTuple):
    """What a server shows for each name that it may be asked by (SNI); `what` is what evidence calls it."""

    what: str
    by_name: Mapping[str, Loot]


class FalseServer:
    """Listens where a node's engine did and answers every request.

    `believed` counts requests and `refused` callers that went away without one, both by (what, name of SNI).
    """

    def __init__(self, host: str, bundle_pem: bytes, shown: Sequence[Shown]) -> None:
        self._host = host
        self._bundle_pem = bundle_pem
        self._front = next(iter(shown[0].by_name.values()))
        self._shown: Sequence[tuple[str, Mapping[str, ssl.SSLContext]]] = ()
        self._turns: Counter[str] = Counter()
        self._open: set[TlsStream] = set()
        self.believed: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.show(shown)

    def show(self, shown: Sequence[Shown]) -> None:
        """Show these from the next connection on, in turn for each name; what is open is closed."""
        self._shown = [
            (one.what, {name: self._context(loot) for name, loot in one.by_name.items()}) for one in shown
        ]
        self._turns.clear()
        for stream in list(self._open):
            stream.abort()

    def _choose(self, name: str, chosen: list[str]) -> ssl.SSLContext | None:
        what, contexts = self._shown[self._turns[name] % len(self._shown)]
        if name not in contexts:
            return None
        self._turns[name] += 1
        chosen.append(what)
        return contexts[name]

    def _context(self, loot: Loot) -> ssl.SSLContext:
        context = server_context(loot, self._bundle_pem)
        context.verify_mode = ssl.CERT_NONE
        return context

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; started as soon as the address is free."""
        with trio.socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            while True:
                try:
                    await listener.bind((self._host, layout.MESH_PORT))
                    break
                except OSError:  # the engine that had it has not ended yet
                    await trio.sleep(_RETRY_S)
            listener.listen(_BACKLOG)
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    accepted, _ = await listener.accept()
                    nursery.start_soon(self._serve, socket.socket(fileno=accepted.detach()))

    async def _serve(self, sock: socket.socket) -> None:
        chosen: list[str] = []
        front = self._context(self._front)  # one for each connection: it notes what this one is shown
        select_by_name(front, lambda name: self._choose(name, chosen))
        stream = TlsStream(sock, front, server_name=None, server_side=True)
        self._open.add(stream)
        asked = False
        try:
            with trio.move_on_after(_TIMEOUT_S):
                await stream.handshake()
                while await stream.receive():
                    asked = True
                    self.believed[chosen[0], stream.requested_name or ""] += 1
                    await stream.send_all(_ANSWER)
        except OSError:
            pass  # a caller that refuses us goes away, in whatever way
        finally:
            self._open.discard(stream)
            stream.close()
            if chosen and not asked:
                self.refused[chosen[0], stream.requested_name or ""] += 1
