"""Small tests that stand between a rule of the voting monitors and its loss; see `tests.mutants.table`."""

import msgspec
import pytest

from gossipmesh.gossip.base.settings import FAST
from gossipmesh.gossip.failure.cases import MOVES, Act, CaseInput, CaseState, Circumstances, Evidence, judge
from gossipmesh.gossip.failure.mass_death import MassDeath
from gossipmesh.gossip.failure.monitors import panel_of
from gossipmesh.gossip.failure.quarantine import Quarantine
from gossipmesh.gossip.failure.verdicts import brings_quarantine, decode_verdict_untrusted, make_verdict
from gossipmesh.gossip.failure.votes import VoteBox, verdict_of
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import Cause, VerdictVote, Vote
from gossipmesh.trust.records import vote_bytes
from gossipmesh.wire.codec import encode
from tests.unit.gossip.group import Group, credential_of

TARGET = NodeId(b"target".ljust(16))


def voter(number: int) -> NodeId:
    return NodeId((b"voter %d" % number).ljust(16))


def vote(
    number: int, *, sequence: int = 1, beat: int = 100, cause: Cause = Cause.SILENT, epoch: int = 1
) -> Vote:
    return Vote(TARGET, 1, epoch, int(cause), voter(number), sequence, beat, b"")


def box_of(*votes: Vote, at: int = 0) -> VoteBox:
    box = VoteBox(FAST)
    for one in votes:
        assert box.put(one, Instant(at))
    return box


@pytest.mark.parametrize(
    ("others", "quorum"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 3), (7, 4), (8, 5), (9, 5), (999, 5)]
)
def test_a_quorum_is_more_than_half_and_two_nodes_condemn_nobody(others: int, quorum: int) -> None:
    assert panel_of(others, 8).quorum == quorum


def test_a_vote_taken_back_counts_no_more() -> None:
    box = box_of(vote(1), vote(2, sequence=7))
    assert box.withdraw(TARGET, voter(2), 7, Instant(0))
    assert [v.voter for v in box.fresh(TARGET, (1, 1), Instant(1))] == [voter(1)]
    assert not box.put(vote(2, sequence=7), Instant(2)), "the vote that was taken back came late"
    assert box.put(vote(2, sequence=8), Instant(3))


def test_a_vote_lives_two_seconds() -> None:
    box = box_of(vote(1))
    assert box.quorum(TARGET, (1, 1), 1, Instant(2 * SECOND_NS)) is not None
    assert box.quorum(TARGET, (1, 1), 1, Instant(2 * SECOND_NS + 1)) is None


def test_a_voter_counts_once_however_often_it_votes() -> None:
    box = box_of(vote(1), vote(1, sequence=2), vote(1, sequence=3))
    assert box.quorum(TARGET, (1, 1), 2, Instant(1)) is None
    assert not box.put(vote(1, sequence=3), Instant(SECOND_NS)), "a vote replayed is not a fresh one"


def test_a_vote_is_about_one_incarnation() -> None:
    box = box_of(vote(1), vote(2, epoch=2))
    assert box.quorum(TARGET, (1, 1), 2, Instant(1)) is None


@pytest.mark.parametrize(
    ("beat", "together"), [(100, True), (164, True), (165, False), (100 + 4 * 3_600, False)]
)
def test_votes_of_different_hours_make_no_quorum(beat: int, together: bool) -> None:
    found = verdict_of([vote(1), vote(2, beat=beat)], 2, FAST.beats_apart_max)
    assert (found is not None) is together


def test_that_an_agent_is_gone_kills_nobody() -> None:
    votes = [vote(1), vote(2, cause=Cause.AGENT_GONE)]
    found = verdict_of(votes, 2, FAST.beats_apart_max)
    assert found is not None
    assert found[0] is MemberStatus.UNATTENDED


def circumstances(
    at: int, *, tolerance_ns: int = 0, passed: bool = True, restarting: bool = False
) -> Circumstances:
    return Circumstances(at, tolerance_ns, passed, restarting)


def test_silence_is_believed_only_while_the_rest_of_the_world_is_heard() -> None:
    evidence = Evidence(Instant(0))
    late = 3 * SECOND_NS
    assert judge(evidence, FAST, circumstances(late, passed=False)) is CaseInput.FOUND_NOTHING
    assert judge(evidence, FAST, circumstances(late)) is CaseInput.FOUND_SILENT


def test_silence_takes_its_time_and_longer_for_who_lags() -> None:
    evidence = Evidence(Instant(0))
    almost, enough = FAST.silence_ns - 1, FAST.silence_ns
    assert judge(evidence, FAST, circumstances(almost)) is CaseInput.FOUND_NOTHING
    assert judge(evidence, FAST, circumstances(enough)) is CaseInput.FOUND_SILENT
    assert judge(evidence, FAST, circumstances(enough, tolerance_ns=1)) is CaseInput.FOUND_NOTHING


def test_a_planned_restart_is_no_refusal() -> None:
    evidence = Evidence(Instant(0))
    evidence.port_refusals = [0, SECOND_NS]
    evidence.engine_said(False, True, Instant(0))
    evidence.engine_said(False, True, Instant(SECOND_NS))
    at = SECOND_NS + 1
    assert judge(evidence, FAST, circumstances(at)) is CaseInput.FOUND_REFUSED
    assert judge(evidence, FAST, circumstances(at, restarting=True)) is CaseInput.FOUND_NOTHING


def test_one_refusal_is_forged_easily() -> None:
    evidence = Evidence(Instant(0))
    evidence.port_refusals = [0]
    evidence.engine_said(False, True, Instant(0))
    assert judge(evidence, FAST, circumstances(FAST.refusal_ns)) is CaseInput.FOUND_NOTHING
    evidence.engine_said(False, True, Instant(FAST.refusal_ns - 1))
    assert judge(evidence, FAST, circumstances(FAST.refusal_ns)) is CaseInput.FOUND_NOTHING


def test_life_withdraws_a_vote_of_silence_and_being_cut_off_withdraws_any() -> None:
    assert MOVES[CaseState.SILENT, CaseInput.LIFE] == (CaseState.WATCHING, Act.UNVOTE)
    assert MOVES[CaseState.REFUSED, CaseInput.LIFE] == (CaseState.WATCHING, Act.UNVOTE)
    for state in (CaseState.SILENT, CaseState.REFUSED, CaseState.DEAF, CaseState.DEGRADED):
        assert MOVES[state, CaseInput.CUT_OFF] == (CaseState.WATCHING, Act.UNVOTE_AND_RESTART)
        assert MOVES[state, CaseInput.SLEPT] == (CaseState.WATCHING, Act.UNVOTE_AND_RESTART)


def test_a_verdict_has_each_voter_once_and_never_its_target() -> None:
    good = make_verdict([vote(2), vote(1)], MemberStatus.DEAD)
    verdict = decode_verdict_untrusted(good)
    twice = (verdict.votes[0], verdict.votes[0], verdict.votes[1])
    own = (*verdict.votes, VerdictVote(1, TARGET, 1, 100, b""))
    for votes in (twice, tuple(sorted(own, key=lambda part: part.voter)), verdict.votes[::-1]):
        changed = msgspec.structs.replace(verdict, votes=votes)
        with pytest.raises(MalformedInput):
            decode_verdict_untrusted(msgspec.structs.replace(good, body=encode(changed)))


def test_a_deaf_member_stays_out_for_two_minutes_and_twice_as_long_the_next_time() -> None:
    quarantine = Quarantine(FAST)
    first = quarantine.begin(Instant(0))
    assert first == 120 * SECOND_NS
    assert quarantine.begin(first) - first == 240 * SECOND_NS
    votes = [vote(1, cause=Cause.DEAF), vote(2, cause=Cause.DEAF)]
    deaf, unattended = (
        decode_verdict_untrusted(make_verdict(votes, status))
        for status in (MemberStatus.DEAD, MemberStatus.UNATTENDED)
    )
    assert brings_quarantine(deaf)
    assert not brings_quarantine(unattended)


def test_many_deaths_in_a_minute_are_held() -> None:
    deaths = MassDeath(FAST)
    held = [deaths.died(voter(number), 10 - number, Instant(number)) for number in range(1, 5)]
    assert held[:3] == [[], [], []]
    assert held[3] == [voter(number) for number in range(1, 5)]
    assert MassDeath(FAST).died(TARGET, 1, Instant(0)) == [], "one alone is no mass"


@pytest.mark.parametrize(
    "other",
    [
        {"node_id": voter(9)},
        {"generation": 2},
        {"epoch": 2},
        {"cause": 2},
        {"voter": voter(2)},
        {"sequence": 2},
        {"beat": 101},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_votes_signature_covers_every_field(other: dict[str, object]) -> None:
    """A verdict carries signatures alone: what they did not cover could be written in."""
    one = vote(1)
    assert vote_bytes("mesh.test", one) != vote_bytes("mesh.test", msgspec.structs.replace(one, **other))
    assert vote_bytes("mesh.test", one) != vote_bytes("mesh.tess", one)


@pytest.mark.parametrize(
    ("beats_ago", "heard_s", "asks"),
    [(0, 3, False), (10, 3, False), (11, 0, True), (11, 9, True), (0, 20, True), (0, 15, False)],
)
def test_a_verdict_older_than_life_asks_its_target_first(beats_ago: int, heard_s: int, asks: bool) -> None:
    """`beats_ago`: how much later we heard the target than its voters; `heard_s`: how long ago that was."""
    group = Group("a b c")
    group.start_all()
    group.run(3)
    node = group.node("b")
    member = node._catalog.get(credential_of("c").node_id)
    assert member is not None
    node._ctx.now = Instant(group.now + 60 * SECOND_NS)
    member.beat, member.heard_at = 500, Instant(node._ctx.now - heard_s * SECOND_NS)
    member.beat_run = member.run
    record = make_verdict([vote(1, beat=500 - beats_ago), vote(2, beat=500 - beats_ago)], MemberStatus.DEAD)
    verdict = decode_verdict_untrusted(record)
    assert node._detector._life.beats(member, verdict) is asks
    # One voter alone makes old votes no younger.
    record = make_verdict([vote(1, beat=500), vote(2, beat=500 - beats_ago)], MemberStatus.DEAD)
    assert node._detector._life.beats(member, decode_verdict_untrusted(record)) is asks
