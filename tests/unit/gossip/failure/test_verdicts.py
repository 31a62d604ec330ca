"""Verdicts against attackers: what five honest votes prove, and what looks like it and proves nothing."""

from collections.abc import Callable

import msgspec
import pytest

from gossipmesh.gossip.failure.verdicts import decode_verdict_untrusted, make_verdict
from gossipmesh.gossip.membership.catalog import Checks, order_start
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import node_id_of, node_spiffe_id
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import (
    SEQUENCE_WHOLE,
    Cause,
    RecordKind,
    SignedRecord,
    Verdict,
    Vote,
)
from gossipmesh.testing.swim.claims import sign_claim
from gossipmesh.trust.records import vote_bytes
from gossipmesh.wire.codec import decode_untrusted, encode
from gossipmesh.wire.datagram import Unvote, encode_message
from tests.unit.gossip.group import DOMAIN, Group, key_of

NAMES = "a b c d e f g h i j k l m n"
TARGET = "n"
BEAT = 1_000


def id_of(name: str):
    return node_id_of(node_spiffe_id(DOMAIN, name))


@pytest.fixture(scope="module")
def mesh() -> Group:
    group = Group(NAMES)
    group.start_all()
    group.run_until(group.converged, 10)
    group.run(5)
    return group


def judge_of(group: Group) -> GossipNode:
    """Return a node that is no monitor of the target: it can only judge."""
    return group.node(next(name for name in NAMES.split() if name not in ranked(group) and name != TARGET))


def ranked(group: Group) -> list[str]:
    names = {id_of(name): name for name in NAMES.split()}
    monitors = group.node("a")._detector.monitors
    return [names[node_id] for node_id in monitors.of(id_of(TARGET), 8)]


def vote(group: Group, voter: str, **fields) -> Vote:
    state = group.node(TARGET).own_state
    content = {
        "node_id": id_of(TARGET),
        "generation": state.generation,
        "epoch": state.epoch,
        "cause": int(Cause.SILENT),
        "voter": id_of(voter),
        "sequence": 1,
        "beat": BEAT,
        "signature": b"",
    }
    made = Vote(**{**content, **fields})
    signer = fields.get("signature") or key_of(voter).sign(vote_bytes(DOMAIN, made))
    return msgspec.structs.replace(made, signature=signer)


def honest(group: Group, count: int = 5) -> list[Vote]:
    return [vote(group, name) for name in ranked(group)[:count]]


def verdict(votes: list[Vote], status: MemberStatus = MemberStatus.DEAD) -> SignedRecord:
    return make_verdict(votes, status)


def altered(record: SignedRecord, **fields) -> SignedRecord:
    held = decode_untrusted(record.body, Verdict, bytes_max=limits.RECORD_BYTES_MAX)
    return SignedRecord(record.kind, encode(msgspec.structs.replace(held, **fields)), b"")


def believes(group: Group, record: SignedRecord) -> bool:
    """Tell whether the judge would apply a record; nothing is applied."""
    node = judge_of(group)
    judge = node._detector.judge
    checks = Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX)
    member = node._catalog.get(id_of(TARGET))
    try:
        held = decode_verdict_untrusted(record)
        judge.require_valid_untrusted(held, checks)
    except MalformedInput:
        return False
    return order_start(held.order) == order_start(member.state.order)


def other_cause(group: Group) -> SignedRecord:
    return verdict([vote(group, name, cause=int(Cause.AGENT_GONE)) for name in ranked(group)[:5]])


def outsiders(group: Group) -> SignedRecord:
    names = [name for name in NAMES.split() if name != TARGET]
    ranks = group.node("a")._detector.monitors
    far = [name for name in names if ranks.rank_as_if(id_of(TARGET), id_of(name)) > 10]
    return verdict([*honest(group, 4), vote(group, far[0])])


def replayed(group: Group) -> SignedRecord:
    old = [vote(group, name, beat=BEAT - 65) for name in ranked(group)[3:5]]
    return verdict([*honest(group, 3), *old])


def twice(group: Group) -> SignedRecord:
    votes = honest(group, 4)
    return verdict([*votes, msgspec.structs.replace(votes[0], sequence=2)])


def stolen_signature(group: Group) -> SignedRecord:
    votes = honest(group, 5)
    return verdict([*votes[:4], msgspec.structs.replace(votes[4], signature=votes[3].signature)])


def unsigned_besides(group: Group) -> SignedRecord:
    votes = honest(group, 6)
    return verdict([*votes[:5], msgspec.structs.replace(votes[5], beat=BEAT + 1, signature=bytes(64))])


def borrowed(group: Group) -> SignedRecord:
    """Honest votes about somebody else, relabelled."""
    about = [vote(group, name, node_id=id_of("a")) for name in ranked(group)[:5] if name != "a"]
    return altered(verdict(about), node_id=id_of(TARGET))


def colluders(group: Group) -> SignedRecord:
    """Four monitors are one short, whatever a fifth name they write below."""
    votes = honest(group, 4)
    return verdict([*votes, msgspec.structs.replace(votes[0], voter=id_of(ranked(group)[5]))])


ATTACKS: dict[str, Callable[[Group], SignedRecord]] = {
    "a vote short of a quorum": lambda group: verdict(honest(group, 4)),
    "one vote twice": twice,
    "four colluders and a name": colluders,
    "votes of different hours": replayed,
    "a voter of a rank beyond ten": outsiders,
    "the target's own vote": lambda group: verdict([*honest(group, 4), vote(group, TARGET)]),
    "a signature of another vote": stolen_signature,
    "a vote nobody signed beyond a quorum": unsigned_besides,
    "votes about another member": borrowed,
    "votes of another incarnation": lambda group: altered(verdict(honest(group)), epoch=2),
    "the last epoch there is": lambda group: altered(verdict(honest(group)), epoch=2**64 - 1),
    "one state of an incarnation": lambda group: altered(verdict(honest(group)), sequence=1),
    "no sequence there is": lambda group: altered(verdict(honest(group)), sequence=2**64 - 1),
    "dead by votes that only the agent is gone": other_cause,
    "a status nobody may condemn": lambda group: altered(verdict(honest(group)), status=4),
    "an unknown cause": lambda group: verdict([vote(group, name, cause=9) for name in ranked(group)[:5]]),
    "no votes": lambda group: altered(verdict(honest(group)), votes=()),
    "a signature of its own": lambda group: msgspec.structs.replace(
        verdict(honest(group)), signature=bytes(64)
    ),
    "bytes behind it": lambda group: msgspec.structs.replace(
        verdict(honest(group)), body=verdict(honest(group)).body + b"\0"
    ),
}


def test_five_honest_monitors_are_believed_by_anybody(mesh: Group) -> None:
    assert believes(mesh, verdict(honest(mesh)))
    assert believes(mesh, verdict([vote(mesh, name) for name in ranked(mesh)[3:8]]))
    assert believes(mesh, verdict(honest(mesh), MemberStatus.UNATTENDED))


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_looks_like_a_quorum_and_is_none_is_not_believed(attack: str, mesh: Group) -> None:
    assert not believes(mesh, ATTACKS[attack](mesh))


@pytest.mark.parametrize("attack", ["one vote twice", "the last epoch there is", "votes of different hours"])
def test_a_member_that_pushes_it_changes_nothing_anywhere(attack: str, mesh: Group) -> None:
    record = ATTACKS[attack](mesh)
    node = judge_of(mesh)
    sender = node._catalog.get(id_of("a"))
    before = node.state_sums()
    node._intake.take(record, sender, Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX))
    node._ctx.drain()
    assert node.state_sums() == before
    assert node._catalog.get(id_of(TARGET)).status is MemberStatus.ALIVE


def test_a_newcomer_judges_nothing_before_its_view_was_whole(mesh: Group) -> None:
    node = judge_of(mesh)
    node._detector.judge.view_is_whole = False
    try:
        assert not believes(mesh, verdict(honest(mesh)))
    finally:
        node._detector.judge.view_is_whole = True


def test_a_voter_that_died_meanwhile_still_counts(mesh: Group) -> None:
    node = judge_of(mesh)
    voter = node._catalog.get(id_of(ranked(mesh)[0]))
    record = verdict(honest(mesh))
    voter.status = MemberStatus.DEAD
    node._catalog.standing.note(voter)
    node._catalog.note_eligible()
    try:
        assert believes(mesh, record)
    finally:
        voter.status = MemberStatus.ALIVE
        node._catalog.standing.note(voter)
        node._catalog.note_eligible()


def test_a_forged_verdict_against_ourselves_raises_no_epoch(mesh: Group) -> None:
    node = mesh.node(TARGET)
    epoch = node.own_state.epoch
    sender = node._catalog.get(id_of("a"))
    for record in (
        verdict(honest(mesh, 1)),
        stolen_signature(mesh),
        altered(verdict(honest(mesh)), epoch=2**61),
        altered(verdict(honest(mesh)), epoch=epoch + 1),
    ):
        held = decode_untrusted(record.body, Verdict, bytes_max=limits.RECORD_BYTES_MAX)
        if len(held.votes) > 1:
            spoiled = tuple(msgspec.structs.replace(v, signature=bytes(64)) for v in held.votes)
            record = altered(record, votes=spoiled)
        node._intake.take(record, sender, Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX))
        node._ctx.drain()
    assert node.own_state.epoch == epoch


def receive(group: Group, at: str, sender: str, message: Vote | Unvote) -> None:
    node = group.node(at)
    member = node._catalog.get(id_of(sender))
    if isinstance(message, Vote):
        node._detector.receive_vote(member, message, Instant(group.now), Checks(12))
    else:
        node._detector.receive_unvote(member, message)
    node._ctx.drain()


def held_votes(group: Group, at: str) -> int:
    node = group.node(at)
    incarnation = order_start(node._catalog.get(id_of(TARGET)).state.order)
    return len(node._detector.votes.fresh(id_of(TARGET), incarnation, node._ctx.now))


def test_only_a_monitors_own_vote_about_the_present_incarnation_is_collected(mesh: Group) -> None:
    collector, voter, other = ranked(mesh)[:3]
    outsider = next(
        name
        for name in NAMES.split()
        if mesh.node(collector)._detector.monitors.rank_as_if(id_of(TARGET), id_of(name)) > 10
        and name not in (TARGET, collector)
    )
    refused = [
        (other, vote(mesh, voter)),  # passed on by somebody else
        (outsider, vote(mesh, outsider)),  # no monitor
        (voter, vote(mesh, voter, epoch=2)),  # another incarnation
        (voter, vote(mesh, voter, epoch=2**64 - 1)),
        (voter, vote(mesh, voter, cause=77)),
        (voter, vote(mesh, voter, signature=bytes(64))),  # forged
    ]
    for sender, message in refused:
        receive(mesh, collector, sender, message)
        assert held_votes(mesh, collector) == 0, message
    receive(mesh, collector, voter, vote(mesh, voter, sequence=5))
    assert held_votes(mesh, collector) == 1
    receive(mesh, collector, other, Unvote(id_of(TARGET), 9))
    assert held_votes(mesh, collector) == 1
    receive(mesh, collector, voter, Unvote(id_of(TARGET), 5))
    assert held_votes(mesh, collector) == 0


def test_a_claim_of_the_other_detector_counts_for_nothing(mesh: Group) -> None:
    state = mesh.node(TARGET).own_state
    _, record = sign_claim(DOMAIN, key_of("a"), id_of("a"), state.node_id, state.order, MemberStatus.DEAD)
    node = judge_of(mesh)
    node._intake.take(record, node._catalog.get(id_of("a")), Checks(12))
    node._ctx.drain()
    assert node._catalog.get(id_of(TARGET)).status is MemberStatus.ALIVE


def test_a_verdict_is_small_and_says_it_is_about_a_whole_incarnation(mesh: Group) -> None:
    record = verdict(honest(mesh))
    assert record.kind == RecordKind.VERDICT
    assert len(encode_message(record)) <= 40 + 5 * 100
    assert decode_verdict_untrusted(record).sequence == SEQUENCE_WHOLE
