"""Who opens when: a table of starts, and transcripts of joiners that may answer calls and that may not."""

import pytest

from gossipmesh.gossip.base.effects import Opened, Persist, PersistKind
from gossipmesh.gossip.dissemination.opening import peers_needed
from gossipmesh.model.instant import Instant, WallSeconds
from gossipmesh.model.opening import (
    CLOSED,
    FOUNDER_S,
    OPENED_BY_HAND,
    Enrolled,
    HowOpened,
    KeptOpening,
    Unconfirmed,
    unconfirmed_at_start,
)
from tests.unit.gossip.group import Group, key_of, policy_set, trust_envelope

NOW = WallSeconds(1_000_000)
CONFIRMED = KeptOpening("by peers")
PENDING = KeptOpening("", 5, False, NOW - 5)
FOUNDING = KeptOpening("", 1, True, NOW - 5)


@pytest.mark.parametrize(
    ("kept", "enrolled", "has_run", "is_damaged", "expected"),
    [
        pytest.param(CONFIRMED, None, True, False, None, id="confirmed"),
        pytest.param(CONFIRMED, Enrolled(9, False), True, False, None, id="confirmed-and-enrolled-again"),
        pytest.param(CONFIRMED, None, True, True, Unconfirmed(0), id="confirmed-on-a-damaged-disk"),
        pytest.param(None, None, True, False, None, id="state-of-a-build-before"),
        pytest.param(
            None, Enrolled(9, False), True, False, None, id="state-of-a-build-before-enrolled-again"
        ),
        pytest.param(None, None, True, True, Unconfirmed(0), id="damaged-state-of-a-build-before"),
        pytest.param(None, Enrolled(1, True), False, False, Unconfirmed(1, True), id="founder"),
        pytest.param(None, Enrolled(4, False), False, False, Unconfirmed(4), id="joiner"),
        pytest.param(None, Enrolled(), False, False, None, id="an-authority-that-says-nothing"),
        pytest.param(None, None, False, False, Unconfirmed(0), id="lost-disk"),
        pytest.param(PENDING, None, True, False, Unconfirmed(5), id="ended-before-it-opened"),
        pytest.param(PENDING, None, True, True, Unconfirmed(0), id="ended-before-it-opened-damaged"),
        pytest.param(FOUNDING, None, False, False, Unconfirmed(1, True), id="founder-ended-before-it-opened"),
        pytest.param(FOUNDING, None, True, True, Unconfirmed(0), id="founder-on-a-damaged-disk"),
        pytest.param(
            KeptOpening("", 1, True, NOW - FOUNDER_S - 1),
            None,
            True,
            False,
            Unconfirmed(0),
            id="founder-of-long-ago",
        ),
        pytest.param(
            KeptOpening("", 1, True, NOW + 1), None, True, False, Unconfirmed(0), id="founder-of-tomorrow"
        ),
    ],
)
def test_what_a_node_begins_with(
    kept: KeptOpening | None,
    enrolled: Enrolled | None,
    has_run: bool,
    is_damaged: bool,
    expected: Unconfirmed | None,
) -> None:
    found = unconfirmed_at_start(kept, enrolled, NOW, has_run=has_run, is_damaged=is_damaged)
    assert found == expected


@pytest.mark.parametrize(
    ("enrolled", "needed"), [(0, 3), (1, 0), (2, 1), (3, 2), (4, 3), (5, 3), (10_000, 3)]
)
def test_how_many_members_a_joiner_compares_with(enrolled: int, needed: int) -> None:
    assert peers_needed(enrolled) == needed


def opened(group: Group, name: str) -> list[Opened]:
    return [event for event in group.hosts[name].events if isinstance(event, Opened)]


def words(group: Group, at: str, of: str) -> tuple[str, ...]:
    return next(view.state.features for view in group.node(at).members() if view.name == of)


def running(names: str, *, version: int = 0) -> Group:
    """Return a mesh at rest of the first names; the last, which is down, is to join it."""
    group = Group(names)
    *members, _ = group.hosts
    group.start(members[0])
    for name in members[1:]:
        group.start(name, members[0])
    group.run(3)
    if version:
        offer(group, members[0], version)
        group.run(3)
    return group


def offer(group: Group, name: str, version: int) -> None:
    group.perform(group.hosts[name], group.node(name).offer_policy(policy_set(version), Instant(group.now)))


@pytest.mark.parametrize("names", ["a j", "a b j", "a b c j", "a b c d e j"])
@pytest.mark.parametrize("version", [0, 3])
def test_a_joiner_opens_within_half_a_second_and_runs_what_the_mesh_runs(names: str, version: int) -> None:
    group = running(names, version=version)
    joiner = group.start("j", "a", unconfirmed=Unconfirmed(len(group.hosts)))
    assert joiner.opening.is_closed
    assert CLOSED in joiner.own_state.features
    assert group.run_until(lambda: not joiner.opening.is_closed, 2) <= 0.5
    assert CLOSED not in joiner.own_state.features
    assert [status.version for status in joiner.own_state.policies] == ([version] if version else [])
    needed = min(3, len(group.hosts) - 1)
    assert [(told.how, told.needed_count) for told in opened(group, "j")] == [(HowOpened.BY_PEERS, needed)]
    assert opened(group, "j")[0].agreed_count >= needed


def test_everybody_sees_who_is_closed_and_that_it_opened() -> None:
    group = running("a b c j")
    group.start("j", "a", unconfirmed=Unconfirmed(9_000))
    group.cut = {frozenset("jb"), frozenset("jc")}
    group.run_until(lambda: group.status("c", "j") == "alive", 3)
    group.run_until(lambda: CLOSED in words(group, "c", "j"), 3)
    group.heal()
    group.run_until(lambda: CLOSED not in words(group, "c", "j"), 5)


def test_the_founder_opens_at_once_beside_seeds_that_are_not_up() -> None:
    group = Group("a b")
    founder = group.start("a", "b", unconfirmed=Unconfirmed(1, is_founder=True))
    assert not founder.opening.is_closed
    assert [told.how for told in opened(group, "a")] == [HowOpened.FOUNDER]
    assert CLOSED not in founder.own_state.features


def test_the_only_node_enrolled_opens_at_once() -> None:
    group = Group("a")
    assert not group.start("a", unconfirmed=Unconfirmed(1)).opening.is_closed


def test_whoever_finds_nobody_stays_closed() -> None:
    group = Group("a j")
    joiner = group.start("j", "a", unconfirmed=Unconfirmed(2))
    group.run(300)
    assert joiner.opening.is_closed
    assert joiner.opening.needed_count == 1
    group.start("a")
    group.run_until(lambda: not joiner.opening.is_closed, 10)


def test_members_that_are_closed_open_nobody_until_one_of_them_is_opened_by_hand() -> None:
    group = Group("a b c d")
    for name in group.hosts:
        group.start(name, "a", unconfirmed=Unconfirmed())
    group.run(200)
    assert all(group.node(name).opening.is_closed for name in group.hosts)
    group.perform(group.hosts["b"], group.node("b").open_by_hand(Instant(group.now)))
    group.run_until(lambda: not any(group.node(name).opening.is_closed for name in group.hosts), 5)
    assert [told.how for told in opened(group, "b")] == [HowOpened.BY_HAND]
    assert {opened(group, name)[0].how for name in "acd"} <= {HowOpened.BY_FEWER, HowOpened.BY_PEERS}
    assert OPENED_BY_HAND in words(group, "d", "b")
    assert OPENED_BY_HAND not in words(group, "d", "a")


def test_opening_by_hand_twice_or_where_it_is_open_changes_nothing() -> None:
    group = running("a b j")
    before = group.node("a").own_state
    group.perform(group.hosts["a"], group.node("a").open_by_hand(Instant(group.now)))
    assert group.node("a").own_state == before
    assert opened(group, "a") == []


def unverifiable(group: Group) -> None:
    """Have everybody run a set whose signer the next Trust drops; the one who joins is told of that Trust."""
    dropped = trust_envelope(2, signer=key_of("another signer"))
    group.perform(group.hosts["a"], group.node("a").offer_trust(dropped, Instant(group.now)))
    group.run(3)
    group.hosts["j"].disk[(PersistKind.TRUST, (2).to_bytes(8, "big"))] = dropped


def test_a_set_that_cannot_be_verified_keeps_a_joiner_closed_and_is_named() -> None:
    group = running("a b c j", version=7)
    unverifiable(group)
    joiner = group.start("j", "a", unconfirmed=Unconfirmed(4))
    group.run(200)
    assert joiner.opening.is_closed
    assert joiner.opening.differing == ("a", "b", "c")
    assert joiner.opening.agreed == ()
    assert [(told.scope, told.version, told.refused_version) for told in joiner.own_state.policies] == [
        ("mesh", 0, 7)
    ]
    assert not any(group.node(name).opening.is_closed for name in "abc")


def test_a_member_that_names_what_nobody_can_verify_closes_nobody_and_keeps_nobody_out() -> None:
    group = running("a b c d j", version=7)
    liar = group.node("d")
    liar._catalog.sums.documents = liar._catalog.sums.documents_before = bytes(range(16))
    liar._spreading._recount = lambda: None
    group.run(5)
    assert not any(group.node(name).opening.is_closed for name in "abc")
    joiner = group.start("j", "a", unconfirmed=Unconfirmed(5))
    assert group.run_until(lambda: not joiner.opening.is_closed, 3) <= 1
    assert not any(group.node(name).opening.is_closed for name in "abc")


def test_a_mesh_of_ten_enrolled_with_two_alive_takes_a_joiner_after_a_minute_and_says_so() -> None:
    group = running("a b j", version=2)
    joiner = group.start("j", "a", unconfirmed=Unconfirmed(10))
    group.run(55)
    assert joiner.opening.is_closed
    assert joiner.opening.agreed == ("a", "b")
    group.run_until(lambda: not joiner.opening.is_closed, 10)
    assert opened(group, "j") == [Opened(HowOpened.BY_FEWER, 2, 3)]


def test_after_a_minute_as_many_that_differ_as_that_agree_open_nothing() -> None:
    """Otherwise one liar in three would open a joiner to a mesh without its policy."""
    group = running("a b j", version=7)
    unverifiable(group)
    liar = group.node("b")
    joiner = group.start("j", "a", unconfirmed=Unconfirmed(3))
    liar._catalog.sums.documents = liar._catalog.sums.documents_before = joiner.state_sums()[1]
    liar._spreading._recount = lambda: None
    group.run(200)
    assert joiner.opening.agreed == ("b",)
    assert joiner.opening.differing == ("a",)
    assert joiner.opening.is_closed


def test_nobody_is_open_before_that_is_on_the_disk_and_then_for_good() -> None:
    group = running("a j")
    group.slow.add("j")
    joiner = group.start("j", "a", unconfirmed=Unconfirmed(2))
    group.written("j")
    group.run(5)
    assert joiner.opening.is_closed
    assert CLOSED in joiner.own_state.features
    assert (PersistKind.OPENING, b"") in group.hosts["j"].disk
    assert opened(group, "j") == []
    group.written("j")
    assert not joiner.opening.is_closed


def test_confirmed_is_synced_after_the_set_that_it_confirms() -> None:
    group = running("a j", version=4)
    kinds: list[PersistKind] = []
    perform = group.perform

    def watched(host: object, effects: list[object]) -> None:
        if host is group.hosts["j"]:
            kinds.extend(e.kind for e in effects if isinstance(e, Persist) and e.durable)
        perform(host, effects)

    group.perform = watched
    group.start("j", "a", unconfirmed=Unconfirmed(2))
    group.run(3)
    assert kinds == [PersistKind.EPOCH, PersistKind.FLOOR, PersistKind.OPENING]
