"""Tries under way: until when each is waited for, and what ends one early.

A try has no cancel scope of its own, which would be a tenth of a request's cost: what ends it early cuts
its connection, and whoever waits there goes on with an OSError. Rule: why a try ended is asked of the
try (`stopped`), not of that error.
"""

import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

import trio

from gossipmesh.dataplane.reference.forward import Downstream
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.model.instant import MILLISECOND_NS, NEVER, SECOND_NS, Instant
from gossipmesh.model.snapshot import SnapshotEndpoint
from gossipmesh.traffic.endpoints import EndpointKey

_TIMER_STEP_NS: Final = 2 * MILLISECOND_NS  # deadlines closer together than this are looked at together
_TCP_CLOSE: Final = 7
_TCP_CLOSE_WAIT: Final = 8


class Stop(StrEnum):
    """Who ended a try before its time.

    Its client (or a rule against it), its endpoint that left, this node's lost network, its deadline, or that
    the node at the other end is what it was no more.
    """

    GONE = "gone"
    REMOVED = "removed"
    CUT = "cut"
    LATE = "late"
    REVOKED = "revoked"


class Attempt:
    """A try under way.

    `movable` tells whether it could be made elsewhere, `allowed` whether it still may be made at all;
    None: the question does not arise. `dialing` is set while there is no connection yet, `node` is where
    a connection out of this one goes (empty: to a workload here), `tried` where its request has been.
    """

    __slots__ = ("allowed", "connection", "deadline", "dialing", "downstream", "half_close_allowed", "key",
                 "movable", "node", "stopped", "tried", "turn", "upstream")  # fmt: skip

    def __init__(self, downstream: Downstream, upstream: str, key: EndpointKey) -> None:
        self.downstream = downstream
        self.upstream = upstream
        self.key = key
        self.node = ""
        self.tried: Sequence[SnapshotEndpoint] = ()
        self.turn = 0
        self.connection: PooledConnection | None = None
        self.dialing: trio.CancelScope | None = None
        self.deadline = NEVER
        self.half_close_allowed = True
        self.movable = False
        self.allowed: Callable[[], bool] | None = None
        self.stopped: Stop | None = None

    @property
    def can_move(self) -> bool:
        """Tell whether it could be made elsewhere: it is safe to do twice, or nothing was sent yet."""
        return (self.movable or self.dialing is not None) and self.downstream.body.replayable

    def stop(self, why: Stop) -> None:
        """End it: cut its connection, and its client's if there is no client or half an answer went out."""
        if self.stopped is not None:
            return
        self.stopped = why
        if self.dialing is not None:
            self.dialing.cancel()
        if self.connection is not None:
            if not self.downstream.body.finished:
                self.connection.stream.abort()  # half a request must not look whole
            self.connection.close()
        if why is Stop.GONE:
            self.downstream.stream.close()
        elif self.downstream.response_started:
            self.downstream.stream.abort()  # a cut answer must not look whole

    def check_client(self, holds_other_end: Callable[[socket.socket], bool]) -> None:
        """End the try when nobody waits for its answer any more.

        Only the TCP state tells that without reading. A local client may end its direction and wait, which
        looks like one that has gone, but that a process holds its end; another engine never does.
        """
        client = self.downstream.stream.socket
        try:
            state = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:
            return  # closed here; whoever closed it ends the try
        waits = state == _TCP_CLOSE_WAIT and self.half_close_allowed and holds_other_end(client)
        if state in (_TCP_CLOSE, _TCP_CLOSE_WAIT) and not waits:
            self.stop(Stop.GONE)


class Attempts:
    """Every try under way, and the one timer for their deadlines."""

    def __init__(self) -> None:
        self._open: set[Attempt] = set()
        self._nearest = NEVER
        self._timer = trio.CancelScope()
        self._turn = 0
        self._busy: trio.Event | None = None

    def begin(self, attempt: Attempt) -> None:
        """Take note of a try; `finish` must follow."""
        attempt.turn = self._turn
        self._open.add(attempt)
        if self._busy is not None:
            self._busy.set()

    async def wait_busy(self) -> None:
        """Wait until a try is under way."""
        if not self._open:
            self._busy = trio.Event()
            await self._busy.wait()
            self._busy = None

    def turn(self) -> list[Attempt]:
        """Return those that were under way at the last call already, in no order."""
        self._turn += 1
        return [attempt for attempt in self._open if attempt.turn < self._turn - 1]

    def finish(self, attempt: Attempt) -> None:
        """Forget a try."""
        self._open.discard(attempt)

    def all(self) -> list[Attempt]:
        """Return the tries under way, in no order."""
        return list(self._open)

    def set_deadline(self, attempt: Attempt, deadline: Instant) -> None:
        """Have the try ended at `deadline`, some milliseconds later at most; NEVER: by nothing."""
        attempt.deadline = deadline
        if deadline < self._nearest:
            self._nearest = deadline
            self._timer.deadline = deadline / SECOND_NS

    async def run(self) -> None:
        """End what is late until cancelled.

        Cost: O(tries under way) each time the nearest deadline passes; deadlines are mostly far off and
        forgotten unmet, so that is seldom.
        """
        while True:
            with self._timer:
                await trio.sleep_forever()
            now_ns = int(trio.current_time() * SECOND_NS)
            late = [attempt for attempt in self._open if attempt.deadline <= now_ns]
            later = [attempt.deadline for attempt in self._open if attempt.deadline > now_ns]
            nearest = max(min(later, default=NEVER), now_ns + _TIMER_STEP_NS)
            self._nearest = Instant(nearest)
            self._timer = trio.CancelScope(deadline=nearest / SECOND_NS)
            for attempt in late:
                attempt.stop(Stop.LATE)
