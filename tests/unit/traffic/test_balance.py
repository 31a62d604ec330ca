"""Choices converge, estimates behave, and what is kept of endpoints is bounded."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address
from gossipmesh.traffic.balance import Balancer, EndpointStates, estimate_ns, observe
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from gossipmesh.traffic.ejection import EndpointState
from gossipmesh.traffic.outcomes import Outcome
from tests.unit.traffic.builders import endpoint, upstream

SECOND_NS = 1_000_000_000
NOW = Instant(SECOND_NS)


def balancer(*weights: int, states: EndpointStates | None = None) -> Balancer:
    endpoints = [endpoint(f"n{n}", weight=weight) for n, weight in enumerate(weights)]
    return Balancer(upstream(*endpoints), DEFAULT_LIMITS, states or EndpointStates())


def at(seconds: float) -> Instant:
    return Instant(int(seconds * SECOND_NS))


def test_idle_and_unmeasured_weights_converge() -> None:
    one = balancer(100, 300, 600)
    rng = random.Random(3)
    counts = Counter(picked.node for _ in range(20_000) if (picked := one.pick(rng, NOW)))
    for node, share in (("n0", 0.1), ("n1", 0.3), ("n2", 0.6)):
        assert abs(counts[node] / 20_000 - share) < 0.015


def test_under_load_weights_converge_too() -> None:
    """In-flight counts by weight, so that two choices do not pull a heavy endpoint down to the light."""
    one = balancer(100, 300)
    rng = random.Random(3)
    under_way = []
    counts: Counter[str] = Counter()
    for step in range(8_000):
        picked = one.pick(rng, at(step / 1_000))
        assert picked is not None
        counts[picked.node] += 1
        under_way.append(one.started(picked, at(step / 1_000)))
        if len(under_way) > 40:
            done = under_way.pop(rng.randrange(len(under_way)))
            one.finished(done, at(step / 1_000), Outcome.CANCELLED)
    assert abs(counts["n1"] / 8_000 - 0.75) < 0.03


def test_a_slow_endpoint_gets_less_and_not_nothing() -> None:
    one = balancer(100, 100, 100)
    rng = random.Random(5)
    counts: Counter[str] = Counter()
    now_s = 0.0
    for _ in range(3_000):
        picked = one.pick(rng, at(now_s))
        assert picked is not None
        attempt = one.started(picked, at(now_s))
        now_s += 0.1 if picked.node == "n0" else 0.01 * (0.8 + 0.4 * rng.random())
        one.finished(attempt, at(now_s), Outcome.SUCCESS)
        counts[picked.node] += 1
    assert 0 < counts["n0"] < 300
    assert min(counts["n1"], counts["n2"]) > 900


@given(
    st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**10)), min_size=1, max_size=10),
    st.integers(0, 10**10),
    st.integers(0, 10**10),
)
def test_estimates_are_monotone_and_stay_within_what_was_seen(
    past: list[tuple[int, int]], low: int, high: int
) -> None:
    low, high = sorted((low, high))
    states = []
    for sample in (low, high):
        state, now = EndpointState(), 0
        for latency, gap in past:
            now += gap
            observe(state, latency, Instant(now), failed=False)
        observe(state, sample, Instant(now + SECOND_NS), failed=False)
        states.append(state)
        seen = [latency for latency, _ in past] + [sample]
        assert state.ewma_ns is not None
        assert min(seen) - 1 <= state.ewma_ns <= max(seen)
        assert estimate_ns(state, Instant(now + 2 * SECOND_NS)) <= state.ewma_ns
    assert states[0].ewma_ns is not None
    assert states[1].ewma_ns is not None
    assert states[0].ewma_ns <= states[1].ewma_ns


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_failure_never_makes_an_endpoint_look_faster(before: int, latency: int) -> None:
    state = EndpointState()
    observe(state, before, NOW, failed=False)
    observe(state, latency, Instant(NOW + SECOND_NS), failed=True)
    assert state.ewma_ns == max(before, latency)


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
    assert one.available_count(at(now + 301)) == count


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
    assert states.evicted_count == 2
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


def test_panics_are_counted() -> None:
    one = Balancer(
        upstream(*[endpoint(f"n{n}", address=Address("10.0.0.1", n)) for n in range(3)]),
        DEFAULT_LIMITS,
        EndpointStates(),
    )
    for target in one.section.endpoints[:2]:
        one.finished(one.started(target, NOW), NOW, Outcome.CONNECT_REFUSED)
    rng = random.Random(1)
    assert {picked.node for _ in range(50) if (picked := one.pick(rng, NOW))} == {"n0", "n1", "n2"}
    assert one.panics_count == 50
    assert one.ejections_count == 2
