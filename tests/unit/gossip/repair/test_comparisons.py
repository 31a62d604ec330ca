"""When comparisons are opened: what came by the dozen goes on by streams, and a cut is not outlasted."""

import pytest

from gossipmesh.gossip.base.effects import StreamId
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.repair.comparisons import Repair
from gossipmesh.gossip.sessions.session import Session
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.records import RecordKind
from gossipmesh.wire.frames import Records
from tests.unit.gossip.failure.test_monitor_detector import voting
from tests.unit.gossip.group import Group, signed_credential

MANY = 24


class Opened:
    """A member of a mesh at rest, and with whom it opens comparisons, and after how many ms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, rested_s: float = 3) -> None:
        self.group: Group = voting("a b c d e f")
        self.group.run(rested_s)
        self.node = self.group.node("a")
        self.repair: Repair = self.node._repair
        self.began = self.node._ctx.now = Instant(self.group.now)
        self.at_ms: dict[str, int] = {}

        def open_to(member: Member, purpose: str, scope: str | None = None) -> bool:
            if purpose == "sync":
                self.at_ms[member.name] = (self.node._ctx.now - self.began) // MILLISECOND_NS
            return True

        monkeypatch.setattr(self.node._streams, "open_to", open_to)
        # Nobody answers, and that is not what these tests are about.
        monkeypatch.setattr(self.node._ctx, "send", lambda address, packet: None)

    def member(self, name: str) -> Member:
        found = self.node._catalog.get(self.group.node(name).own_node_id)
        assert found is not None
        return found

    def session(self, purpose: str, name: str) -> Session:
        session = Session(StreamId(99), opener=purpose != "serve", purpose=purpose, scope=None)
        session.expected = session.member = self.member(name)
        return session

    def give(self, session: Session, count: int) -> None:
        for _ in range(count):
            self.repair._note_given(session)

    def wait(self, until_ms: int) -> set[str]:
        for at_ms in range(until_ms + 1):
            self.node.handle_deadline(Instant(self.began + at_ms * MILLISECOND_NS))
        return set(self.at_ms)


@pytest.mark.parametrize("purpose", ["sync", "serve"])
def test_who_is_given_much_compares_with_three_more(monkeypatch: pytest.MonkeyPatch, purpose: str) -> None:
    """Packets would take seconds; halves of a mesh that meet again agree within a few rounds."""
    opened = Opened(monkeypatch)
    opened.repair._haste._members = []
    session = opened.session(purpose, "b")
    opened.give(session, MANY)
    monkeypatch.setattr(opened.repair, "_is_busy", lambda member: False)
    assert len(opened.wait(700)) == 3
    opened.at_ms.clear()
    opened.give(session, 10 * MANY)
    assert opened.wait(700) == set()


def test_a_few_records_go_on_by_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(monkeypatch)
    opened.give(opened.session("sync", "b"), MANY - 1)
    assert opened.wait(700) == set()


def test_a_newcomers_table_is_passed_on_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(monkeypatch)
    opened.give(opened.session("table", "b"), 10 * MANY)
    assert opened.wait(700) == set()


def test_only_news_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends by the dozen what everybody has makes nobody compare."""
    opened = Opened(monkeypatch)
    session = opened.session("serve", "b")
    group, node = opened.group, opened.node
    known = node._catalog.get(node.own_node_id)
    assert known is not None
    old = known.record(RecordKind.NODE_STATE)
    opened.repair.receive(session, Records((old,) * MANY, more=False))
    opened.wait(20)
    assert session.news_count == 0
    opened.repair.receive(session, Records((signed_credential("b", serial=2),), more=False))
    opened.wait(40)
    assert session.news_count == 1
    assert group.status("a", "b") == "alive"


def test_a_comparison_that_never_opens_keeps_nobody_for_longer_than_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = Opened(monkeypatch)
    opened.repair.sync(opened.member("b"))
    opened.node._ctx.now = Instant(opened.began + SECOND_NS - 1)
    opened.repair.sync(opened.member("c"))
    assert set(opened.at_ms) == {"b"}
    opened.node._ctx.now = Instant(opened.began + SECOND_NS)
    opened.repair.sync(opened.member("c"))
    assert set(opened.at_ms) == {"b", "c"}


def test_a_comparison_that_opened_has_five(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(monkeypatch)
    opened.repair.sync(opened.member("b"))
    monkeypatch.setattr(opened.node._streams, "say", lambda session, message: None)
    opened.repair.begin(opened.session("sync", "b"))
    opened.node._ctx.now = Instant(opened.began + 5 * SECOND_NS - 1)
    opened.repair.sync(opened.member("c"))
    assert set(opened.at_ms) == {"b"}
    opened.node._ctx.now = Instant(opened.began + 5 * SECOND_NS)
    opened.repair.sync(opened.member("c"))
    assert set(opened.at_ms) == {"b", "c"}


def test_a_sum_that_moves_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a mesh whose halves meet again state sums move for as long as packets carry the difference."""
    opened = Opened(monkeypatch)
    member = opened.member("b")
    monkeypatch.setattr(type(opened.repair._catalog.ledger), "state_sum", property(lambda ledger: bytes(16)))
    opened.repair.compared(member, b"other" + bytes(11), opened.repair._catalog.sums.documents)
    opened.wait(650)
    assert opened.at_ms == {}
    opened.repair._sum_moved_at = opened.node._ctx.now
    opened.wait(750)
    assert opened.at_ms == {}
    opened.repair._sum_moved_at = Instant(opened.began + 1_300 * MILLISECOND_NS)
    assert opened.wait(1_460) == {"b"}
