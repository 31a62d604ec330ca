"""What strangers, replays and spoiled bytes can cost, counted."""

import random

import msgspec
import pytest

from gossipmesh.gossip.base.effects import SendDatagram
from gossipmesh.model import limits
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import (
    HEADER_BYTES,
    Cookie,
    Header,
    Hello,
    PacketType,
    decode_header_untrusted,
    decode_plain_untrusted,
    encode_header,
    encode_hello_padded,
)
from tests.unit.gossip.group import Group, credential_of, signed_credential
from tests.unit.gossip.test_transcripts import everybody, joined

STRANGER = Address("192.0.2.9", 4000)


def hello_packet(group: Group, hello: Hello, *, run: int = 5, counter: int = 9) -> bytes:
    tag = group.node("a")._ctx.group_tag
    body = encode_hello_padded(hello)
    assert body is not None
    return encode_header(Header(1, PacketType.HELLO, tag, 77, run, counter)) + body


EMPTY = Hello(b"", 0, b"", None, None, b"", b"")


def test_a_stranger_without_a_cookie_costs_no_state_and_no_signature_check() -> None:
    group = joined("a b")
    node = group.node("a")
    before = node.statistics()
    computed = group.verifier.computed_count + group.verifier.remembered_count
    members = len(node.members())
    packet = hello_packet(group, msgspec.structs.replace(EMPTY, credential=signed_credential("z")))
    answers = node.receive_datagram(packet, STRANGER, Instant(group.now))
    assert [type(answer) for answer in answers] == [SendDatagram]
    assert len(answers[0].payload) < len(packet)
    assert group.verifier.computed_count + group.verifier.remembered_count == computed
    after = node.statistics()
    assert (after.signature_checks, after.links, len(node.members())) == (
        before.signature_checks,
        before.links,
        members,
    )


def test_a_cookie_is_good_for_one_address_one_run_and_ten_seconds() -> None:
    group = joined("a b")
    node = group.node("a")
    answer = node.receive_datagram(hello_packet(group, EMPTY), STRANGER, Instant(group.now))[0]
    header = decode_header_untrusted(answer.payload)
    cookie = decode_plain_untrusted(header.type, answer.payload[HEADER_BYTES:])
    assert isinstance(cookie, Cookie)
    hello = msgspec.structs.replace(
        EMPTY,
        cookie=cookie.cookie,
        peer_run=header.run,
        nonce=bytes(16),
        credential=signed_credential("z"),
        proof=bytes(64),
    )

    def refused_as(sender: Address, run: int, now: int) -> str:
        checks = node.statistics().signature_checks
        effects = node.receive_datagram(hello_packet(group, hello, run=run), sender, Instant(now))
        if node.statistics().signature_checks > checks:
            return "checked"
        return "challenged" if effects else "dropped"

    assert refused_as(STRANGER, 5, group.now) == "checked"
    assert refused_as(Address("192.0.2.10", 4000), 5, group.now) == "challenged"
    assert refused_as(STRANGER, 6, group.now) == "challenged"
    assert refused_as(STRANGER, 5, group.now + 12 * SECOND_NS) == "challenged"


def test_a_short_hello_is_not_answered() -> None:
    group = joined("a b")
    tag = group.node("a")._ctx.group_tag
    packet = encode_header(Header(1, PacketType.HELLO, tag, 77, 5, 9)) + encode(EMPTY)
    assert group.node("a").receive_datagram(packet, STRANGER, Instant(group.now)) == []


def test_strangers_have_a_budget_by_address() -> None:
    group = joined("a b")
    node = group.node("a")
    packet = hello_packet(group, EMPTY)
    answered = sum(
        len(node.receive_datagram(packet, STRANGER, Instant(group.now)))
        for _ in range(2 * limits.HELLOS_PER_PREFIX_BURST)
    )
    assert answered == limits.HELLOS_PER_PREFIX_BURST
    assert len(node.receive_datagram(packet, Address("192.0.2.77", 1), Instant(group.now))) == 1


def test_a_hello_with_a_valid_cookie_and_a_credential_of_nobody_is_refused() -> None:
    group = Group("a b")
    group.start("a")
    group.start("b", "a")
    forged = credential_of("b")
    other = group.node("b")._ctx
    other.keys = msgspec.structs.replace(other.keys, signing=signed_key("thief"))
    group.run(3)
    assert [view.name for view in group.node("a").members()] == ["a"]
    assert forged.node_id == group.node("b").own_node_id
    assert group.node("a").statistics().dropped["Untrusted"] >= 1


def signed_key(name: str):
    from tests.unit.gossip.group import key_of

    return key_of(name)


def test_a_replayed_packet_is_dropped() -> None:
    group = joined("a b")
    start = len(group.trace)
    group.run(2)
    to_b = [entry for entry in group.trace[start:] if entry[1] == "a"]
    packet = to_b[-1][3]
    node = group.node("b")
    before = node.statistics().dropped.get("replayed", 0)
    effects = node.receive_datagram(packet, group.hosts["a"].address, Instant(group.now))
    assert effects == []
    assert node.statistics().dropped["replayed"] == before + 1


def test_a_packet_of_an_older_run_is_not_proof_of_life() -> None:
    group = joined("a b c")
    start = len(group.trace)
    group.run(2)
    old = next(entry[3] for entry in group.trace[start:] if entry[1] == "a" and entry[2] == "10.0.0.2:7948")
    group.kill("a")
    group.start("a")
    group.run(1)
    before = group.node("b").statistics().dropped.get("unknown run", 0)
    group.node("b").receive_datagram(old, group.hosts["a"].address, Instant(group.now))
    assert group.node("b").statistics().dropped["unknown run"] == before + 1


def test_a_foreign_group_and_an_unknown_version_are_dropped() -> None:
    group = joined("a b")
    node = group.node("a")
    for header, reason in (
        (Header(1, 1, 12345, 7, 7, 7), "foreign group"),
        (Header(9, 1, node._ctx.group_tag, 7, 7, 7), "version"),
    ):
        assert node.receive_datagram(encode_header(header) + bytes(100), STRANGER, Instant(group.now)) == []
        assert node.statistics().dropped[reason] == 1


@pytest.mark.parametrize("seed", range(4))
def test_mutated_packets_never_raise_and_never_change_the_view(seed: int) -> None:
    group = joined("a b")
    rng = random.Random(seed)
    packets = [entry[3] for entry in group.trace]
    node = group.node("b")
    sums = node.state_sums()
    links = node.statistics().links
    for _ in range(500):
        packet = bytearray(rng.choice(packets))
        for _ in range(rng.randrange(1, 8)):
            packet[rng.randrange(len(packet))] = rng.randrange(256)
        if rng.random() < 0.3:
            packet = packet[: rng.randrange(len(packet) + 1)]
        node.receive_datagram(bytes(packet), STRANGER, Instant(group.now))
    assert node.state_sums() == sums
    assert node.statistics().links == links
    group.run(5)
    assert everybody(group, "alive")


@pytest.mark.parametrize("seed", range(3))
def test_garbage_on_a_stream_ends_it_and_nothing_else(seed: int) -> None:
    group = joined("a b")
    rng = random.Random(seed)
    node = group.node("b")
    for number in range(50):
        stream = 100_001 + 2 * number
        node.stream_accepted(stream, STRANGER, Instant(group.now))
        size = rng.randrange(1, 200)
        data = size.to_bytes(4, "big") + rng.randbytes(size)
        node.receive_stream(stream, data, Instant(group.now))
        node.receive_stream(stream, data, Instant(group.now))
        assert not node._streams._sessions
    assert everybody(group, "alive")


def test_a_stream_that_says_nothing_is_closed_after_a_second() -> None:
    group = joined("a b")
    node = group.node("b")
    node.stream_accepted(99_999, STRANGER, Instant(group.now))
    group.run(0.9)
    assert 99_999 in node._streams._sessions
    group.run(0.2)
    assert 99_999 not in node._streams._sessions
    assert node.statistics().dropped["stream timeout"] == 1


def test_a_record_flood_stops_at_twelve_checks_per_packet() -> None:
    group = joined("a b")
    a, b = group.node("a"), group.node("b")
    member = b._catalog.get(a.own_node_id)
    assert member is not None
    from gossipmesh.trust.records import sign_record
    from gossipmesh.wire.datagram import encode_message
    from tests.unit.gossip.group import DOMAIN, key_of

    messages = []
    for sequence in range(1, 40):
        body = [bytes(a.own_node_id), 1, 99, sequence, "x" * 4]
        record = sign_record(DOMAIN, 99, body, key_of("b"))
        messages.append(encode_message(msgspec.structs.replace(record, kind=200 + sequence % 4)))
    link = a._catalog.get(b.own_node_id).link
    packet = link.packet(a._ctx.group_tag, a._courier._own_short, a._ctx.run_id, messages[:8] + messages[8:])
    checks = b.statistics().signature_checks
    b.receive_datagram(packet[: limits.DATAGRAM_BYTES_MAX], group.hosts["a"].address, Instant(group.now))
    assert b.statistics().signature_checks - checks <= limits.DATAGRAM_SIGNATURE_CHECKS_MAX
