"""Each verdict on requests holds on good evidence and names what is wrong with bad."""

from typing import Any

import msgspec
import pytest

from gossipmesh.testing.evidence import EndpointsSeen, Evidence, FaultFired, InboundEnd
from gossipmesh.testing.load import Outcome
from gossipmesh.testing.request_checkers import (
    anytime_requests_after_the_fault_succeed,
    anytime_requests_of_leavers_succeed,
    anytime_sessions_hold,
    anytime_stopped_workload_is_passed_by,
    eventually_isolation_costs_nothing,
    finally_calls_succeed,
    isolation_failures_s,
    known_failing_s,
)


def outcome(at_s: float, node: str = "n1", **fields: Any) -> Outcome:
    return Outcome(at_s, node, "web.shop", **{"latency_ms": 5.0, "error": "refused", **fields})


def evidence(*failures: Outcome, faults: tuple[FaultFired, ...] = (), **fields: Any) -> Evidence:
    rows = [msgspec.to_builtins(failure) for failure in failures]
    requests = {"sent": 10, "answered": 10, "failed": len(rows), "failures": rows}
    return Evidence("x", 1, ["n1", "n2"], faults=list(faults), requests=requests, **fields)


# n1 is told to leave at 10 s, has served its last request at 14 s, and is back at 20 s.
LEFT = FaultFired(10.0, "leave-rejoin", "n1", count=1, detail={"told": True, "back_s": 20.0})
DRAINED = [InboundEnd("n1", 10.0, 14.0)]


@pytest.mark.parametrize(
    ("failure", "excused"),
    [
        (outcome(13.0), False),  # it was still draining: its applications are served
        (outcome(14.5), True),
        (outcome(14.5, "n2"), False),
        (outcome(14.5, status=503), False),  # an answer is no refusal
        (outcome(14.5, latency_ms=3_000.0), False),  # accepted, and served by nobody
        (outcome(21.0), False),
    ],
)
def test_a_leaving_node_fails_its_own_applications_only_once_it_has_drained(
    failure: Outcome, excused: bool
) -> None:
    seen = evidence(failure, faults=(LEFT,), inbound_ends=DRAINED)
    problems = anytime_requests_of_leavers_succeed(seen, sent_min=1, slack_s=0.1)
    assert len(problems) == (0 if excused else 1), problems


def test_too_little_load_and_unanswered_requests_prove_nothing() -> None:
    seen = evidence()
    seen.requests["answered"] = 9
    assert len(anytime_requests_of_leavers_succeed(seen, sent_min=11, slack_s=0.1)) == 2


def session(how: str, node: str = "n2", served_by: str = "n1", ended_s: float = 15.0) -> dict[str, Any]:
    return {
        "kind": "websocket",
        "node": node,
        "authority": "web.shop",
        "served_by": served_by,
        "how": how,
        "opened_s": 1.0,
        "ended_s": ended_s,
        "exchanges": 5,
        "detail": "",
    }


@pytest.mark.parametrize(
    ("end", "holds"),
    [
        (session("asked", ended_s=50.0), True),
        (session("told"), True),  # it was served by the node that leaves
        (session("told", "n1", "n2"), True),  # it entered there
        (session("told", "n2", "n2"), False),
        (session("told", ended_s=9.0), False),
        (session("silent"), False),
        (session("refused", "n1", ""), True),
        (session("refused", "n2", ""), False),
    ],
)
def test_a_session_ends_when_asked_or_with_a_node_that_leaves(end: dict[str, Any], holds: bool) -> None:
    seen = evidence(faults=(LEFT,), sessions=[session("asked"), end])
    assert (anytime_sessions_hold(seen, opened_min=1, exchanges_min=1) == []) is holds


def test_sessions_that_exchange_nothing_prove_nothing() -> None:
    assert anytime_sessions_hold(evidence(sessions=[session("asked")]), opened_min=2, exchanges_min=1)
    assert anytime_sessions_hold(evidence(sessions=[session("asked")]), opened_min=1, exchanges_min=6)


def cut(at_s: float) -> FaultFired:
    return FaultFired(at_s, "isolate", "n1", count=100, detail={"healed_s": at_s + 8})


@pytest.mark.parametrize(
    ("last_s", "holds"), [((1.0, 1.5, 7.0), True), ((1.0, 2.5, 7.0), False), ((0.0, 0.0, 7.0), True)]
)
def test_isolation_is_judged_by_the_median_of_the_cuts(last_s: tuple[float, ...], holds: bool) -> None:
    cuts = tuple(cut(at_s) for at_s in (10.0, 30.0, 50.0))
    failures = [outcome(fault.at_s + after_s) for fault, after_s in zip(cuts, last_s, strict=True) if after_s]
    seen = evidence(*failures, faults=cuts)
    assert [row["failed"] for row in isolation_failures_s(seen)] == [int(after_s > 0) for after_s in last_s]
    problems = eventually_isolation_costs_nothing(seen, within_s=2.0, answer_max_s=1.0, sent_min=1)
    assert (problems == []) is holds


@pytest.mark.parametrize("failure", [outcome(19.0), outcome(12.0, "n2")])
def test_isolation_excuses_nobody_else_and_no_other_time(failure: Outcome) -> None:
    seen = evidence(failure, faults=(cut(10.0),))
    assert eventually_isolation_costs_nothing(seen, within_s=2.0, answer_max_s=1.0, sent_min=1)


def test_isolation_that_only_makes_everything_slow_is_told() -> None:
    slow = outcome(14.0, status=200, latency_ms=1_500.0, error="")
    seen = evidence(faults=(cut(10.0),), slow=[slow])
    assert eventually_isolation_costs_nothing(seen, within_s=2.0, answer_max_s=1.0, sent_min=1)
    assert not eventually_isolation_costs_nothing(seen, within_s=5.0, answer_max_s=1.0, sent_min=1)
    assert eventually_isolation_costs_nothing(evidence(), within_s=2.0, answer_max_s=1.0, sent_min=1)


def test_calls_are_all_answered_and_all_made() -> None:
    good, bad = outcome(1.0, status=200, error=""), outcome(1.0, status=503)
    assert finally_calls_succeed(evidence(calls=[good]), count_min=1) == []
    assert finally_calls_succeed(evidence(calls=[good]), count_min=2)
    assert finally_calls_succeed(evidence(calls=[good, bad]), count_min=1)


def test_only_what_was_in_flight_at_the_kill_may_fail() -> None:
    kill = FaultFired(10.0, "kill", "n1", count=1)
    mixed = {"sent": 1, "answered": 1, "failures": [], "by_kind": {"post": {"ok": 1}}}
    in_flight = evidence(outcome(9.9, latency_ms=200.0), faults=(kill,), mixed=mixed)
    assert anytime_requests_after_the_fault_succeed(in_flight, sent_min=1, kinds=["post"]) == []
    assert anytime_requests_after_the_fault_succeed(in_flight, sent_min=1, kinds=["tcp"])
    for failure in (outcome(9.0), outcome(10.1)):
        seen = evidence(failure, faults=(kill,), mixed=mixed)
        assert anytime_requests_after_the_fault_succeed(seen, sent_min=1, kinds=["post"])


# n1's workload stands still from 10 s to 22 s; both nodes know at 13 s.
STOPPED = FaultFired(10.0, "pause", "n1", count=1, detail={"for_s": 12.0})
KNOWN = [
    EndpointsSeen(at_s, node, {"shop/web": count})
    for node in ("n1", "n2")
    for at_s, count in ((1.0, 5), (13.0, 4), (23.0, 5))
]


@pytest.mark.parametrize(
    ("slow", "holds"),
    [
        (outcome(11.0, latency_ms=2_500.0), True),
        (outcome(11.0, latency_ms=9_000.0), False),
        (outcome(11.0, latency_ms=9_000.0, kind="post"), True),  # it cannot be made twice
        (outcome(14.0, latency_ms=2_000.0, kind="post"), False),
    ],
)
def test_a_stopped_workload_costs_what_its_checks_allow(slow: Outcome, holds: bool) -> None:
    seen = evidence(faults=(STOPPED,), endpoints=KNOWN, slow=[slow])
    problems = anytime_stopped_workload_is_passed_by(
        seen, known_within_s=4.0, wait_max_s=5.0, passed_by_s=1.0
    )
    assert (problems == []) is holds


def test_a_stopped_workload_that_nobody_notices_is_told() -> None:
    seen = evidence(faults=(STOPPED,), endpoints=KNOWN[:1])
    assert known_failing_s(seen, STOPPED) == {"n1": None, "n2": None}
    assert anytime_stopped_workload_is_passed_by(seen, known_within_s=4.0, wait_max_s=5.0, passed_by_s=1.0)
