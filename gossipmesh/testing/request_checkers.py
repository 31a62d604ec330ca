"""Verdicts on requests and sessions of a run; see `gossipmesh.testing.checkers` for the rules they keep.

What a failure may be excused with is derived from the same evidence: a node that has drained serves its own
applications no longer, and a request that was in flight at a workload that was killed may be lost.
"""

import statistics
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.load import Outcome

Window = tuple[float, float]
REFUSED_MS_MAX: Final = 1_000.0
"""A refusal that takes longer left its client waiting at a door that nobody opens."""


def failures(evidence: Evidence) -> list[Outcome]:
    """Return every failed request of both loads, by the time it was sent."""
    rows = [*evidence.requests.get("failures", ()), *evidence.mixed.get("failures", ())]
    return sorted((msgspec.convert(row, Outcome) for row in rows), key=lambda outcome: outcome.at_s)


def _sentence(outcome: Outcome) -> str:
    said = outcome.error or outcome.flag or f"status {outcome.status}"
    return (
        f"{outcome.kind} of {outcome.node} to {outcome.authority} at {outcome.at_s:.2f} s: {said} "
        f"after {outcome.latency_ms:.0f} ms"
    )


def _counts(evidence: Evidence, sent_min: int) -> list[str]:
    problems = []
    for name, summary in (("requests", evidence.requests), ("mixed requests", evidence.mixed)):
        if summary.get("answered", 0) != summary.get("sent", 0):
            problems.append(f"{summary['sent']} {name} were sent, {summary['answered']} accounted for")
    sent = evidence.requests.get("sent", 0) + evidence.mixed.get("sent", 0)
    return problems if sent >= sent_min else [*problems, f"only {sent} were sent, of at least {sent_min}"]


def _departures(evidence: Evidence) -> list[FaultFired]:
    return [fault for fault in evidence.faults if fault.kind in ("leave", "leave-rejoin")]


def _away(evidence: Evidence, fault: FaultFired) -> Window:
    """Return from when to when a leaving node need not serve its own applications.

    From the end of the last work it did for others, by its own access log; until it was back.
    """
    drained_s = next(
        end.ended_s for end in evidence.inbound_ends if (end.node, end.from_s) == (fault.node, fault.at_s)
    )
    return drained_s, fault.detail.get("back_s", float("inf"))


def anytime_requests_of_leavers_succeed(evidence: Evidence, sent_min: int, slack_s: float) -> list[str]:
    """No request fails, but a leaving node's own, refused at once, after it has drained and until it is back.

    `slack_s` is what the clocks of the load driver and of the access log may differ by.
    """
    away = [(fault.node, *_away(evidence, fault)) for fault in _departures(evidence)]
    problems = _counts(evidence, sent_min)
    for outcome in failures(evidence):
        refused = outcome.status == 0 and outcome.latency_ms < REFUSED_MS_MAX
        if not any(
            refused and node == outcome.node and start_s - slack_s <= outcome.at_s <= end_s + slack_s
            for node, start_s, end_s in away
        ):
            problems.append(_sentence(outcome))
    return problems


def anytime_sessions_hold(evidence: Evidence, opened_min: int, exchanges_min: int) -> list[str]:
    """Sessions end only when asked, or told so by a node that leaves; nothing ever goes silent.

    A session belongs to a leaving node when it enters or ends there. New ones may be refused only there.
    """
    departures = _departures(evidence)
    opened = [end for end in evidence.sessions if end["how"] != "refused"]
    exchanges = sum(end["exchanges"] for end in opened)
    problems = []
    if len(opened) < opened_min or exchanges < exchanges_min:
        problems.append(f"only {len(opened)} sessions with {exchanges} exchanges")
    for end in evidence.sessions:
        told = end["how"] == "told" and any(
            fault.node in (end["node"], end["served_by"])
            and fault.at_s <= end["ended_s"] <= fault.detail.get("back_s", float("inf"))
            for fault in departures
        )
        refused = end["how"] == "refused" and any(
            fault.node == end["node"]
            and fault.at_s <= end["ended_s"]
            and end["opened_s"] <= fault.detail.get("back_s", float("inf"))
            for fault in departures
        )
        if not (end["how"] == "asked" or told or refused):
            problems.append(
                f"{end['kind']} of {end['node']} to {end['served_by'] or end['authority']}, opened at "
                f"{end['opened_s']:.2f} s: {end['how']} at {end['ended_s']:.2f} s ({end['detail']})"
            )
    return problems


def isolation_failures_s(evidence: Evidence) -> list[dict[str, Any]]:
    """Return for each isolation how many of the node's own requests failed, and when the last had failed.

    `last_after_s` counts from the cut, 0 when none failed.
    """
    rows = []
    for fault in evidence.faults:
        if fault.kind == "isolate":
            ends_s = [
                outcome.at_s + outcome.latency_ms / 1000 - fault.at_s
                for outcome in failures(evidence)
                if outcome.node == fault.node and fault.at_s <= outcome.at_s <= fault.detail["healed_s"]
            ]
            last_s = round(max(ends_s, default=0.0), 3)
            rows.append({"cut_s": fault.at_s, "failed": len(ends_s), "last_after_s": last_s})
    return rows


def eventually_isolation_costs_nothing(
    evidence: Evidence, within_s: float, answer_max_s: float, sent_min: int
) -> list[str]:
    """Cut off, a node's own failures end `within_s` of the cut (median of all cuts); no others ever.

    What it sends later than that is answered within `answer_max_s`.
    """
    problems = _counts(evidence, sent_min)
    cuts = [fault for fault in evidence.faults if fault.kind == "isolate"]
    if not cuts:
        return [*problems, "nobody was cut off"]
    median_s = statistics.median(row["last_after_s"] for row in isolation_failures_s(evidence))
    if median_s > within_s:
        problems.append(f"failures ended {median_s:.2f} s after the cut (median), bound {within_s:g} s")
    for outcome in failures(evidence):
        if not any(
            outcome.node == fault.node and fault.at_s <= outcome.at_s <= fault.detail["healed_s"]
            for fault in cuts
        ):
            problems.append(_sentence(outcome))
    for fault in cuts:
        later = (fault.at_s + within_s, fault.detail["healed_s"])
        problems += [
            _sentence(outcome)
            for outcome in evidence.slow
            if outcome.node == fault.node
            and later[0] <= outcome.at_s <= later[1]
            and outcome.latency_ms > answer_max_s * 1000
        ]
    return problems


def finally_calls_succeed(evidence: Evidence, count_min: int) -> list[str]:
    """Every single call made by the scenario was answered well."""
    problems = [_sentence(outcome) for outcome in evidence.calls if outcome.failed]
    return problems if len(evidence.calls) >= count_min else [*problems, f"{len(evidence.calls)} calls"]


def anytime_requests_after_the_fault_succeed(
    evidence: Evidence, sent_min: int, kinds: Sequence[str]
) -> list[str]:
    """No request fails but one that was in flight when the fault came; `kinds` were all tried after it."""
    problems = _counts(evidence, sent_min)
    faults_s = [fault.at_s for fault in evidence.faults]
    for outcome in failures(evidence):
        end_s = outcome.at_s + outcome.latency_ms / 1000
        if not any(outcome.at_s <= fault_s <= end_s for fault_s in faults_s):
            problems.append(_sentence(outcome))
    by_kind = evidence.mixed.get("by_kind", {})
    return problems + [f"no {kind} was answered" for kind in kinds if not by_kind.get(kind, {}).get("ok")]


def known_failing_s(evidence: Evidence, fault: FaultFired) -> dict[str, float | None]:
    """Return observer -> when it first counted fewer passing endpoints than before a fault; None: never."""
    known: dict[str, float | None] = {}
    for node in evidence.nodes:
        seen = [item for item in evidence.endpoints if item.observer == node]
        before = [item.services for item in seen if item.at_s < fault.at_s]
        fewer = [
            item.at_s
            for item in seen
            if before and item.at_s >= fault.at_s and sum(item.services.values()) < sum(before[-1].values())
        ]
        known[node] = fewer[0] if fewer else None
    return known


def anytime_stopped_workload_is_passed_by(
    evidence: Evidence, known_within_s: float, wait_max_s: float, passed_by_s: float
) -> list[str]:
    """A workload that stands still is known as failing in time, and what waits on it goes elsewhere.

    Every node knows `known_within_s` after the fault; no idempotent request takes longer than `wait_max_s`;
    whatever a node sends once it knows is answered within `passed_by_s`, until the workload goes on.
    """
    problems = []
    for fault in evidence.faults:
        known = known_failing_s(evidence, fault)
        for node, known_s in known.items():
            if known_s is None or known_s - fault.at_s > known_within_s:
                problems.append(f"{node} knew at {known_s}, the fault came at {fault.at_s} s")
        goes_on_s = fault.at_s + fault.detail["for_s"]
        for outcome in evidence.slow:
            seconds, known_s = outcome.latency_ms / 1000, known.get(outcome.node)
            idempotent = outcome.kind in ("get", "slow-get")
            after = known_s is not None and known_s < outcome.at_s < goes_on_s - passed_by_s
            if (idempotent and seconds > wait_max_s) or (after and seconds > passed_by_s):
                problems.append(_sentence(outcome))
    return problems
