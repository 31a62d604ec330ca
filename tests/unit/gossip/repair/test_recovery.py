"""Repair at size, silent differences, everybody down at once, and disks that lost what they held."""

import random

import msgspec
import pytest

from gossipmesh.gossip.base.effects import PersistKind, PolicyApplied, SendStream
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model import limits
from gossipmesh.model.identity import node_id_of, node_spiffe_id
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeCredential, NodeState, RecordKind
from gossipmesh.trust.keys import ExchangeKey, SigningKey
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.frames import DocumentsSummary, FrameReader, Table
from tests.unit.gossip.dissemination.test_documents import offer, versions
from tests.unit.gossip.group import AUTHORITY, DOMAIN, Group, policy_set
from tests.unit.gossip.test_transcripts import CART, everybody, joined, publish

ONE_SIGNER, ONE_EXCHANGE = SigningKey(bytes(32)), ExchangeKey(bytes(32))


def paper_members(count: int) -> list:
    """Return the records of members that exist on paper, of no run, so that nobody asks them anything."""
    records = []
    for number in range(count):
        name = f"paper-{number}"
        spiffe_id = node_spiffe_id(DOMAIN, name)
        node_id = node_id_of(spiffe_id)
        credential = NodeCredential(
            node_id, spiffe_id, 1, 1, ONE_SIGNER.public, ONE_EXCHANGE.public, (), ("shop/*",), 0, 2**33
        )
        address = Address(f"10.99.{number >> 8}.{number & 255}", 7948)
        state = NodeState(node_id, 1, 1, 1, name, (address,), (address,), 0, "paper", 1, 1, (), ())
        records.append(sign_record(DOMAIN, RecordKind.CREDENTIAL, credential, AUTHORITY))
        records.append(sign_record(DOMAIN, RecordKind.NODE_STATE, state, ONE_SIGNER))
    return records


def learn(group: Group, name: str, records: list) -> None:
    node = group.node(name)
    for record in records:
        node._catalog.merge_untrusted(record, Checks(12))
    node._ctx.drain()


def test_a_first_table_comes_in_pages_from_several_peers_and_in_small_steps() -> None:
    group = Group("a b c d e")
    group.start_all()
    group.run_until(group.converged, 10)
    group.kill("e")
    for key in [key for key in group.hosts["e"].disk if key[0] is PersistKind.MEMBER]:
        del group.hosts["e"].disk[key]
    records = paper_members(1_500)
    for name in "abcd":
        learn(group, name, records)
    group.run(2)
    sent = {name: group.node(name).statistics().stream_bytes_sent for name in "abcd"}
    pages = group.node("a").statistics().pages_sent
    group.start("e", "a")
    node = group.node("e")
    steps: list[int] = []
    backlog = 0
    perform, checks = group.perform, 0

    def watched(host, effects) -> None:
        nonlocal checks, backlog
        now = node.statistics().signature_checks
        steps.append(now - checks)
        checks = now
        waiting = sum(len(session.backlog) for session in node._streams._sessions.values())
        backlog = max(backlog, waiting)
        queued = sum(len(effect.payload) for effect in effects if isinstance(effect, SendStream))
        assert queued <= 2 * limits.FRAME_BYTES_MAX
        perform(host, effects)

    group.perform = watched
    group.run_until(
        lambda: len(node._catalog) == 1_505 and node.state_sums() == group.node("a").state_sums(), 10
    )
    assert max(steps) <= limits.STREAM_CHECKS_PER_STEP_MAX
    assert backlog <= 4 * limits.FRAME_RECORDS_MAX
    helped = [
        name for name in "abcd" if group.node(name).statistics().stream_bytes_sent - sent[name] > 20_000
    ]
    assert len(helped) >= 2
    assert group.node("a").statistics().pages_sent - pages < 30
    # What it learned from tables is news to nobody, so it does not spread it.
    assert node.statistics().queue_length < 20


def test_a_peer_that_dies_in_the_middle_of_a_table_leaves_its_range_to_others() -> None:
    group = Group("a b c d")
    group.start_all()
    group.run_until(group.converged, 10)
    records = paper_members(800)
    for name in "abc":
        learn(group, name, records)
    group.kill("d")
    group.hosts["d"].disk = {k: v for k, v in group.hosts["d"].disk.items() if k[0] is PersistKind.EPOCH}
    group.start("d", "a")
    node = group.node("d")
    group.run_until(lambda: len(node._catalog) > 200, 5)
    group.kill("a")
    group.run_until(lambda: len(node._catalog) == 804, 15)


def test_two_whole_tables_that_differ_are_exchanged_in_pages_too() -> None:
    group = Group("a b")
    group.start_all()
    group.run_until(group.converged, 10)
    records = paper_members(1_200)
    learn(group, "a", records[:1_200])
    learn(group, "b", records[1_200:])
    biggest = 0
    perform = group.perform

    def watched(host, effects) -> None:
        nonlocal biggest
        biggest = max(biggest, sum(len(e.payload) for e in effects if isinstance(e, SendStream)))
        perform(host, effects)

    group.perform = watched
    group.node("b")._repair.sync(group.node("b")._catalog.get(group.node("a").own_node_id))
    group.perform(group.hosts["b"], group.node("b")._ctx.drain())
    group.run_until(lambda: len(group.node("a")._catalog) == 1_202 and group.converged(), 10)
    assert biggest <= 2 * limits.FRAME_BYTES_MAX


def test_a_member_that_asks_for_pages_without_end_is_cut_off() -> None:
    group = joined("a b")
    a, b = group.node("a"), group.node("b")
    a._streams.open_to(a._catalog.get(b.own_node_id), "sync")
    begin = a._repair.begin

    def ask_without_end(session) -> None:
        for _ in range(limits.STREAM_PAGES_PER_MEMBER_BURST + 100):
            a._streams.say(session, Table(DocumentsSummary(1, ())))

    a._repair.begin = ask_without_end
    group.perform(group.hosts["a"], a._ctx.drain())
    group.run(0.5)
    a._repair.begin = begin
    assert b.statistics().dropped["stream MalformedInput"] == 1
    assert b.statistics().pages_sent <= limits.STREAM_PAGES_PER_MEMBER_BURST + 60
    assert everybody(group, "alive")


def forget_quietly(group: Group, at: str, of: str) -> None:
    """Take a member's newest service set from one node's table, as if it had never come."""
    node = group.node(at)
    member = node._catalog.get(group.node(of).own_node_id)
    assert isinstance(member, Member)
    member.messages.drop(RecordKind.SERVICE_SET)
    node._catalog.ledger.put(RecordKind.SERVICE_SET, member.node_id, None)


def test_a_silent_difference_is_found_and_repaired_within_three_seconds() -> None:
    group = joined("a b c d e f g h i j k l")
    publish(group, "c", CART)
    group.run_until(group.converged, 5)
    rng = random.Random(3)
    took = []
    for _ in range(100):
        group.run(rng.random() * 2)
        at = rng.choice("abdefghijkl")
        forget_quietly(group, at, "c")
        assert not group.converged()
        took.append(group.run_until(group.converged, 10))
    took.sort()
    assert took[98] <= 3.0
    assert took[50] <= 2.0


@pytest.mark.parametrize("seed", range(3))
def test_everybody_down_at_once_finds_together_without_a_seed(seed: int) -> None:
    group = joined("a b c d e f g h", seed=seed)
    publish(group, "c", CART)
    offer(group, "b", 1)
    group.run_until(group.converged, 5)
    epochs = {name: group.node(name).incarnation[1] for name in group.hosts}
    for name in group.hosts:
        group.kill(name)
    group.run(30)
    # One lost its disk but for its identity and cannot know anybody: the others know it.
    group.hosts["h"].disk.clear()
    order = list(group.hosts)
    random.Random(seed).shuffle(order)
    for name in order:
        group.start(name)
    took = group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    assert took <= 10
    for name in "abcdefg":
        assert group.node(name).incarnation[1] > epochs[name]
    assert versions(group) == [1] * 8


def test_after_damage_a_node_takes_the_highest_of_three_peers_not_the_first() -> None:
    group = joined("a b c d e")
    offer(group, "a", 1)
    group.run_until(lambda: versions(group) == [1] * 5, 3)
    old = {key: value for key, value in group.hosts["e"].disk.items() if key[0] is not PersistKind.MEMBER}
    group.kill("e")
    offer(group, "b", 2, "/two")
    offer(group, "b", 3, "/three")
    group.run_until(lambda: versions(group) == [3] * 4, 5)
    # The liar goes on offering the old set, which is validly signed.
    liar = group.node("a")
    liar._spreading.answer_policy = lambda scope: policy_set(1).to_bytes()
    real = liar._spreading.summary()
    stale = tuple((scope, 1, value) for scope, _, value in real.scopes)
    liar._spreading.summary = lambda: msgspec.structs.replace(real, scopes=stale)
    group.hosts["e"].disk = {key: value for key, value in old.items() if key[0] is PersistKind.EPOCH}
    group.hosts["e"].events.clear()
    node = group.start("e", "a")
    node._spreading.doubt_floors()
    group.run_until(lambda: versions(group) == [3] * 5, 15)
    applied = [event.version for event in group.hosts["e"].events if isinstance(event, PolicyApplied)]
    assert applied == [3]


def test_the_doubt_ends_when_fewer_than_three_peers_are_left() -> None:
    group = joined("a b")
    offer(group, "a", 1)
    group.run_until(lambda: versions(group) == [1, 1], 3)
    group.kill("b")
    group.hosts["b"].disk = {k: v for k, v in group.hosts["b"].disk.items() if k[0] is PersistKind.MEMBER}
    group.start("b")._spreading.doubt_floors()
    began = group.now
    group.run_until(lambda: versions(group) == [1, 1], 15)
    assert group.now - began >= 5 * SECOND_NS


def test_frames_in_any_chunking_are_read_and_no_more_than_one_is_held() -> None:
    rng = random.Random(1)
    frames = [rng.randbytes(rng.randrange(1, 3_000)) for _ in range(50)]
    data = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    reader, read, position = FrameReader(), [], 0
    while position < len(data):
        size = rng.randrange(1, 2_000)
        read += reader.feed_untrusted(data[position : position + size])
        position += size
        assert len(reader._buffer) <= 3_004
    assert read == frames
