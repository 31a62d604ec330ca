"""One member with a good credential against a whole group, weapon by weapon; none may succeed.

The hostile member's packets are authentic: sealed on its own links, signed with its own keys. What it cannot
have are the keys of others. docs/PROOF.md has the whole table of attacks with the test of each.
"""

from collections.abc import Callable

import msgspec
import pytest

from gossipmesh.gossip.base.effects import MemberChanged, SendDatagram
from gossipmesh.gossip.failure.verdicts import make_verdict
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address, MemberStatus, NodePhase
from gossipmesh.model.records import Cause, NodeState, RecordKind, ServiceSet, SignedRecord, Vote
from gossipmesh.testing.builders import service_entry
from gossipmesh.testing.swim.claims import CLAIM, Claim
from gossipmesh.testing.swim.node import SwimNode
from gossipmesh.trust.records import sign_record, signed_bytes, vote_bytes
from gossipmesh.wire.datagram import (
    Check,
    Heartbeat,
    PingReq,
    PolicyAnnouncement,
    RelayedAck,
    Unvote,
    VerdictId,
    encode_message,
)
from tests.unit.gossip.group import DOMAIN, Group, credential_of, key_of, policy_set

HOSTILE, VICTIM = "a", "g"
BAD = (MemberStatus.SUSPECT, MemberStatus.UNATTENDED, MemberStatus.DEAD, MemberStatus.LEFT)


def mesh(names: str = "a b c d e f g", *, seed: int = 1, node_class: type[GossipNode] = GossipNode) -> Group:
    """Return a settled group in which everybody hears everybody."""
    group = Group(names, seed=seed, node_class=node_class)
    group.start_all()
    group.run_until(lambda: alive(group) and group.converged(), 15)
    group.run(6)
    for host in group.hosts.values():
        host.events.clear()
    return group


def alive(group: Group) -> bool:
    running = [name for name, host in group.hosts.items() if host.node is not None]
    return all(group.status(at, of) == "alive" for at in running for of in running if at != of)


def send(group: Group, target: str, *messages: bytes, by: str = HOSTILE) -> None:
    """Send messages to one member, each in a properly sealed packet of its own."""
    node = group.node(by)
    member = node._catalog.get(credential_of(target).node_id)
    assert member is not None
    node._ctx.now = Instant(group.now)
    for message in messages:
        node._courier.send(member, [message], fill=False)
    group.perform(group.hosts[by], node._ctx.drain())


def spray(group: Group, *messages: bytes) -> None:
    """Send the same to everybody."""
    for name, host in group.hosts.items():
        if name != HOSTILE and host.node is not None:
            send(group, name, *messages)


def state_of(group: Group, name: str) -> NodeState:
    return group.node(name).own_state


def vote_by(group: Group, voter: str, signer: str, *, beat: int, cause: Cause = Cause.SILENT) -> Vote:
    """Return a vote against the victim in `voter`'s name, signed with `signer`'s key."""
    state = state_of(group, VICTIM)
    unsigned = Vote(
        state.node_id,
        state.generation,
        state.epoch,
        int(cause),
        credential_of(voter).node_id,
        2**40,
        beat,
        b"",
    )
    return msgspec.structs.replace(unsigned, signature=key_of(signer).sign(vote_bytes(DOMAIN, unsigned)))


def beat_of(group: Group, name: str = VICTIM) -> int:
    return group.node(name)._ctx.beat


def verdicts(group: Group, of: str = VICTIM) -> list[tuple[str, str]]:
    """Return who ever held a member anything but alive."""
    return [
        (name, event.status.label)
        for name, host in group.hosts.items()
        for event in host.events
        if isinstance(event, MemberChanged) and event.name == of and event.status in BAD
    ]


# What kills another node: each returns the messages of one volley.


def claims(group: Group) -> list[bytes]:
    state = state_of(group, VICTIM)
    made = [
        Claim(
            state.node_id,
            state.generation,
            state.epoch,
            state.sequence,
            int(status),
            credential_of(HOSTILE).node_id,
        )
        for status in (MemberStatus.SUSPECT, MemberStatus.UNATTENDED, MemberStatus.DEAD)
    ]
    return [encode_message(sign_record(DOMAIN, CLAIM, claim, key_of(HOSTILE))) for claim in made]


def verdict_of_one(group: Group) -> list[bytes]:
    vote = vote_by(group, HOSTILE, HOSTILE, beat=beat_of(group))
    return [encode_message(make_verdict([vote], MemberStatus.DEAD))]


def verdict_of_itself(group: Group) -> list[bytes]:
    """Its own vote under the names of all other monitors."""
    votes = [vote_by(group, name, HOSTILE, beat=beat_of(group)) for name in "abcdef"]
    return [encode_message(make_verdict(votes, MemberStatus.DEAD))]


def verdict_of_copies(group: Group) -> list[bytes]:
    vote = vote_by(group, HOSTILE, HOSTILE, beat=beat_of(group))
    copies = [msgspec.structs.replace(vote, sequence=vote.sequence + n) for n in range(4)]
    return [encode_message(make_verdict(copies, MemberStatus.DEAD))]


def votes_of_all_causes(group: Group) -> list[bytes]:
    return [
        encode_message(vote_by(group, HOSTILE, HOSTILE, beat=beat_of(group), cause=cause)) for cause in Cause
    ]


def votes_of_others(group: Group) -> list[bytes]:
    return [encode_message(vote_by(group, name, HOSTILE, beat=beat_of(group))) for name in "bcdef"]


def alarms(group: Group) -> list[bytes]:
    state = state_of(group, VICTIM)
    return [
        encode_message(Check(state.node_id, state.generation, state.epoch)),
        encode_message(VerdictId(state.node_id, state.generation, state.epoch, int(MemberStatus.DEAD))),
        encode_message(Unvote(state.node_id, 2**60)),
    ]


def death_in_its_name(group: Group) -> list[bytes]:
    """The victim's own leave, signed with the wrong key."""
    state = state_of(group, VICTIM)
    left = msgspec.structs.replace(state, sequence=state.sequence + 9, phase=int(NodePhase.LEFT))
    return [encode_message(sign_record(DOMAIN, RecordKind.NODE_STATE, left, key_of(HOSTILE)))]


WEAPONS: list[Callable[[Group], list[bytes]]] = [
    claims,
    verdict_of_one,
    verdict_of_itself,
    verdict_of_copies,
    votes_of_all_causes,
    votes_of_others,
    alarms,
    death_in_its_name,
]


@pytest.mark.parametrize("weapon", WEAPONS, ids=lambda weapon: weapon.__name__)
def test_one_member_kills_nobody(weapon: Callable[[Group], list[bytes]]) -> None:
    """Five of eight monitors condemn, one member never does; it sends volleys four times a second."""
    group = mesh()
    before = state_of(group, VICTIM)
    for _ in range(24):
        spray(group, *weapon(group))
        group.run(0.25)
    assert verdicts(group) == []
    assert state_of(group, VICTIM).epoch == before.epoch, "the victim had to answer"
    group.run(3)
    assert alive(group)


def test_the_same_claims_do_harm_under_the_other_detector() -> None:
    """The control: the weapon is real, and SWIM has nothing against it but the victim's answer."""
    group = mesh(node_class=SwimNode)
    for _ in range(4):
        spray(group, *claims(group))
        group.run(0.25)
    assert verdicts(group) != []


def test_a_forged_refusal_asks_the_engine_and_kills_nobody() -> None:
    """ICMP can be forged by anybody who can guess an address; here by the hundred, at every member."""
    group = mesh()
    address = group.hosts[VICTIM].address
    for _ in range(20):
        for name in "bcdef":
            effects = group.node(name).port_refused(address, Instant(group.now))
            group.perform(group.hosts[name], effects)
        group.run(0.1)
    group.run(3)
    assert verdicts(group) == []
    assert sum(group.node(name).statistics().votes_cast for name in "bcdef") == 0


@pytest.mark.parametrize("names", ["a b c d e f g", "a b c d e f g h i j k l m n"], ids=["seven", "fourteen"])
def test_votes_that_were_true_once_kill_nobody_later(names: str) -> None:
    """Genuine votes of a moment of silence, kept and put together when the victim has long been back."""
    group = mesh(names)
    monitors = group.node(HOSTILE)._detector.monitors.of(credential_of(VICTIM).node_id, 8)
    voters = [name for name in names.split() if credential_of(name).node_id in monitors]
    quorum = len(voters) // 2 + 1
    old = [vote_by(group, name, name, beat=beat_of(group)) for name in voters[:quorum]]
    group.run(20)
    kept = make_verdict(old, MemberStatus.DEAD)
    spray(group, encode_message(kept))
    group.run(3)
    assert verdicts(group) == []
    fresh = vote_by(group, voters[0], voters[0], beat=beat_of(group))
    mixed = make_verdict([fresh, *old[1:]], MemberStatus.DEAD)
    spray(group, encode_message(mixed))
    group.run(3)
    assert verdicts(group) == []
    assert alive(group)


def test_a_verdict_does_not_outlive_a_restart() -> None:
    """What was true of one start is not brought up against the next."""
    group = mesh()
    old = [vote_by(group, name, name, beat=beat_of(group)) for name in "abcd"]
    record = make_verdict(old, MemberStatus.DEAD)
    group.kill(VICTIM)
    group.start(VICTIM)
    group.run(3)
    assert alive(group)
    for host in group.hosts.values():
        host.events.clear()
    for _ in range(8):
        spray(group, encode_message(record), *(encode_message(vote) for vote in old))
        group.run(0.5)
    assert verdicts(group) == []


def test_nobody_raises_the_dead() -> None:
    """All that the dead node ever sent is sent again, and its states are forged above its last."""
    group = mesh()
    start = len(group.trace)
    group.run(3)
    sent = [entry for entry in group.trace[start:] if entry[1] == VICTIM]
    last = group.node(HOSTILE)._catalog.get(credential_of(VICTIM).node_id)
    assert last is not None
    genuine = last.messages[RecordKind.NODE_STATE]
    state = state_of(group, VICTIM)
    group.kill(VICTIM, silent=True)
    group.run_until(lambda: set(group.statuses(VICTIM).values()) == {"dead"}, 12)
    above = [
        msgspec.structs.replace(state, sequence=state.sequence + 5),
        msgspec.structs.replace(state, epoch=state.epoch + 1),
    ]
    forged = [
        encode_message(sign_record(DOMAIN, RecordKind.NODE_STATE, one, key_of(HOSTILE))) for one in above
    ]
    for _ in range(6):
        spray(group, genuine, *forged)
        for at, _, destination, payload in sent:
            assert at <= group.now
            target = next(h for h in group.hosts.values() if str(h.address) == destination)
            if target.node is not None:
                sender = group.hosts[VICTIM].address
                group.perform(target, target.node.receive_datagram(payload, sender, Instant(group.now)))
        group.run(0.5)
    assert set(group.statuses(VICTIM).values()) == {"dead"}


def test_who_left_is_not_brought_back() -> None:
    group = mesh()
    member = group.node(HOSTILE)._catalog.get(credential_of(VICTIM).node_id)
    assert member is not None
    earlier = member.messages[RecordKind.NODE_STATE]
    group.perform(group.hosts[VICTIM], group.node(VICTIM).leave(Instant(group.now)))
    group.run_until(lambda: set(group.statuses(VICTIM).values()) == {"left"}, 3)
    group.kill(VICTIM, silent=True)
    for _ in range(8):
        spray(group, earlier)
        group.run(0.25)
    assert set(group.statuses(VICTIM).values()) == {"left"}


def forged_in_its_name(group: Group) -> list[SignedRecord]:
    """Every kind of record about the victim, above its own, signed by the hostile member."""
    state, key = state_of(group, VICTIM), key_of(HOSTILE)
    above = {"generation": state.generation, "epoch": state.epoch, "sequence": state.sequence + 5}
    moved = msgspec.structs.replace(
        state, sequence=state.sequence + 5, gossip_addresses=(Address("10.66.6.6", 7948),)
    )
    services = ServiceSet(state.node_id, *above.values(), (service_entry("shop/evil"),))
    records = [
        sign_record(DOMAIN, RecordKind.NODE_STATE, moved, key),
        sign_record(DOMAIN, RecordKind.SERVICE_SET, services, key),
        sign_record(DOMAIN, RecordKind.CREDENTIAL, credential_of(VICTIM, serial=9), key),
    ]
    unknown = SignedRecord(200, records[1].body, key.sign(signed_bytes(DOMAIN, 200, records[1].body)))
    far = [msgspec.structs.replace(moved, epoch=epoch) for epoch in (2**62 - 1, 2**63 - 1, 2**64 - 1)]
    return [*records, unknown, *(sign_record(DOMAIN, RecordKind.NODE_STATE, one, key) for one in far)]


def test_nobody_speaks_for_another() -> None:
    """G22: states, addresses, services, credentials and unknown kinds in another's name."""
    group = mesh()
    sums = {name: group.node(name).state_sums() for name in group.hosts}
    held = {name: group.node(name).members() for name in group.hosts}
    for _ in range(4):
        spray(group, *(encode_message(record) for record in forged_in_its_name(group)))
        group.run(0.25)
    assert {name: group.node(name).state_sums() for name in group.hosts} == sums
    for name in group.hosts:
        assert [(v.name, v.state) for v in group.node(name).members()] == [
            (v.name, v.state) for v in held[name]
        ]
    assert verdicts(group) == []


@pytest.mark.parametrize("epoch", [2**40, 2**62 - 1, 2**62, 2**63 - 1, 2**64 - 1])
def test_an_epoch_without_end_is_nobodys(epoch: int) -> None:
    """Not even its own: a stolen key must not put its node where it could never be outbid."""
    group = mesh("a b c")
    state = msgspec.structs.replace(state_of(group, HOSTILE), epoch=epoch)
    record = sign_record(DOMAIN, RecordKind.NODE_STATE, state, key_of(HOSTILE))
    spray(group, encode_message(record))
    group.run(1)
    for name in "bc":
        member = group.node(name)._catalog.get(credential_of(HOSTILE).node_id)
        assert member is not None
        assert member.order.epoch < epoch
    assert alive(group)


def test_a_document_rolled_back_by_one_member_is_rolled_back_nowhere() -> None:
    group = mesh("a b c d")
    group.perform(group.hosts["b"], group.node("b").offer_policy(policy_set(1), Instant(group.now)))
    group.run(2)
    group.perform(group.hosts["b"], group.node("b").offer_policy(policy_set(2), Instant(group.now)))
    group.run_until(lambda: {group.node(n).own_state.policies[0].version for n in "abcd"} == {2}, 3)
    liar = group.node(HOSTILE)
    old = policy_set(1).to_bytes()
    liar._spreading.answer_policy = lambda scope: old
    held = liar._ctx.documents.in_force("mesh")
    assert held is not None
    for version in (1, 2, 3, 2**31, 2**40):
        for manifest_hash in (held.manifest_hash, bytes(32), b"\xff" * 32):
            spray(group, encode_message(PolicyAnnouncement("mesh", version, manifest_hash)))
        group.run(1)
    assert {group.node(name).own_state.policies[0].version for name in "bcd"} == {2}
    assert all(group.node(name)._ctx.documents.floor("mesh") == held.floor for name in "bcd")


def test_replays_after_a_restart_prove_nothing() -> None:
    """All that was ever sent to a node is sent to its next start: nothing opens, nobody lives by it."""
    group = mesh("a b c d")
    start = len(group.trace)
    group.run(4)
    address = str(group.hosts["b"].address)
    recorded = [(source, payload) for _, source, to, payload in group.trace[start:] if to == address]
    assert len(recorded) >= 10
    group.kill("b")
    node = group.start("b")
    group.run_until(lambda: alive(group), 10)
    sums, heard = node.state_sums(), {m.name: m.heard_at for m in node._catalog}
    for source, payload in recorded:
        effects = node.receive_datagram(payload, group.hosts[source].address, Instant(group.now))
        assert sum(len(e.payload) for e in effects if isinstance(e, SendDatagram)) <= len(payload)
    assert node.state_sums() == sums
    assert {m.name: m.heard_at for m in node._catalog} == heard


def test_a_flood_by_a_member_delays_no_verdict_and_causes_none() -> None:
    """Two hundred authentic packets a second to each: bounded work, all alive, a real death still found."""
    group = mesh()
    checks = {name: group.node(name).statistics().signature_checks for name in "bcdef"}
    state = state_of(group, HOSTILE)
    own = [
        encode_message(
            sign_record(
                DOMAIN,
                RecordKind.SERVICE_SET,
                ServiceSet(state.node_id, state.generation, state.epoch, 1_000 + n, ()),
                key_of(HOSTILE),
            )
        )
        for n in range(20)
    ]
    for _ in range(10):
        spray(group, *own, encode_message(Heartbeat()))
        group.run(0.1)
    assert verdicts(group) == []
    for name, before in checks.items():
        assert group.node(name).statistics().signature_checks - before < 200
    group.kill(VICTIM, silent=True)
    group.run_until(lambda: {group.status(name, VICTIM) for name in "bcdef"} == {"dead"}, 8)
    assert [
        of for name in "bcdef" for of in "bcdef" if name != of and group.status(name, of) != "alive"
    ] == []


@pytest.mark.parametrize("names", ["a b c g", "a b c d e f g"], ids=["four", "seven"])
def test_a_helper_that_lies_hides_no_death(names: str) -> None:
    """It answers every ping-req at once, so that nobody's probe of the dead ever fails."""
    group = mesh(names)
    prober = group.node(HOSTILE)._detector.prober

    def lie(member, request) -> None:
        prober._courier.send(member, [encode_message(RelayedAck(request.sequence))])

    prober.receive_ping_req = lie
    honest = prober.conclude
    prober.conclude = lambda sequence: honest(sequence) and None  # and it never raises an alarm itself
    group.node(HOSTILE)._detector.desk.open = lambda member, why, **more: None
    group.kill(VICTIM, silent=True)
    others = [name for name in names.split() if name not in (HOSTILE, VICTIM)]
    group.run_until(lambda: {group.status(name, VICTIM) for name in others} == {"dead"}, 12)


def test_a_member_makes_nobody_flood_a_third() -> None:
    """Its ping-reqs, many to a packet, have the victim ping its own monitor, which would drop its acks."""
    group = mesh("a b c g")
    node, victim = group.node(HOSTILE), group.node(VICTIM)
    asked = [encode_message(PingReq(1, credential_of("b").node_id))] * 30
    start = len(group.trace)
    for _ in range(1_000):
        node._ctx.now = Instant(group.now)
        node._courier.send(node._catalog.get(credential_of(VICTIM).node_id), asked, fill=False)
        group.perform(group.hosts[HOSTILE], node._ctx.drain())
        group.run(0.004)
    target = str(group.hosts["b"].address)
    pings = sum(1 for _, by, to, _ in group.trace[start:] if (by, to) == (VICTIM, target))
    assert pings < 400, "thirty thousand were asked for"
    assert victim.statistics().dropped["ping-req over budget"] > 29_000
    assert "member over budget" not in group.node("b").statistics().dropped
    assert verdicts(group) == []
    assert alive(group)
