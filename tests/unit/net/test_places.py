"""Places: shares hold, the oldest unfinished goes first, a busy one never, and none is lost."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipmesh.net.places import (
    IDENTITY,
    NODE,
    SOURCE,
    UID,
    Party,
    Place,
    Room,
    Stage,
    source_of,
    uid_party,
)

ATTACKER, FRIEND, OTHER = (UID, "1001"), (UID, "1002"), (UID, "1003")


class Visitors:
    """A room, who came to it, and who was sent away again."""

    def __init__(self, places_max: int, spare_places_max: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self.room = Room("r", self._count, places_max=places_max, spare_places_max=spare_places_max)
        self.evicted: list[str] = []
        self.arriving: set[str] = set()

    def _count(self, event: str) -> None:
        self.counts[event] += 1

    def come(self, name: str, *parties: Party) -> Place | None:
        def evict() -> bool:
            if name in self.arriving:
                return False
            self.evicted.append(name)
            return True

        return self.room.admit(parties, evict)

    def let_in(self, name: str, *parties: Party) -> Place:
        place = self.come(name, *parties)
        assert place is not None
        return place


def test_a_party_at_its_share_takes_its_own_oldest_unfinished_place() -> None:
    visitors = Visitors(8)
    friend = visitors.let_in("friend", FRIEND)
    for number in range(10):
        visitors.let_in(f"a{number}", ATTACKER)
    assert visitors.evicted == ["a0", "a1", "a2", "a3", "a4", "a5"]
    assert friend.held
    assert visitors.room.held_by(ATTACKER) == 4


def test_what_is_busy_is_never_taken_and_the_rest_of_the_room_stays_for_others() -> None:
    visitors = Visitors(8)
    for number in range(4):
        visitors.let_in(f"a{number}", ATTACKER).begin()
    assert visitors.come("a4", ATTACKER) is None
    assert visitors.counts == {"r_refused_share": 1}
    for number in range(4):
        visitors.let_in(f"f{number}", FRIEND)
    assert not visitors.evicted


def test_a_full_room_takes_the_oldest_unfinished_then_the_oldest_idle() -> None:
    visitors = Visitors(4)
    idle = visitors.let_in("idle", FRIEND)
    idle.begin()
    idle.end()
    busy = visitors.let_in("busy", FRIEND)
    busy.begin()
    for name in ("first", "second"):
        visitors.let_in(name, ATTACKER)
    for name in ("x", "y"):
        visitors.let_in(name, OTHER).begin()
    assert visitors.evicted == ["first", "second"]
    visitors.let_in("z", (UID, "1004"))
    assert visitors.evicted == ["first", "second", "idle"]
    assert visitors.counts == {"r_evicted_unfinished": 2, "r_evicted_idle": 1}
    assert busy.held


@pytest.mark.parametrize("parties_count", [2, 3, 8])
def test_a_crowd_of_several_parties_takes_its_own_places_and_no_lone_ones(parties_count: int) -> None:
    """Everybody is within its share, the room is full, and the lone one came before nearly all of them."""
    visitors = Visitors(16)
    crowd = [(SOURCE, f"10.0.0.{number}") for number in range(parties_count)]
    for number in range(4):
        visitors.let_in(f"before{number}", crowd[number % parties_count])
    lone = visitors.let_in("lone", OTHER)
    for number in range(200):
        visitors.let_in(f"a{number}", crowd[number % parties_count])
    assert lone.held
    assert visitors.room.held_count == 16


def test_an_idle_one_of_a_crowd_stays_as_long_as_anybody_is_unfinished() -> None:
    visitors = Visitors(4)
    for number in range(2):
        place = visitors.let_in(f"a{number}", ATTACKER)
        place.begin()
        place.end()
    for name in ("x", "y"):
        visitors.let_in(name, (UID, name))
    visitors.let_in("new", OTHER)
    assert visitors.evicted == ["x"]


def test_one_whose_next_request_is_arriving_is_passed_over() -> None:
    visitors = Visitors(2)
    for name in ("older", "younger"):
        place = visitors.let_in(name, (UID, name))
        place.begin()
        place.end()
    visitors.arriving.add("older")
    visitors.let_in("new", OTHER)
    assert visitors.evicted == ["younger"]


def test_who_finds_a_full_room_is_told_so_on_a_spare_place_whoever_fills_those_too() -> None:
    visitors = Visitors(4, spare_places_max=4)
    for party in (ATTACKER, FRIEND):
        for number in range(2):
            visitors.let_in(f"{party}{number}", party).begin()
    for number in range(20):
        assert visitors.let_in(f"s{number}", ATTACKER).told_full
    other = visitors.let_in("other", OTHER)
    assert other.told_full
    assert "other" not in visitors.evicted
    assert visitors.room.held_count == 4 + 3
    assert visitors.counts["r_told_share"] == 20
    assert visitors.counts["r_told_full"] == 1
    assert visitors.room.take_full()


def test_full_is_what_is_so_now_or_has_turned_somebody_away() -> None:
    visitors = Visitors(2)
    places = [visitors.let_in(name, (UID, name)) for name in "ab"]
    assert not visitors.room.take_full(), "what is unfinished can still be evicted"
    for place in places:
        place.begin()
    assert visitors.room.take_full()
    assert visitors.come("c", OTHER) is None
    places[0].leave()
    assert visitors.room.take_full()
    assert not visitors.room.take_full()


def test_who_proves_an_identity_is_counted_under_it_and_its_address_is_free_again() -> None:
    visitors = Visitors(8)
    source = (SOURCE, "10.0.0.1")
    for number in range(4):
        place = visitors.let_in(f"n{number}", source)
        assert place.prove(((IDENTITY, f"spiffe://t/{number}"), (NODE, "10.0.0.1")))
        place.begin()
    assert visitors.room.held_by(source) == 0
    assert visitors.let_in("silent", source).held
    assert not visitors.evicted


def test_many_identities_of_one_node_do_not_get_the_whole_room() -> None:
    visitors = Visitors(8)
    source = (SOURCE, "10.0.0.1")
    for number in range(6):
        place = visitors.let_in(f"n{number}", source)
        assert place.prove(((IDENTITY, f"spiffe://t/{number}"), (NODE, "10.0.0.1")))
        place.begin()
    seventh = visitors.let_in("n6", source)
    assert not seventh.prove(((IDENTITY, "spiffe://t/6"), (NODE, "10.0.0.1")))
    assert seventh.told_full
    assert visitors.let_in("friend", (SOURCE, "10.0.0.2")).prove(((IDENTITY, "f"), (NODE, "10.0.0.2")))


def test_one_identity_at_its_share_gives_up_its_own_oldest_idle_connection() -> None:
    visitors = Visitors(4)
    proven = ((IDENTITY, "x"), (NODE, "10.0.0.1"))
    for name in ("a", "b", "c"):
        place = visitors.let_in(name, (SOURCE, "10.0.0.1"))
        assert place.prove(proven)
        place.begin()
        place.end()
    assert visitors.evicted == ["a"]


def test_a_smaller_room_takes_nothing_from_who_is_there() -> None:
    visitors = Visitors(8)
    for number in range(8):
        visitors.let_in(f"v{number}", (UID, str(number))).begin()
    visitors.room.resize(2)
    assert visitors.room.held_count == 8
    assert visitors.come("late", OTHER) is None


def test_a_room_sheds_what_is_not_busy() -> None:
    visitors = Visitors(8)
    visitors.let_in("busy", FRIEND).begin()
    for name in ("a", "b", "c"):
        visitors.let_in(name, OTHER)
    assert visitors.room.shed(2) == 2
    assert visitors.evicted == ["a", "b"]
    assert visitors.room.shed(5) == 1
    assert visitors.room.held_count == 1


def test_what_is_called_after_an_eviction_changes_nothing() -> None:
    visitors = Visitors(1)
    first = visitors.let_in("first", ATTACKER)
    second = visitors.let_in("second", FRIEND)
    first.begin()
    first.end()
    assert not first.prove(((IDENTITY, "x"), (NODE, "y")))
    first.leave()
    first.leave()
    assert visitors.room.held_count == 1
    assert second.held


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_an_ipv6_network_is_one_source(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


def test_all_whose_uid_nobody_could_tell_are_one_party() -> None:
    assert uid_party(None) == uid_party(None) != uid_party(0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "begin", "end", "leave", "prove", "shed"]),
        st.integers(0, 30),
        st.integers(0, 4),
    ),
    max_size=200,
)


@given(STEPS, st.integers(1, 9), st.integers(0, 4))
def test_whatever_comes_no_place_is_lost_and_every_rule_holds(
    steps: list[tuple[str, int, int]], places_max: int, spare_max: int
) -> None:
    """Against a model that only remembers who holds a place, in which order."""
    visitors = Visitors(places_max, spare_max)
    there: list[tuple[str, Place]] = []
    for number, (step, which, who) in enumerate(steps):
        name, place = there[which % len(there)] if there else ("", None)
        before = {name: place.stage for name, place in there}
        spare = {name for name, place in there if place.told_full}
        visitors.evicted.clear()
        if step == "come":
            new = visitors.come(f"v{number}", (UID, str(who)))
            if new is not None:
                there.append((f"v{number}", new))
        elif step == "shed":
            visitors.room.shed(1)
        elif place is not None and step == "prove":
            place.prove(((IDENTITY, str(who)), (NODE, "n")))
        elif place is not None:
            {"begin": place.begin, "end": place.end, "leave": place.leave}[step]()
            if step == "leave":
                there.remove((name, place))
        for gone in visitors.evicted:
            assert before[gone] is not Stage.BUSY
            if step == "shed" and before[gone] is Stage.IDLE:
                left = {name for name in before if name not in spare and name != gone}
                assert all(before[name] is not Stage.UNFINISHED for name in left)
        there = [(name, place) for name, place in there if name not in visitors.evicted]
        assert all(place.held for _, place in there)
        assert visitors.room.held_count == len(there)
        assert visitors.room.held_count <= places_max + spare_max
        for uid in range(5):
            assert visitors.room.held_by((UID, str(uid))) <= max(1, places_max // 2)
    for _, place in there:
        place.leave()
    assert visitors.room.held_count == 0
    assert all(visitors.room.held_by((UID, str(uid))) == 0 for uid in range(5))
