"""Timers are values, and one table says what each kind is for."""

import re
from pathlib import Path

import pytest

from gossipmesh.gossip.base.timers import Deadlines, Timer, Timers, fire, joined
from gossipmesh.model.instant import NEVER, Instant
from tests.unit.gossip.group import Group

ROOT = Path(__file__).resolve().parents[3]
_SET = re.compile(r"timers\.set\(\s*\(\"([a-z -]+)\"")
_ROW = re.compile(r"^\| `([a-z -]+)` \| ", re.MULTILINE)


def table() -> Deadlines:
    return Group("a").start("a")._deadlines


def due(timers: Timers, now: int) -> list[Timer]:
    found = []
    while (timer := timers.pop_due(Instant(now))) is not None:
        found.append(timer)
    return found


def test_a_timer_set_again_is_due_once_and_equal_instants_come_in_the_order_they_were_set() -> None:
    timers = Timers()
    timers.set(("a", 1), 10)
    timers.set(("b", 1), 20)
    timers.set(("c", None), 20)
    timers.set(("a", 1), 20)
    assert timers.next_deadline() == 20
    assert timers.due_at(("a", 1)) == 20
    assert due(timers, 19) == []
    assert due(timers, 20) == [("b", 1), ("c", None), ("a", 1)]
    assert timers.next_deadline() == NEVER


def test_timers_set_over_and_over_stay_few() -> None:
    timers = Timers()
    for at in range(10_000):
        timers.set(("a", 1), at)
    assert len(timers._heap) < 200
    assert due(timers, 10_000) == [("a", 1)]


def test_a_cancelled_timer_is_not_due() -> None:
    timers = Timers()
    timers.set(("a", 1), 10)
    timers.set(("a", b"1"), 10)
    timers.cancel(("a", 1))
    timers.cancel(("never set", None))
    assert due(timers, 100) == [("a", b"1")]


def test_those_of_a_kind_are_postponed_in_their_order() -> None:
    timers = Timers()
    for timer in (("a", 2), ("b", 1), ("a", 1)):
        timers.set(timer, 10)
    timers.postpone("a", 5)
    assert due(timers, 10) == [("b", 1)]
    assert due(timers, 15) == [("a", 2), ("a", 1)]


def test_a_table_is_called_with_the_subject_where_there_is_one() -> None:
    told: list[object] = []
    table = joined({"alone": lambda: told.append("alone")}, {"about": told.append})
    fire(table, ("about", 7))
    fire(table, ("alone", None))
    fire(table, ("about", b"id"))
    assert told == [7, "alone", b"id"]


def test_no_kind_has_two_meanings() -> None:
    with pytest.raises(AssertionError):
        joined({"a": print}, {"b": print, "a": print})


def test_every_kind_that_is_set_stands_in_the_table_and_every_one_there_is_set() -> None:
    sources = sorted((ROOT / "gossipmesh" / "gossip").rglob("*.py"))
    kinds = {kind for path in sources for kind in _SET.findall(path.read_text())}
    assert kinds == table().keys()
    assert len(kinds) > 30


def test_the_documents_list_every_kind() -> None:
    text = (ROOT / "docs" / "GOSSIP.md").read_text()
    section = text.split("## Timers", 1)[1].split("\n## ", 1)[0]
    assert set(_ROW.findall(section)) == table().keys()
