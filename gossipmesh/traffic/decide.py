"""Answer a decision vector: one JSON-shaped question, one JSON-shaped answer.

The same questions are put to every engine (`--decide`); tests/conformance/vectors/decision says
what they mean. `now` and random numbers are in the question. Rules:

1. A question is `{"kind": ..., "input": {...}}`; an unknown kind or a wrong shape is MalformedInput.
2. Steps (balance, eject) run in order on one balancer that lives as long as the question.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import Instant
from gossipmesh.model.snapshot import InboundSection, LimitsSection, RetryRule, RoutesSection, UpstreamSection
from gossipmesh.traffic import authorization, retries, routing
from gossipmesh.traffic.balance import Balancer, EndpointStates, Try
from gossipmesh.traffic.outcomes import Outcome

Answer = dict[str, Any]


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
        return answerer(question["input"])
    except (msgspec.ValidationError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise MalformedInput(f"not a {kind} question: {type(error).__name__}: {error}"[:300]) from None


class _GivenNumbers:
    """The random numbers a question brings; asking for more than it has is the question's mistake."""

    def __init__(self, numbers: list[float]) -> None:
        self._numbers = iter(numbers)

    def random(self) -> float:
        number = next(self._numbers, None)
        if number is None or not 0 <= number < 1:
            raise ValueError("a random number in [0, 1) is missing")
        return number


def _route(given: dict[str, Any]) -> Answer:
    table = routing.RouteTable.build(msgspec.convert(given["sections"], tuple[RoutesSection, ...]))
    service = given.get("service") or routing.service_of_host(given["host"])
    answer: Answer = {"service": service, "route": None, "upstream": None, "status": None, "flag": None}
    router = None if service is None else table.router(service)
    if service is None:
        return answer | {"status": 404, "flag": "NR"}
    if router is None:
        return answer | {"demand": service}
    headers = [(name, value) for name, value in given["headers"]]
    try:
        route = router.find_untrusted(given["host"], given["path"], given["method"], headers)
    except MalformedInput:
        return answer | {"status": 400, "flag": "DPE"}
    if route is None:
        return answer | {"status": 404, "flag": "NR"}
    upstream = routing.pick_backend(route, given["random"])
    if upstream is None:
        return answer | {"route": route.name, "status": 500, "flag": "NC"}
    return answer | {"route": route.name, "upstream": upstream}


def _authorize(given: dict[str, Any]) -> Answer:
    inbound = msgspec.convert(given["inbound"], InboundSection)
    verdict = authorization.decide(inbound, given["identity"], given["method"], given["path"])
    return {"allow": verdict.allow, "rule": verdict.rule}


def _retry(given: dict[str, Any]) -> Answer:
    budget = retries.RetryBudget.of(msgspec.convert(given["limits"], LimitsSection))
    for past in given["history"]:
        for _ in range(min(past["requests"], 100_000)):
            budget.add_request(Instant(past["now"]))
        for _ in range(min(past["retries"], 100_000)):
            budget.add_retry(Instant(past["now"]))
    decision = retries.may_retry(
        msgspec.convert(given["rule"], RetryRule),
        method=given["method"],
        outcome=Outcome(given["outcome"]),
        status=given["status"],
        attempt=given["attempt"],
        response_started=given["response_started"],
        body_replayable=given["body_replayable"],
        budget=budget,
        now=Instant(given["now"]),
        random=given["random"],
    )
    return {"retry": decision.retry, "reason": decision.reason, "backoff_ns": decision.backoff_ns}


def _balance(given: dict[str, Any]) -> Answer:
    limits = msgspec.convert(given["limits"], LimitsSection)
    section = msgspec.convert(given["upstream"], UpstreamSection)
    balancer = Balancer(section, limits, EndpointStates())
    tries: dict[int, Try] = {}
    return {"steps": [_balance_step(balancer, tries, step) for step in given["steps"]]}


def _balance_step(balancer: Balancer, tries: dict[int, Try], step: dict[str, Any]) -> Answer:
    by_name = {f"{one.node}/{one.registration}": one for one in balancer.section.endpoints}
    if step["do"] == "update":
        balancer.update(msgspec.convert(step["upstream"], UpstreamSection))
        return {}
    now = Instant(step["now"])
    if step["do"] == "pick":
        excluded = [by_name[name] for name in step["excluded"]]
        picked = balancer.pick(_GivenNumbers(step["random"]), now, excluded)
        name = None if picked is None else f"{picked.node}/{picked.registration}"
        return {"endpoint": name, "panic": balancer.panicked}
    if step["do"] == "start":
        tries[step["try"]] = balancer.started(by_name[step["endpoint"]], now)
        return {}
    return {"ejected": balancer.finished(tries.pop(step["try"]), now, Outcome(step["outcome"]))}


_KINDS: Final[dict[str, Callable[[dict[str, Any]], Answer]]] = {
    "route": _route,
    "balance": _balance,
    "eject": _balance,
    "retry": _retry,
    "authorize": _authorize,
}
