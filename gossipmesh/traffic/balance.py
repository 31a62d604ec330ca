"""Which endpoint takes a try: turns by weight, given up to a second choice by whoever is clearly dearer.

Paper: Parekh and Gallager's fair queueing for turns; Mitzenmacher, "The power of two choices in
randomized load balancing". Ends where a connection is made. Rules (docs/TRAFFIC.md writes them out for
other engines):

1. The pool: tier 0, available, not yet tried by this request; else tier 1; else endpoints that are
   out; else, last, ones already tried. Under `panic_share` available, those out count as available. On an
   isolated node its own endpoints come before all that (`gossipmesh.traffic.isolation`).
2. One endpoint: that one. More: the one whose turn it is (`gossipmesh.traffic.turns`) against another,
   drawn by weight from the rest.
3. It loses its turn to that one when it costs more than twice as much. Its own cost is latency x (1 +
   tries under way beyond the first x mean weight / weight), and its latency fades with time, so that a
   slow endpoint is asked again; the other's is latency x (tries under way with this one x mean weight /
   weight, at least 1). While either has too few samples latency counts as equal.

Deviation: power of two choices takes the cheaper, however little: two equal endpoints shared 39 to 1.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection
from typing import Final, Protocol

import msgspec

from gossipmesh.model.instant import NEVER, Instant
from gossipmesh.model.snapshot import LimitsSection, SnapshotEndpoint, UpstreamSection
from gossipmesh.traffic.ejection import EndpointState, begin_try, end_try, pass_trial
from gossipmesh.traffic.endpoints import EndpointKey, EndpointStates, key_of
from gossipmesh.traffic.latency import believed, faded, observe
from gossipmesh.traffic.millionths import WHOLE, millionths
from gossipmesh.traffic.outcomes import FAILURES, NEUTRAL, Outcome
from gossipmesh.traffic.turns import Line, Turns

COST_FACTOR: Final = 2
"""Costs this close are equal: the noise of measured latencies and of counting in whole tries."""


class RandomSource(Protocol):
    """The one thing asked of a generator; random.Random has it."""

    def random(self) -> float:
        """Return the next number in [0, 1)."""


class Try(msgspec.Struct, eq=False):
    """A try under way, from `Balancer.started` to `Balancer.finished`."""

    endpoint: SnapshotEndpoint
    key: EndpointKey
    state: EndpointState
    began: Instant
    is_trial: bool
    answered: bool = False


class _Pool:
    """Endpoints to choose from, in section order; `panic`: some of them are out."""

    __slots__ = ("endpoints", "keys", "line", "panic", "states", "sums", "weights")

    def __init__(self, endpoints: list[SnapshotEndpoint], panic: bool) -> None:
        self.endpoints = endpoints
        self.panic = panic
        self.keys = [key_of(endpoint) for endpoint in endpoints]
        self.weights = [max(endpoint.weight, 1) for endpoint in endpoints]
        self.line: Line | None = None
        self.states: list[EndpointState | None] = [None] * len(endpoints)  # as far as they were asked for
        self.sums: list[int] = []
        total = 0
        for weight in self.weights:
            total += weight
            self.sums.append(total)

    def draw_other(self, first: int, random: float) -> int:
        """Return another position than `first`, by weight."""
        before = self.sums[first - 1] if first else 0
        point = random * (self.sums[-1] - self.weights[first])
        found = bisect_right(self.sums, point + self.weights[first] if point >= before else point)
        other = min(found, len(self.sums) - 1)
        if other == first:
            # Rounding at a border; the neighbour is as good.
            other = first - 1 if first else first + 1
        return other


def _last_resorts(section: UpstreamSection) -> frozenset[EndpointKey]:
    return frozenset(key_of(endpoint) for endpoint in section.endpoints if endpoint.tier)


class Balancer:
    """The endpoints of one upstream and how they do; sans-IO, one task at a time."""

    def __init__(self, section: UpstreamSection, limits: LimitsSection, states: EndpointStates) -> None:
        self.section = section
        self.limits = limits
        self.panicked = False
        self._states = states
        self._turns = Turns()
        self._keys = [key_of(endpoint) for endpoint in section.endpoints]
        self._last_resorts = _last_resorts(section)
        self._pool: _Pool | None = None
        self._pool_until = Instant(0)
        self._pool_generation = -1

    def update(self, section: UpstreamSection, limits: LimitsSection | None = None) -> list[EndpointKey]:
        """Take a new section; return what left it, for `EndpointStates.forget_unlisted`."""
        keys = [key_of(endpoint) for endpoint in section.endpoints]
        present = dict.fromkeys(keys)
        gone = [key for key in self._keys if key not in present]
        self.section, self._keys, self._pool = section, keys, None
        self._last_resorts = _last_resorts(section)
        self.limits = self.limits if limits is None else limits
        self._turns.keep_only(keys)
        return gone

    def pick(
        self, rng: RandomSource, now: Instant, excluded: Collection[SnapshotEndpoint] = ()
    ) -> SnapshotEndpoint | None:
        """Return where a try should go, None when the upstream has no endpoint (503 `UH`).

        `panicked` tells afterwards whether endpoints that are out were let in. Random numbers, in order:
        where new endpoints stand (only if there are any), the step, the other.

        Args:
            excluded: endpoints this request has tried; taken again only when nothing else is there.

        Cost: O(log endpoints); O(endpoints) after a change, and for a retry.
        """
        if excluded:
            pool = self._fresh_pool(now, [key_of(endpoint) for endpoint in excluded])
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
        if len(pool.endpoints) < 2:
            return pool.endpoints[0] if pool.endpoints else None
        if pool.line is None:
            start = 0.0 if self._turns.has_all(pool.keys) else rng.random()
            pool.line = self._turns.enter(pool.keys, pool.weights, start)
        first = self._turns.take(pool.line, rng.random())
        other = pool.draw_other(first, rng.random())
        return pool.endpoints[other if self._is_dearer(pool, first, other, now) else first]

    def candidates(self, now: Instant, excluded: Collection[SnapshotEndpoint] = ()) -> list[SnapshotEndpoint]:
        """Return those `pick` would choose from, in section order."""
        return self._fresh_pool(now, [key_of(endpoint) for endpoint in excluded]).endpoints

    def has_better(self, key: EndpointKey, now: Instant, tried: Collection[SnapshotEndpoint] = ()) -> bool:
        """Tell whether a try at the endpoint `key` could be made somewhere that looks better.

        Somewhere available that its request has not tried, which the same workload at another address is; on
        an isolated node, of those likelier reached; from a last resort, of tier 0.
        """
        isolation = self._states.isolation
        own_rank = isolation.rank(key[0]) if isolation.isolated else 3
        is_last_resort = not isolation.isolated and self.is_last_resort(key)
        seen = [key, *(key_of(endpoint) for endpoint in tried)]
        return any(
            other not in seen
            and self._is_available(other, now)
            and isolation.rank(other[0]) < own_rank
            and not (is_last_resort and endpoint.tier)
            for other, endpoint in zip(self._keys, self.section.endpoints, strict=True)
        )

    def is_last_resort(self, key: EndpointKey) -> bool:
        """Tell whether an endpoint is listed, and to be used only when nobody of tier 0 is left."""
        return key in self._last_resorts

    def started(self, endpoint: SnapshotEndpoint, now: Instant) -> Try:
        """Count a try to `endpoint`; every one must end in `finished`, `CANCELLED` at the least."""
        key = key_of(endpoint)
        state = self._states.touch(key)
        is_trial = begin_try(state, now)
        if is_trial:
            self._states.availability_changed()
        return Try(endpoint, key, state, now, is_trial)

    def connected(self, attempt: Try, now: Instant) -> None:
        """Say that there is a connection: the endpoint's latency counts from here."""
        attempt.began = now

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
            self._states.came_back(attempt.key, attempt.state)
        attempt.is_trial = False

    def finished(self, attempt: Try, now: Instant, outcome: Outcome) -> str | None:
        """Take a try's end into account; return why its endpoint is now out, None when it is not."""
        state, key = attempt.state, attempt.key
        if outcome is Outcome.CONNECT_FAILED and self._states.isolation.is_lost(attempt.endpoint.node):
            outcome = Outcome.MOVED  # our fault, wherever it is made next
        if outcome not in NEUTRAL and not attempt.answered:
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
            if self._states.get(key) is state:  # not forgotten meanwhile
                self._states.went_out(key, state, self.section.upstream, reason)
        elif not was_in_use and state.ejected_until is None:
            self._states.came_back(key, state)
        elif attempt.is_trial:
            self._states.availability_changed()
        return reason

    def _fresh_pool(self, now: Instant, tried: Collection[EndpointKey]) -> _Pool:
        available = [self._is_available(key, now) for key in self._keys]
        share = millionths(self.limits.panic_share)
        panic = bool(available) and sum(available) * WHOLE < share * len(available)
        fresh = [key not in tried for key in self._keys]
        for test in self._levels(now, available, fresh, panic):
            chosen = [endpoint for at, endpoint in enumerate(self.section.endpoints) if test(at)]
            if chosen:
                return _Pool(chosen, panic)
        return _Pool([], panic)

    def _levels(
        self, now: Instant, available: list[bool], fresh: list[bool], panic: bool
    ) -> list[Callable[[int], bool]]:
        """Return who may be chosen, best first; each tells of a position whether it belongs."""
        endpoints, isolation = self.section.endpoints, self._states.isolation
        levels: list[Callable[[int], bool]] = []
        if isolation.isolated:
            ranks = [isolation.rank(endpoint.node) for endpoint in endpoints]
            levels += [
                lambda at: ranks[at] == 0 and available[at] and fresh[at],
                lambda at: ranks[at] == 1 and available[at] and fresh[at],
            ]
        levels += [
            lambda at: endpoints[at].tier == 0 and (available[at] or panic) and fresh[at],
            lambda at: endpoints[at].tier == 1 and (available[at] or panic) and fresh[at],
            lambda at: fresh[at],
            lambda at: available[at],
            lambda at: True,
        ]
        return levels

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

    def _state_in(self, pool: _Pool, position: int) -> EndpointState | None:
        """Look a state up once for a pool: when one is dropped every pool is made anew."""
        state = pool.states[position] = self._states.get(pool.keys[position])
        return state

    def _is_dearer(self, pool: _Pool, first: int, other: int, now: Instant) -> bool:
        """Tell whether the one whose turn it is costs more than COST_FACTOR times the other."""
        one = pool.states[first] or self._state_in(pool, first)
        two = pool.states[other] or self._state_in(pool, other)
        count, total = len(pool.keys), pool.sums[-1]
        one_weight, two_weight = pool.weights[first], pool.weights[other]
        one_load = count * one_weight + max((one.in_flight if one else 0) - 1, 0) * total
        two_load = max(count * two_weight, ((two.in_flight if two else 0) + 1) * total)
        one_cost, bound = one_load * two_weight, COST_FACTOR * two_load * one_weight
        if one is None or two is None or not (believed(one) and believed(two)):
            return one_cost > bound
        bound *= two.latency_us
        if one.latency_us * one_cost <= bound:
            return False  # what has faded is less
        return max(faded(one.latency_us, now - one.measured_at), 1) * one_cost > bound
