"""Accepting: listening sockets, the connections they bring, and letting go of both.

Rules: connections are counted and bounded; one connection's error ends that connection and is counted;
a drained engine closes what is idle and waits for the rest.
"""

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits
from gossipmesh.model.member import Address

ACCEPT_PAUSE_S: Final = 0.05
_ACCEPTS_PER_WAKEUP: Final = 64
DRAIN_IDLE_S: Final = 0.5

Acceptor = Callable[["Connection", socket.socket], Awaitable[None]]


class Connection:
    """One accepted connection, as its registry sees it."""

    __slots__ = ("_registry", "_scope", "idle_since", "remote")

    def __init__(self, registry: "Connections", remote: str) -> None:
        self._registry = registry
        self._scope: trio.CancelScope | None = None
        self.idle_since: float | None = None
        self.remote = remote

    @contextmanager
    def idle(self, timeout_s: float) -> Iterator[trio.CancelScope]:
        """Wait for a request: bounded, and ended by a drain."""
        now = trio.current_time()
        self.idle_since = now
        with trio.CancelScope(deadline=now + timeout_s) as scope:
            self._scope = scope
            if self._registry.closing_idle:
                scope.deadline = min(scope.deadline, now + DRAIN_IDLE_S)
            try:
                yield scope
            finally:
                self.idle_since = self._scope = None

    def end_idle(self) -> None:
        """Close the connection once it has waited DRAIN_IDLE_S; a request on its way is still taken."""
        if self._scope is not None and self.idle_since is not None:
            self._scope.deadline = min(self._scope.deadline, self.idle_since + DRAIN_IDLE_S)


class Connections:
    """Every accepted connection of the engine."""

    def __init__(self, counters: Counters, report: Callable[[BaseException], None]) -> None:
        self._counters = counters
        self._report = report
        self._open: set[Connection] = set()
        self._empty = trio.Event()
        self._empty.set()
        self.connections_max = limits.DOWNSTREAM_CONNECTIONS_MAX
        self.closing_idle = False

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
            connection = Connection(self, str(Address(address[0], address[1])))
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

    async def drain(self) -> None:
        """Close what is idle, now or later, and wait until nothing is open."""
        self.closing_idle = True
        for connection in list(self._open):
            connection.end_idle()
        await self._empty.wait()
