"""Which dates may be now: by our own clock, by three peers, and never before what was signed."""

import pytest

from gossipmesh.gossip.base.civil_time import CivilTime, Turn
from gossipmesh.model.instant import HOUR_S, MINUTE_S, SECOND_NS, Instant
from gossipmesh.model.limits import CLOCK_TOLERANCE_S

WALL_S = 1_800_000_000
YEAR_S = 365 * 86_400
NOW = Instant(5 * SECOND_NS)
QUIET = Turn()


def judged(behind_s: int, peers_count: int, *, signed_s: int = 0) -> CivilTime:
    civil = CivilTime()
    civil.signed(signed_s)
    civil.judge(WALL_S, behind_s, peers_count, NOW)
    return civil


def span(civil: CivilTime) -> tuple[int, int]:
    """Return which dates may be now, less what the clock says."""
    return civil.earliest(WALL_S) - WALL_S, civil.latest(WALL_S) - WALL_S


@pytest.mark.parametrize(
    ("behind_s", "peers_count", "expected"),
    [
        (0, 0, (0, 0)),
        (0, 15, (0, 0)),
        (-HOUR_S, 3, (-HOUR_S, 0)),
        (HOUR_S, 3, (0, HOUR_S)),
        (-YEAR_S, 15, (-YEAR_S, 0)),
        (YEAR_S, 15, (0, YEAR_S)),
        (-HOUR_S, 2, (0, 0)),
        (-HOUR_S, 1, (0, 0)),
        (2 * 5 * MINUTE_S, 15, (0, 0)),
        (-2 * 5 * MINUTE_S, 15, (0, 0)),
    ],
)
def test_both_readings_count_while_three_peers_disagree(
    behind_s: int, peers_count: int, expected: tuple[int, int]
) -> None:
    assert span(judged(behind_s, peers_count)) == expected


def test_what_was_signed_is_past_whatever_clocks_say() -> None:
    assert span(judged(0, 0, signed_s=WALL_S + YEAR_S)) == (YEAR_S, YEAR_S)
    assert span(judged(-HOUR_S, 5, signed_s=WALL_S - MINUTE_S)) == (-MINUTE_S, 0)
    assert span(judged(0, 5, signed_s=WALL_S - YEAR_S)) == (0, 0)


def test_dates_ahead_are_taken_up_to_a_tolerance_that_they_do_not_move() -> None:
    civil = judged(0, 0)
    for _ in range(1_000):
        civil.signed(WALL_S + CLOCK_TOLERANCE_S)
        assert civil.has_begun(WALL_S + CLOCK_TOLERANCE_S, WALL_S)
        assert not civil.has_begun(WALL_S + CLOCK_TOLERANCE_S + 1, WALL_S)


def test_a_date_that_peers_have_reached_is_taken_though_our_clock_is_a_year_back() -> None:
    assert judged(YEAR_S, 3).has_begun(WALL_S + YEAR_S, WALL_S)
    assert not judged(YEAR_S, 2).has_begun(WALL_S + YEAR_S, WALL_S)
    assert judged(0, 0, signed_s=WALL_S + YEAR_S).has_begun(WALL_S + YEAR_S, WALL_S)


def test_what_turns_is_told_once() -> None:
    civil = CivilTime()
    turns = [civil.judge(WALL_S, skew_s, 3, NOW) for skew_s in (600, 901, 3_600, 700, 901, 599, 899, 0)]
    assert turns == [QUIET, Turn(is_off=True), QUIET, QUIET, QUIET, Turn(is_off=False), QUIET, QUIET]


def test_of_few_peers_the_first_may_be_the_one_that_is_wrong() -> None:
    """For half a minute nothing is told; then it is, though nobody knows whose clock it is."""
    civil = CivilTime()
    later = [Instant(NOW + seconds * SECOND_NS) for seconds in (0, 29, 30, 31)]
    assert [civil.judge(WALL_S, HOUR_S, 2, at) for at in later] == [QUIET, QUIET, Turn(is_off=True), QUIET]
    assert civil.is_off
    assert civil.judge(WALL_S, 0, 2, later[-1]) == Turn(is_off=False)
    assert not civil.is_off


def test_a_clock_below_what_was_signed_is_told_beyond_the_tolerance() -> None:
    civil = CivilTime()
    civil.signed(WALL_S)
    below = [0, CLOCK_TOLERANCE_S, CLOCK_TOLERANCE_S + 1, YEAR_S, 0]
    turns = [civil.judge(WALL_S - below_s, 0, 0, NOW) for below_s in below]
    assert turns == [QUIET, QUIET, Turn(is_below_records=True), QUIET, Turn(is_below_records=False)]
