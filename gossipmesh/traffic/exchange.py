"""One exchange: what a local caller asks of a service, from its routing to its end.

An HTTP request, or (method None) a TCP connection. Sans-IO: inputs are methods, each returns the action that
comes next, `deadline` is when to say `due`; `close` is said last, whatever happened. Every decision about it
is made here, so that an engine cannot put the questions wrongly. Spec: docs/TRAFFIC.md "Exchanges". Rules:

1. An input that does not belong to the phase is `OutOfTurn`; one that comes late or twice by its nature
   (`due`, `sent`, `passed`, `review`) changes nothing.
2. A trial is passed, and a latency measured, when an answer below 500 begins: what follows is no slowness.
3. The clock of a try runs from when its request is out whole until its answer begins. What runs out while the
   client owes its body, or does not take its answer, is not the endpoint's.
4. After `Reset` the end is what was said there, however the stream reports it.
5. What never reached the workload is told apart from what may have: by our own connection, or by the far
   engine's word, which only engines can say.
"""

from enum import IntEnum
from typing import Final

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import NEVER, Instant
from gossipmesh.model.service import Protocol
from gossipmesh.model.snapshot import Route, SnapshotEndpoint
from gossipmesh.traffic import endings
from gossipmesh.traffic.actions import (
    CUT,
    DROP,
    FINISH,
    RELAY,
    TAKE_BODY,
    Action,
    Answer,
    Ask,
    Connect,
    Drop,
    Relay,
    Request,
    Reset,
    Wait,
)
from gossipmesh.traffic.balance import Try
from gossipmesh.traffic.endings import Ending
from gossipmesh.traffic.ground import Ground, Upstream
from gossipmesh.traffic.outcomes import Outcome
from gossipmesh.traffic.retries import REASON_BUDGET, RetryDecision, is_idempotent, may_retry, try_timeout_ns
from gossipmesh.traffic.routing import ServiceRouter, pick_backend, service_of_host

FAR_WORDS: Final = {
    "UF": Outcome.CONNECT_REFUSED,
    "UH": Outcome.CONNECT_REFUSED,
    "UO": Outcome.OVERLOADED,
}
"""What a far engine's flag on a 503 says of its own workload's part; any other answer is the workload's."""
_REASON_ATTEMPTS: Final = "attempts"


class OutOfTurn(Exception):
    """An engine said what cannot be so now. Local fault. State unchanged."""


class Phase(IntEnum):
    """Where an exchange is; docs/TRAFFIC.md has the table of what may be said in which."""

    NEW = 0
    ASKED = 1  # waits for routes
    BODY = 2  # waits for a small body
    CONNECTING = 3
    SENDING = 4  # the request is not out whole
    WAITING = 5  # for the answer to begin
    ANSWERING = 6
    DROPPING = 7  # an answer came that nobody is to have
    RESTING = 8  # before another try
    CARRYING = 9  # a TCP connection, both ways
    ENDED = 10


_UNANSWERED: Final = (Phase.SENDING, Phase.WAITING)
TURNS: Final = {
    "begin": (Phase.NEW,),
    "routes_came": (Phase.ASKED,),
    "body_taken": (Phase.BODY,),
    "connected": (Phase.CONNECTING,),
    "unconnected": (Phase.CONNECTING,),
    "head": _UNANSWERED,
    "ended": (Phase.WAITING, Phase.SENDING, Phase.ANSWERING, Phase.DROPPING),
}
"""In which phases an input may be said; those that are not here may always be."""


class Exchange:
    """One request or TCP connection on its way out of this node; what became known of it is readable."""

    __slots__ = (
        "_admitted",
        "_answer",
        "_answered_at",
        "_asked",
        "_client_owes",
        "_decision",
        "_phase",
        "_replayable",
        "_request",
        "_request_deadline",
        "_try",
        "attempts",
        "deadline",
        "details",
        "flags",
        "ground",
        "route",
        "service",
        "stopped",
        "tried",
        "upstream",
        "upstream_name",
    )

    def __init__(self, ground: Ground, request: Request) -> None:
        self.service = ""
        """Set when there are routes of it: a name nobody vouches for must not become a metric's label."""
        self.route: Route | None = None
        self.upstream_name = ""
        self.upstream: Upstream | None = None
        self.attempts = 0
        self.tried: list[SnapshotEndpoint] = []
        """Where it has been, in order."""
        self.flags: list[str] = []
        self.details = ""
        self.deadline = NEVER
        self.ground = ground
        self._request = request
        self._asked = ""
        self._phase = Phase.NEW
        self._request_deadline = NEVER
        self._admitted = False
        self._try: Try | None = None
        self._replayable = True
        self._client_owes = 0
        self._answered_at: Instant | None = None
        self._answer = Outcome.SUCCESS
        self._decision: RetryDecision | None = None
        self.stopped: Ending | None = None
        """Why its try is being ended before its time."""

    # Routing.

    def begin(self, now: Instant) -> Action:
        """Say that the request is there.

        Returns:
            Ask, TakeBody, Connect or Answer.
        """
        if self._phase not in TURNS["begin"]:
            raise self._out_of_turn("begin")
        request = self._request
        service = request.service or service_of_host(request.host)
        if service is None:
            return self._refuse(endings.SERVICE_NOT_NAMED if request.host else endings.HOST_MISSING)
        router = self.ground.router(service)
        if router is None:
            self._asked, self._phase = service, Phase.ASKED
            return Ask(service)
        return self._routed(router, now)

    def routes_came(self, now: Instant) -> Action:
        """Say that what was asked for is answered, or will not be.

        Returns:
            TakeBody, Connect or Answer.
        """
        if self._phase not in TURNS["routes_came"]:
            raise self._out_of_turn("routes_came")
        router = self.ground.router(self._asked)
        if router is None:
            return self._refuse(endings.SERVICE_NOT_KNOWN)
        return self._routed(router, now)

    def body_taken(self, now: Instant) -> Action:
        """Say that a small body has been read, or that there will be no waiting for it.

        Returns:
            Connect or Answer.
        """
        if self._phase not in TURNS["body_taken"]:
            raise self._out_of_turn("body_taken")
        return self._admit(now)

    def _routed(self, router: ServiceRouter, now: Instant) -> Action:
        request = self._request
        self.service = router.section.service
        is_tcp = router.section.protocol == Protocol.TCP
        if request.method is None:
            if not self.ground.tables.is_served(router):
                return self._refuse(endings.NO_HEALTHY_UPSTREAM)
            if not is_tcp:
                return self._refuse(endings.SERVICE_IS_HTTP)
            route = next(iter(router.section.routes), None)
        elif is_tcp:
            return self._refuse(endings.SERVICE_IS_TCP)
        else:
            try:
                route = router.find_untrusted(request.host, request.path, request.method, request.headers)
            except MalformedInput as error:
                return self._refuse(endings.AMBIGUOUS_PATH, str(error))
            if request.looped:
                return self._refuse(endings.HOP_LIMIT)
            if request.last_stop:
                return self._refuse(endings.MAX_FORWARDS)
        if route is None:
            return self._refuse(endings.ROUTE_NOT_FOUND)
        return self._led(route, now)

    def _led(self, route: Route, now: Instant) -> Action:
        self.route = route
        name = pick_backend(route, self.ground.rng.random())
        upstream = None if name is None else self.ground.upstream(name)
        if name is None or upstream is None:
            return self._refuse(endings.NO_BACKEND)
        self.upstream_name, self.upstream = name, upstream
        if self._request.waits_for_body:
            self._phase = Phase.BODY
            return TAKE_BODY
        return self._admit(now)

    def _admit(self, now: Instant) -> Action:
        route, upstream = self._chosen()
        if not upstream.admission.admit_request(self._request.uid):
            return self._refuse(endings.REQUESTS_OVERFLOW)
        self._admitted = True
        upstream.budget.add_request(now)
        if route.request_timeout_ns is not None and self._request.method is not None:
            self._request_deadline = Instant(now + route.request_timeout_ns)
        return self._pick(now)

    # Tries.

    def _pick(self, now: Instant) -> Action:
        _, upstream = self._chosen()
        endpoint = self.ground.pick(upstream, now, self.tried)
        if endpoint is None:
            return self._refuse(endings.NO_HEALTHY_UPSTREAM)
        self.attempts += 1
        self._try = upstream.balancer.started(endpoint, now)
        self._answered_at = self._decision = self.stopped = None
        self._answer = Outcome.SUCCESS
        self._client_owes = 0
        self.ground.open[self] = None
        self._phase, self.deadline = Phase.CONNECTING, self._request_deadline
        return Connect(endpoint)

    def connected(self, now: Instant) -> Relay | None:
        """Say that there is a connection, kept or new; to a TCP workload, that it took it.

        Returns:
            Relay for TCP, None for HTTP: send the request.
        """
        if self._phase not in TURNS["connected"]:
            raise self._out_of_turn("connected")
        attempt, upstream = self._trying()
        if self._request.method is None:
            self.ground.reached(attempt.endpoint.node, now)
            self._settle(Outcome.SUCCESS, now)
            self._phase, self.deadline = Phase.CARRYING, NEVER
            return RELAY
        upstream.balancer.connected(attempt, now)
        self._phase = Phase.SENDING
        return None

    def unconnected(self, ending: Ending, more: str, now: Instant, *, unreached: bool = False) -> Action:
        """Say why there is no connection; `unreached`: the endpoint's node gave no sign of life.

        Returns:
            Connect, Wait, Answer or Cut.
        """
        if self._phase not in TURNS["unconnected"]:
            raise self._out_of_turn("unconnected")
        attempt, upstream = self._trying()
        outcome = ending.outcome
        if unreached and self.stopped is None:
            self.ground.open.pop(self, None)  # this try has ended: nothing moves it any more
            self.ground.unreached(attempt.endpoint.node, now)
            isolated = self.ground.states.isolation.isolated
            if isolated and upstream.balancer.has_better(attempt.key, now, self.tried):
                outcome = Outcome.MOVED
        return self._tried(ending, more, outcome, now)

    def sent(self, now: Instant) -> None:
        """Say that the request is out whole; the wait for its answer is bounded from here on."""
        if self._phase is not Phase.SENDING:
            return  # its answer was faster
        self._phase = Phase.WAITING
        route, _ = self._chosen()
        timeout_ns = try_timeout_ns(route)
        if timeout_ns is not None:
            self.deadline = min(self._request_deadline, Instant(now + timeout_ns))

    def outgrew(self) -> None:
        """Say that the request's body is more than what is kept: it cannot be sent again."""
        self._replayable = False

    def client_owes(self, *, begins: bool) -> None:
        """Say that we begin, or end, to wait for the client: for its body, or that it takes its answer."""
        self._client_owes += 1 if begins else -1

    def head(self, status: int, far_flag: str, now: Instant) -> Relay | Drop:
        """Say that the answer's head is there; interim ones are none.

        Args:
            status: the answer's.
            far_flag: what the far engine says of its workload's part, empty for an answer of the workload.
            now: monotonic.
        """
        if self._phase not in TURNS["head"]:
            raise self._out_of_turn("head")
        attempt, upstream = self._trying()
        route, _ = self._chosen()
        self._answered_at = now
        self.ground.reached(attempt.endpoint.node, now)
        if self.stopped is not None:
            self._phase = Phase.DROPPING
            return DROP
        far = FAR_WORDS.get(far_flag) if status == 503 else None
        failed = status >= 500
        self._answer = far or (Outcome.SERVER_ERROR if failed else Outcome.SUCCESS)
        if far is not None or failed or status in route.retry.statuses:
            self._decision = self._ask(self._answer, None if far else status, now)
            if self._decision is not None and self._decision.retry:
                self._phase = Phase.DROPPING
                return DROP
        if not failed:
            upstream.balancer.answered(attempt, now)
            self.ground.tell_changes()
        elif far is not None:
            self._flag(far_flag)
        self._phase = Phase.ANSWERING
        self._push(now)
        if status == 101:
            self.deadline = NEVER  # whoever carries it bounds it
        return RELAY

    def passed(self, now: Instant) -> None:
        """Say that a piece moved: from the answer's head on only idleness and the request's time bound it."""
        if self._phase is Phase.ANSWERING:
            self._push(now)

    def _push(self, now: Instant) -> None:
        idle = Instant(now + self.ground.tables.limits.idle_timeout_http_ns)
        self.deadline = min(self._request_deadline, idle)

    def ended(self, ending: Ending, more: str, now: Instant) -> Action:
        """Say how the try's stream ended: `VIA_UPSTREAM` when the answer is over.

        Returns:
            Connect, Wait, Answer, Finish or Cut.
        """
        if self._phase not in TURNS["ended"]:
            raise self._out_of_turn("ended")
        whole = ending is endings.VIA_UPSTREAM
        return self._tried(ending, more, self._answer if whole else ending.outcome, now)

    # What ends a try before its time.

    def due(self, now: Instant) -> Action | None:
        """Say that it may be `deadline`, or what was waited for; too early or too late it means nothing.

        Returns:
            Reset, Connect, Answer, or None for nothing.
        """
        if now < self.deadline:
            return None
        if self._phase is Phase.RESTING:
            if now >= self._request_deadline:
                return self._refuse(endings.UPSTREAM_TIMEOUT)
            return self._pick(now)
        late = endings.DOWNSTREAM_TIMEOUT if self._client_owes else endings.UPSTREAM_TIMEOUT
        return self._stop(late)

    def left(self) -> Reset | None:
        """Say that the client has gone."""
        return self._stop(endings.DISCONNECT, client=True)

    def revoked(self) -> Reset | None:
        """Say that the node at the other end is what it was no more."""
        return self._stop(endings.REVOKED_AND_MOVED if self._can_move else endings.REVOKED_AND_CUT)

    def review(self, now: Instant) -> Reset | None:
        """Judge a try again, now that the tables or what is known of nodes may have changed."""
        upstream = self.ground.upstreams.get(self.upstream_name)
        attempt = self._try
        if attempt is None or upstream is None or not self._can_move:
            return None
        cut = self.ground.states.isolation.is_lost(attempt.key[0])
        if not (cut or upstream.lets_go(attempt.key)):
            return None
        if not upstream.balancer.has_better(attempt.key, now, self.tried):
            return None
        return self._stop(endings.ENDPOINT_CUT if cut else endings.ENDPOINT_REMOVED)

    @property
    def _can_move(self) -> bool:
        """Tell whether the try could be made elsewhere: doing it twice is safe, or nothing was sent yet."""
        unsent = self._phase is Phase.CONNECTING
        twice = self._phase in _UNANSWERED and is_idempotent(self._request.method)
        return (unsent or twice) and self._replayable

    def _stop(self, ending: Ending, *, client: bool = False) -> Reset | None:
        if self.stopped is not None or self._try is None:
            return None
        self.stopped = ending
        return Reset(ending, client)

    # The end.

    def close(self, now: Instant) -> None:
        """Say that nothing more will be said: what is held is given back. Safe to repeat."""
        if self._try is not None:
            self._settle(Outcome.CANCELLED, now)
        self._phase, self.deadline = Phase.ENDED, NEVER
        if self._admitted and self.upstream is not None:
            self._admitted = False
            self.upstream.admission.release_request(self._request.uid)

    def _tried(self, ending: Ending, more: str, outcome: Outcome, now: Instant) -> Action:
        attempt, _ = self._trying()
        if self.stopped is not None:
            ending, more, outcome = self.stopped, "", self.stopped.outcome
        if ending is not endings.VIA_UPSTREAM:
            self._decision = None if outcome is Outcome.CANCELLED else self._ask(outcome, None, now)
        answering = self._phase is Phase.ANSWERING
        self._settle(outcome, now)
        decision = self._decision
        if decision is None or not decision.retry:
            return self._over(ending, more, answering=answering)
        self.tried.append(attempt.endpoint)
        if not decision.backoff_ns:
            return self._pick(now)
        self.deadline = min(Instant(now + decision.backoff_ns), self._request_deadline)
        self._phase = Phase.RESTING
        return Wait(self.deadline)

    def _over(self, ending: Ending, more: str, *, answering: bool) -> Action:
        """Write down how the last try ended; answer with it, unless an answer has gone out already."""
        action: Action
        if answering or ending is endings.DISCONNECT:
            self._write(ending, more)
            action = CUT if ending.flag else FINISH
        else:
            action = self._refuse(ending, more)
        if self._decision is not None and self._decision.reason == _REASON_ATTEMPTS:
            self._flag("URX")
        return action

    def _refuse(self, ending: Ending, more: str = "") -> Answer:
        self._write(ending, more)
        # What was wrong with an answer is nothing the client could not have seen.
        tells = ending is endings.PROTOCOL_ERROR
        return Answer(ending, f"{ending.reason}: {more}" if tells else ending.reason)

    def _write(self, ending: Ending, more: str) -> None:
        self._phase, self.deadline = Phase.ENDED, NEVER
        if ending.flag:
            self._flag(ending.flag)
        self.details = f"{ending.detail}: {more}" if more else ending.detail

    def _flag(self, flag: str) -> None:
        if flag not in self.flags:
            self.flags.append(flag)

    def _settle(self, outcome: Outcome, now: Instant) -> None:
        """Take a try's end into account; an endpoint's latency is the time to its answer's head."""
        attempt, upstream = self._trying()
        self._try = None
        self.ground.open.pop(self, None)
        ended_at = (self._answered_at or now) if outcome is Outcome.SUCCESS else now
        upstream.balancer.finished(attempt, ended_at, outcome)
        self.ground.tell_changes()

    def _ask(self, outcome: Outcome, status: int | None, now: Instant) -> RetryDecision | None:
        """Ask whether to try again; time that is up forbids it before anything else."""
        if now >= self._request_deadline:
            return None
        route, upstream = self._chosen()
        decision = may_retry(
            route.retry,
            method=self._request.method,
            outcome=outcome,
            status=status,
            attempt=self.attempts,
            response_started=self._phase is Phase.ANSWERING,
            body_replayable=self._replayable,
            budget=upstream.budget,
            now=now,
            random=self.ground.rng.random(),
        )
        if decision.retry:
            self.ground.count("retries")
        elif decision.reason == REASON_BUDGET:
            self.ground.count("retries_over_budget")
        return decision

    def _out_of_turn(self, said: str) -> OutOfTurn:
        return OutOfTurn(f"{said} in phase {self._phase.name.lower()}")

    def _chosen(self) -> tuple[Route, Upstream]:
        assert self.route is not None
        assert self.upstream is not None
        return self.route, self.upstream

    def _trying(self) -> tuple[Try, Upstream]:
        assert self._try is not None
        assert self.upstream is not None
        return self._try, self.upstream
