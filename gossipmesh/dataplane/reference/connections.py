"""Accepting: listening sockets, the connections they bring, and letting go of both.

Rules: connections are counted and bounded; one connection's error ends that connection and is counted;
a drained engine closes what is idle and waits for the rest.
"""

import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits
from gossipmesh.model.member import Address
from gossipmesh.net.byte_stream import ByteStream

ACCEPT_PAUSE_S: Final = 0.05
_ACCEPTS_PER_WAKEUP: Final = 64
DRAIN_IDLE_S: Final = 0.5
DRAIN_SWEEP_S: Final = 0.1

Acceptor = Callable[["Connection", socket.socket], Awaitable[None]]


class Connection:
    """One accepted connection, as its registry sees it."""

    __slots__ = ("_idle_since", "_stream", "remote")

    def __init__(self, remote: str) -> None:
        self._idle_since: float | None = None
        self._stream: ByteStream | None = None
        self.remote = remote

    def begin_idle(self, stream: ByteStream) -> None:
        """Say that the connection waits for a request; a sweep may close `stream` meanwhile."""
        self._stream = stream
        self._idle_since = trio.current_time()

    def end_idle(self) -> None:
        """Say that a request has begun."""
        self._idle_since = None

    def close_if_idle(self, idle_before: float) -> None:
        """Close a connection that has waited since `idle_before`; who reads it gets OSError."""
        if self._stream is not None and self._idle_since is not None and self._idle_since < idle_before:
            self._stream.close()


class Connections:
    """Every accepted connection of the engine."""

    def __init__(self, counters: Counters, report: Callable[[BaseException], None]) -> None:
        self._counters = counters
        self._report = report
        self._open: set[Connection] = set()
        self._empty = trio.Event()
        self._empty.set()
        self.connections_max = limits.DOWNSTREAM_CONNECTIONS_MAX

    @property
    def count(self) -> int:
        """Return how many are open."""
        return len(self._open)

    async def accept(self, sock: socket.socket, nursery: trio.Nursery, acceptor: Acceptor) -> None:
        """Accept on `sock` until cancelled; each connection is a task of `nursery`."""
        while True:
            try:
                self.accept_queued(sock, nursery, acceptor)
            except OSError as error:
                if sock.fileno() < 0:
                    return
                # Out of descriptors or memory: what is open must end before more can begin.
                self._counters.add("accept_errors")
                self._report(error)
                await trio.sleep(ACCEPT_PAUSE_S)
            else:
                await trio.lowlevel.wait_readable(sock.fileno())

    def accept_queued(self, sock: socket.socket, nursery: trio.Nursery, acceptor: Acceptor) -> None:
        """Accept what waits now, a batch at most.

        Raises:
            OSError: out of descriptors or memory, or `sock` is closed. State: what came before is served.
        """
        for _ in range(_ACCEPTS_PER_WAKEUP):
            try:
                client, address = sock.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # it left before we looked
            if len(self._open) >= self.connections_max:
                self._counters.add("connections_refused")
                client.close()
                continue
            connection = Connection(str(Address(address[0], address[1])))
            self._open.add(connection)
            self._empty = trio.Event() if self._empty.is_set() else self._empty
            nursery.start_soon(self._serve, connection, client, acceptor)

    async def _serve(self, connection: Connection, client: socket.socket, acceptor: Acceptor) -> None:
        self._counters.adjust("downstream_connections", 1)
        try:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await acceptor(connection, client)
        except OSError:
            self._counters.add("connections_broken")
        except Exception as error:  # an engine outlives any one connection
            self._counters.add("connection_errors")
            self._report(error)
        except BaseExceptionGroup as group:
            _errors, cancellations = group.split(Exception)
            self._counters.add("connection_errors")
            self._report(group)
            if cancellations is not None:
                raise cancellations from None
        finally:
            client.close()
            self._open.discard(connection)
            self._counters.adjust("downstream_connections", -1)
            if not self._open:
                self._empty.set()

    def sweep(self, idle_s: float) -> None:
        """Close what has waited for a request longer than `idle_s`.

        Cost: O(connections), once a second; a timer per request would cost more.
        """
        idle_before = trio.current_time() - idle_s
        for connection in list(self._open):
            connection.close_if_idle(idle_before)

    async def drain(self) -> None:
        """Wait until nothing is open, closing what is idle; a request on its way is still taken."""
        while self._open:
            self.sweep(DRAIN_IDLE_S)
            with trio.move_on_after(DRAIN_SWEEP_S):
                await self._empty.wait()
