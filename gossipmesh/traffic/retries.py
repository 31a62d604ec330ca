"""Whether a failed try is made again, when, and how long one try may take.

Spec: RFC 9110 section 9.2.2 (idempotent methods), GEP-1731; the budget is Finagle's, over a sliding
window. Rules:

1. Never after a response byte was sent, never more than the rule's attempts, never an endpoint's
   good answer unless its status is listed.
2. Idempotent methods only. Deviation: what never reached the workload (no connection to its engine,
   or from its engine to it) is retried for any method, which RFC 9110 names as safe.
3. A body is replayed only while it is kept whole (`replay_body_bytes`).
4. Retries are at most `retry_budget_ratio` of the requests of the last ten seconds, plus the floor.
5. A try we end ourselves to make it elsewhere is no retry: neither attempts nor budget count it.
"""

import msgspec

from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.snapshot import LimitsSection, RetryRule, Route
from gossipmesh.traffic.millionths import WHOLE, millionths
from gossipmesh.traffic.outcomes import UNSENT, Outcome

IDEMPOTENT_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
BUDGET_WINDOW_S = 10  # Finagle's and linkerd's default time to live of a budget's deposits
BACKOFF_FACTOR_MAX = 10  # Envoy: the longest interval is ten times the base

REASON_BUDGET = "budget"


class RetryDecision(msgspec.Struct, frozen=True):
    """`reason` says why: what failed when `retry`, what forbids it otherwise."""

    retry: bool
    reason: str
    backoff_ns: int


class RetryBudget:
    """Requests and retries of one upstream in a sliding window of one-second slots."""

    def __init__(self, ratio: float, floor_per_s: int) -> None:
        self._ratio = millionths(ratio)
        self._floor_per_s = floor_per_s
        self._requests = [0] * BUDGET_WINDOW_S
        self._retries = [0] * BUDGET_WINDOW_S
        self._second = 0

    @classmethod
    def of(cls, section: LimitsSection) -> "RetryBudget":
        """Return an empty budget with the snapshot's numbers."""
        return cls(section.retry_budget_ratio, section.retry_budget_floor_per_s)

    def update(self, section: LimitsSection) -> None:
        """Take new numbers; what was counted stays."""
        self._ratio = millionths(section.retry_budget_ratio)
        self._floor_per_s = section.retry_budget_floor_per_s

    def add_request(self, now: Instant) -> None:
        """Count one request (not its retries)."""
        self._turn(now)
        self._requests[self._second % BUDGET_WINDOW_S] += 1

    def add_retry(self, now: Instant) -> None:
        """Count one retry without asking."""
        self._turn(now)
        self._retries[self._second % BUDGET_WINDOW_S] += 1

    def take_retry(self, now: Instant) -> bool:
        """Count one retry if the budget has room; False when it has not."""
        self._turn(now)
        allowed = self._ratio * sum(self._requests) + self._floor_per_s * BUDGET_WINDOW_S * WHOLE
        if (sum(self._retries) + 1) * WHOLE > allowed:
            return False
        self._retries[self._second % BUDGET_WINDOW_S] += 1
        return True

    def _turn(self, now: Instant) -> None:
        second = now // SECOND_NS
        if second <= self._second:
            return
        for step in range(min(second - self._second, BUDGET_WINDOW_S)):
            slot = (second - step) % BUDGET_WINDOW_S
            self._requests[slot] = self._retries[slot] = 0
        self._second = second


def is_idempotent(method: str | None) -> bool:
    """Tell whether doing it twice is doing it once (RFC 9110 section 9.2.2); False for TCP."""
    return method in IDEMPOTENT_METHODS


def try_timeout_ns(route: Route) -> int | None:
    """Return how long one try may take once its request is out whole, None for as long as it wants.

    A timeout for idempotent methods only is no policy's: 0.1's agents write their own default so.
    """
    return None if route.try_timeout_idempotent_only else route.try_timeout_ns


def backoff_ns(rule: RetryRule, attempt: int, random: float) -> int:
    """Return the wait before the next try: full jitter under base x 2^(attempt - 1), ten bases at most."""
    factor: int = min(2 ** min(attempt - 1, 10), BACKOFF_FACTOR_MAX)
    return int(random * rule.backoff_base_ns * factor)


def may_retry(
    rule: RetryRule,
    *,
    method: str | None,
    outcome: Outcome,
    status: int | None,
    attempt: int,
    response_started: bool,
    body_replayable: bool,
    budget: RetryBudget,
    now: Instant,
    random: float,
) -> RetryDecision:
    """Decide after a try; a yes is taken from the budget.

    Args:
        method: None for TCP.
        status: the answer's status, None when there was none.
        attempt: tries made so far, from 1.
        response_started: a byte of the answer went downstream.
        body_replayable: the request's body is empty or still kept whole.
        random: 0 <= random < 1, the jitter.
    """
    reason = str(outcome)
    listed = status is not None and status in rule.statuses
    if outcome is Outcome.CANCELLED or (outcome is Outcome.SUCCESS and not listed):
        return RetryDecision(False, reason, 0)
    moved = outcome is Outcome.MOVED
    refusal = None
    if response_started:
        refusal = "response_started"
    elif not moved and attempt > rule.attempts:
        refusal = "attempts"
    elif outcome is Outcome.SERVER_ERROR and not listed:
        refusal = "status"
    elif outcome not in UNSENT and not is_idempotent(method):
        refusal = "method"
    elif not body_replayable:
        refusal = "body"
    elif not moved and not budget.take_retry(now):
        refusal = REASON_BUDGET
    if refusal is not None:
        return RetryDecision(False, refusal, 0)
    if moved:
        return RetryDecision(True, reason, 0)
    return RetryDecision(True, "status" if listed else reason, backoff_ns(rule, attempt, random))
