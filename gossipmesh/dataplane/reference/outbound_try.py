"""One try of one request at one endpoint: connect, exchange, and what its end means.

Responsible for the try's clock, for what balancer, budget and isolation are told, and for whether another
try follows. Rules:

1. A try's timeout counts from when its request is out whole until its answer begins: what a client takes to
   send, and what a long answer takes, are nobody's slowness.
2. What never reached the workload is told apart from what may have: by our own connection, or by the far
   engine's word (`x-gossipmesh-flag` of a 503), which only engines can say.
3. A lack of our own ends the request and says nothing about any endpoint.
"""

from typing import Final

from gossipmesh.dataplane.reference.dialing import REVOKED_DETAIL, DialFailed, outcome_of, wait_for_connection
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream, Exchange, TryEnd
from gossipmesh.dataplane.reference.http1 import ResponseHead
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.dataplane.reference.state import EngineState, UpstreamState, now
from gossipmesh.dataplane.reference.tries import Attempt, Stop
from gossipmesh.dataplane.reference.upgrade import splice
from gossipmesh.model.instant import NEVER, Instant
from gossipmesh.model.snapshot import Route, SnapshotEndpoint
from gossipmesh.traffic.outcomes import Outcome
from gossipmesh.traffic.retries import RetryDecision, is_idempotent, may_retry, try_timeout_ns

_FLAG: Final = b"x-gossipmesh-flag"
_FAR_WORDS: Final = {
    b"UF": Outcome.CONNECT_REFUSED,
    b"UH": Outcome.CONNECT_REFUSED,
    b"UO": Outcome.OVERLOADED,
}


class Asked:
    """What all tries of one request share.

    `deadline` is the request's own, NEVER for none; `tried` are the endpoints that failed it.
    """

    __slots__ = ("deadline", "downstream", "entry", "head", "route", "tried", "upstream")

    def __init__(
        self, downstream: Downstream, entry: Entry, route: Route, upstream: UpstreamState, head: bytes
    ) -> None:
        self.downstream = downstream
        self.entry = entry
        self.route = route
        self.upstream = upstream
        self.head = head
        self.deadline = NEVER
        self.tried: list[SnapshotEndpoint] = []


class OutboundTry:
    """One try; `decision` says after `run` whether another follows, None when there is nothing to decide."""

    def __init__(self, state: EngineState, asked: Asked, endpoint: SnapshotEndpoint) -> None:
        self._state = state
        self._asked = asked
        self._endpoint = endpoint
        self._answered_at: Instant | None = None
        self._far_outcome: Outcome | None = None
        self.decision: RetryDecision | None = None

    async def run(self, began: Instant) -> TryEnd:
        """Make the try."""
        state, balancer = self._state, self._asked.upstream.balancer
        self._balanced = balancer.started(self._endpoint, began)
        attempt = self._attempt = self._begun()
        state.attempts.set_deadline(attempt, self._asked.deadline)
        outcome = Outcome.CANCELLED
        try:
            end = self._judged(await self._made(began))
            outcome = end.outcome
        finally:
            state.attempts.finish(attempt)
            # An endpoint's latency is the time to its answer's head: a long download is no slow endpoint.
            answered_at = self._answered_at if outcome is Outcome.SUCCESS else None
            balancer.finished(self._balanced, answered_at or now(), outcome)
            state.tell_changes()
        return end

    def _begun(self) -> Attempt:
        """Return the try as those see it who may end it early."""
        asked = self._asked
        attempt = Attempt(asked.downstream, asked.entry.upstream, self._balanced.key)
        attempt.node = self._endpoint.node
        attempt.tried = asked.tried
        attempt.movable = is_idempotent(asked.downstream.head.method)
        self._state.attempts.begin(attempt)
        return attempt

    async def _made(self, began: Instant) -> TryEnd:
        asked, attempt = self._asked, self._attempt
        try:
            connection = asked.upstream.pool.take(asked.entry.caller, attempt.key, began)
            if connection is None:
                connection = await self._dialed()
        except DialFailed as error:
            outcome = outcome_of(self._state, asked.upstream, self._endpoint, asked.tried, error)
            return TryEnd(outcome, 503, error.flag, error.detail)
        attempt.connection = connection
        kept = False
        try:
            exchange = Exchange(
                asked.downstream,
                connection,
                on_head=self._takes,
                on_progress=self._push_deadline,
                on_sent=self._start_clock,
            )
            end = await exchange.run(asked.head)
            if self._far_outcome is not None:
                end.outcome = self._far_outcome
            if asked.downstream.status == 101 and not end.flag:
                self._state.attempts.set_deadline(attempt, NEVER)
                await splice(self._state, asked.downstream, connection)
            elif end.reusable and attempt.stopped is None:
                kept = asked.upstream.keep(connection)
        finally:
            if not kept:
                connection.close()
        return end

    async def _dialed(self) -> PooledConnection:
        asked, attempt = self._asked, self._attempt
        connection = await wait_for_connection(
            self._state, asked.upstream, self._endpoint, asked.entry.caller, attempt
        )
        asked.upstream.balancer.connected(self._balanced, now())
        return connection

    def _judged(self, end: TryEnd) -> TryEnd:
        """Return how the try ended, given what ended it early; ask whether another follows."""
        stopped = self._attempt.stopped
        if stopped is not None:
            end = self._stopped_end(stopped)
        failed = end.flag and not end.abandoned and end.outcome is not Outcome.CANCELLED
        if failed and stopped is not Stop.GONE:
            self._ask(end.outcome, None)
        return end

    def _start_clock(self) -> None:
        """Bound the wait for an answer, now that the request is out whole."""
        timeout_ns = try_timeout_ns(self._asked.route)
        if timeout_ns is not None and self._answered_at is None:
            deadline = min(self._asked.deadline, Instant(now() + timeout_ns))
            self._state.attempts.set_deadline(self._attempt, deadline)

    def _takes(self, response: ResponseHead) -> bool:
        """Tell whether an answer is relayed; from here on the try is only bounded by idleness."""
        instant = self._answered_at = now()
        self._state.reached(self._endpoint.node, instant)
        self._far_outcome = far_outcome(response)
        if self._far_outcome is not None:
            self._ask(self._far_outcome, None)
        elif response.status >= 500 or response.status in self._asked.route.retry.statuses:
            self._ask(Outcome.SERVER_ERROR if response.status >= 500 else Outcome.SUCCESS, response.status)
        if self.decision is not None and self.decision.retry:
            return False
        if response.status < 500:
            self._asked.upstream.balancer.answered(self._balanced, instant)
            self._state.tell_changes()
        elif self._far_outcome is not None:
            self._asked.entry.flag(_far_word(response).decode())
        self._attempt.movable = False
        length, connection = response.content_length, self._attempt.connection
        if length is None or connection is None or length > connection.reader.pending_bytes:
            self._push_deadline()
        return True

    def _push_deadline(self) -> None:
        """Once an answer is on its way only the request's own timeout and idleness bound it."""
        if self._answered_at is not None:
            idle_ns = self._state.limits.idle_timeout_http_ns
            deadline = min(self._asked.deadline, Instant(now() + idle_ns))
            self._state.attempts.set_deadline(self._attempt, deadline)

    def _stopped_end(self, why: Stop) -> TryEnd:
        if why is Stop.GONE:
            return TryEnd(Outcome.CANCELLED, 0, "DC", "downstream_disconnect")
        if why is Stop.REVOKED and not self._attempt.can_move:
            return TryEnd(Outcome.RESET, 503, "UF", REVOKED_DETAIL)  # the workload may have done it
        if why in (Stop.REMOVED, Stop.CUT, Stop.REVOKED):
            return TryEnd(Outcome.MOVED, 503, "UF", f"endpoint_{why}")
        if self._asked.downstream.response_started:
            self._asked.downstream.keep_alive = False
        return TryEnd(Outcome.TIMEOUT, 504, "UT", "upstream_timeout")

    def _ask(self, outcome: Outcome, status: int | None) -> None:
        """Ask whether to try again; time that is up forbids it before anything else."""
        instant, downstream = now(), self._asked.downstream
        if instant >= self._asked.deadline:
            self.decision = None
            return
        self.decision = may_retry(
            self._asked.route.retry,
            method=downstream.head.method,
            outcome=outcome,
            status=status,
            attempt=self._asked.entry.attempts,
            response_started=downstream.response_started,
            body_replayable=downstream.body.replayable,
            budget=self._asked.upstream.budget,
            now=instant,
            random=self._state.rng.random(),
        )
        self._state.count_decision(self.decision)


def far_outcome(response: ResponseHead) -> Outcome | None:
    """Return what a far engine says of its own workload's part, None for an answer of the workload."""
    return _FAR_WORDS.get(_far_word(response)) if response.status == 503 else None


def _far_word(response: ResponseHead) -> bytes:
    for name, value in response.headers:
        if name == _FLAG:
            return value.partition(b",")[0]
    return b""
