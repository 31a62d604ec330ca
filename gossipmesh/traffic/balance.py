"""Which endpoint takes a try: power of two choices by peak-EWMA latency x in-flight.

Paper: Mitzenmacher, "The power of two choices in randomized load balancing"; Finagle's Peak EWMA.
Ends where a connection is made. Rules (docs/TRAFFIC.md writes them out for other engines):

1. The pool: tier 0, available, not yet tried by this request; else tier 1; else endpoints that are
   out; else, last, ones already tried. Under `panic_share` available, those out count as available.
2. One endpoint: that one. More: the first is drawn by weight, the second by weight from the rest.
3. The cheaper by latency x (1 + in-flight x mean weight / weight); equal: the first drawn.
   While either has no measurement, latency counts as equal, so that a new endpoint gets its share.
4. A measurement fades with time towards zero, so that a slow endpoint is asked again.

Deviation: a failed try never lowers an estimate; an endpoint that fails fast is not fast.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection
from math import exp
from typing import Final, Protocol

import msgspec

from gossipmesh.model import limits as bounds
from gossipmesh.model.instant import NEVER, SECOND_NS, Instant
from gossipmesh.model.snapshot import LimitsSection, SnapshotEndpoint, UpstreamSection
from gossipmesh.traffic.ejection import EndpointState, begin_try, end_try, pass_trial
from gossipmesh.traffic.outcomes import FAILURES, Outcome

EWMA_DECAY_NS: Final = 10 * SECOND_NS  # linkerd's and Finagle's default
EndpointKey = tuple[str, str, str, int]


class RandomSource(Protocol):
    """The one thing asked of a generator; random.Random has it."""

    def random(self) -> float:
        """Return the next number in [0, 1)."""


class EndpointStates:
    """What a node remembers of endpoints, shared by its balancers; the least recently used goes first.

    `shop/cart` and its subset `shop/cart@v2` name the same endpoints: a refused connection seen
    through one counts for both.
    """

    def __init__(self, states_max: int = bounds.ENDPOINT_STATES_MAX) -> None:
        self._states: OrderedDict[EndpointKey, EndpointState] = OrderedDict()
        self._states_max = states_max
        self.generation = 0
        self.evicted_count = 0

    def get(self, key: EndpointKey) -> EndpointState | None:
        """Return what is known of an endpoint, None for nothing."""
        return self._states.get(key)

    def touch(self, key: EndpointKey) -> EndpointState:
        """Return the endpoint's state, made now if there is none."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = EndpointState()
            if len(self._states) > self._states_max:
                self._states.popitem(last=False)
                self.evicted_count += 1
                self.generation += 1
        else:
            self._states.move_to_end(key)
        return state

    def forget(self, key: EndpointKey) -> None:
        """Drop an endpoint that left its upstream."""
        if self._states.pop(key, None) is not None:
            self.generation += 1

    def availability_changed(self) -> None:
        """Say that an endpoint went out or came back; every balancer looks again."""
        self.generation += 1


class Try(msgspec.Struct, eq=False):
    """A try under way, from `Balancer.started` to `Balancer.finished`."""

    endpoint: SnapshotEndpoint
    state: EndpointState
    began: Instant
    is_trial: bool
    answered: bool = False


class _Pool:
    """Endpoints to draw from, with running sums of their weights; `panic`: some of them are out."""

    __slots__ = ("endpoints", "panic", "sums")

    def __init__(self, endpoints: list[SnapshotEndpoint], panic: bool) -> None:
        self.endpoints = endpoints
        self.panic = panic
        self.sums: list[int] = []
        total = 0
        for endpoint in endpoints:
            total += max(endpoint.weight, 1)
            self.sums.append(total)

    def draw_two(self, rng: RandomSource) -> tuple[SnapshotEndpoint, SnapshotEndpoint]:
        total = self.sums[-1]
        first = self._at(rng.random() * total)
        before = self.sums[first - 1] if first else 0
        first_weight = self.sums[first] - before
        point = rng.random() * (total - first_weight)
        second = self._at(point + first_weight if point >= before else point)
        if second == first:
            # Rounding at a border; the neighbour is as good.
            second = first - 1 if first else first + 1
        return self.endpoints[first], self.endpoints[second]

    def _at(self, point: float) -> int:
        return min(bisect_right(self.sums, point), len(self.sums) - 1)


class Balancer:
    """The endpoints of one upstream and how they do; sans-IO, one task at a time."""

    def __init__(self, section: UpstreamSection, limits: LimitsSection, states: EndpointStates) -> None:
        self.section = section
        self.limits = limits
        self.panics_count = 0
        self.ejections_count = 0
        self.panicked = False
        self._states = states
        self._keys = [_key(endpoint) for endpoint in section.endpoints]
        self._pool: _Pool | None = None
        self._pool_until = Instant(0)
        self._pool_generation = -1

    def update(self, section: UpstreamSection, limits: LimitsSection | None = None) -> None:
        """Take a new section; endpoints that left are forgotten, so that coming back is being new."""
        keys = [_key(endpoint) for endpoint in section.endpoints]
        present = dict.fromkeys(keys)
        for key in self._keys:
            if key not in present:
                self._states.forget(key)
        self.section, self._keys, self._pool = section, keys, None
        self.limits = self.limits if limits is None else limits

    def pick(
        self, rng: RandomSource, now: Instant, excluded: Collection[SnapshotEndpoint] = ()
    ) -> SnapshotEndpoint | None:
        """Return where a try should go, None when the upstream has no endpoint (503 `UH`).

        `panicked` tells afterwards whether endpoints that are out were let in.

        Args:
            excluded: endpoints this request has tried; taken again only when nothing else is there.

        Cost: O(log endpoints); O(endpoints) after a change, and for a retry.
        """
        if excluded:
            pool = self._fresh_pool(now, [(endpoint.node, endpoint.registration) for endpoint in excluded])
        else:
            if (
                self._pool is None
                or now >= self._pool_until
                or self._pool_generation != self._states.generation
            ):
                self._pool = self._fresh_pool(now, ())
                self._pool_until = self._next_change(now)
                self._pool_generation = self._states.generation
            pool = self._pool
        self.panicked = pool.panic
        if pool.panic:
            self.panics_count += 1
        if not pool.endpoints:
            return None
        if len(pool.endpoints) == 1:
            return pool.endpoints[0]
        first, second = pool.draw_two(rng)
        return self._cheaper(first, second, pool.sums[-1] / len(pool.endpoints), now)

    def started(self, endpoint: SnapshotEndpoint, now: Instant) -> Try:
        """Count a try to `endpoint`; every one must end in `finished`, `CANCELLED` at the least."""
        state = self._states.touch(_key(endpoint))
        is_trial = begin_try(state, now)
        if is_trial:
            self._states.availability_changed()
        return Try(endpoint, state, now, is_trial)

    def answered(self, attempt: Try, now: Instant) -> None:
        """Say that a good answer has begun: latency is measured and a trial is passed here.

        Optional, once, before `finished`. Without it a trial lasts until its answer has ended, and an
        endpoint whose first answer is an hour's download stays on probation for the hour.
        """
        if attempt.answered:
            return
        attempt.answered = True
        observe(attempt.state, now - attempt.began, now, failed=False)
        if pass_trial(attempt.state, now, was_trial=attempt.is_trial):
            self._states.availability_changed()
        attempt.is_trial = False

    def finished(self, attempt: Try, now: Instant, outcome: Outcome) -> str | None:
        """Take a try's end into account; return why its endpoint is now out, None when it is not."""
        state = attempt.state
        if outcome is not Outcome.CANCELLED and not attempt.answered:
            observe(state, now - attempt.began, now, failed=outcome in FAILURES)
        was_in_use = state.ejected_until is None
        reason = end_try(
            state,
            outcome,
            now,
            was_trial=attempt.is_trial,
            limits=self.limits,
            endpoints_count=len(self._keys),
            # Only a failure that could eject needs the count.
            others_out_count=self._others_out(state) if outcome in FAILURES else 0,
        )
        if reason is not None:
            self.ejections_count += 1
        if reason is not None or attempt.is_trial or was_in_use != (state.ejected_until is None):
            self._states.availability_changed()
        return reason

    def available_count(self, now: Instant) -> int:
        """Return how many endpoints may be tried now."""
        return sum(1 for key in self._keys if self._is_available(key, now))

    def _fresh_pool(self, now: Instant, tried: Collection[tuple[str, str]]) -> _Pool:
        endpoints = self.section.endpoints
        available = [self._is_available(key, now) for key in self._keys]
        panic = bool(endpoints) and sum(available) < self.limits.panic_share * len(endpoints)
        fresh = [(endpoint.node, endpoint.registration) not in tried for endpoint in endpoints]
        levels = [
            [
                e
                for e, ok, new in zip(endpoints, available, fresh, strict=True)
                if (ok or panic) and new and e.tier == t
            ]
            for t in (0, 1)
        ]
        levels.append([e for e, new in zip(endpoints, fresh, strict=True) if new])
        levels.append([e for e, ok in zip(endpoints, available, strict=True) if ok])
        levels.append(list(endpoints))
        return _Pool(next((level for level in levels if level), []), panic)

    def _next_change(self, now: Instant) -> Instant:
        """Return when the next ejection runs out; until then availability changes by events only."""
        nearest: int = NEVER
        for key in self._keys:
            state = self._states.get(key)
            if state is not None and state.ejected_until is not None and state.ejected_until > now:
                nearest = min(nearest, state.ejected_until)
        return Instant(nearest)

    def _is_available(self, key: EndpointKey, now: Instant) -> bool:
        state = self._states.get(key)
        return state is None or state.available(now)

    def _others_out(self, own: EndpointState) -> int:
        states = (self._states.get(key) for key in self._keys)
        return sum(1 for s in states if s is not None and s is not own and s.ejected_until is not None)

    def _cheaper(
        self, first: SnapshotEndpoint, second: SnapshotEndpoint, mean_weight: float, now: Instant
    ) -> SnapshotEndpoint:
        one, two = self._states.get(_key(first)), self._states.get(_key(second))
        one_ns = two_ns = 1.0
        if one is not None and two is not None and one.ewma_ns is not None and two.ewma_ns is not None:
            one_ns, two_ns = estimate_ns(one, now), estimate_ns(two, now)
        one_cost = one_ns * (1 + (one.in_flight if one else 0) * mean_weight / max(first.weight, 1))
        two_cost = two_ns * (1 + (two.in_flight if two else 0) * mean_weight / max(second.weight, 1))
        return second if two_cost < one_cost else first


def estimate_ns(state: EndpointState, now: Instant) -> float:
    """Return the endpoint's latency as believed now: the last estimate, faded; 0 for none."""
    if state.ewma_ns is None:
        return 0.0
    return state.ewma_ns * exp(-max(now - state.measured_at, 0) / EWMA_DECAY_NS)


def observe(state: EndpointState, latency_ns: int, now: Instant, *, failed: bool) -> None:
    """Take one latency into the estimate: a peak at once, anything less by how long ago the last was.

    Paper: Finagle's Peak EWMA; weight of the past = exp(-elapsed / EWMA_DECAY_NS).
    """
    sample = float(max(latency_ns, 0))
    past = state.ewma_ns
    if past is None or sample > past:
        state.ewma_ns = sample
    elif not failed:
        weight = exp(-max(now - state.measured_at, 0) / EWMA_DECAY_NS)
        state.ewma_ns = past * weight + sample * (1 - weight)
    else:
        state.ewma_ns = past
    state.measured_at = now


def _key(endpoint: SnapshotEndpoint) -> EndpointKey:
    return endpoint.node, endpoint.registration, endpoint.address.host, endpoint.address.port
