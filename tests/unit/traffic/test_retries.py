"""The budget over time, the wait, and whose timeout holds; single decisions are vectors."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipmesh.model.instant import Instant
from gossipmesh.model.snapshot import RetryRule, Route, RouteMatch
from gossipmesh.traffic.admission import Admission
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from gossipmesh.traffic.retries import RetryBudget, backoff_ns, try_timeout_ns

SECOND_NS = 1_000_000_000
RULE = RetryRule(2, (503,), 25_000_000)


@given(st.lists(st.tuples(st.integers(0, 3 * SECOND_NS), st.booleans()), max_size=200))
def test_retries_stay_within_a_fifth_and_the_floor(steps: list[tuple[int, bool]]) -> None:
    """Checked against a plain log of everything that happened in the last ten seconds."""
    budget = RetryBudget(0.2, 3)
    now = 0
    requests: list[int] = []
    retries: list[int] = []
    for gap_ns, wants_retry in steps:
        now += gap_ns
        if not wants_retry:
            budget.add_request(Instant(now))
            requests.append(now // SECOND_NS)
            continue
        first = now // SECOND_NS - 9
        allowed = 0.2 * sum(second >= first for second in requests) + 30
        room = sum(second >= first for second in retries) + 1 <= allowed
        assert budget.take_retry(Instant(now)) is room
        if room:
            retries.append(now // SECOND_NS)


def test_an_idle_upstream_has_its_floor_again_after_the_window() -> None:
    budget = RetryBudget(0.2, 3)
    taken = sum(budget.take_retry(Instant(0)) for _ in range(100))
    assert taken == 30
    assert sum(budget.take_retry(Instant(60 * SECOND_NS)) for _ in range(100)) == 30


def test_a_clock_that_stands_still_is_harmless() -> None:
    budget = RetryBudget(0.2, 3)
    assert budget.take_retry(Instant(5 * SECOND_NS))
    assert budget.take_retry(Instant(4 * SECOND_NS))


@given(st.integers(1, 1_000), st.floats(0, 1, exclude_max=True))
def test_the_wait_grows_and_is_bounded(attempt: int, jitter: float) -> None:
    wait_ns = backoff_ns(RULE, attempt, jitter)
    assert 0 <= wait_ns < 10 * RULE.backoff_base_ns
    assert wait_ns <= backoff_ns(RULE, attempt + 1, jitter)


@pytest.mark.parametrize(("of_an_agent_of_0_1", "expected"), [(True, None), (False, 5)])
def test_only_a_policys_try_timeout_counts(of_an_agent_of_0_1: bool, expected: int | None) -> None:
    """An agent of 0.1 marks its own default by the methods it is for."""
    route = Route("r#0", (), RouteMatch(None, None, ()), (), None, 5, RULE, of_an_agent_of_0_1)
    assert try_timeout_ns(route) == expected


def test_a_budget_takes_new_numbers_and_keeps_its_count() -> None:
    budget = RetryBudget(0.0, 1)
    assert [budget.take_retry(Instant(0)) for _ in range(11)] == [True] * 10 + [False]
    budget.update(msgspec.structs.replace(DEFAULT_LIMITS, retry_budget_floor_per_s=2))
    assert [budget.take_retry(Instant(0)) for _ in range(11)] == [True] * 10 + [False]


def test_admission_refuses_at_the_limit_and_counts() -> None:
    admission = Admission(DEFAULT_LIMITS)
    rng = random.Random(1)
    held = 0
    for _ in range(5_000):
        if held and rng.random() < 0.3:
            admission.release_request()
            held -= 1
        else:
            held += admission.admit_request()
        assert held == admission.requests_count <= DEFAULT_LIMITS.upstream_requests
    assert admission.overflows_count > 0
    connections = sum(admission.admit_connection() for _ in range(3_000))
    assert connections == 2 * DEFAULT_LIMITS.upstream_connections
    admission.release_connection()
    assert admission.admit_connection()


def test_one_users_requests_leave_room_for_anothers() -> None:
    admission, most = Admission(DEFAULT_LIMITS), DEFAULT_LIMITS.upstream_requests
    assert sum(admission.admit_request(1_001) for _ in range(2 * most)) == most
    assert sum(admission.admit_request(1_002) for _ in range(most // 2)) == most // 2
    admission.release_request(1_001)
    assert admission.admit_request(1_001)
    assert not admission.admit_request(1_001)
    assert sum(admission.admit_request(uid) for uid in range(2, 2 * most)) == most // 2
    assert admission.requests_count == 2 * most
