"""How far endpoints are relied upon: the whole table, and the moment time alone changes it."""

import pytest

from gossipmesh.model.instant import NEVER, SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.traffic.reliance import LAST_RESORT, UNATTENDED_NS_MAX, changes_at, reliance

SINCE = Instant(50 * SECOND_NS)
LIMIT = Instant(SINCE + UNATTENDED_NS_MAX)
ALIVE, SUSPECT, UNATTENDED = MemberStatus.ALIVE, MemberStatus.SUSPECT, MemberStatus.UNATTENDED
DEAD, LEFT = MemberStatus.DEAD, MemberStatus.LEFT


@pytest.mark.parametrize(
    ("status", "now", "unreachable", "held", "expected"),
    [
        (ALIVE, SINCE, False, False, ALIVE),
        (ALIVE, LIMIT, False, False, ALIVE),
        (ALIVE, SINCE, True, False, LAST_RESORT),
        (SUSPECT, LIMIT, True, False, SUSPECT),
        (UNATTENDED, SINCE, False, False, UNATTENDED),
        (UNATTENDED, SINCE, True, False, UNATTENDED),
        (UNATTENDED, Instant(LIMIT - 1), False, False, UNATTENDED),
        (UNATTENDED, LIMIT, False, False, LAST_RESORT),
        (UNATTENDED, Instant(10 * LIMIT), False, True, LAST_RESORT),
        (DEAD, SINCE, True, False, DEAD),
        (DEAD, LIMIT, False, True, LAST_RESORT),
        (LEFT, SINCE, False, True, LEFT),
    ],
)
def test_what_is_held_of_a_member_and_for_how_long(
    status: MemberStatus, now: Instant, unreachable: bool, held: bool, expected: MemberStatus
) -> None:
    assert reliance(status, SINCE, now, unreachable=unreachable, held=held) is expected


@pytest.mark.parametrize("status", list(MemberStatus))
def test_only_an_absent_agent_counts_time(status: MemberStatus) -> None:
    assert changes_at(status, SINCE) == (LIMIT if status is UNATTENDED else NEVER)
