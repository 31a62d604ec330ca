"""A belief fades with time, and a sample never meets one that should have faded further."""

from hypothesis import given
from hypothesis import strategies as st

from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.traffic.ejection import EndpointState
from gossipmesh.traffic.latency import HALF_LIFE_MS, SAMPLES_MIN, faded, observe

MICROSECONDS = st.integers(min_value=1, max_value=1 << 40)
PASSED_NS = st.integers(min_value=0, max_value=20 * SECOND_NS) | st.integers(
    min_value=(HALF_LIFE_MS // 4 - 2) * MILLISECOND_NS, max_value=(HALF_LIFE_MS // 4 + 2) * MILLISECOND_NS
)


@given(MICROSECONDS, MICROSECONDS, PASSED_NS, st.integers(min_value=1, max_value=SAMPLES_MIN))
def test_a_sample_meets_what_is_left(past: int, sample: int, passed_ns: int, samples: int) -> None:
    state = EndpointState()
    state.latency_us, state.samples, state.measured_at = past, samples, Instant(SECOND_NS)
    observe(state, sample * 1_000, Instant(SECOND_NS + passed_ns), failed=False)
    kept = past // 2 if samples < SAMPLES_MIN else past - past // 8
    kept = min(kept, faded(past, passed_ns))
    counted = min(sample, 2 * past)
    assert state.latency_us == max(kept + counted - counted * kept // past, 1)
