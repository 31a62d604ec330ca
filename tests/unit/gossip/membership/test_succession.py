"""Who comes back is told that its name is another's, or nobody's, by a key that Trust may have dropped."""

import pytest

from gossipmesh.gossip.base.effects import EnrolledAgain, Revoked
from gossipmesh.gossip.replay.checkpoint import open_checkpoint_untrusted, write_checkpoint
from gossipmesh.model.instant import SECOND_NS, Instant
from tests.unit.gossip.group import Group, credential_of, exchange_of, key_of
from tests.unit.gossip.rolls import (
    all_by,
    dropping,
    give_credential,
    give_roll,
    give_trust,
    mesh,
    roll_of,
    signed,
    tombstone_of,
)

NAMES = "a b c d e"
OVER = signed(credential_of("b", generation=9, keys="t"))
OUT = signed(tombstone_of("c"))


def ended(group: Group, name: str) -> set[object]:
    """Return what a node was told to end for; it is told so again and again while it goes on."""
    events = group.hosts[name].events
    return {event for event in events if isinstance(event, EnrolledAgain | Revoked)}


def with_news_of_the_thief(names: str = NAMES) -> Group:
    """Return a mesh in which b and c ended, by a stolen key, while e was there to hear of it."""
    group = mesh(names)
    give_credential(group, "e", OVER)
    give_credential(group, "e", OUT)
    group.run(3)
    assert ended(group, "b") == {EnrolledAgain(9)}
    assert ended(group, "c") == {Revoked(2)}
    for name in "bce":
        group.kill(name)
        group.hosts[name].events.clear()
    return group


def drop_the_key(group: Group, at: str = "a") -> None:
    roll = roll_of(credential_of(name) for name in NAMES.split())
    give_trust(group, at, dropping(roll))
    give_roll(group, at, roll)
    group.run(3)


@pytest.mark.parametrize("apart_s", [0, 1, 2])
def test_who_was_taken_out_comes_back_beside_one_that_knows_no_better(apart_s: int) -> None:
    """All three have the Trust and the members of before, and may meet one another first."""
    group = with_news_of_the_thief()
    drop_the_key(group)
    group.partition("b c e", "a d")
    for name in "ebc":
        group.start(name)
    group.run(apart_s)
    group.heal()
    group.run_until(lambda: all_by(group, NAMES) and group.converged(), 8)
    group.run(10)
    assert [ended(group, name) for name in NAMES.split()] == [set()] * 5
    assert set(group.statuses("c").values()) == set(group.statuses("b").values()) == {"alive"}


@pytest.mark.parametrize(("name", "event"), [("b", EnrolledAgain(9)), ("c", Revoked(2))])
def test_a_key_that_trust_names_still_is_believed_after_five_seconds(name: str, event: object) -> None:
    group = with_news_of_the_thief()
    began = group.now
    group.start(name)
    group.run(4.9)
    assert ended(group, name) == set()
    group.run_until(lambda: ended(group, name) != set(), 1)
    assert ended(group, name) == {event}
    assert group.now - began < 5.1 * SECOND_NS


def test_a_node_that_was_cut_off_has_the_trust_of_before_as_well() -> None:
    """It runs on beyond a cut, and the first that it meets afterwards knows no better either."""
    group = mesh(NAMES)
    group.partition("c", "a b d e")
    give_credential(group, "e", OUT)
    group.run(3)
    group.kill("e")
    drop_the_key(group)
    assert group.node("c").isolated_since is not None
    group.heal()
    group.partition("c e", "a b d")
    group.start("e")
    group.run(2)
    group.heal()
    group.run_until(lambda: all_by(group, NAMES) and group.converged(), 8)
    assert ended(group, "c") == set()


@pytest.mark.parametrize(("slept_s", "told"), [(60, set()), (2, {Revoked(2)})])
def test_a_node_that_slept_for_long_has_the_trust_of_before_as_well(slept_s: int, told: set[object]) -> None:
    group = mesh(NAMES)
    node = group.node("c")
    group.perform(group.hosts["c"], node.handle_deadline(Instant(group.now + slept_s * SECOND_NS)))
    awake_at = Instant(group.now + (slept_s + 1) * SECOND_NS)
    group.perform(group.hosts["c"], node.offer_credential(OUT, awake_at))
    assert ended(group, "c") == told


def test_a_running_node_believes_at_once() -> None:
    group = mesh(NAMES)
    give_credential(group, "c", OUT)
    assert ended(group, "c") == {Revoked(2)}


def test_what_was_put_off_goes_through_a_checkpoint() -> None:
    group = with_news_of_the_thief()
    group.start("c")
    group.run(3)
    core = open_checkpoint_untrusted(write_checkpoint(group.node("c")), key_of("c"), exchange_of("c"))
    told: list[object] = []
    while core.next_deadline() <= group.now + 3 * SECOND_NS:
        told += [getattr(effect, "event", None) for effect in core.handle_deadline(core.next_deadline())]
    assert Revoked(2) in told
