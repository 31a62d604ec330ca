"""Idle HTTP/1.1 connections, kept by (caller's identity, endpoint), newest used first.

Rules:

1. A connection belongs to one caller identity for life; one that has ended, or has bytes nobody asked for, is
   never handed out, and one that may yet get such bytes rests until it would have them; what an endpoint
   leaves behind is closed with it.
2. Who finds none waits for the first there is, a new one or one given back, whichever is sooner. New ones
   are made for as many as wait and no more: a loop that was late for a moment would otherwise shake hands
   for each request that waited, and be late for that.
"""

from collections import deque
from collections.abc import Callable

import trio

from gossipmesh.dataplane.reference.body import MessageReader
from gossipmesh.dataplane.reference.http1 import ANSWER_BEGINS, OUTER_LIMITS, HeadLimits
from gossipmesh.model.instant import Instant
from gossipmesh.net.byte_stream import ByteStream
from gossipmesh.traffic.endpoints import EndpointKey
from gossipmesh.trust.peer_identity import Peer

Place = tuple[str, EndpointKey]
"""A caller's identity and an endpoint."""


class PooledConnection:
    """One connection to an endpoint or a workload."""

    __slots__ = (
        "_closed",
        "_on_close",
        "caller",
        "idle_since",
        "key",
        "peer",
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
        self.peer: Peer | None = None  # who proved to be at the other end; None for a workload
        self._on_close = on_close
        self._closed = False

    @property
    def place(self) -> Place:
        """Return whose it is and where it leads."""
        return self.caller, self.key

    def close(self) -> None:
        """Close; safe to repeat."""
        if not self._closed:
            self._closed = True
            self.stream.close()
            self._on_close()


class Want:
    """A request that waits for a connection."""

    __slots__ = ("_served", "connection", "error", "place")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.connection: PooledConnection | None = None
        self.error: Exception | None = None
        self._served = trio.Event()

    async def wait(self) -> PooledConnection:
        """Return the connection; what it is served with is never lost to a cancellation.

        Raises:
            Exception: what the dial ended with that should have brought one. State: nothing is held.
        """
        if not self._served.is_set():
            await self._served.wait()
        if self.connection is None:
            assert self.error is not None
            raise self.error
        return self.connection

    def serve(self, connection: PooledConnection) -> None:
        """Hand a connection over."""
        self.connection = connection
        self._served.set()

    def fail(self, error: Exception) -> None:
        """Say that there will be none."""
        self.error = error
        self._served.set()


class Wants:
    """Who waits for a connection, and how many are being made, by (caller's identity, endpoint)."""

    def __init__(self) -> None:
        self._waiting: dict[Place, deque[Want]] = {}
        self._dials: dict[Place, int] = {}

    def add(self, place: Place) -> Want:
        """Wait from now on, behind those that came before."""
        want = Want(place)
        self._waiting.setdefault(place, deque()).append(want)
        return want

    def give_up(self, want: Want) -> None:
        """Wait no longer; safe when it was served."""
        waiting = self._waiting.get(want.place)
        if waiting is not None and want in waiting:
            waiting.remove(want)
            if not waiting:
                del self._waiting[want.place]

    def oldest(self, place: Place) -> Want | None:
        """Return who has waited longest, and let it wait no more; None when nobody does."""
        waiting = self._waiting.get(place)
        if waiting is None:
            return None
        want = waiting.popleft()
        if not waiting:
            del self._waiting[place]
        return want

    def count(self, place: Place) -> int:
        """Return how many wait."""
        return len(self._waiting.get(place, ()))

    def begin_dial(self, place: Place) -> bool:
        """Count one more connection being made, unless there is one for each who waits."""
        dials_count = self._dials.get(place, 0)
        if dials_count >= self.count(place):
            return False
        self._dials[place] = dials_count + 1
        return True

    def is_spare(self, place: Place) -> bool:
        """Tell whether one of the connections being made is for nobody any more."""
        return self._dials.get(place, 0) > self.count(place)

    def end_dial(self, place: Place) -> None:
        """Count one less."""
        self._dials[place] -= 1
        if not self._dials[place]:
            del self._dials[place]


class ConnectionPool:
    """The idle connections of one upstream, or to the local workloads."""

    def __init__(self, idle_count_max: int | None = None) -> None:
        """`idle_count_max` None: whoever opens connections bounds them (`traffic/admission.py`)."""
        self._idle: dict[Place, list[PooledConnection]] = {}
        self.wants = Wants()
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
            if _is_good(connection):
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
        """Hand on or keep a connection whose last exchange ended cleanly.

        `rest_ns` is how long nobody is handed it.
        """
        place = connection.place
        if self.wants.count(place) and not rest_ns and _is_good(connection):
            want = self.wants.oldest(place)
            assert want is not None
            want.serve(connection)
            return
        if self.full:
            self.close_oldest()
        connection.idle_since = now
        connection.ready_at = Instant(now + rest_ns if rest_ns else 0)
        self._idle.setdefault(place, []).append(connection)
        self.idle_count += 1

    def close_oldest(self) -> bool:
        """Close the connection idle longest, to make room; False when none is idle."""
        stacks = [stack for stack in self._idle.values() if stack]
        if not stacks:
            return False
        oldest = min(stacks, key=lambda stack: stack[0].idle_since)[0]
        self._discard(lambda connection: connection is oldest)
        return True

    def close_unless(self, listed: Callable[[EndpointKey], bool]) -> None:
        """Close connections to endpoints that are not listed."""
        self._discard(lambda connection: not listed(connection.key))

    def close_gone(self, gone: Callable[[Peer | None], bool]) -> int:
        """Close connections to those who are gone; return how many."""
        before = self.idle_count
        self._discard(lambda connection: gone(connection.peer))
        return before - self.idle_count

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


def _is_good(connection: PooledConnection) -> bool:
    """Tell whether an idle connection may be used: it goes on, and holds nothing that nobody asked for."""
    return not connection.reader.pending_bytes and not connection.stream.is_stale()
