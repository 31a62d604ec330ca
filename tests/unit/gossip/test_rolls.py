"""A credential key is stolen and dropped: who is on the roll stays, whatever the thief signed goes."""

import random
from collections.abc import Sequence
from itertools import permutations

import pytest

from gossipmesh.gossip.base.effects import MemberChanged, PersistKind, Revoked
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.checkpoint import open_checkpoint_untrusted, write_checkpoint
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import SignedRecord
from gossipmesh.trust.keys import key_id
from gossipmesh.trust.roll import Roll
from gossipmesh.wire.versions import HOLDS_TRUST, LACKS_ROLL, TRUST_FIELDS
from tests.unit.gossip.group import AUTHORITY, Group, credential_of, exchange_of, key_of
from tests.unit.gossip.rolls import (
    NEXT,
    all_by,
    dropping,
    give_credential,
    give_roll,
    give_trust,
    mesh,
    roll_of,
    signed,
    signers_at,
    tombstone_of,
)

NAMES = "a b c d e"
STOLEN_ID = key_id(AUTHORITY.public)


def roll_for(names: str = NAMES) -> Roll:
    return roll_of(credential_of(name) for name in names.split())


def losses(group: Group) -> list[MemberChanged]:
    return [
        event
        for host in group.hosts.values()
        for event in host.events
        if isinstance(event, MemberChanged) and event.status is not MemberStatus.ALIVE
    ]


def whole(group: Group, names: str = NAMES) -> bool:
    """Tell whether every running node holds just these, alive and by the new key, and all hold the same."""
    running = [host for host in group.hosts.values() if host.node is not None]
    statuses = [{view.name: view.status for view in host.node.members()} for host in running if host.node]
    expected = dict.fromkeys(names.split(), MemberStatus.ALIVE)
    return all_by(group, names) and group.converged() and all(one == expected for one in statuses)


def words_of(group: Group, at: str, of: str) -> set[str]:
    views = {view.name: view for view in group.node(at).members()}
    features = views[of].state.features
    return {word for word in features if word.startswith(HOLDS_TRUST) or word == LACKS_ROLL}


def test_everybody_on_the_roll_stays_and_nobody_notices() -> None:
    group, roll = mesh(NAMES), roll_for()
    for host in group.hosts.values():
        host.events.clear()
    refused = [host.node.statistics().refused.copy() for host in group.hosts.values() if host.node]
    give_trust(group, "a", dropping(roll))
    give_roll(group, "a", roll)
    group.run_until(lambda: whole(group), 3)
    assert losses(group) == []
    assert not [e for host in group.hosts.values() for e in host.events if isinstance(e, Revoked)]
    assert refused == [host.node.statistics().refused for host in group.hosts.values() if host.node]
    group.run_until(lambda: all(words_of(group, "b", name) == {f"{HOLDS_TRUST}2"} for name in "abcde"), 3)


def test_until_the_roll_is_here_members_stay_and_the_thief_gets_nobody_in() -> None:
    group, roll = mesh(NAMES, and_not="t"), roll_for()
    give_trust(group, "a", dropping(roll))
    group.run(5)
    for at in NAMES.split():
        assert signers_at(group, at) == dict.fromkeys(NAMES.split(), STOLEN_ID)
        assert words_of(group, at, "e") == {f"{HOLDS_TRUST}2", LACKS_ROLL}
    forged = [credential_of("t"), credential_of("b", generation=9, keys="t"), tombstone_of("c")]
    for credential in forged:
        with pytest.raises(MalformedInput, match="not signed by any authority key"):
            group.node("d").offer_credential(signed(credential), Instant(group.now))
    group.start("t", "a")
    group.run(3)
    assert {view.name for view in group.node("a").members()} == set(NAMES.split())
    assert losses(group) == []
    give_roll(group, "e", roll)
    group.kill("t")
    group.run_until(lambda: whole(group), 5)


def test_what_the_thief_signed_before_is_undone() -> None:
    """A new name, a higher generation and a tombstone count until the roll is there, and no longer."""
    group, roll = mesh(NAMES, and_not="t"), roll_for()
    group.start("t", "a")
    give_credential(group, "a", signed(credential_of("b", generation=9, keys="t")))
    give_credential(group, "a", signed(tombstone_of("c")))
    group.run(3)
    for name in "bc":
        group.kill(name)  # they were told so, and ended
    assert group.node("a").member(credential_of("c").node_id) is None
    assert group.status("d", "t") == "alive"
    give_trust(group, "a", dropping(roll))
    give_roll(group, "a", roll)
    group.run(2)
    assert all_by_but(group, "t")
    group.kill("t")
    for name in "bc":
        group.start(name, "a")
    group.run_until(lambda: whole(group), 5)


def all_by_but(group: Group, name: str) -> bool:
    ids = [signers_at(group, at) for at, host in group.hosts.items() if host.node is not None and at != name]
    return all(set(held.values()) == {key_id(NEXT.public)} and name not in held for held in ids)


@pytest.mark.parametrize("renewed", ["", "a b c e"])
def test_who_was_away_comes_back_whole_within_five_seconds(renewed: str) -> None:
    """Even where everybody has renewed under the new key since: they prove the keys it knows them by."""
    group, roll = mesh(NAMES), roll_for()
    group.kill("d")
    group.run(1)
    give_trust(group, "a", dropping(roll))
    give_roll(group, "a", roll)
    group.run(3)
    for name in renewed.split():
        record = signed(credential_of(name, serial=7), NEXT)
        group.perform(group.hosts[name], group.node(name).renew_credential(record, Instant(group.now)))
    group.run(20)
    group.start("d", "a")
    group.run_until(lambda: whole(group), 5)


def test_a_crash_between_trust_and_roll_forgets_nobody() -> None:
    group, roll = mesh(NAMES), roll_for()
    give_trust(group, "a", dropping(roll))
    group.run(2)
    group.kill("b")
    group.start("b")  # its disk has the Trust and no roll
    assert set(signers_at(group, "b")) == set(NAMES.split())
    group.run(2)
    give_roll(group, "a", roll)
    group.run_until(lambda: whole(group), 5)
    assert {key for (kind, key) in group.hosts["c"].disk if kind is PersistKind.ROLL}
    group.kill("c")
    group.start("c")
    assert signers_at(group, "c") == dict.fromkeys(NAMES.split(), key_id(NEXT.public))


def test_a_disk_with_the_roll_and_members_of_before_follows_the_roll() -> None:
    """The crash came after the last page was written, and before any member was."""
    group, roll = mesh(NAMES, and_not="t"), roll_for()
    group.start("t", "a")
    group.run(3)
    before = {key: value for key, value in group.hosts["b"].disk.items() if key[0] is PersistKind.MEMBER}
    group.kill("t")
    give_trust(group, "a", dropping(roll))
    give_roll(group, "a", roll)
    group.run_until(lambda: whole(group), 5)
    group.kill("b")
    group.hosts["b"].disk.update(before)
    group.start("b")
    assert signers_at(group, "b") == dict.fromkeys(NAMES.split(), key_id(NEXT.public))


def test_who_is_not_on_the_roll_is_out_and_told_so_once_it_sees_the_roll() -> None:
    group, roll = mesh(NAMES), roll_for("a b c d")
    give_trust(group, "e", dropping(roll))
    group.run(1)
    give_roll(group, "e", roll)
    assert Revoked(1) in group.hosts["e"].events
    group.run(1)  # who asks it gets the roll of it all the same
    group.kill("e")
    group.run_until(lambda: whole(group, "a b c d"), 5)
    group.start("e", "a")
    assert group.hosts["e"].events.count(Revoked(1)) == 2
    group.run(3)
    assert "e" not in {view.name for view in group.node("a").members()}


def test_a_renewal_that_overtakes_the_roll_is_taken() -> None:
    group, roll = mesh("a b c"), roll_for("a b c")
    give_trust(group, "a", dropping(roll))
    group.run(2)
    for record in (signed(credential_of("b"), NEXT), signed(credential_of("b", serial=4), NEXT)):
        group.perform(group.hosts["b"], group.node("b").renew_credential(record, Instant(group.now)))
    group.run(3)
    assert signers_at(group, "c")["b"] == key_id(NEXT.public)
    give_roll(group, "c", roll)
    group.run_until(lambda: whole(group, "a b c"), 5)
    member = group.node("a").member(credential_of("b").node_id)
    assert member is not None
    assert member.credential.serial == 4


HELD = [credential_of(name) for name in "abcd"]
STOLEN = [credential_of("t"), credential_of("b", generation=9, keys="t"), tombstone_of("c")]
STOLEN_SAME = [credential_of("d", serial=9, keys="t")]  # of d's own generation, with keys of the thief
NEWER = [credential_of("g"), credential_of("a", serial=5), tombstone_of("f", generation=3)]
LISTED = [*HELD, credential_of("f")]


def arrive(node: GossipNode, group: Group, what: str | bytes | SignedRecord) -> None:
    """Offer something as any peer would; what cannot be taken now comes again, as repair brings it."""
    now = Instant(group.now)
    try:
        if isinstance(what, SignedRecord):
            effects = node.offer_credential(what, now)
        elif isinstance(what, bytes):
            effects = node.offer_roll(what, now)
        else:
            effects = node.offer_trust(dropping(roll_of(LISTED)), now)
    except MalformedInput:
        return
    group.perform(group.hosts["x"], effects)


def view_after(order: Sequence[str | bytes | SignedRecord]) -> tuple[object, ...]:
    """Return what a node holds once all this has come, and then what others hold, as repair brings it."""
    group = Group("x")
    node = group.start("x")
    for credential in HELD:
        arrive(node, group, signed(credential))
    for what in order:
        arrive(node, group, what)
    for what in (*roll_of(LISTED).pieces, *(signed(credential, NEXT) for credential in NEWER)):
        arrive(node, group, what)
    held = [member for member in node._catalog if member.name != "x"]
    rows = sorted((m.name, m.is_revoked, bytes(m.signer), m.messages.credential) for m in held)
    return (*rows, node.state_sums())


@pytest.mark.parametrize("seed", range(40))
def test_views_are_equal_in_whatever_order_things_arrive(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust, each piece of the roll, what the thief signed and what the authority signed since."""
    monkeypatch.setattr(limits, "ROLL_RECORDS_PER_PAGE_MAX", 2)
    things: list[str | bytes | SignedRecord] = ["trust", *roll_of(LISTED).pieces]
    things += [signed(credential) for credential in (*STOLEN, *STOLEN_SAME)]
    things += [signed(credential, NEXT) for credential in NEWER]
    expected = view_after(things)
    random.Random(seed).shuffle(things)
    assert view_after(things) == expected
    names = [row[0] for row in expected[:-1] if isinstance(row, tuple)]
    assert names == ["a", "b", "c", "d", "f", "g"]


@pytest.mark.parametrize("first", [*permutations(["trust", "roll", "stolen"])])
def test_trust_the_roll_or_credentials_come_first(first: tuple[str, ...]) -> None:
    groups: dict[str, list[str | bytes | SignedRecord]] = {
        "trust": ["trust"],
        "roll": [*roll_of(LISTED).pieces],
        "stolen": [signed(credential) for credential in STOLEN],
    }
    order = [thing for name in first for thing in groups[name]]
    assert view_after(order) == view_after(["trust"])


def test_a_core_in_the_midst_of_it_goes_on_from_a_checkpoint() -> None:
    group = mesh("a b c")
    roll = roll_for("a b c")
    give_trust(group, "a", dropping(roll))
    group.run(3)
    group.perform(group.hosts["a"], group.node("a").offer_roll(roll.head, Instant(group.now)))
    group.run(0.01)
    data = write_checkpoint(group.node("a"))
    core = open_checkpoint_untrusted(data, key_of("a"), exchange_of("a"))
    assert core._catalog.credentials.roll.missing_count() == 1
    for page in roll.pages:
        core.offer_roll(page, Instant(group.now))
    assert {bytes(m.signer) for m in core._catalog} == {key_id(NEXT.public)}
    assert core._ctx.keys.credential.key_id == key_id(NEXT.public)


def test_pieces_of_another_roll_change_nothing() -> None:
    group, roll, other = mesh("a b c"), roll_for("a b c"), roll_for("a b")
    with pytest.raises(MalformedInput, match="no index of the roll"):
        group.node("a").offer_roll(roll.head, Instant(group.now))
    give_trust(group, "a", dropping(roll))
    with pytest.raises(MalformedInput, match="no index of the roll"):
        group.node("a").offer_roll(other.head, Instant(group.now))
    group.perform(group.hosts["a"], group.node("a").offer_roll(roll.head, Instant(group.now)))
    with pytest.raises(MalformedInput, match="no page of the roll"):
        group.node("a").offer_roll(other.pages[0], Instant(group.now))
    give_roll(group, "a", roll)
    give_roll(group, "a", roll)  # once more
    group.run_until(lambda: whole(group, "a b c"), 5)


def test_a_second_theft_has_a_roll_of_its_own() -> None:
    group, first = mesh("a b c"), roll_for("a b c")
    give_trust(group, "a", dropping(first))
    give_roll(group, "a", first)
    group.run(3)
    third = key_of("the third authority")
    second = roll_of([credential_of(name) for name in "abc"], third)
    give_trust(group, "b", dropping(second, version=3, keys=[third]))
    give_roll(group, "b", second)
    group.run_until(lambda: all_by(group, "a b c", key_id(third.public)), 5)
    kept = {key for (kind, key) in group.hosts["c"].disk if kind is PersistKind.ROLL}
    assert len(kept) == len(second.pieces)
    # The next Trust without a roll lets go of it.
    give_trust(group, "b", dropping(None, version=4, keys=[third]))
    group.run(2)
    assert not [key for (kind, key) in group.hosts["c"].disk if kind is PersistKind.ROLL]
    assert group.converged()


def test_a_key_dropped_without_a_roll_drops_whom_it_signed() -> None:
    group = mesh("a b c")
    give_trust(group, "a", dropping(None))
    group.run(2)
    assert {view.name for view in group.node("a").members()} == {"a"}


def test_who_has_no_roll_asks_others_in_turn() -> None:
    """The one that brought the Trust is cut off before it gives the roll to anybody."""
    group, roll = mesh(NAMES), roll_for()
    give_trust(group, "a", dropping(roll))
    group.run(1)
    group.partition("a", "b c d e")
    give_roll(group, "a", roll)
    give_roll(group, "b", roll)
    group.run_until(lambda: all(LACKS_ROLL not in words_of(group, "c", name) for name in "bcde"), 4)
    assert group.now > SECOND_NS
    assert TRUST_FIELDS in group.features
