"""Trace lines: every event, entry and status has a tag, and no line holds a name of the code's or prose."""

from typing import get_args

import msgspec
import pytest

from gossipmesh.gossip.base.effects import Event, MemberChanged, Persist, PersistKind, PolicyRefused
from gossipmesh.model.identity import NodeId
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.simulator.trace import (
    ENTRY_TAGS,
    EVENT_LINES,
    STATUS_TAGS,
    Trace,
    entry_line,
    event_line,
)


def test_whatever_a_core_can_tell_has_a_tag() -> None:
    assert set(EVENT_LINES) == set(get_args(Event))
    assert set(ENTRY_TAGS) == set(PersistKind) - {PersistKind.ALARM}  # which the shell writes, and no core
    assert set(STATUS_TAGS) == {None, *MemberStatus}


def test_tags_are_told_apart() -> None:
    for tags in (ENTRY_TAGS, STATUS_TAGS):
        assert len(set(tags.values())) == len(tags)


def test_a_member_that_changed() -> None:
    told = MemberChanged(NodeId(b"\x0a" * 4), "n1", MemberStatus.DEAD, MemberStatus.ALIVE)
    assert event_line(told) == "member n1 0a0a0a0a alive dead"
    assert event_line(msgspec.structs.replace(told, previous=None)) == "member n1 0a0a0a0a unknown dead"


def test_a_refusal_is_told_by_its_code_and_not_by_its_sentence() -> None:
    told = PolicyRefused("mesh", 2, b"\x01", "older", "version 2 is below the floor")
    assert event_line(told) == "policy-refused mesh 2 01 older"


def test_an_event_without_a_line_says_what_to_do() -> None:
    class Unheard(msgspec.Struct):
        number: int

    with pytest.raises(LookupError, match="add one to EVENT_LINES"):
        event_line(Unheard(1))  # type: ignore[arg-type]


def test_what_is_written_is_told_by_its_fingerprint_and_when_it_is_safe() -> None:
    kept = entry_line(Persist(PersistKind.POLICY_SET, b"mesh", b"value", durable=True))
    assert kept.startswith("policy-set 6d657368 ")
    assert kept.endswith(" synced")
    other = entry_line(Persist(PersistKind.POLICY_SET, b"mesh", b"another", durable=True))
    assert other != kept
    assert entry_line(Persist(PersistKind.MEMBER, b"\x07", None, durable=False)) == "member 07 - later"


def test_a_digest_is_over_all_lines_whenever_it_is_asked_for() -> None:
    """Many more lines than are folded at once, asked for in the midst and at the end only."""
    texts: list[str] = []
    asked, once = Trace(texts.append), Trace()
    for number in range(700):
        for trace in (asked, once):
            trace.record(number, f"line {number}")
        if number % 100 == 0:
            asked.digest()
    assert asked.digest() == once.digest()
    assert (texts[0], len(texts), once.lines_count) == ("0 line 0\n", 700, 700)
