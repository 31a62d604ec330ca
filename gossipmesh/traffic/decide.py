"""Answer a decision vector: one JSON-shaped question, one JSON-shaped answer.

The same questions are put to every engine (`--decide`); spec/engine/v1-draft/decisions says
what they mean. `now` and random numbers are in the question. Rules:

1. A question is `{"kind": ..., "input": {...}}`; an unknown kind or a wrong shape is MalformedInput.
2. Steps (balance, eject) run in order on balancers that live as long as the question.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import Instant
from gossipmesh.model.snapshot import (
    InboundSection,
    LimitsSection,
    RetryRule,
    RoutesSection,
    SnapshotEndpoint,
    UpstreamSection,
)
from gossipmesh.traffic import authorization, decide_exchange, retries, routing
from gossipmesh.traffic.balance import Balancer, Try
from gossipmesh.traffic.endpoints import EndpointStates, key_of
from gossipmesh.traffic.outcomes import Outcome

Answer = dict[str, Any]

_Number = Annotated[float, msgspec.Meta(ge=0, lt=1)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=10_000)]


class _RouteQuestion(msgspec.Struct):
    sections: tuple[RoutesSection, ...]
    host: str
    path: str
    method: str
    headers: tuple[tuple[str, str], ...]
    random: _Number
    service: str | None = None


class _AuthorizeQuestion(msgspec.Struct):
    inbound: InboundSection
    identity: str | None
    method: str | None
    path: str | None


class _Past(msgspec.Struct):
    now: _Time
    requests: _Count
    retries: _Count


class _RetryQuestion(msgspec.Struct):
    limits: LimitsSection
    rule: RetryRule
    history: tuple[_Past, ...]
    now: _Time
    method: str | None
    outcome: Outcome
    status: int | None
    attempt: Annotated[int, msgspec.Meta(ge=1)]
    response_started: bool
    body_replayable: bool
    random: _Number


class _Pick(msgspec.Struct, tag_field="do", tag="pick"):
    now: _Time
    random: tuple[_Number, ...]
    excluded: tuple[str, ...]
    through: str = ""


class _Pool(msgspec.Struct, tag_field="do", tag="pool"):
    now: _Time
    through: str = ""
    excluded: tuple[str, ...] = ()


class _Start(msgspec.Struct, tag_field="do", tag="start"):
    number: int = msgspec.field(name="try")
    endpoint: str
    now: _Time
    through: str = ""


class _Connect(msgspec.Struct, tag_field="do", tag="connect"):
    number: int = msgspec.field(name="try")
    now: _Time


class _AnswerBegins(msgspec.Struct, tag_field="do", tag="answer"):
    number: int = msgspec.field(name="try")
    now: _Time


class _Finish(msgspec.Struct, tag_field="do", tag="finish"):
    number: int = msgspec.field(name="try")
    outcome: Outcome
    now: _Time


class _Unreached(msgspec.Struct, tag_field="do", tag="unreached"):
    node: str
    now: _Time


class _Reached(msgspec.Struct, tag_field="do", tag="reached"):
    node: str
    now: _Time


class _Better(msgspec.Struct, tag_field="do", tag="better"):
    endpoint: str
    now: _Time
    through: str = ""
    excluded: tuple[str, ...] = ()


class _Update(msgspec.Struct, tag_field="do", tag="update"):
    upstream: UpstreamSection


_Step = (
    _Pick | _Pool | _Start | _Connect | _AnswerBegins | _Finish | _Unreached | _Reached | _Better | _Update
)


class _BalanceQuestion(msgspec.Struct):
    upstream: UpstreamSection
    limits: LimitsSection
    steps: tuple[_Step, ...]
    others: tuple[UpstreamSection, ...] = ()
    node: str = ""


def decide_untrusted(question: object) -> Answer:
    """Return the answer to one question.

    Raises:
        MalformedInput: not a question of a known kind. Remote's fault. State unchanged.
    """
    kind = question.get("kind") if isinstance(question, dict) else None
    answerer = _KINDS.get(kind) if isinstance(kind, str) else None
    if answerer is None or not isinstance(question, dict):
        raise MalformedInput(f"{str(kind)[:40]!r} is no kind of decision; there are {', '.join(_KINDS)}")
    try:
        return answerer(question.get("input"))
    except (msgspec.ValidationError, ArithmeticError, LookupError, ValueError) as error:
        raise MalformedInput(f"not a {kind} question: {type(error).__name__}: {error}"[:300]) from None


class _GivenNumbers:
    """The random numbers a question brings; asking for more than it has is the question's mistake."""

    def __init__(self, numbers: tuple[float, ...]) -> None:
        self._numbers = iter(numbers)

    def random(self) -> float:
        number = next(self._numbers, None)
        if number is None:
            raise ValueError("a random number is missing")
        return number


def _route(given: object) -> Answer:
    asked = msgspec.convert(given, _RouteQuestion)
    table = routing.RouteTable.build(asked.sections)
    service = asked.service or routing.service_of_host(asked.host)
    answer: Answer = {"service": service, "route": None, "upstream": None, "status": None, "flag": None}
    router = None if service is None else table.router(service)
    if service is None:
        return answer | {"status": 404, "flag": "NR"}
    if router is None:
        return answer | {"demand": service}
    try:
        route = router.find_untrusted(asked.host, asked.path, asked.method, asked.headers)
    except MalformedInput:
        return answer | {"status": 400, "flag": "DPE"}
    if route is None:
        return answer | {"status": 404, "flag": "NR"}
    upstream = routing.pick_backend(route, asked.random)
    if upstream is None:
        return answer | {"route": route.name, "status": 500, "flag": "NC"}
    return answer | {"route": route.name, "upstream": upstream}


def _authorize(given: object) -> Answer:
    asked = msgspec.convert(given, _AuthorizeQuestion)
    verdict = authorization.decide(asked.inbound, asked.identity, asked.method, asked.path)
    return {"allow": verdict.allow, "rule": verdict.rule}


def _retry(given: object) -> Answer:
    asked = msgspec.convert(given, _RetryQuestion)
    budget = retries.RetryBudget.of(asked.limits)
    for past in asked.history:
        for _ in range(past.requests):
            budget.add_request(Instant(past.now))
        for _ in range(past.retries):
            budget.add_retry(Instant(past.now))
    decision = retries.may_retry(
        asked.rule,
        method=asked.method,
        outcome=asked.outcome,
        status=asked.status,
        attempt=asked.attempt,
        response_started=asked.response_started,
        body_replayable=asked.body_replayable,
        budget=budget,
        now=Instant(asked.now),
        random=asked.random,
    )
    return {"retry": decision.retry, "reason": decision.reason, "backoff_ns": decision.backoff_ns}


def _balance(given: object) -> Answer:
    asked = msgspec.convert(given, _BalanceQuestion)
    played = _BalancePlay(asked)
    return {"steps": [played.step(step) for step in asked.steps]}


class _BalancePlay:
    """The upstreams of one question over one registry of endpoints."""

    def __init__(self, asked: _BalanceQuestion) -> None:
        self._states = EndpointStates(own=asked.node)
        self._main = asked.upstream.upstream
        self._tries: dict[int, tuple[Balancer, Try]] = {}
        self._balancers = {
            section.upstream: Balancer(section, asked.limits, self._states)
            for section in (asked.upstream, *asked.others)
        }

    def step(self, step: _Step) -> Answer:
        """Do one step; `returned` is in the answer when endpoints came back into use by it."""
        answer = self._do(step)
        returned = [
            f"{one.node}/{one.registration}" for one in self._states.take_changes() if not one.ejected
        ]
        return answer | {"returned": returned} if returned else answer

    def _do(self, step: _Step) -> Answer:
        if isinstance(step, _Update):
            return self._update(step.upstream)
        now = Instant(step.now)
        if isinstance(step, _Unreached):
            return {"isolated": self._states.unreached(step.node, now) or self._states.isolation.isolated}
        if isinstance(step, _Reached):
            self._states.reached(step.node, now)
            return {"isolated": self._states.isolation.isolated}
        if isinstance(step, _Connect | _AnswerBegins | _Finish):
            return self._go_on(step, now)
        balancer = self._balancers[step.through or self._main]
        by_name = {_name(one): one for one in balancer.section.endpoints}
        if isinstance(step, _Start):
            self._tries[step.number] = balancer, balancer.started(by_name[step.endpoint], now)
            return {}
        excluded = [by_name[name] for name in step.excluded]
        if isinstance(step, _Better):
            return {"better": balancer.has_better(key_of(by_name[step.endpoint]), now, excluded)}
        if isinstance(step, _Pool):
            return {"endpoints": [_name(one) for one in balancer.candidates(now, excluded)]}
        picked = balancer.pick(_GivenNumbers(step.random), now, excluded)
        return {"endpoint": None if picked is None else _name(picked), "panic": balancer.panicked}

    def _update(self, section: UpstreamSection) -> Answer:
        gone = self._balancers[section.upstream].update(section)
        self._states.forget_unlisted(gone, [one.section for one in self._balancers.values()])
        return {}

    def _go_on(self, step: _Connect | _AnswerBegins | _Finish, now: Instant) -> Answer:
        balancer, attempt = self._tries[step.number]
        if isinstance(step, _Connect):
            balancer.connected(attempt, now)
            return {}
        if isinstance(step, _AnswerBegins):
            balancer.answered(attempt, now)
            return {}
        del self._tries[step.number]
        return {"ejected": balancer.finished(attempt, now, step.outcome)}


def _name(endpoint: SnapshotEndpoint) -> str:
    return f"{endpoint.node}/{endpoint.registration}"


_KINDS: Final[dict[str, Callable[[object], Answer]]] = {
    "route": _route,
    "balance": _balance,
    "eject": _balance,
    "retry": _retry,
    "authorize": _authorize,
    "exchange": decide_exchange.play,
}
