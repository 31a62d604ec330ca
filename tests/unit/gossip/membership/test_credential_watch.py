"""Who is forgotten for a credential that has ended, where a clock is wrong."""

import msgspec
import pytest

from gossipmesh.gossip.base.effects import ClockBelowRecords, ClockOff, Event
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.instant import DAY_S, HOUR_S, SECOND_NS, Instant
from gossipmesh.model.records import RecordKind, SignedRecord
from gossipmesh.trust.records import sign_record
from tests.unit.gossip.group import AUTHORITY, DOMAIN, WALL_OFFSET_S, Group, credential_of
from tests.unit.gossip.test_transcripts import everybody

YEAR_S = 365 * DAY_S
FIVE = "a b c d e"
OLD_S = 700  # beyond the ten minutes for which a clock that jumped is doubted


def wall_s(group: Group) -> int:
    return WALL_OFFSET_S + group.now // SECOND_NS


def mesh(names: str = FIVE, *, lives_s: int = 10 * HOUR_S) -> Group:
    """Return a mesh at rest, whose credentials end; every clock is judged by all others."""
    group = Group(names)
    first, *others = names.split()
    ends = ends_of(lives_s)
    group.start(first, ends=ends)
    for name in others:
        group.start(name, first, ends=ends)
    count = len(others)
    group.run_until(
        lambda: (
            everybody(group, "alive")
            and group.converged()
            and all(group.node(name).statistics().clock_peers == count for name in names.split())
        ),
        20,
    )
    return group


def ends_of(lives_s: int) -> int:
    """Return when the credentials end that all were given at the start."""
    return WALL_OFFSET_S + Group("a").now // SECOND_NS + lives_s


def set_clock(group: Group, name: str, ahead_s: int) -> None:
    group.node(name).adjust_wall_clock(WALL_OFFSET_S + ahead_s, Instant(group.now))


def renewal(group: Group, name: str, *, lives_s: int, not_before: int | None = None) -> SignedRecord:
    """Return a node's next credential, dated now if not otherwise."""
    now_s = wall_s(group)
    dates = {"not_before": now_s if not_before is None else not_before, "ends": now_s + lives_s}
    credential = msgspec.structs.replace(credential_of(name, serial=2), **dates)
    return sign_record(DOMAIN, RecordKind.CREDENTIAL, credential, AUTHORITY)


def told(group: Group, name: str, kind: type[Event]) -> list[Event]:
    return [event for event in group.hosts[name].events if isinstance(event, kind)]


def known(group: Group, name: str) -> int:
    return len(group.node(name).members())


def restart(group: Group, name: str, ahead_s: int, *, lives_s: int) -> None:
    """Start a node from its disk, without seeds, on a machine whose clock is off."""
    group.kill(name)
    group.run(1)
    group.start(name, ends=ends_of(lives_s), wall_ahead_s=ahead_s)


@pytest.mark.parametrize("ahead_s", [YEAR_S, 11 * HOUR_S])
def test_nobody_is_forgotten_while_three_peers_disagree(ahead_s: int) -> None:
    group = mesh()
    set_clock(group, "b", ahead_s)
    group.run(OLD_S)
    assert known(group, "b") == 5
    assert [type(event) for event in told(group, "b", ClockOff)] == [ClockOff]
    assert told(group, "a", ClockOff) == []
    set_clock(group, "b", 0)
    group.run(5)
    assert told(group, "b", ClockOff)[-1] == ClockOff(0, 4)
    assert known(group, "b") == 5


def test_whoever_ends_by_the_peers_clocks_as_well_is_forgotten() -> None:
    group = mesh(lives_s=HOUR_S // 2)
    set_clock(group, "b", 2 * HOUR_S)
    group.kill("e", silent=True)
    for name in "abcd":
        record = renewal(group, name, lives_s=10 * HOUR_S)
        group.perform(group.hosts[name], group.node(name).renew_credential(record, Instant(group.now)))
    group.run(HOUR_S // 2 + 70)
    assert [known(group, name) for name in "abcd"] == [4, 4, 4, 4]


def test_two_peers_cannot_tell_whose_clock_is_off() -> None:
    group = mesh("a b c", lives_s=HOUR_S)
    set_clock(group, "b", 2 * HOUR_S)
    group.run(590)
    assert known(group, "b") == 3, "its clock may be put right yet"
    group.run(20)
    assert known(group, "b") == 1
    assert told(group, "b", ClockOff), "it is told all the same"
    assert told(group, "a", ClockOff) == []


@pytest.mark.parametrize("ahead_s", [YEAR_S, -YEAR_S])
def test_a_machine_that_starts_with_a_wrong_clock_knows_whom_it_knew(ahead_s: int) -> None:
    """Its disk is all it has: nobody is its seed."""
    group = mesh()
    restart(group, "b", ahead_s, lives_s=10 * HOUR_S)
    group.run_until(lambda: everybody(group, "alive"), 60)
    assert group.run_until(lambda: bool(told(group, "b", ClockOff)), 60) < 60
    group.run(OLD_S)
    assert known(group, "b") == 5
    assert group.converged()


def test_whoever_was_away_for_long_forgets_those_that_ended_once_peers_told_the_time() -> None:
    group = mesh(lives_s=HOUR_S)
    for name in "abcde":
        group.kill(name, silent=name == "e")
    group.now = Instant(group.now + 2 * HOUR_S * SECOND_NS)
    for name in "abcd":
        group.start(name, *"abcd".replace(name, ""), ends=wall_s(group) + 10 * HOUR_S)
    assert known(group, "a") == 5
    group.run_until(lambda: [known(group, name) for name in "abcd"] == [4, 4, 4, 4], 30)
    assert group.run_until(group.converged, 10) < 10


def test_whoever_was_away_and_hears_nobody_forgets_after_ten_minutes() -> None:
    group = mesh("a b c", lives_s=HOUR_S)
    for name in "abc":
        group.kill(name, silent=True)
    group.now = Instant(group.now + 2 * HOUR_S * SECOND_NS)
    group.start("a", ends=wall_s(group) + 10 * HOUR_S)
    group.run(590)
    assert known(group, "a") == 3
    group.run(20)
    assert known(group, "a") == 1


@pytest.mark.parametrize("ahead_s", [YEAR_S, -YEAR_S, HOUR_S, -HOUR_S])
def test_renewals_are_taken_by_a_node_whose_clock_is_wrong(ahead_s: int) -> None:
    """Or else the credentials that it holds would end by every clock, one after the other."""
    group = mesh()
    set_clock(group, "b", ahead_s)
    for name in FIVE.split():
        record = renewal(group, name, lives_s=10 * HOUR_S)
        group.perform(group.hosts[name], group.node(name).renew_credential(record, Instant(group.now)))
    group.run(10)
    assert {member.credential.serial for member in group.node("b").members()} == {2}
    assert group.converged()


@pytest.mark.parametrize(("ahead_s", "is_taken"), [(0, True), (300, True), (320, False), (YEAR_S, False)])
def test_a_credential_may_be_dated_five_minutes_ahead(ahead_s: int, is_taken: bool) -> None:
    """A date that is taken moves nothing: the next one is judged as it was."""
    group = mesh("a b")
    catalog = group.node("a")._catalog
    for _ in range(3):
        record = renewal(group, "b", lives_s=HOUR_S + YEAR_S, not_before=wall_s(group) + ahead_s)
        if is_taken:
            catalog.restore_untrusted(record, Checks(9))
            catalog.open_credential_untrusted(record, Checks(9))
        else:
            with pytest.raises(Untrusted, match="does not hold now"):
                catalog.open_credential_untrusted(record, Checks(9))


def test_a_clock_below_what_was_signed_counts_as_that_date() -> None:
    """One alone, which nobody tells the time."""
    group = Group("a b")
    group.start("a", "b", ends=wall_s(group) + HOUR_S)
    record = renewal(group, "a", lives_s=2 * HOUR_S)
    group.perform(group.hosts["a"], group.node("a").renew_credential(record, Instant(group.now)))
    signed_s = wall_s(group)
    set_clock(group, "a", -YEAR_S)
    group.run(61)
    assert group.node("a")._ctx.earliest_s == group.node("a")._ctx.latest_s == signed_s
    (event,) = told(group, "a", ClockBelowRecords)
    assert isinstance(event, ClockBelowRecords)
    assert abs(event.by_s - YEAR_S) < 120
    assert group.node("a").statistics().clock_below_records_s > 0
    set_clock(group, "a", 0)
    group.run(61)
    assert told(group, "a", ClockBelowRecords)[-1] == ClockBelowRecords(0)


def test_no_reading_of_a_clock_is_kept() -> None:
    group = Group("a b")
    group.start("a", "b", ends=wall_s(group) + HOUR_S)
    set_clock(group, "a", YEAR_S)
    group.run(61)
    set_clock(group, "a", 0)
    group.run(61)
    assert group.node("a")._ctx.earliest_s == wall_s(group)
    assert told(group, "a", ClockBelowRecords) == []
