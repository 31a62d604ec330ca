"""Verdicts are passed on by name; who lacks one asks, and asks on."""

import pytest

from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import MILLISECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import Cause, RecordKind, SignedRecord
from gossipmesh.wire.datagram import Message, VerdictId, Want, decode_body_untrusted, encode_body
from tests.unit.gossip.failure.test_answering import show, verdict_of
from tests.unit.gossip.failure.test_monitor_detector import voting
from tests.unit.gossip.group import Group


def sent_by(group: Group, at: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Message]]:
    """Return what a node sends from now on, as (to whom, message); nothing of it arrives."""
    sent: list[tuple[str, Message]] = []

    def send(member: Member, messages: list[bytes], *, fill: bool = True) -> None:
        sent.extend((member.name, message) for message in decode_body_untrusted(encode_body(messages)))

    monkeypatch.setattr(group.node(at)._courier, "send", send)
    return sent


def test_a_verdict_is_passed_on_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    group = voting()
    record = verdict_of(group, Cause.SILENT)
    group.node("a")._catalog.get(group.node("e").own_node_id).beat_run = 0  # nothing it heard beats it
    sent = sent_by(group, "a", monkeypatch)
    show(group, record, at="a")
    assert group.status("a", "e") == "dead"
    names = [to for to, message in sent if isinstance(message, VerdictId)]
    assert len(names) >= 2
    assert not [message for _, message in sent if isinstance(message, SignedRecord)]


def test_members_that_are_late_are_given_the_verdict_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    group = voting()
    record = verdict_of(group, Cause.SILENT)
    catalog = group.node("a")._catalog
    catalog.get(group.node("e").own_node_id).beat_run = 0
    for name in "bcd":
        catalog.get(group.node(name).own_node_id).lag_ms = 2_000
    sent = sent_by(group, "a", monkeypatch)
    show(group, record, at="a")
    pushed = [to for to, message in sent if isinstance(message, SignedRecord)]
    assert len(pushed) == 2
    assert not [message for _, message in sent if isinstance(message, VerdictId)]


def test_one_holder_is_asked_at_a_time_and_the_next_when_it_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = voting()
    node = group.node("a")
    state = group.node("e").own_state
    name = VerdictId(state.node_id, state.generation, state.epoch, int(MemberStatus.DEAD))
    node._ctx.now = Instant(group.now)
    sent = sent_by(group, "a", monkeypatch)
    for holder in "bcb":
        node._detector.receive_verdict_id(node._catalog.get(group.node(holder).own_node_id), name)
    wants = [(to, message) for to, message in sent if isinstance(message, Want)]
    assert wants == [("b", Want(int(RecordKind.VERDICT), state.node_id))]
    for after_ms, asked in ((50, ["b"]), (110, ["b", "c"]), (220, ["b", "c", "b"]), (900, ["b", "c", "b"])):
        node.handle_deadline(Instant(group.now + after_ms * MILLISECOND_NS))
        assert [to for to, message in sent if isinstance(message, Want)] == asked
    assert node._detector._wants._holders == {}


def test_what_is_named_while_less_is_asked_for_is_asked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """First it is called unattended, and before that has come somebody else calls it dead."""
    group = voting()
    node = group.node("a")
    record = verdict_of(group, Cause.AGENT_GONE, MemberStatus.UNATTENDED)
    state = group.node("e").own_state
    node._ctx.now = Instant(group.now)
    sent = sent_by(group, "a", monkeypatch)
    for holder, status in (("b", MemberStatus.UNATTENDED), ("c", MemberStatus.DEAD)):
        name = VerdictId(state.node_id, state.generation, state.epoch, int(status))
        node._detector.receive_verdict_id(node._catalog.get(group.node(holder).own_node_id), name)
    node._catalog.get(state.node_id).beat_run = 0
    show(group, record, at="a")
    assert group.status("a", "e") == "unattended"
    group.run(0.15)
    assert [to for to, message in sent if isinstance(message, Want)] == ["b", "c"]
