"""What the engine counts of its own decisions, for whoever looks at a service that fails."""

import random

import pytest

from gossipmesh.dataplane.reference.state import EngineState, UpstreamState
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model.instant import Instant
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from gossipmesh.traffic.outcomes import Outcome
from gossipmesh.traffic.retries import RetryDecision
from tests.unit.traffic.builders import endpoint, upstream

NOW = Instant(1)


def counted(counters: Counters) -> dict[str, int]:
    told = counters.take_due(1_000)
    return {} if told is None else told.counters


def test_letting_in_endpoints_that_are_out_is_counted() -> None:
    counters = Counters()
    state = EngineState(counters, random.Random(1), lambda _: None)
    served = UpstreamState(
        upstream(*[endpoint(f"n{n}") for n in range(3)]), DEFAULT_LIMITS, state.endpoint_states
    )
    assert state.pick(served, NOW, ()) is not None
    assert counted(counters) == {}
    for target in served.balancer.section.endpoints[:2]:
        served.balancer.finished(served.balancer.started(target, NOW), NOW, Outcome.CONNECT_REFUSED)
    assert state.pick(served, NOW, ()) is not None
    assert counted(counters) == {"panics": 1}


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (RetryDecision(True, "reset", 0), {"retries": 1}),
        (RetryDecision(False, "budget", 0), {"retries_over_budget": 1}),
        (RetryDecision(False, "attempts", 0), {}),
        (RetryDecision(False, "method", 0), {}),
    ],
)
def test_a_retry_and_one_there_was_no_budget_for_are_counted(
    decision: RetryDecision, expected: dict[str, int]
) -> None:
    counters = Counters()
    EngineState(counters, random.Random(1), lambda _: None).count_decision(decision)
    assert counted(counters) == expected
