"""One member that answers streams out of place, without end, or too much: others do what it holds up."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from gossipmesh.gossip.base.effects import Revoked
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.sessions.session import Session
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Order
from gossipmesh.model.records import SignedRecord
from gossipmesh.trust.records import signed_bytes
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import PolicyAnnouncement, TrustAnnouncement, encode_message
from gossipmesh.wire.frames import (
    Compare,
    DocumentsSummary,
    Done,
    Entries,
    FetchPolicy,
    FetchTrust,
    PolicyPart,
    ShutOut,
    TrustPart,
    encode_records_frame,
)
from tests.simulation.test_byzantine import HOSTILE, mesh, spray
from tests.unit.gossip.group import DOMAIN, Group, credential_of, key_of, policy_set, trust_envelope
from tests.unit.gossip.test_transcripts import CART, publish

_HONEST = "bcdef"
_NOBODYS = 2**31  # of the generation in force: of another nobody asks for the set


def answers_with(node: GossipNode, answer: Callable[[Session, object], bool]) -> None:
    """Have a member answer some questions in its own way; those `answer` says False to, as always."""
    repair = node._repair
    honest = repair._receive_question
    repair._receive_question = lambda session, message: answer(session, message) or honest(session, message)


def drips(group: Group, *kinds: type) -> None:
    """Have the hostile member answer such questions with nothing, every five seconds, for ever."""
    node = group.node(HOSTILE)
    held: list[tuple[Session, object]] = []
    shapes = {FetchPolicy: PolicyPart(1_000, b"?"), FetchTrust: TrustPart(1_000, b"?")}

    def answer(session: Session, message: object) -> bool:
        if not isinstance(message, kinds):
            return False
        held.append((session, shapes.get(type(message), encode_records_frame([], more=False))))
        return True

    def drip() -> None:
        node._ctx.timers.set(("drip", None), node._ctx.now + 5 * SECOND_NS)
        for session, frame in held:
            if session.stream in node._streams._sessions:
                node._streams._watch(session, 10**13)
                node._streams.say(session, frame)

    answers_with(node, answer)
    node._deadlines["drip"] = drip
    node._ctx.timers.set(("drip", None), node._ctx.now + 5 * SECOND_NS)


def announce_nonsense(group: Group) -> None:
    spray(
        group,
        encode_message(PolicyAnnouncement("mesh", _NOBODYS, bytes(32))),
        encode_message(TrustAnnouncement(_NOBODYS)),
    )


def offer_both(group: Group, at: str) -> None:
    node, host = group.node(at), group.hosts[at]
    group.perform(host, node.offer_policy(policy_set(1), Instant(group.now)))
    group.perform(host, node.offer_trust(trust_envelope(2), Instant(group.now)))


def all_hold_both(group: Group) -> bool:
    nodes = [group.node(name) for name in _HONEST]
    return all(
        [policy.version for policy in node.own_state.policies] == [1]
        and node._spreading._trust_version() == 2
        for node in nodes
    )


def test_an_end_out_of_place_freezes_no_document() -> None:
    """It announces versions nobody has and answers whoever asks for them "done"."""
    group = mesh("a b c d e f")
    node = group.node(HOSTILE)

    def done(session: Session, message: object) -> bool:
        if isinstance(message, FetchPolicy | FetchTrust):
            node._streams.say(session, Done(bytes(16), bytes(16)))
        return isinstance(message, FetchPolicy | FetchTrust)

    answers_with(node, done)
    announce_nonsense(group)
    group.run(1)
    offer_both(group, "c")
    group.run_until(lambda: all_hold_both(group), 2)


@pytest.mark.parametrize("version", [0, 1, 2**31])
def test_being_told_that_trust_shuts_one_out_ends_nobody_and_freezes_nothing(version: int) -> None:
    """Whatever it is asked for: of Trust that is held nothing is believed, later Trust it does not have."""
    group = mesh("a b c d e f")
    node = group.node(HOSTILE)

    def shuts_out(session: Session, message: object) -> bool:
        if not isinstance(message, FetchTrust):
            node._streams.say(session, ShutOut(version))
        return not isinstance(message, FetchTrust)

    answers_with(node, shuts_out)
    announce_nonsense(group)
    group.run(5)
    offer_both(group, "c")
    group.run_until(lambda: all_hold_both(group), 5)
    assert not [event for host in group.hosts.values() for event in host.events if isinstance(event, Revoked)]


def test_documents_spun_out_without_end_keep_no_genuine_ones_out() -> None:
    """Its announcement is the highest there is, again and again; what others announce is fetched of them."""
    group = mesh("a b c d e f")
    drips(group, FetchPolicy, FetchTrust)
    announce_nonsense(group)
    group.run(1)
    offer_both(group, "c")
    for second in range(20):
        spray(group, encode_message(PolicyAnnouncement("mesh", _NOBODYS + second, bytes(32))))
        group.run(1)
    assert all_hold_both(group)


def test_one_member_takes_few_of_the_streams_a_node_may_open() -> None:
    group = mesh("a b c d e f")
    drips(group, FetchPolicy)
    spray(group, *(encode_message(PolicyAnnouncement(f"s{n}", _NOBODYS, bytes(32))) for n in range(60)))
    group.run(0.5)
    opened = [session for session in group.node("b")._streams._sessions.values() if session.opener]
    assert 0 < len(opened) <= 8
    group.run(61)
    assert not any(session.opener for session in group.node("b")._streams._sessions.values())


def test_a_comparison_without_end_keeps_nobody_from_comparing_with_others() -> None:
    group = mesh("a b c d e f")
    drips(group, Compare)
    node = group.node(HOSTILE)
    told = SimpleNamespace(both_for=lambda member: (b"\1" * 16, b"\2" * 16))
    told.documents_for = node._catalog.sums.documents_for
    node._catalog.sums = told
    group.run(10)
    assert node._catalog.get(credential_of("b").node_id) is not None
    honest_take = group.node("b")._intake.take
    group.node("b")._intake.take = lambda *_: None
    publish(group, "e", CART)
    group.run(8)
    group.node("b")._intake.take = honest_take
    assert not group.node("b").endpoints()
    group.run_until(lambda: bool(group.node("b").endpoints()), 30)


def session_to(group: Group, at: str, purpose: str) -> Session:
    session = Session(10**6, opener=True, purpose=purpose, scope=None)
    session.member = group.node(at)._catalog.get(credential_of(HOSTILE).node_id)
    return session


@pytest.mark.parametrize("purpose", ["sync", "table"])
def test_a_list_is_taken_once_and_only_when_asked_for(purpose: str) -> None:
    group = mesh("a b c d")
    repair = group.node("b")._repair
    session = session_to(group, "b", purpose)
    entries = Entries((), bytes(range(256)), True, DocumentsSummary(1, ()))
    if purpose == "sync":
        with pytest.raises(MalformedInput, match="before its list"):
            repair.receive(session, Done(bytes(16), bytes(16)))
        repair.receive(session, entries)
    with pytest.raises(MalformedInput, match="nobody asked for"):
        repair.receive(session, entries)


def test_records_of_unknown_kinds_too_many_for_a_frame_keep_no_newcomer_out() -> None:
    """Five of 15.9 KB, each within every limit: more than a frame holds, and all of one member."""
    group = Group("a b c d e")
    for name in "abcd":
        group.start(name, *([] if name == "a" else ["a"]))
    group.run(8)
    node = group.node("c")
    state = node.own_state
    for kind in range(20, 25):
        body = encode([state.node_id, state.generation, state.epoch, 1, bytes(15_900)])
        record = SignedRecord(kind, body, key_of("c").sign(signed_bytes(DOMAIN, kind, body)))
        order = Order(state.generation, state.epoch, 1)
        member = node._catalog.get(state.node_id)
        node._ctx.now = Instant(group.now)
        node._intake.follow(node._catalog._merge_opaque(member, record, order, Checks(12)), None)
    group.perform(group.hosts["c"], node._ctx.drain())
    group.run_until(group.converged, 20)
    group.start("e", "a")
    group.run_until(lambda: group.converged() and len(list(group.node("e").each_member())) == 5, 10)
    assert group.node("e").statistics().stream_bytes_received < 400_000


def test_a_first_stream_that_fails_for_ever_is_asked_for_ever_less() -> None:
    group = mesh("a b c")
    node = group.node("b")
    repair = node._repair
    repair._conversation.is_first = True
    opened_before = node.statistics().streams_opened
    answers_with(group.node("a"), lambda session, message: group.node("a")._repair._close(session) or True)
    answers_with(group.node("c"), lambda session, message: group.node("c")._repair._close(session) or True)
    node._ctx.now = Instant(group.now)
    repair.sync(node._catalog.get(credential_of("a").node_id))
    group.perform(group.hosts["b"], node._ctx.drain())
    group.run(60)
    assert node.statistics().streams_opened - opened_before < 150
