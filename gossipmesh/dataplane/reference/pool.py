"""Idle HTTP/1.1 connections, kept by (caller's identity, endpoint), newest used first.

Rules: a connection belongs to one caller identity for life; one that has ended, or has bytes nobody
asked for, is never handed out; what an endpoint leaves behind is closed with it.
"""

from collections.abc import Callable, Collection

from gossipmesh.dataplane.reference.body import MessageReader
from gossipmesh.model.instant import Instant
from gossipmesh.net.byte_stream import ByteStream

EndpointKey = tuple[str, str, str, int]
"""(node, registration, host, port): what an endpoint is to a pool; a new address is a new endpoint."""


class PooledConnection:
    """One connection to an endpoint or a workload."""

    __slots__ = ("_closed", "_on_close", "caller", "idle_since", "key", "reader", "stream", "used_count")

    def __init__(
        self, stream: ByteStream, caller: str, key: EndpointKey, on_close: Callable[[], None]
    ) -> None:
        self.stream = stream
        self.reader = MessageReader(stream)
        self.caller = caller
        self.key = key
        self.idle_since = Instant(0)
        self.used_count = 0
        self._on_close = on_close
        self._closed = False

    def close(self) -> None:
        """Close; safe to repeat."""
        if not self._closed:
            self._closed = True
            self.stream.close()
            self._on_close()


class ConnectionPool:
    """The idle connections of one upstream, or to the local workloads."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, EndpointKey], list[PooledConnection]] = {}
        self.idle_count = 0

    def take(self, caller: str, key: EndpointKey) -> PooledConnection | None:
        """Return an idle connection that is still good, None when there is none."""
        stack = self._idle.get((caller, key))
        while stack:
            connection = stack.pop()
            self.idle_count -= 1
            if not stack:
                del self._idle[caller, key]
            if not connection.reader.pending_bytes and not connection.stream.is_stale():
                return connection
            connection.close()
        return None

    def give(self, connection: PooledConnection, now: Instant) -> None:
        """Keep a connection whose last exchange ended cleanly."""
        connection.idle_since = now
        self._idle.setdefault((connection.caller, connection.key), []).append(connection)
        self.idle_count += 1

    def close_oldest(self) -> bool:
        """Close the connection idle longest, to make room; False when none is idle."""
        stacks = [stack for stack in self._idle.values() if stack]
        if not stacks:
            return False
        oldest = min(stacks, key=lambda stack: stack[0].idle_since)[0]
        self._discard(lambda connection: connection is oldest)
        return True

    def keep_only(self, keys: Collection[EndpointKey]) -> None:
        """Close connections to every other endpoint."""
        self._discard(lambda connection: connection.key not in keys)

    def reap(self, idle_before: Instant) -> None:
        """Close connections unused since `idle_before`, and those the other side has ended."""
        self._discard(lambda connection: connection.idle_since < idle_before or connection.stream.is_stale())

    def close_all(self) -> None:
        """Close every idle connection."""
        self._discard(lambda _connection: True)

    def _discard(self, unwanted: Callable[[PooledConnection], bool]) -> None:
        for place, stack in list(self._idle.items()):
            kept = []
            for connection in stack:
                if unwanted(connection):
                    connection.close()
                    self.idle_count -= 1
                else:
                    kept.append(connection)
            if kept:
                self._idle[place] = kept
            else:
                del self._idle[place]
