"""Choices converge, estimates behave, and what is kept of endpoints is bounded."""

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address
from gossipmesh.testing.spread import shares, worst_error
from gossipmesh.traffic.balance import Balancer
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from gossipmesh.traffic.ejection import EndpointState
from gossipmesh.traffic.endpoints import EndpointStates, key_of
from gossipmesh.traffic.latency import faded, observe
from gossipmesh.traffic.outcomes import Outcome
from tests.unit.traffic.builders import endpoint, upstream

SECOND_NS = 1_000_000_000
NOW = Instant(SECOND_NS)


def balancer(*weights: int, states: EndpointStates | None = None) -> Balancer:
    endpoints = [endpoint(f"n{n}", weight=weight) for n, weight in enumerate(weights)]
    return Balancer(upstream(*endpoints), DEFAULT_LIMITS, states or EndpointStates())


def at(seconds: float) -> Instant:
    return Instant(int(seconds * SECOND_NS))


WEIGHTS = (
    (100, 100),
    (20, 1_000),
    (1, 10),
    (100, 50),
    (100, 100, 100),
    (1, 2, 3),
    (100, 100, 50),
    (100,) * 30,
    (*(100,) * 29, 50),
    (50, 100) * 15,
)


@pytest.mark.parametrize("concurrency", [1, 2, 32])
@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: f"{len(weights)}:{weights[0]}:{weights[-1]}")
def test_shares_follow_weights_when_costs_are_equal(weights: tuple[int, ...], concurrency: int) -> None:
    """Within a tenth of each one's own share; service times vary, and now and then are ten times as long."""
    requests = max(200 * len(weights), 60 * sum(weights) // min(weights))
    for seed in range(3):
        assert worst_error(list(weights), concurrency, requests=requests, seed=seed) < 0.1


@pytest.mark.parametrize("concurrency", [1, 2, 32])
@pytest.mark.parametrize(("fast", "slow"), [(1, 1), (2, 1), (29, 1), (15, 15)])
def test_ten_times_slower_ones_get_far_less_and_not_nothing(fast: int, slow: int, concurrency: int) -> None:
    count = fast + slow
    slowness = [1.0] * fast + [10.0] * slow
    got = shares([100] * count, concurrency, requests=600 * count, seed=1, slowness=slowness)
    assert 0 < sum(got[fast:]) < 0.55 * slow / count
    assert min(got[:fast]) > 0.9 / count


@pytest.mark.parametrize("concurrency", [1, 2, 32])
def test_a_weight_of_1_beside_1000_gets_hardly_anything(concurrency: int) -> None:
    got = shares([1, 1_000], concurrency, requests=6_000, seed=1)
    assert 4 <= got[0] * 6_000 <= 8


def test_a_patterned_load_does_not_fall_into_step_with_the_turns() -> None:
    """Every second request is heavy: no endpoint may get all of those."""
    one = balancer(100, 100)
    rng = random.Random(4)
    heavy = Counter(picked.node for n in range(4_000) if (picked := one.pick(rng, NOW)) and n % 2)
    assert 0.4 < heavy["n0"] / 2_000 < 0.6


def test_callers_that_begin_together_do_not_begin_at_one_endpoint() -> None:
    firsts = Counter(
        picked.node
        for seed in range(3_000)
        if (picked := balancer(100, 100, 100).pick(random.Random(seed), NOW))
    )
    assert all(abs(firsts[f"n{n}"] / 1_000 - 1) < 0.15 for n in range(3))


@given(
    st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**10)), min_size=1, max_size=30),
    st.booleans(),
)
def test_a_belief_stays_within_what_was_seen(past: list[tuple[int, int]], failed: bool) -> None:
    state, now, seen = EndpointState(), 0, []
    for latency, gap in past:
        now += gap
        observe(state, latency, Instant(now), failed=failed)
        seen.append(max(latency // 1_000, 1))
        assert min(seen) - 1 <= state.latency_us <= max(seen) + 1


@given(st.integers(1, 10**10), st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_fades_only_falls(latency: int, one: int, two: int) -> None:
    early, late = sorted((one, two))
    assert 0 <= faded(latency, late) <= faded(latency, early) <= latency


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_failure_never_makes_an_endpoint_look_faster(before: int, latency: int) -> None:
    state = EndpointState()
    observe(state, before, NOW, failed=False)
    believed_us = state.latency_us
    observe(state, latency, Instant(NOW + SECOND_NS), failed=True)
    assert state.latency_us >= believed_us


STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(list(Outcome)), st.integers(0, 40), st.booleans()),
    max_size=60,
)


@given(st.integers(1, 6), STEPS, st.randoms(use_true_random=False))
def test_an_upstream_with_endpoints_always_answers_and_never_loses_count(
    count: int, steps: list[tuple[int, Outcome, int, bool]], rng: random.Random
) -> None:
    """Whatever fails in whatever order: somebody is picked, a retry goes elsewhere, one is left in use."""
    one = balancer(*[100] * count)
    now = 0.0
    under_way = []
    for index, outcome, gap_s, overlap in steps:
        now += gap_s
        picked = one.pick(rng, at(now))
        assert picked is not None
        again = one.pick(rng, at(now), [picked])
        assert again is not None
        assert count == 1 or again.node != picked.node
        under_way.append((one.started(picked, at(now)), outcome))
        if not overlap or index == 0:
            while under_way:
                attempt, ending = under_way.pop()
                one.finished(attempt, at(now), ending)
    for attempt, _ in under_way:
        one.finished(attempt, at(now), Outcome.CANCELLED)
    # However bad it went, all are on probation or in use once the longest ejection is over.
    assert len(one.candidates(at(now + 301))) == count
    one.pick(rng, at(now + 301))
    assert not one.panicked


def test_a_refusal_seen_through_a_subset_counts_for_the_service() -> None:
    states = EndpointStates()
    whole, subset = balancer(100, 100, states=states), balancer(100, 100, states=states)
    assert whole.pick(random.Random(1), NOW) is not None
    target = subset.section.endpoints[0]
    assert subset.finished(subset.started(target, NOW), NOW, Outcome.CONNECT_REFUSED) == "refused"
    picks = {picked.node for n in range(20) if (picked := whole.pick(random.Random(n), NOW))}
    assert picks == {"n1"}


def test_what_is_kept_is_bounded_and_the_oldest_goes() -> None:
    states = EndpointStates(states_max=3)
    one = balancer(*[100] * 5, states=states)
    for target in one.section.endpoints:
        one.finished(one.started(target, NOW), NOW, Outcome.SUCCESS)
    assert states.get(("n1", "cart", "10.0.0.1", 15008)) is None
    assert states.get(("n0", "cart", "10.0.0.1", 15008)) is None
    assert states.get(("n4", "cart", "10.0.0.1", 15008)) is not None


def test_the_pool_is_looked_at_again_when_time_alone_changes_it() -> None:
    """Between events a pick does not walk the endpoints; the end of an ejection is the exception."""
    one = balancer(100, 100)
    target = one.section.endpoints[0]
    one.finished(one.started(target, NOW), NOW, Outcome.CONNECT_REFUSED)
    rng = random.Random(1)
    assert {one.pick(rng, at(30)) for _ in range(20)} == {one.section.endpoints[1]}
    assert {one.pick(rng, at(31)) for _ in range(20)} == set(one.section.endpoints)


def test_with_most_endpoints_out_all_are_let_in() -> None:
    one = Balancer(
        upstream(*[endpoint(f"n{n}", address=Address("10.0.0.1", n)) for n in range(3)]),
        DEFAULT_LIMITS,
        EndpointStates(),
    )
    for target in one.section.endpoints[:2]:
        one.finished(one.started(target, NOW), NOW, Outcome.CONNECT_REFUSED)
    rng = random.Random(1)
    assert {picked.node for _ in range(50) if (picked := one.pick(rng, NOW))} == {"n0", "n1", "n2"}
    assert one.panicked


def test_a_workload_whose_node_moved_is_another_place_to_try() -> None:
    """Its address is gone, and what waits there for an answer waits in vain: at the new one it may be had."""
    before = endpoint("n1")
    after = msgspec.structs.replace(before, address=Address("10.99.0.1", before.address.port))
    chosen = Balancer(upstream(before), DEFAULT_LIMITS, EndpointStates())
    assert not chosen.has_better(key_of(before), NOW, [before])
    chosen.update(upstream(after), DEFAULT_LIMITS)
    assert chosen.has_better(key_of(before), NOW, [before])
    assert chosen.candidates(NOW, [before]) == [after]
    assert not chosen.has_better(key_of(before), NOW, [before, after])
