"""Idle HTTP/1.1 connections, kept by (caller's identity, endpoint), newest used first.

Rules: a connection belongs to one caller identity for life; one that has ended, or has bytes nobody
asked for, is never handed out, and one that may yet get such bytes rests until it would have them; what an
endpoint leaves behind is closed with it.
"""

from collections.abc import Callable, Collection

from gossipmesh.dataplane.reference.body import MessageReader
from gossipmesh.dataplane.reference.http1 import ANSWER_BEGINS, OUTER_LIMITS, HeadLimits
from gossipmesh.model.instant import Instant
from gossipmesh.net.byte_stream import ByteStream
from gossipmesh.traffic.endpoints import EndpointKey


class PooledConnection:
    """One connection to an endpoint or a workload."""

    __slots__ = (
        "_closed",
        "_on_close",
        "caller",
        "idle_since",
        "key",
        "reader",
        "ready_at",
        "stream",
        "used_count",
    )

    def __init__(
        self,
        stream: ByteStream,
        caller: str,
        key: EndpointKey,
        on_close: Callable[[], None],
        head_limits: HeadLimits = OUTER_LIMITS,
    ) -> None:
        """`head_limits` are of the answers that come by it."""
        self.stream = stream
        self.reader = MessageReader(stream, head_limits, ANSWER_BEGINS)
        self.caller = caller
        self.key = key
        self.idle_since = Instant(0)
        self.ready_at = Instant(0)  # when an idle one may be used again
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

    def __init__(self, idle_count_max: int | None = None) -> None:
        """`idle_count_max` None: whoever opens connections bounds them (`traffic/admission.py`)."""
        self._idle: dict[tuple[str, EndpointKey], list[PooledConnection]] = {}
        self._idle_count_max = idle_count_max
        self.idle_count = 0

    def take(self, caller: str, key: EndpointKey, now: Instant) -> PooledConnection | None:
        """Return an idle connection that is still good, None when there is none."""
        stack = self._idle.get((caller, key), [])
        for index in range(len(stack) - 1, -1, -1):
            if stack[index].ready_at > now:
                continue
            connection = stack.pop(index)
            self.idle_count -= 1
            if not connection.reader.pending_bytes and not connection.stream.is_stale():
                break
            connection.close()
        else:
            connection = None
        if not stack:
            self._idle.pop((caller, key), None)
        return connection

    @property
    def full(self) -> bool:
        """Tell whether keeping one more costs the oldest its place."""
        return self._idle_count_max is not None and self.idle_count >= self._idle_count_max

    def give(self, connection: PooledConnection, now: Instant, rest_ns: int = 0) -> None:
        """Keep a connection whose last exchange ended cleanly; `rest_ns` is how long nobody is handed it."""
        if self.full:
            self.close_oldest()
        connection.idle_since = now
        connection.ready_at = Instant(now + rest_ns if rest_ns else 0)
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
