"""The freeze: the core does, packet by packet, what the committed list says; docs/TESTING.md says what to do.

A handful of the list is played here. All of it: `make frozen`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from gossipmesh.gossip.base.effects import MemberChanged, PersistKind
from gossipmesh.gossip.base.settings import GossipSettings
from gossipmesh.model.identity import NodeId
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.frozen import ROOT, play_entry
from gossipmesh.testing.simulator import run as simulator_run
from gossipmesh.testing.simulator.frozen_list import GRID, Entry, read_list
from gossipmesh.testing.simulator.hardships import ON_REQUEST
from gossipmesh.testing.simulator.scenarios import SCENARIOS
from gossipmesh.testing.simulator.trace import EVENT_LINES
from tests.simulation.conftest import KEPT, digest_of
from tests.unit.gossip.group import Group

LISTED = {entry.name: entry for entry in read_list()}
HANDFUL = (
    "byzantine-records/7n/0%/monitors/seed2",
    "damaged-disks/7n/0%/monitors/seed2",
    "kill-agent/6n/0%/monitors/seed3",
    "leave/5n/0%/monitors/seed2",
    "leave/7n/5%/swim/seed1",
    "racing-pushes/7n/1%/monitors/seed2",
)
SMALLEST = LISTED["leave/5n/0%/monitors/seed2"]


@pytest.mark.parametrize("name", HANDFUL)
def test_the_core_does_what_the_list_says(name: str) -> None:
    played = play_entry(LISTED[name])
    assert played.is_equal, played.told()


def test_the_list_holds_every_story_in_many_sizes() -> None:
    """At least sixty runs, each with a digest; every scenario, both detectors, the grid's corners."""
    assert len(LISTED) >= 60
    assert [entry.name for entry in LISTED.values() if len(entry.digest) != 32 or not entry.lines] == []
    assert {entry.story for entry in LISTED.values()} == {*SCENARIOS, GRID} - set(ON_REQUEST)
    corners = {(e.loss, e.starved, e.detector) for e in LISTED.values() if e.story == GRID}
    assert corners == {(loss, late, d) for loss in (1, 5) for late in (0, 10) for d in ("monitors", "swim")}


def test_the_quick_part_meets_each_kind_of_story() -> None:
    quick = [entry for entry in LISTED.values() if entry.quick]
    stories = {entry.story for entry in quick}
    assert {"partition-heal", "rejoin-without-seed", "join-storm", "starved", GRID} <= stories
    assert {"byzantine-policy", "byzantine-records", "damaged-disks", "swarm"} <= stories
    assert {entry.detector for entry in quick} == {"monitors", "swim"}


@contextmanager
def renamed() -> Iterator[None]:
    """Give every class that a trace line is made of, and every member of its enums, another name."""
    places = [
        (thing, name, value)
        for thing in (*EVENT_LINES, MemberStatus, PersistKind, *MemberStatus, *PersistKind)
        for name in (("__name__", "__qualname__") if isinstance(thing, type) else ("_name_",))
        for value in [getattr(thing, name)]
    ]
    for thing, name, value in places:
        setattr(thing, name, f"Renamed{value}")
    try:
        yield
    finally:
        for place in places:
            setattr(*place)


def test_names_of_classes_and_of_members_of_enums_are_no_part_of_a_digest() -> None:
    """What a `repr` shows of them is another; the digest is the same."""
    with renamed():
        assert "RenamedMemberChanged" in repr(MemberChanged(NodeId(b""), "n1", MemberStatus.DEAD, None))
        assert "RenamedDEAD" in repr(MemberStatus.DEAD)
        played = play_entry(SMALLEST)
    assert played.is_equal, played.told()
    assert (MemberStatus.__name__, MemberStatus.DEAD.name) == ("MemberStatus", "DEAD")


def slower(**changed: int) -> Any:
    """Return settings of the core by default but for what is given."""
    return lambda: msgspec.structs.replace(GossipSettings(), **changed)


def test_a_changed_constant_is_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nanosecond more between two sendings of queued records shows."""
    interval_ns = GossipSettings().tick_interval_ns
    monkeypatch.setattr(simulator_run, "GossipSettings", slower(tick_interval_ns=interval_ns + 1))
    played = play_entry(SMALLEST)
    assert played.failures == []
    assert not played.is_equal
    assert "--against main" in played.told()


def test_a_run_that_fails_is_not_equal_whatever_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(run: simulator_run.Run) -> None:
        run.require(False, "it is not to be")

    monkeypatch.setitem(SCENARIOS, "leave", failing)
    first = play_entry(SMALLEST)
    again = play_entry(msgspec.structs.replace(SMALLEST, digest=first.digest))
    assert (again.digest, again.is_equal) == (first.digest, False)
    assert again.told().endswith("FAILED: it is not to be")


def test_the_page_counts_what_the_list_holds() -> None:
    """The table of docs/TESTING.md says of each run what it is for."""
    page = (ROOT / "docs" / "TESTING.md").read_text(encoding="utf-8")
    _, table = page.split("| about | runs |")
    table = table[: table.index("\n\n")]
    counts = [int(row.split("|")[2]) for row in table.splitlines()[2:]]
    assert sum(counts) == len(LISTED)
    assert [entry.story for entry in LISTED.values() if f"`{entry.story}`" not in table] == []


def test_stories_that_are_kept_are_told() -> None:
    """No digest is left of a test that is gone."""
    for name in json.loads(KEPT.read_text(encoding="utf-8")):
        module, _, test = name.partition("::")
        assert f"def {test.partition('[')[0]}(" in KEPT.with_name(f"{module}.py").read_text(encoding="utf-8")


def test_one_bit_of_one_packet_is_another_story() -> None:
    told, altered = Group("a b"), Group("a b")
    told.trace.append((7, "a", "10.0.0.2:7948", b"\x01\x02"))
    altered.trace.append((7, "a", "10.0.0.2:7948", b"\x01\x03"))
    assert digest_of([told]) == digest_of([told, Group("c")]) != digest_of([altered])


def test_an_entry_has_a_name_of_its_own() -> None:
    cell = Entry(GRID, 50, 5.0, 0, starved=10.0, stamped=False)
    assert cell.name == "grid/50n/5%/monitors/starved10%/no-stamps/seed0"
