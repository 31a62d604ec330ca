"""Answer a decision vector: one JSON-shaped question, one JSON-shaped answer.

The same questions are put to every engine (`--decide`); tests/conformance/vectors/decision says
what they mean. `now` and random numbers are in the question. Rules:

1. A question is `{"kind": ..., "input": {...}}`; an unknown kind or a wrong shape is MalformedInput.
2. Steps (balance, eject) run in order on one balancer that lives as long as the question.
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
from gossipmesh.traffic import authorization, retries, routing
from gossipmesh.traffic.balance import Balancer, EndpointStates, Try
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


class _Start(msgspec.Struct, tag_field="do", tag="start"):
    number: int = msgspec.field(name="try")
    endpoint: str
    now: _Time


class _AnswerBegins(msgspec.Struct, tag_field="do", tag="answer"):
    number: int = msgspec.field(name="try")
    now: _Time


class _Finish(msgspec.Struct, tag_field="do", tag="finish"):
    number: int = msgspec.field(name="try")
    outcome: Outcome
    now: _Time


class _Update(msgspec.Struct, tag_field="do", tag="update"):
    upstream: UpstreamSection


_Step = _Pick | _Start | _AnswerBegins | _Finish | _Update


class _BalanceQuestion(msgspec.Struct):
    upstream: UpstreamSection
    limits: LimitsSection
    steps: tuple[_Step, ...]


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
    balancer = Balancer(asked.upstream, asked.limits, EndpointStates())
    tries: dict[int, Try] = {}
    return {"steps": [_balance_step(balancer, tries, step) for step in asked.steps]}


def _balance_step(balancer: Balancer, tries: dict[int, Try], step: _Step) -> Answer:
    if isinstance(step, _Update):
        balancer.update(step.upstream)
        return {}
    now = Instant(step.now)
    if isinstance(step, _AnswerBegins):
        balancer.answered(tries[step.number], now)
        return {}
    if isinstance(step, _Finish):
        return {"ejected": balancer.finished(tries.pop(step.number), now, step.outcome)}
    by_name = {_name(one): one for one in balancer.section.endpoints}
    if isinstance(step, _Start):
        tries[step.number] = balancer.started(by_name[step.endpoint], now)
        return {}
    picked = balancer.pick(_GivenNumbers(step.random), now, [by_name[name] for name in step.excluded])
    return {"endpoint": None if picked is None else _name(picked), "panic": balancer.panicked}


def _name(endpoint: SnapshotEndpoint) -> str:
    return f"{endpoint.node}/{endpoint.registration}"


_KINDS: Final[dict[str, Callable[[object], Answer]]] = {
    "route": _route,
    "balance": _balance,
    "eject": _balance,
    "retry": _retry,
    "authorize": _authorize,
}
