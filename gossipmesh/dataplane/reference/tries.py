"""Tries under way: what each holds of sockets, when its exchange is asked again, how it is cut short.

A try has no cancel scope of its own, which would be a tenth of a request's cost: what ends it early cuts
its connection, and whoever waits there goes on with an OSError. Rule: why a try ended is said by its exchange
(`gossipmesh.traffic.exchange`), not by that error.
"""

import socket
from collections.abc import Callable
from typing import Final, Protocol

import trio

from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.forward import Downstream, engine_flag
from gossipmesh.dataplane.reference.http1 import ResponseHead
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.model.instant import MILLISECOND_NS, NEVER, SECOND_NS, Instant
from gossipmesh.traffic.actions import RELAY, Reset
from gossipmesh.traffic.endings import Ending
from gossipmesh.traffic.exchange import Exchange
from gossipmesh.traffic.inbound import InboundExchange
from gossipmesh.trust.peer_identity import Peer

_TIMER_STEP_NS: Final = 2 * MILLISECOND_NS  # deadlines closer together than this are looked at together
_TCP_CLOSE: Final = 7
_TCP_CLOSE_WAIT: Final = 8


class Tried(Protocol):
    """What exchanges have in common while a try is under way, whichever way they go."""

    @property
    def deadline(self) -> Instant:
        """Return when to say `due`; NEVER for one that goes in."""
        ...

    @property
    def stopped(self) -> Ending | None:
        """Return why the try is being ended before its time."""
        ...

    def left(self) -> Reset | None:
        """Say that the client has gone."""

    def revoked(self) -> Reset | None:
        """Say that the node at the other end is what it was no more."""


class Attempt:
    """A try under way, as far as it holds sockets.

    `dialing` is set while there is no connection yet, `node` is where a connection out of this one goes
    (empty: to a workload here); `downstream` is None for a TCP connection, whose client is watched elsewhere;
    `caller` is who is at the other end of one that came in.
    """

    __slots__ = (
        "caller",
        "connection",
        "dialing",
        "downstream",
        "exchange",
        "half_close_allowed",
        "node",
        "turn",
    )

    def __init__(self, exchange: Tried, downstream: Downstream | None, node: str = "") -> None:
        self.exchange = exchange
        self.downstream = downstream
        self.node = node
        self.caller: Peer | None = None
        self.turn = 0
        self.connection: PooledConnection | None = None
        self.dialing: trio.CancelScope | None = None
        self.half_close_allowed = True

    @property
    def peer(self) -> Peer | None:
        """Return who is at the other end of the mesh connection, None while there is none."""
        if self.caller is not None or self.connection is None:
            return self.caller
        return self.connection.peer

    def due(self, now: Instant) -> None:
        """Say that time has passed; only a try on its way out has a clock."""

    def reset(self, action: Reset) -> None:
        """End it: cut its connection, and its client's if there is no client or half an answer went out."""
        if self.dialing is not None:
            self.dialing.cancel()
        downstream = self.downstream
        if self.connection is not None:
            if downstream is not None and not downstream.body.finished:
                self.connection.stream.abort()  # half a request must not look whole
            self.connection.close()
        if downstream is None:
            return
        if action.client:
            downstream.stream.close()
        elif downstream.response_started:
            downstream.stream.abort()  # a cut answer must not look whole

    def revoke(self) -> None:
        """End it: the node at the other end is what it was no more."""
        action = self.exchange.revoked()
        if action is not None:
            self.reset(action)

    def check_client(self, holds_other_end: Callable[[socket.socket], bool]) -> None:
        """End the try when nobody waits for its answer any more.

        Only the TCP state tells that without reading. A local client may end its direction and wait, which
        looks like one that has gone, but that a process holds its end; another engine never does.
        """
        if self.downstream is None:
            return
        client = self.downstream.stream.socket
        try:
            state = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:
            return  # closed here; whoever closed it ends the try
        waits = state == _TCP_CLOSE_WAIT and self.half_close_allowed and holds_other_end(client)
        if state in (_TCP_CLOSE, _TCP_CLOSE_WAIT) and not waits:
            action = self.exchange.left()
            if action is not None:
                self.reset(action)


class OutboundAttempt(Attempt):
    """A try on its way out, whose exchange has a clock."""

    __slots__ = ("_attempts", "_ground", "_out")

    def __init__(
        self, attempts: "Attempts", exchange: Exchange, downstream: Downstream | None, node: str
    ) -> None:
        super().__init__(exchange, downstream, node)
        self._attempts = attempts
        self._ground = exchange.ground
        self._out = exchange

    def sent(self) -> None:
        """Pass on that the request is out whole."""
        self._out.sent(now())
        self._attempts.note(self._out.deadline)

    def head(self, response: ResponseHead) -> bool:
        """Pass on that the answer's head is there; tell whether it is for the client."""
        far_flag = engine_flag(response) if response.status == 503 else ""
        action = self._out.head(response.status, far_flag, now())
        self._attempts.note(self._out.deadline)
        if self._ground.effects:
            self._attempts.heed()
        return action is RELAY

    def passed(self) -> None:
        """Pass on that a piece moved."""
        self._out.passed(now())

    def outgrew(self) -> None:
        """Pass on that the body cannot be sent again."""
        self._out.outgrew()

    def client_owes(self, *, begins: bool) -> None:
        """Pass on that we begin, or end, to wait for the client."""
        self._out.client_owes(begins=begins)

    def due(self, now: Instant) -> None:
        """Say that time has passed, and end the try if it is over."""
        action = self._out.due(now)
        if isinstance(action, Reset):
            self.reset(action)


class InboundAttempt(Attempt):
    """A try on its way to a workload: its caller's engine has the clock."""

    __slots__ = ("_in",)

    def __init__(self, exchange: InboundExchange, downstream: Downstream | None, caller: Peer) -> None:
        super().__init__(exchange, downstream)
        self._in = exchange
        self.caller = caller
        self.half_close_allowed = False

    def sent(self) -> None:
        """Pass on that the request is out whole."""
        self._in.sent()

    def head(self, _response: ResponseHead) -> bool:
        """Pass on that the answer's head is there; it is for the caller whatever it says."""
        return self._in.head() is RELAY

    def passed(self) -> None:
        """Let a piece move."""

    def outgrew(self) -> None:
        """Pass on that the body cannot be sent again."""
        self._in.outgrew()

    def client_owes(self, *, begins: bool) -> None:
        """Let the caller take its time."""


class Attempts:
    """Every try under way, and the one timer for their deadlines."""

    def __init__(self, heed: Callable[[], None]) -> None:
        """`heed` carries out what an input to one exchange means for others."""
        self.heed = heed
        self._open: dict[object, Attempt] = {}
        """By exchange, oldest first."""
        self._nearest = NEVER
        self._timer = trio.CancelScope()
        self._turn = 0
        self._busy: trio.Event | None = None

    def begin(self, attempt: Attempt) -> None:
        """Take note of a try; `finish` must follow."""
        attempt.turn = self._turn
        self._open[attempt.exchange] = attempt
        self.note(attempt.exchange.deadline)
        if self._busy is not None:
            self._busy.set()

    async def wait_busy(self) -> None:
        """Wait until a try is under way."""
        if not self._open:
            self._busy = trio.Event()
            await self._busy.wait()
            self._busy = None

    def turn(self) -> list[Attempt]:
        """Return those that were under way at the last call already, oldest first."""
        self._turn += 1
        return [attempt for attempt in self._open.values() if attempt.turn < self._turn - 1]

    def finish(self, attempt: Attempt) -> None:
        """Forget a try."""
        self._open.pop(attempt.exchange, None)

    def all(self) -> list[Attempt]:
        """Return the tries under way, oldest first."""
        return list(self._open.values())

    def reset(self, exchange: object, action: Reset) -> None:
        """End the try of an exchange, if it still is under way."""
        attempt = self._open.get(exchange)
        if attempt is not None:
            attempt.reset(action)

    def note(self, deadline: Instant) -> None:
        """Take note of when an exchange is to be told that it is due."""
        if deadline < self._nearest:
            self._arm(deadline)

    def _arm(self, deadline: Instant) -> None:
        self._nearest = deadline
        self._timer.deadline = deadline / SECOND_NS

    async def run(self) -> None:
        """Say `due` to those whose deadline is over, some milliseconds later at most, until cancelled.

        Cost: O(tries under way) each time the nearest deadline passes; deadlines are mostly far off and
        forgotten unmet, so that is seldom.
        """
        while True:
            with self._timer:
                await trio.sleep_forever()
            instant = now()
            deadlines = [attempt.exchange.deadline for attempt in self._open.values()]
            later = [deadline for deadline in deadlines if deadline > instant]
            nearest = max(min(later, default=NEVER), instant + _TIMER_STEP_NS)
            self._nearest = Instant(nearest)
            self._timer = trio.CancelScope(deadline=nearest / SECOND_NS)
            for attempt in self.all():
                attempt.due(instant)
