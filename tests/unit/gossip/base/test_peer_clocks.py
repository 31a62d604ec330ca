"""One sample a peer, and a median of peers: no clock that is wrong makes another's so."""

import pytest

from gossipmesh.gossip.base.peer_clocks import PeerClocks, Skew, middle_of
from gossipmesh.model.instant import HOUR_S, SECOND_NS, Instant

OFFSET_S = 1_800_000_000
NOW = Instant(7 * SECOND_NS)
YEAR_S = 365 * 86_400


def clocks(*told: tuple[str, int], now: Instant = NOW) -> PeerClocks:
    """Return what peers told, in that order: whose, and how far ahead of the true time."""
    found = PeerClocks()
    for peer, ahead_s in told:
        found.note(peer.encode(), now // SECOND_NS + OFFSET_S + ahead_s, now)
    return found


MIDDLES: list[tuple[list[int], int]] = [
    ([], 0),
    ([300], 300),
    ([-300], -300),
    ([0, 300], 0),
    ([-2, 300], 0),
    ([290, 300], 290),
    ([-300, -290], -290),
    ([0, 0, 300], 0),
    ([300, 300, 0], 300),
    ([-YEAR_S, 0, 1, YEAR_S], 0),
    ([0, 0, 300, 300], 0),
    ([0, 200, 300, 400], 200),
    ([-400, -300, -200, 0], -200),
    ([5, 1, 9, 3, 7], 5),
]


@pytest.mark.parametrize(("skews", "middle"), MIDDLES)
def test_the_middle_of_an_even_number_is_what_is_nearest_to_none(skews: list[int], middle: int) -> None:
    assert middle_of(skews) == middle
    assert middle_of(reversed(skews)) == middle


def test_a_peer_counts_once_however_often_it_is_asked() -> None:
    told = clocks(("a", 0), *[("wrong", 300)] * 50, ("b", 0))
    assert told.skew(OFFSET_S, NOW) == Skew(0, 3)


def test_the_latest_word_of_a_peer_is_its_word() -> None:
    assert clocks(("a", 300), ("a", 0)).skew(OFFSET_S, NOW) == Skew(0, 1)


@pytest.mark.parametrize("wrong_count", range(8))
def test_half_of_them_wrong_move_nothing(wrong_count: int) -> None:
    """Fifteen are kept, those that were asked last."""
    wrong = [(f"wrong{number}", YEAR_S) for number in range(wrong_count)]
    right = [(f"right{number}", 0) for number in range(40)]
    assert clocks(*right, *wrong).skew(OFFSET_S, NOW) == Skew(0, 15)


def test_what_peers_said_stays_right_when_our_own_clock_is_set() -> None:
    told = clocks(("a", 0), ("b", 0), ("c", 0))
    assert told.skew(OFFSET_S + HOUR_S, NOW) == Skew(-HOUR_S, 3)
    assert told.skew(OFFSET_S - HOUR_S, NOW) == Skew(HOUR_S, 3)
    assert told.skew(OFFSET_S, Instant(NOW + 60 * SECOND_NS)) == Skew(0, 3)


def test_whoever_was_silent_for_an_hour_says_nothing() -> None:
    told, later = clocks(("a", 300), ("b", 300)), Instant(NOW + HOUR_S * SECOND_NS + 1)
    told.note(b"c", later // SECOND_NS + OFFSET_S, later)
    assert told.skew(OFFSET_S, later) == Skew(0, 1)


def test_a_peer_that_is_forgotten_judges_no_more() -> None:
    told = clocks(("a", 300), ("b", 0))
    told.forget(b"a")
    told.forget(b"nobody")
    assert told.skew(OFFSET_S, NOW) == Skew(0, 1)


@pytest.mark.parametrize("wall_s", [-(2**63), -1, 2**62, 2**63])
def test_a_clock_beyond_all_reason_is_kept_within_bounds(wall_s: int) -> None:
    told = PeerClocks()
    told.note(b"a", wall_s, NOW)
    assert abs(told.skew(0, NOW).by_s) <= 2**40
