"""When an endpoint is taken out of use on this node, and how it comes back.

Spec: Envoy's outlier detection for the words and the numbers. Rules:

1. A refused connection takes its endpoint out at once, whatever the share, while another is available.
2. `ejection_consecutive` failures in a row take it out while fewer than `ejection_share` of the
   endpoints (but at least one) are out.
3. Out for `ejection_base_ns` x ejections, ten bases at most (Envoy's 300 s). Then probation: one
   trial at a time; a success puts it back, a failure takes it out again for longer.
4. Ejections are forgotten when the endpoint stayed in use as long as it had been out.
5. An endpoint that left every upstream and came back, or has a new address, is new.

Deviation: Envoy returns an endpoint to full use at once; here one trial goes first.
"""

from typing import Final

from gossipmesh.model.instant import Instant
from gossipmesh.model.snapshot import LimitsSection
from gossipmesh.traffic.millionths import WHOLE, millionths
from gossipmesh.traffic.outcomes import FAILURES, NEUTRAL, Outcome

EJECTIONS_MAX: Final = 10

REASON_REFUSED: Final = "refused"
REASON_CONSECUTIVE: Final = "consecutive"
REASON_TRIAL: Final = "trial"


class EndpointState:
    """What this node knows of one endpoint from its own tries; `gossipmesh.traffic.endpoints` keeps them.

    `ejected_through` is the upstream whose try took it out, `latency_us` 0 before the first sample.
    """

    __slots__ = (
        "consecutive_failures",
        "ejected_at",
        "ejected_through",
        "ejected_until",
        "ejections",
        "in_flight",
        "latency_us",
        "measured_at",
        "returned_at",
        "samples",
        "trial",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.latency_us = 0
        self.samples = 0
        self.measured_at = Instant(0)
        self.consecutive_failures = 0
        self.ejections = 0
        self.ejected_at = Instant(0)
        self.ejected_until: Instant | None = None
        self.ejected_through = ""
        self.returned_at = Instant(0)
        self.trial = False

    def available(self, now: Instant) -> bool:
        """Tell whether a try may go here: in use, or on probation with no trial under way."""
        return self.ejected_until is None or (now >= self.ejected_until and not self.trial)


def begin_try(state: EndpointState, now: Instant) -> bool:
    """Count a try; True when it is the trial of an endpoint on probation."""
    state.in_flight += 1
    if state.ejected_until is None or now < state.ejected_until or state.trial:
        return False
    state.trial = True
    return True


def pass_trial(state: EndpointState, now: Instant, *, was_trial: bool) -> bool:
    """Take a good answer into account; True when it puts the endpoint back in use."""
    state.consecutive_failures = 0
    if was_trial:
        state.trial = False
        state.ejected_until = None
        state.returned_at = now
    return was_trial


def pardon(state: EndpointState, now: Instant) -> None:
    """Undo the last ejection: what led to it was our own doing."""
    state.consecutive_failures = 0
    state.ejections -= 1
    state.ejected_until = None
    state.returned_at = now
    state.trial = False


def end_try(
    state: EndpointState,
    outcome: Outcome,
    now: Instant,
    *,
    was_trial: bool,
    limits: LimitsSection,
    endpoints_count: int,
    others_out_count: int,
) -> str | None:
    """Take a try's end into account; return why the endpoint is now taken out, None when it is not.

    Args:
        was_trial: what `begin_try` returned.
        endpoints_count: endpoints of the upstream, this one included.
        others_out_count: how many of the others are out or on probation.
    """
    state.in_flight -= 1
    if was_trial:
        state.trial = False
    if outcome in NEUTRAL:
        return None
    if outcome not in FAILURES:
        pass_trial(state, now, was_trial=was_trial)
        return None
    state.consecutive_failures += 1
    if was_trial:
        return _eject(state, REASON_TRIAL, now, limits)
    if state.ejected_until is not None:
        # Tries sent before the ejection may still fail; they say nothing new.
        return None
    if outcome is Outcome.CONNECT_REFUSED and others_out_count < endpoints_count - 1:
        return _eject(state, REASON_REFUSED, now, limits)
    out_max = max(1, millionths(limits.ejection_share) * endpoints_count // WHOLE)
    if state.consecutive_failures >= limits.ejection_consecutive and others_out_count < out_max:
        return _eject(state, REASON_CONSECUTIVE, now, limits)
    return None


def _eject(state: EndpointState, reason: str, now: Instant, limits: LimitsSection) -> str:
    in_use_ns = now - state.returned_at
    if reason != REASON_TRIAL and in_use_ns >= state.ejections * limits.ejection_base_ns:
        state.ejections = 0
    state.ejections = min(state.ejections + 1, EJECTIONS_MAX)
    state.ejected_at = now
    state.ejected_until = Instant(now + state.ejections * limits.ejection_base_ns)
    state.consecutive_failures = 0
    return reason
