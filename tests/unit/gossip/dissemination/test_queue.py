"""What rides on a packet: shares, the receiver's own first, and a queue that cannot grow."""

import random

import pytest

from gossipmesh.gossip.base.settings import GossipSettings
from gossipmesh.gossip.dissemination.queue import (
    PARTS_PERCENT,
    POLICY_KIND,
    Share,
    UpdateQueue,
    sends_max,
    share_of,
)
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.records import RecordKind
from tests.unit.gossip.test_transcripts import CART, joined, publish

KINDS = {
    Share.DOCUMENTS: POLICY_KIND,
    Share.ALIVE: int(RecordKind.NODE_STATE),
    Share.DEATHS: int(RecordKind.VERDICT),
    Share.SERVICES: int(RecordKind.SERVICE_SET),
    Share.REST: 99,
}


def filled(per_share: int, size: int = 50) -> UpdateQueue:
    """Return a queue of equally long updates, the shares one after the other."""
    queue = UpdateQueue()
    for share, kind in KINDS.items():
        for number in range(per_share):
            message = bytes((share,)) + bytes(size - 1)
            queue.put((kind, number.to_bytes(16, "big"), b""), message, 1_000_000)
    return queue


def shares_of(messages: list[bytes]) -> list[int]:
    return [sum(message[0] == share for message in messages) for share in Share]


def test_each_kind_has_its_share() -> None:
    assert [share_of(kind) for kind in KINDS.values()] == list(Share)
    assert share_of(RecordKind.CREDENTIAL) is Share.ALIVE
    assert sum(PARTS_PERCENT) == 100


def test_under_load_every_share_gets_its_part_of_the_room() -> None:
    queue = filled(200)
    sent = [0] * len(Share)
    for _ in range(100):
        for share, count in enumerate(shares_of(queue.fill(1_000, 64))):
            sent[share] += count
    total = sum(sent)
    assert total == 2_000
    for share, part in enumerate(PARTS_PERCENT):
        assert abs(sent[share] * 100 / total - part) < 1


def test_what_a_share_leaves_unused_goes_to_the_others() -> None:
    queue = UpdateQueue()
    for number in range(50):
        queue.put((99, number.to_bytes(16, "big"), b""), bytes(50), 8)
    assert len(queue.fill(1_000, 64)) == 20


def test_a_record_longer_than_its_share_of_one_packet_saves_up_for_it() -> None:
    queue = filled(200)
    queue.put((77, b"z" * 16, b""), b"Z" * 600, 1)
    for number in range(200):
        queue.drop((KINDS[Share.REST], number.to_bytes(16, "big"), b""))
    packets = [any(message[:1] == b"Z" for message in queue.fill(1_000, 64)) for _ in range(20)]
    # 10 % of 1,000 bytes a packet: affordable at the sixth.
    assert packets.index(True) + 1 == 6


def test_deaths_cannot_starve_documents_and_documents_cannot_starve_deaths() -> None:
    for flood, starved in ((Share.DEATHS, Share.DOCUMENTS), (Share.DOCUMENTS, Share.DEATHS)):
        queue = UpdateQueue()
        for number in range(500):
            key = (KINDS[flood], number.to_bytes(16, "big"), b"")
            queue.put(key, bytes((flood,)) * 90, 8)
        queue.fill(1_000, 64)
        queue.put((KINDS[starved], b"s" * 16, b""), bytes((starved,)) * 90, 8)
        for packet in range(1, 9):
            for number in range(40):
                key = (KINDS[flood], (1_000 * packet + number).to_bytes(16, "big"), b"")
                queue.put(key, bytes((flood,)) * 90, 8)
            assert shares_of(queue.fill(1_000, 64))[starved] == 1
        assert queue.length_of(starved) == 0


def test_what_concerns_the_receiver_comes_first_its_death_before_its_state() -> None:
    queue = filled(100)
    receiver = b"r" * 16
    queue.put((int(RecordKind.NODE_STATE), receiver, b""), b"state", 9)
    queue.put((int(RecordKind.VERDICT), receiver, b""), b"verdict", 9)
    for _ in range(20):
        queue.fill(1_000, 64)
    assert queue.fill(1_000, 64, receiver)[:2] == [b"verdict", b"state"]


def test_updates_about_a_subject_can_be_dropped_by_kind_or_whole() -> None:
    queue = filled(3)
    subject = (1).to_bytes(16, "big")
    queue.drop_subject(99, subject)
    assert len(queue) == 14
    queue.drop_subject(None, subject)
    assert len(queue) == 10
    assert queue.fill(10_000, 64, subject)
    queue.drop_subject(None, subject)
    assert len(queue) == 10


@pytest.mark.parametrize("seed", range(3))
def test_the_queue_agrees_with_itself_after_any_history(seed: int) -> None:
    rng = random.Random(seed)
    queue = UpdateQueue()
    live: set[tuple[int, bytes, bytes]] = set()
    for _ in range(3_000):
        key = (rng.choice(list(KINDS.values())), rng.randrange(20).to_bytes(16, "big"), b"")
        action = rng.random()
        if action < 0.5:
            queue.put(key, rng.randbytes(rng.randrange(1, 400)), rng.randrange(1, 5))
            live.add(key)
        elif action < 0.6:
            queue.drop(key)
        elif action < 0.65:
            queue.drop_subject(None, key[1])
        else:
            room = rng.randrange(0, 1_200)
            taken = queue.fill(room, 8, key[1])
            assert len(taken) <= 8
            assert sum(map(len, taken)) <= room
        assert len(queue) == sum(queue.length_of(share) for share in Share) <= len(live)
    for _ in range(500):
        queue.fill(1_200, 64)
    assert len(queue) == 0
    assert not queue._about


def test_lambda_is_four_and_six_for_refutations() -> None:
    settings = GossipSettings()
    assert (settings.transmit_mult, settings.refutation_mult) == (4, 6)
    assert sends_max(settings.refutation_mult, 1_000) == 24


def test_under_churn_the_queue_is_never_longer_than_what_is_held() -> None:
    group = joined("a b c d e f g h")
    rng = random.Random(5)
    for round_number in range(40):
        name = rng.choice("bcdefgh")
        if group.hosts[name].node is None:
            group.start(name, "a")
        elif rng.random() < 0.4:
            group.kill(name)
        else:
            publish(group, name, CART)
            publish(group, name)
        group.run(0.3 + rng.random())
        for host in group.hosts.values():
            if host.node is not None:
                held = sum(len(member.messages) for member in host.node._catalog)
                assert len(host.node._courier.queue) <= held + 2, round_number


def test_nothing_is_sent_to_who_left_and_the_recently_dead_still_hear() -> None:
    group = joined("a b c d e f")
    node = group.node("a")
    group.perform(group.hosts["e"], group.node("e").leave(Instant(group.now)))
    group.run(1)
    group.kill("e")
    group.hosts["f"].engine_serves = False
    group.kill("f")
    group.run_until(lambda: group.status("a", "f") == "dead", 30)
    start = len(group.trace)
    for _ in range(40):
        publish(group, "a", CART)
        group.run(0.5)
        publish(group, "a")
        group.run(0.2)
    sent = [entry[2] for entry in group.trace[start:] if entry[1] == "a"]
    assert str(group.hosts["e"].address) not in sent
    assert node._catalog.recently_dead(group.now - 60 * SECOND_NS)
    assert str(group.hosts["f"].address) in sent


def test_urgent_news_goes_to_four_and_to_six_in_a_big_group_and_no_faster_than_its_budget() -> None:
    group = joined("a b c d e f g h i")
    node = group.node("a")
    courier = node._courier
    message = [node._catalog.get(node.own_node_id).messages[RecordKind.NODE_STATE]]

    def pushed() -> int:
        before = node.statistics().eager_sent
        courier.push(message, b"")
        return node.statistics().eager_sent - before

    assert pushed() == 4
    node._ctx.settings = GossipSettings(eager_many_members=8)
    assert pushed() == 6
    for _ in range(60):
        pushed()
    assert node.statistics().eager_limited > 0
    assert node.statistics().eager_sent <= 200 + 10 + 50 * group.now // SECOND_NS
