"""How long an endpoint takes to begin its answer, as this node believes: whole microseconds, no floats.

Engines must agree to the last bit, so that this is written as integer steps. Rules (docs/TRAFFIC.md):

1. A sample counts at most twice what is believed: one pause of a machine is no slow endpoint.
2. The past keeps half against each of the first `SAMPLES_MIN` samples, seven eighths later, and never
   more than time has left of it: a belief halves every `HALF_LIFE_MS`.
3. With fewer samples than that nothing is believed yet.

Deviation: Finagle's Peak EWMA takes a peak at once, which sent nearly all requests to whichever of two
equal endpoints had no hiccup. A failed try never lowers a belief; an endpoint that fails fast is not fast.
"""

from typing import Final

from gossipmesh.model.instant import MILLISECOND_NS, Instant
from gossipmesh.traffic.ejection import EndpointState

HALF_LIFE_MS: Final = 7_000  # linkerd's and Finagle's ten seconds to 1/e
SAMPLES_MIN: Final = 8
SAMPLE_FACTOR_MAX: Final = 2
_HALVINGS_MAX: Final = 60
_EIGHTH_LEFT_NS: Final = HALF_LIFE_MS // 4 * MILLISECOND_NS  # as long, no more than an eighth has faded
_MICROSECOND_NS: Final = 1_000


def faded(latency_us: int, elapsed_ns: int) -> int:
    """Return what is left of a belief after a time: halved each HALF_LIFE_MS, straight lines between."""
    halvings, rest_ms = divmod(max(elapsed_ns, 0) // MILLISECOND_NS, HALF_LIFE_MS)
    left = latency_us >> min(halvings, _HALVINGS_MAX)
    return left - left * rest_ms // (2 * HALF_LIFE_MS)


def observe(state: EndpointState, latency_ns: int, now: Instant, *, failed: bool) -> None:
    """Take one try's latency into what is believed of its endpoint."""
    sample = max(latency_ns // _MICROSECOND_NS, 1)
    past = state.latency_us
    if past == 0:
        state.latency_us = sample
    else:
        sample = min(sample, past * SAMPLE_FACTOR_MAX)
        kept = past // 2 if state.samples < SAMPLES_MIN else past - past // 8
        if now - state.measured_at > _EIGHTH_LEFT_NS:
            kept = min(kept, faded(past, now - state.measured_at))
        mixed = kept + sample - sample * kept // past
        state.latency_us = max(past, mixed) if failed else max(mixed, 1)
    state.samples = min(state.samples + 1, SAMPLES_MIN)
    state.measured_at = now


def believed(state: EndpointState | None) -> bool:
    """Tell whether enough samples came for the endpoint's latency to count."""
    return state is not None and state.samples >= SAMPLES_MIN
