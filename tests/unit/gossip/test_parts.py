"""The small machines: budgets, queue, local health, probe order, state sums."""

import random

import pytest

from gossipmesh.gossip.base.budgets import PREFIXES_MAX, PrefixBudgets, TokenBucket
from gossipmesh.gossip.dissemination.queue import UpdateQueue, sends_max
from gossipmesh.gossip.failure.local_health import LocalHealth
from gossipmesh.gossip.membership.state_sums import Item, Rank, SumLedger
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address


def test_a_bucket_refills_with_time() -> None:
    bucket = TokenBucket(10, 2, Instant(0))
    assert [bucket.take(Instant(0)) for _ in range(3)] == [True, True, False]
    assert bucket.take(Instant(SECOND_NS // 10))


def test_prefix_budgets_count_an_ipv6_network_as_one_and_stay_bounded() -> None:
    budgets = PrefixBudgets(1, 1)
    assert budgets.take(Address("fd00::1", 1), Instant(0))
    assert not budgets.take(Address("fd00::2", 1), Instant(0))
    assert budgets.take(Address("fd00:0:0:1::1", 1), Instant(0))
    for number in range(PREFIXES_MAX + 50):
        budgets.take(Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1), Instant(0))
    assert len(budgets) == PREFIXES_MAX


def test_the_queue_prefers_what_was_sent_least_and_forgets_what_was_sent_enough() -> None:
    queue = UpdateQueue()
    queue.put((1, b"a", b""), b"aaaa", 2)
    assert queue.fill(100, 10) == [b"aaaa"]
    queue.put((1, b"b", b""), b"bbbb", 2)
    assert queue.fill(100, 10) == [b"bbbb", b"aaaa"]
    assert queue.fill(100, 10) == [b"bbbb"]
    assert len(queue) == 0


def test_a_newer_update_replaces_the_older() -> None:
    queue = UpdateQueue()
    queue.put((1, b"a", b""), b"old", 4)
    queue.fill(100, 10)
    queue.put((1, b"a", b""), b"new", 4)
    assert len(queue) == 1
    assert queue.fill(100, 10) == [b"new"]


def test_what_does_not_fit_waits_and_smaller_ones_go() -> None:
    queue = UpdateQueue()
    queue.put((1, b"a", b""), b"x" * 90, 4)
    queue.put((1, b"b", b""), b"y" * 20, 4)
    assert queue.fill(50, 10) == [b"y" * 20]
    assert queue.fill(100, 10) == [b"x" * 90]


@pytest.mark.parametrize(("members", "expected"), [(1, 4), (9, 4), (10, 8), (99, 8), (100, 12)])
def test_sends_grow_with_the_logarithm(members: int, expected: int) -> None:
    assert sends_max(4, members) == expected


def test_local_health_stays_within_bounds_and_scales() -> None:
    health = LocalHealth(8)
    health.add(100)
    assert (health.score, health.scale(10)) == (7, 80)
    health.add(-100)
    assert (health.score, health.scale(10)) == (0, 10)


def test_a_sum_depends_on_content_alone() -> None:
    rng = random.Random(1)
    names = [(kind, rng.randbytes(16)) for kind in (1, 2, 3) for _ in range(40)]
    one, other = SumLedger(7), SumLedger(7)
    for ledger in (one, other):
        for kind, subject in rng.sample(names, len(names)):
            digest = int.from_bytes(ledger.digest(subject), "big")
            ledger.put(kind, subject, Item(Rank(1, 1, 1, b""), digest))
    assert one.state_sum == other.state_sum
    assert one.bucket_hashes() == other.bucket_hashes()
    kind, subject = names[0]
    one.put(kind, subject, None)
    assert one.state_sum != other.state_sum
    differing = [
        n
        for n in range(256)
        if one.bucket_hashes()[8 * n : 8 * n + 8] != other.bucket_hashes()[8 * n : 8 * n + 8]
    ]
    assert differing == [subject[0]]


def test_an_emptied_ledger_is_as_new() -> None:
    ledger = SumLedger(7)
    ledger.put(1, b"a" * 16, Item(Rank(1, 1, 1, b""), 2**127))
    ledger.put(1, b"a" * 16, None)
    assert ledger.state_sum == bytes(16)
