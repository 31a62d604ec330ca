"""Verdicts derived from evidence: pure functions, one question each.

Names say when a thing must hold: `anytime_` at every moment, `eventually_` at least once and within a
bound, `finally_` when all is over. Every bound is a parameter that stands in the scenario file. A
checker returns the sentences that tell what is wrong; none means it holds.
"""

from collections.abc import Callable
from typing import Any, Final

from gossipmesh.testing import (
    address_moves,
    clock_skew,
    cold_starts,
    copied_state,
    isolations,
    key_rotations,
    lost_udp,
    mixed_versions,
    month_without_signers,
    mutes,
    no_authority,
    request_checkers,
    stolen_credential_key,
    stolen_intermediate,
    stolen_node_key,
    stolen_signer,
    suspensions,
    taken_out,
)
from gossipmesh.testing.agent_log import StatusDeclared
from gossipmesh.testing.evidence import Evidence, StatusSeen
from gossipmesh.testing.scenario import Check, Scenario

_PORTS: Final = ("readiness_open", "mesh_port_open")

Checker = Callable[..., list[str]]


def finally_every_fault_fired(evidence: Evidence, expected: int) -> list[str]:
    """A fault that never fired proves nothing; `expected` is how many the scenario holds."""
    silent = [f"{fault.kind} on {fault.node} hit nothing" for fault in evidence.faults if fault.count < 1]
    if len(evidence.faults) != expected:
        silent.append(f"{len(evidence.faults)} of {expected} faults fired")
    return silent


def finally_conditions_came_true(evidence: Evidence) -> list[str]:
    """Everything the scenario waited for happened within its bound."""
    return [
        f"{name} did not happen in time" for name, took_s in evidence.conditions.items() if took_s is None
    ]


def _held(evidence: Evidence) -> list[StatusSeen | StatusDeclared]:
    """Return whom anybody held in what status: when asked, and by its own log."""
    return [*evidence.statuses, *evidence.declared]


def anytime_nobody_else_dead(evidence: Evidence, statuses: tuple[str, ...] = ("dead",)) -> list[str]:
    """Only victims are ever held dead (or what `statuses` lists), by anybody."""
    return [
        f"{seen.observer} held {seen.subject} {seen.status} at {seen.at_s:.1f} s"
        for seen in _held(evidence)
        if seen.status in statuses and seen.subject not in evidence.victims
    ]


def anytime_victim_never(evidence: Evidence, statuses: tuple[str, ...]) -> list[str]:
    """No member ever held a victim in one of `statuses`."""
    return [
        f"{seen.observer} held {seen.subject} {seen.status} at {seen.at_s:.1f} s"
        for seen in _held(evidence)
        if seen.status in statuses and seen.subject in evidence.victims
    ]


def eventually_victim_seen(evidence: Evidence, status: str, within_s: float, fault: str = "") -> list[str]:
    """Every other node came to see every victim in `status` within `within_s` of the fault."""
    problems = []
    for victim in evidence.victims:
        for observer, took_s in seen_after_fault(evidence, victim, status, fault).items():
            if took_s is None:
                problems.append(f"{observer} never saw {victim} {status}")
            elif took_s > within_s:
                problems.append(
                    f"{observer} saw {victim} {status} after {took_s:.1f} s, bound {within_s:g} s"
                )
    return problems


def seen_after_fault(
    evidence: Evidence, victim: str, status: str, fault: str = ""
) -> dict[str, float | None]:
    """Return observer -> seconds from the first fault (of kind `fault`) on `victim` to its `status` there."""
    starts_s = [
        item.at_s
        for item in evidence.faults
        if item.node == victim and item.count and fault in ("", item.kind)
    ]
    observers = [node for node in evidence.nodes if node not in evidence.victims]
    if not starts_s:
        return dict.fromkeys(observers)
    first = {
        observer: _first(evidence.statuses, observer, victim, status, starts_s[0]) for observer in observers
    }
    return {
        observer: None if seen is None else round(seen.at_s - starts_s[0], 3)
        for observer, seen in first.items()
    }


def _first(
    seen: list[StatusSeen], observer: str, subject: str, status: str, from_s: float
) -> StatusSeen | None:
    for item in seen:
        if (item.observer, item.subject, item.status) == (observer, subject, status) and item.at_s >= from_s:
            return item
    return None


def anytime_requests_succeed(evidence: Evidence, failed_max: int, sent_min: int) -> list[str]:
    """At most `failed_max` idempotent requests failed, and at least `sent_min` were sent at all."""
    requests, problems = evidence.requests, []
    if requests.get("failed", 0) > failed_max:
        problems.append(
            f"{requests['failed']} of {requests['sent']} requests failed: {requests['by_outcome']}"
        )
    if requests.get("sent", 0) < sent_min:
        problems.append(f"only {requests.get('sent', 0)} requests were sent, of at least {sent_min}")
    if requests.get("answered", 0) != requests.get("sent", 0):
        problems.append(f"{requests.get('sent', 0)} were sent, {requests.get('answered', 0)} accounted for")
    return problems


def anytime_endpoint_leaves_use(evidence: Evidence, later_max: int) -> list[str]:
    """On each node failed tries take a victim's endpoint out of use, long before gossip does.

    Tries in flight together may each fail. Of those that began after a first one had failed at most
    `later_max` may fail too, for each node and upstream.
    """
    start_s = min((fault.at_s for fault in evidence.faults), default=0.0)
    first_ended_s: dict[tuple[str, str], float] = {}
    later: dict[tuple[str, str], list[float]] = {}
    for retry in sorted(evidence.retries, key=lambda retry: retry.ended_s):
        if retry.ended_s < start_s:
            continue
        place = (retry.node, retry.upstream)
        if retry.at_s > first_ended_s.setdefault(place, retry.ended_s):
            later.setdefault(place, []).append(retry.at_s)
    return [
        f"{node} went on trying dead endpoints of {upstream}: first failure known at "
        f"{first_ended_s[node, upstream]:.2f} s, later ones began at {moments}"
        for (node, upstream), moments in later.items()
        if len(moments) > later_max
    ]


def anytime_endpoints_stay(evidence: Evidence, by_victims: bool = False) -> list[str]:
    """No observer (but a victim, unless `by_victims`) ever counted fewer passing endpoints than at first.

    First is when the first fault fired.
    """
    start_s = min((fault.at_s for fault in evidence.faults), default=0.0)
    before: dict[str, dict[str, int]] = {}
    problems = []
    for seen in evidence.endpoints:
        if seen.observer in evidence.victims and not by_victims:
            continue
        if seen.at_s < start_s:
            before[seen.observer] = seen.services
            continue
        for service, count in before.get(seen.observer, {}).items():
            if seen.services.get(service, 0) < count:
                left = f"{seen.services.get(service, 0)} of {count}"
                problems.append(f"{seen.observer} counted {left} {service} at {seen.at_s:.1f} s")
    return problems


def finally_same_engine(evidence: Evidence, same_snapshot: bool = True) -> list[str]:
    """Each victim's agent ended up attached to the engine, and the snapshot, of before the fault."""
    problems = []
    for victim in evidence.victims:
        start_s = min((fault.at_s for fault in evidence.faults if fault.node == victim), default=0.0)
        before = [seen for seen in evidence.engines if seen.observer == victim and seen.at_s < start_s]
        after = [seen for seen in evidence.engines if seen.observer == victim and seen.at_s >= start_s]
        if not before or not after or not after[-1].attached:
            problems.append(f"{victim}: no attached engine was seen before and after the fault")
            continue
        last = after[-1]
        if last.pid != before[-1].pid:
            problems.append(f"{victim}: engine {before[-1].pid} became {last.pid}")
        versions = {seen.snapshot_version for seen in [before[-1], *after] if seen.attached}
        if same_snapshot and len(versions) != 1:
            problems.append(f"{victim}: snapshot versions {sorted(str(version) for version in versions)}")
    return problems


def eventually_listeners_back(evidence: Evidence, within_s: float) -> list[str]:
    """Each victim's engine said it was ready again within `within_s` of the fault."""
    problems = []
    for fault in evidence.faults:
        if fault.kind != "kill" or fault.node not in evidence.victims:
            continue
        gap_s = listener_gap_s(evidence, fault.node, fault.at_s)
        if gap_s is None:
            problems.append(f"{fault.node}: the listeners did not come back")
        elif gap_s > within_s:
            problems.append(
                f"{fault.node}: the listeners were back after {gap_s:.1f} s, bound {within_s:g} s"
            )
    return problems


def listener_gap_s(evidence: Evidence, node: str, from_s: float) -> float | None:
    """Return seconds from `from_s` until `node` was ready for good; None when it was never seen so.

    An engine that came back within one look (READINESS_TIMEOUT_S) was never seen away: a gap of 0.
    """
    after = [seen for seen in evidence.readiness if seen.node == node and seen.at_s >= from_s]
    if not after:
        return 0.0
    return round(after[-1].at_s - from_s, 3) if after[-1].ready else None


def finally_all_alive(evidence: Evidence) -> list[str]:
    """At the end every node answers and sees every node alive."""
    problems = [f"{final.node} does not answer" for final in evidence.finals if not final.answered]
    for final in evidence.finals:
        for subject in evidence.nodes:
            if final.answered and final.statuses.get(subject) != "alive":
                problems.append(f"{final.node} ends with {subject} {final.statuses.get(subject)}")
    return problems


def finally_sums_equal(evidence: Evidence) -> list[str]:
    """At the end all nodes that answer hold the same records and documents."""
    state_sums = {final.node: final.state_sums for final in evidence.finals if final.answered}
    if len(state_sums) < 2 or any(value != next(iter(state_sums.values())) for value in state_sums.values()):
        return [f"state sums differ: {state_sums}"]
    return []


def finally_one_policy(evidence: Evidence) -> list[str]:
    """At the end all nodes that answer run the same version of every scope, and there is one."""
    running = {final.node: final.policies for final in evidence.finals if final.answered}
    first = next(iter(running.values()), {})
    if not first or any(value != first for value in running.values()):
        return [f"policies differ: {running}"]
    return []


def finally_losers_told(evidence: Evidence) -> list[str]:
    """Of pushes from one base exactly one ends with exit 0; the others say `superseded`."""
    racing = [push for push in evidence.pushes if push["name"].startswith("race")]
    winners = [push for push in racing if push["exit_code"] == 0]
    losers = [push for push in racing if push["exit_code"] != 0]
    problems = []
    if len(winners) != 1 or not losers:
        problems.append(f"{len(winners)} of {len(racing)} racing pushes report success")
    problems += [
        f"the push at {push['node']} failed without saying it was superseded: {push['stderr'][-300:]!r}"
        for push in losers
        if "superseded" not in push["stderr"] + push["stdout"]
    ]
    return problems


def finally_waiting_push_told(evidence: Evidence, name: str) -> list[str]:
    """The push `name`, made while others were out of reach, failed and named every one of them."""
    pushes = [push for push in evidence.pushes if push["name"] == name]
    if len(pushes) != 1:
        return [f"{len(pushes)} pushes are called {name}"]
    push = pushes[0]
    told = push["stdout"] + push["stderr"]
    problems = [f"{node} is out of reach and was not named" for node in push["across"] if node not in told]
    if push["exit_code"] != 1 or not push["across"]:
        problems.append(f"exit code {push['exit_code']} with {push['across']} out of reach")
    return problems


def finally_replaced_agents_ended(evidence: Evidence, within_s: float) -> list[str]:
    """Agents whose name was enrolled again elsewhere ended in time, in words and for good; nothing serves."""
    problems = []
    for fault in (fault for fault in evidence.faults if fault.kind == "enrol-again"):
        detail = fault.detail
        took_s = replaced_ended_s(evidence)[fault.node]
        if took_s is None or took_s > within_s:
            problems.append(f"agent and engine of {fault.node} ended after {took_s} s, bound {within_s:g} s")
        if detail["exit_code"] != 78 or "was enrolled again elsewhere" not in detail["said"]:
            problems.append(f"{fault.node} ended with {detail['exit_code']}: {detail['said']}")
        problems += [f"{fault.node} has its {key} still" for key in _PORTS if detail[key]]
        for when, answer in (("before", "answered"), ("after", "refused")):
            if set(detail[when].values()) != {answer}:
                problems.append(f"callers of {fault.node} {when} it were not {answer}: {detail[when]}")
    return problems


def replaced_ended_s(evidence: Evidence) -> dict[str, float | None]:
    """Return node -> seconds from the start of the new agent until the old agent and its engine had ended."""
    ended: dict[str, float | None] = {}
    for fault in (fault for fault in evidence.faults if fault.kind == "enrol-again"):
        times = [fault.detail["agent_ended_after_s"], fault.detail["engine_ended_after_s"]]
        ended[fault.node] = None if None in times else max(times)
    return ended


CHECKERS: Final[dict[str, Checker]] = {
    function.__name__: function
    for function in (
        finally_conditions_came_true,
        anytime_nobody_else_dead,
        anytime_victim_never,
        eventually_victim_seen,
        anytime_requests_succeed,
        anytime_endpoint_leaves_use,
        anytime_endpoints_stay,
        finally_same_engine,
        eventually_listeners_back,
        finally_all_alive,
        finally_sums_equal,
        finally_one_policy,
        finally_losers_told,
        finally_waiting_push_told,
        finally_replaced_agents_ended,
        copied_state.finally_copies_ended,
        taken_out.finally_the_forgotten_are_gone,
        stolen_credential_key.finally_a_stolen_credential_key_is_undone,
        stolen_node_key.finally_stolen_keys_are_useless,
        stolen_intermediate.finally_a_forger_is_nobody,
        no_authority.finally_lives_without_authority,
        cold_starts.finally_cold_starts_are_quick,
        clock_skew.finally_a_wrong_clock_alarms,
        key_rotations.finally_who_was_away_is_whole,
        mixed_versions.finally_versions_live_together,
        month_without_signers.finally_a_month_went_by,
        stolen_signer.finally_the_theft_is_undone,
        suspensions.finally_who_was_suspended_returned,
        address_moves.eventually_who_moved_is_found,
        lost_udp.eventually_news_arrives,
        mutes.eventually_dead_as_often,
        mutes.eventually_views_stay_equal,
        request_checkers.anytime_requests_of_leavers_succeed,
        request_checkers.anytime_sessions_hold,
        request_checkers.eventually_isolation_costs_nothing,
        isolations.eventually_isolation_is_known,
        request_checkers.finally_calls_succeed,
        request_checkers.anytime_requests_after_the_fault_succeed,
        request_checkers.anytime_stopped_workload_is_passed_by,
    )
}


def judge(evidence: Evidence, scenario: Scenario, faults_expected: int) -> list[dict[str, Any]]:
    """Run the scenario's checks, and those every scenario has; `{check, params, ok, problems}` each."""
    always = [
        Check("finally_every_fault_fired", {"expected": faults_expected}),
        Check("finally_conditions_came_true"),
    ]
    verdicts = []
    for check in [*always, *scenario.checks]:
        checker = {**CHECKERS, "finally_every_fault_fired": finally_every_fault_fired}.get(check.check)
        if checker is None:
            problems = [f"there is no checker {check.check}"]
        else:
            try:
                problems = checker(evidence, **check.params)
            except TypeError as error:
                problems = [f"wrong parameters: {error}"]
        verdicts.append(
            {"check": check.check, "params": check.params, "ok": not problems, "problems": problems[:50]}
        )
    return verdicts
