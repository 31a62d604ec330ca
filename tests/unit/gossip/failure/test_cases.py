"""The case of a monitor against its target: every state with every input, and what a tick may find."""

import pytest

from gossipmesh.gossip.base.settings import FAST
from gossipmesh.gossip.failure.cases import (
    CAUSES,
    MOVES,
    Act,
    Case,
    CaseInput,
    CaseState,
    Circumstances,
    Evidence,
    judge,
)
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.records import Cause

VOTING = tuple(CAUSES)
FINDINGS = {
    what for what in CaseInput if what.name.startswith("FOUND_") and what is not CaseInput.FOUND_NOTHING
}
HERE = Circumstances(at=0, tolerance_ns=0, control_passed=True, restarting=False)


def at(ms: float) -> Instant:
    return Instant(int(ms * MILLISECOND_NS))


def seen(ms: float, **fields: object) -> Circumstances:
    return HERE._replace(at=at(ms), **fields)


def test_every_state_has_a_move_for_every_input_and_only_those() -> None:
    assert set(MOVES) == {(state, what) for state in CaseState for what in CaseInput}


@pytest.mark.parametrize("what", CaseInput)
@pytest.mark.parametrize("state", CaseState)
def test_each_move_keeps_the_rules(state: CaseState, what: CaseInput) -> None:
    """The rules of the module, held against all 84 moves."""
    move = MOVES[(state, what)]
    was_voting, votes = state in VOTING, move.state in VOTING
    withdraws = move.act in (Act.UNVOTE, Act.UNVOTE_AND_RESTART, Act.UNVOTE_AND_CLOSE)
    if state is CaseState.CLOSED:
        assert move == (CaseState.CLOSED, Act.NOTHING)
        return
    # A vote is sent by a finding and by nothing else, and its cause is the state.
    assert (move.act is Act.VOTE) == (what in FINDINGS)
    assert votes == (what in FINDINGS) or move.state is state
    # Who stops voting says so, unless the case is settled by something stronger than votes.
    if was_voting and not votes and what is not CaseInput.SETTLED:
        assert withdraws
    if not was_voting:
        assert not withdraws
    # When it was we who were cut off, nothing stands and every clock restarts.
    if what in (CaseInput.CUT_OFF, CaseInput.SLEPT):
        assert move.state is CaseState.WATCHING
        assert move.act in (Act.RESTART, Act.UNVOTE_AND_RESTART)
    if what in (CaseInput.ANSWERED, CaseInput.SETTLED):
        assert move.state is CaseState.CLOSED
    # Life withdraws every cause that says the agent is silent; answers all but `degraded`.
    if what is CaseInput.LIFE and was_voting:
        assert votes == (state in (CaseState.DEAF, CaseState.DEGRADED))
    if what is CaseInput.ANSWER and was_voting:
        assert votes == (state is CaseState.DEGRADED)


def test_causes_are_named_as_their_states() -> None:
    assert {state.name: cause.name for state, cause in CAUSES.items()} == {
        cause.name: cause.name for cause in Cause
    }


def test_a_case_follows_the_table() -> None:
    case = Case(Instant(0), (1, 1), 0)
    assert case.take(CaseInput.FOUND_SILENT) is Act.VOTE
    assert case.take(CaseInput.LIFE) is Act.UNVOTE
    assert case.take(CaseInput.ANSWERED) is Act.CLOSE
    assert case.take(CaseInput.FOUND_SILENT) is Act.NOTHING


@pytest.mark.parametrize(
    ("ms", "circumstances", "found"),
    [
        (2_499, {}, CaseInput.FOUND_NOTHING),
        (2_500, {}, CaseInput.FOUND_SILENT),
        (2_500, {"control_passed": False}, CaseInput.FOUND_NOTHING),
        (2_500, {"tolerance_ns": 200 * MILLISECOND_NS}, CaseInput.FOUND_NOTHING),
        (2_700, {"tolerance_ns": 200 * MILLISECOND_NS}, CaseInput.FOUND_SILENT),
        (2_500, {"restarting": True}, CaseInput.FOUND_SILENT),
    ],
)
def test_silence_needs_its_time_our_hearing_and_the_targets_own_slowness(
    ms: float, circumstances: dict[str, object], found: CaseInput
) -> None:
    assert judge(Evidence(Instant(0)), FAST, seen(ms, **circumstances)) is found


def test_life_restarts_silence_by_its_arrival() -> None:
    evidence = Evidence(Instant(0))
    assert evidence.lived(at(1_000), FAST, is_recent=True)
    assert not evidence.lived(at(900), FAST, is_recent=True)
    assert judge(evidence, FAST, seen(3_499)) is CaseInput.FOUND_NOTHING
    assert judge(evidence, FAST, seen(3_500)) is CaseInput.FOUND_SILENT


def test_packets_that_never_heard_us_count_no_longer_than_a_deaf_member() -> None:
    """Packets held back by somebody in between prove nothing of the present."""
    evidence = Evidence(Instant(0))
    assert evidence.lived(at(7_900), FAST, is_recent=False)
    assert not evidence.lived(at(8_100), FAST, is_recent=False)
    assert judge(evidence, FAST, seen(8_200)) is CaseInput.FOUND_DEAF


def test_an_agent_that_sends_and_never_answers_is_deaf_after_eight_seconds() -> None:
    evidence = Evidence(Instant(0))
    for number in range(80):
        evidence.lived(at(number * 100 + 50), FAST, is_recent=False)
    assert judge(evidence, FAST, seen(7_999)) is CaseInput.FOUND_NOTHING
    assert judge(evidence, FAST, seen(8_000)) is CaseInput.FOUND_DEAF
    evidence.pinged(1, at(7_900))
    assert evidence.answered(1, at(7_950))
    assert judge(evidence, FAST, seen(8_000)) is CaseInput.FOUND_NOTHING


def test_a_refused_port_and_a_refused_engine_twice_need_no_control_round() -> None:
    evidence = Evidence(Instant(0))
    evidence.port_refusals.append(at(1))
    evidence.engine_said(False, True, at(2))
    assert judge(evidence, FAST, seen(400, control_passed=False)) is CaseInput.FOUND_NOTHING
    evidence.engine_said(False, True, at(302))
    assert judge(evidence, FAST, seen(302, control_passed=False)) is CaseInput.FOUND_REFUSED
    assert judge(evidence, FAST, seen(302, restarting=True)) is CaseInput.FOUND_NOTHING


def test_a_refused_port_alone_condemns_nobody() -> None:
    """Anybody can forge an ICMP message; the engine's own answer is what counts."""
    evidence = Evidence(Instant(0))
    evidence.port_refusals += [at(1), at(200), at(900)]
    assert judge(evidence, FAST, seen(2_000)) is CaseInput.FOUND_NOTHING
    evidence.engine_said(True, False, at(950))
    assert judge(evidence, FAST, seen(1_000, control_passed=False)) is CaseInput.FOUND_AGENT_GONE


def test_a_machine_that_refuses_for_its_agent_is_there_and_its_engine_may_be_late() -> None:
    """An agent ran out of memory on a machine that swaps: its engine is slow, and no less there."""
    evidence = Evidence(Instant(0))
    evidence.port_refusals += [at(1), at(400)]
    evidence.engine_said(False, False, at(1_000))
    evidence.engine_said(False, False, at(2_000))
    assert judge(evidence, FAST, seen(12_499)) is CaseInput.FOUND_NOTHING
    assert judge(evidence, FAST, seen(12_500)) is CaseInput.FOUND_SILENT
    evidence.port_refusals.clear()
    assert judge(evidence, FAST, seen(2_500)) is CaseInput.FOUND_SILENT


def test_one_packet_wipes_every_refusal() -> None:
    evidence = Evidence(Instant(0))
    evidence.port_refusals += [at(1), at(400)]
    evidence.engine_said(False, True, at(2))
    evidence.engine_said(False, True, at(402))
    evidence.lived(at(403), FAST, is_recent=True)
    assert judge(evidence, FAST, seen(500)) is CaseInput.FOUND_NOTHING


def test_a_silent_agent_whose_engine_answers_hangs_and_is_not_dead() -> None:
    evidence = Evidence(Instant(0))
    evidence.engine_said(True, False, at(1_000))
    assert judge(evidence, FAST, seen(2_500)) is CaseInput.FOUND_AGENT_GONE
    assert judge(evidence, FAST, seen(2_500, restarting=True)) is CaseInput.FOUND_NOTHING
    evidence.engine_said(False, False, at(2_600))
    assert judge(evidence, FAST, seen(2_700)) is CaseInput.FOUND_AGENT_GONE
    evidence.engine_said(False, False, at(3_600))
    assert judge(evidence, FAST, seen(3_700)) is CaseInput.FOUND_SILENT


@pytest.mark.parametrize(("answers", "found"), [(7, CaseInput.FOUND_NOTHING), (5, CaseInput.FOUND_DEGRADED)])
def test_fewer_than_half_of_its_answers_over_ten_seconds_is_degraded(answers: int, found: CaseInput) -> None:
    evidence = Evidence(Instant(0))
    for number in range(14):
        evidence.pinged(number, at(number * 500))
        if number < answers:
            evidence.answered(number, at(number * 500 + 2))
    evidence.lived(at(9_900), FAST, is_recent=True)
    evidence.deaf_since = at(9_000)
    assert judge(evidence, FAST, seen(10_000)) is found
    assert judge(evidence, FAST, seen(9_999)) is CaseInput.FOUND_NOTHING


def test_answers_in_a_row_end_with_a_ping_that_got_none() -> None:
    evidence = Evidence(Instant(0))
    for number in range(5):
        evidence.pinged(number, at(number))
        if number != 2:
            assert evidence.answered(number, at(number))
    assert evidence.answers_in_a_row == 2
    assert not evidence.answered(0, at(9))
    assert not evidence.answered(77, at(9))


def test_a_restart_forgets_silence_refusals_and_answers() -> None:
    evidence = Evidence(Instant(0))
    evidence.port_refusals.append(at(1))
    evidence.engine_said(False, True, at(2))
    evidence.engine_said(False, True, at(400))
    evidence.restart(at(3_000))
    assert judge(evidence, FAST, seen(3_000)) is CaseInput.FOUND_NOTHING
    assert judge(evidence, FAST, seen(5_499)) is CaseInput.FOUND_NOTHING
    assert judge(evidence, FAST, seen(5_500)) is CaseInput.FOUND_SILENT
    assert evidence.first_opened == 0
    assert evidence.opened == 3 * SECOND_NS


def test_refusals_of_an_agent_that_says_it_is_late_wait_for_its_word() -> None:
    """Forged ones look like true ones; a packet withdraws them, and that of a late agent comes later."""
    evidence = Evidence(at(0))
    evidence.port_refusals += [at(1), at(400)]
    evidence.engine_said(True, False, at(400))
    assert judge(evidence, FAST, seen(400)) is CaseInput.FOUND_AGENT_GONE
    assert judge(evidence, FAST, seen(400, tolerance_ns=at(1_000))) is CaseInput.FOUND_NOTHING
    evidence.port_refusals[1] = at(1_350)
    assert judge(evidence, FAST, seen(1_350, tolerance_ns=at(1_000))) is CaseInput.FOUND_AGENT_GONE


def test_an_engine_that_refuses_all_day_is_remembered_by_its_first_and_last() -> None:
    evidence = Evidence(Instant(0))
    for second in range(1, 1_000):
        evidence.engine_said(False, True, Instant(second * SECOND_NS))
    assert evidence.engine_refusals == [SECOND_NS, 999 * SECOND_NS]


@pytest.mark.parametrize("what", ["deaf", "degraded"])
def test_who_sends_and_does_not_answer_is_no_more_than_unattended_while_its_engine_serves(what: str) -> None:
    evidence = Evidence(at(0))
    for number in range(40):
        evidence.pinged(number, at(500 * number))
        evidence.lived(at(500 * number + 1), FAST, is_recent=True)
        if what == "degraded" and number % 4 == 0:
            evidence.answered(number, at(500 * number + 2))
    found = CaseInput.FOUND_DEAF if what == "deaf" else CaseInput.FOUND_DEGRADED
    assert judge(evidence, FAST, seen(20_000)) is found
    evidence.engine_said(True, False, at(20_000))
    evidence.lived(at(20_001), FAST, is_recent=True)
    assert judge(evidence, FAST, seen(20_002)) is CaseInput.FOUND_AGENT_GONE
    assert judge(evidence, FAST, seen(20_002, restarting=True)) is CaseInput.FOUND_NOTHING
    evidence.engine_said(False, True, at(20_003))
    assert judge(evidence, FAST, seen(20_004)) is found, "what refuses does not serve"


def test_what_our_own_link_loses_is_no_fault_of_the_target() -> None:
    evidence = Evidence(at(0))
    for number in range(40):
        evidence.pinged(number, at(500 * number))
        evidence.lived(at(500 * number + 1), FAST, is_recent=True)
        if number % 5 < 2:
            evidence.answered(number, at(500 * number + 2))
    assert judge(evidence, FAST, seen(20_000)) is CaseInput.FOUND_DEGRADED
    assert judge(evidence, FAST, seen(20_000, usual_percent=64)) is CaseInput.FOUND_NOTHING


def test_who_sends_and_answers_nothing_is_asked_by_other_ways() -> None:
    evidence = Evidence(at(0))
    for number in range(4):
        evidence.pinged(number, at(500 * number))
    assert not evidence.is_unheeded(at(2_600)), "it was not heard either"
    evidence.lived(at(2_000), FAST, is_recent=True)
    for number in range(4, 8):
        assert not evidence.is_unheeded(at(500 * number + 1_001)), "too few say nothing"
        evidence.pinged(number, at(500 * number + 1))
    assert evidence.is_unheeded(at(4_600))
    evidence.answered(5, at(4_600))
    assert not evidence.is_unheeded(at(4_600))


def test_an_answer_that_took_too_long_is_none() -> None:
    evidence = Evidence(at(0))
    evidence.pinged(1, at(0))
    assert not evidence.answered(1, at(2_501), FAST.silence_ns)
    assert evidence.answered(1, at(2_500), FAST.silence_ns)
