"""Turns: a crowd waits for itself, and for nobody else; and what each may have done how often."""

from gossipmesh.control.pacing import REFUSALS_PER_DAY, RENEWALS_AT_ONCE, Bucket, refusals, renewals
from gossipmesh.control.queue import FairQueue
from gossipmesh.model.instant import DAY_S, WallSeconds

NOW = WallSeconds(1_800_000_000)


def drained(queue: FairQueue[str]) -> list[str]:
    return list(iter(queue.take, None))


def test_parties_take_turns_and_so_do_their_members() -> None:
    queue: FairQueue[str] = FairQueue(per_party_max=10, all_max=100)
    for number in range(4):
        queue.put("crowd", "loud", f"loud{number}")
    queue.put("crowd", "quiet", "quiet")
    queue.put("other", "one", "other")
    assert drained(queue) == ["loud0", "other", "quiet", "loud1", "loud2", "loud3"]
    assert queue.count == 0


def test_who_waits_with_enough_is_turned_away_and_counted() -> None:
    queue: FairQueue[str] = FairQueue(per_party_max=2, all_max=3)
    assert [queue.put("a", member, "a") for member in "xyz"] == [True, True, False]
    assert [queue.put("b", "x", "b") for _ in range(2)] == [True, False]
    assert queue.refused_count == 2
    assert queue.take() == "a"
    assert queue.put("b", "x", "b")
    assert drained(queue) == ["b", "a", "b"]


def test_the_newest_of_a_member_come_first_where_that_was_asked_for() -> None:
    queue: FairQueue[str] = FairQueue(per_party_max=10, all_max=100, newest_first=True)
    for number in range(3):
        queue.put("crowd", "loud", f"loud{number}")
    queue.put("other", "one", "other")
    assert drained(queue) == ["loud2", "other", "loud1", "loud0"]


def test_a_bucket_lets_through_so_many_and_then_one_at_a_time() -> None:
    bucket = Bucket(3, 60)
    assert [bucket.take("n1", NOW) for _ in range(4)] == [True, True, True, False]
    assert bucket.take("n2", NOW)
    assert not bucket.take("n1", WallSeconds(NOW + 59))
    assert bucket.take("n1", WallSeconds(NOW + 60))
    assert not bucket.take("n1", WallSeconds(NOW + 60))
    assert [bucket.take("n1", WallSeconds(NOW + DAY_S)) for _ in range(4)] == [True, True, True, False]


def test_a_clock_set_back_shuts_nobody_out_for_long() -> None:
    bucket = Bucket(3, 60)
    assert all(bucket.take("n1", WallSeconds(NOW + 10 * DAY_S)) for _ in range(3))
    assert not bucket.take("n1", NOW)
    assert bucket.take("n1", WallSeconds(NOW + 60))


def test_what_is_paced() -> None:
    paced = renewals()
    assert sum(paced.take("n1", NOW) for _ in range(100)) == RENEWALS_AT_ONCE
    lines = refusals()
    assert sum(lines.take("n1", NOW) for _ in range(100)) == REFUSALS_PER_DAY
