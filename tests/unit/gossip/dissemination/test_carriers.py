"""Packets on streams: their two ends' alone, on streams for nothing else, and within limits."""

from typing import Any

import pytest

from gossipmesh.gossip.base.effects import SendDatagram
from gossipmesh.gossip.sessions.session import CARRY, Session
from gossipmesh.model import limits
from gossipmesh.wire.datagram import Heartbeat, encode_message
from gossipmesh.wire.frames import Packet
from tests.unit.gossip.group import Group


def carried() -> Group:
    """Return two nodes of which one is reached by streams alone, and a third."""
    group = Group("a b c")
    group.start_all()
    group.run_until(group.converged, 10)
    group.lost_from.add("c")
    group.lost_to.add("c")
    group.run_until(lambda: carrier(group, "a", "c") is not None and carrier(group, "b", "c") is not None, 15)
    group.run(1)
    return group


def carrier(group: Group, at: str, of: str) -> Session | None:
    node: Any = group.node(at)
    session = node._carriers._sessions.get(bytes(group.node(of).own_node_id))
    assert session is None or isinstance(session, Session)
    return session


def say(group: Group, at: str, session: Session, message: object) -> None:
    node: Any = group.node(at)
    node._streams.say(session, message)
    group.perform(group.hosts[at], node._finish())


def packet_of(group: Group, sender: str, receiver: str) -> bytes:
    """Return a fresh packet that a node seals for another."""
    node: Any = group.node(sender)
    member = node._catalog.get(group.node(receiver).own_node_id)
    node._courier.send(member, [encode_message(Heartbeat())], fill=False, is_carried=False)
    (sent,) = [effect for effect in node._finish() if isinstance(effect, SendDatagram)]
    return sent.payload


def test_a_carried_packet_counts_as_the_datagram_that_was_lost() -> None:
    group = carried()
    session = carrier(group, "c", "a")
    assert session is not None
    heard = {view.name: view.heard_age_ns for view in group.node("a").members()}
    assert heard["c"] is not None
    assert heard["c"] < limits.STREAM_HEADER_TIMEOUT_NS
    before = group.node("a").statistics().dropped.get("replayed", 0)
    packet = packet_of(group, "c", "a")
    say(group, "c", session, Packet(packet))
    say(group, "c", session, Packet(packet))
    group.run(0.01)
    assert group.node("a").statistics().dropped["replayed"] == before + 1


@pytest.mark.parametrize("whose", ["another's", "forged", "a hello"])
def test_a_carrier_carries_packets_of_its_own_end_alone(whose: str) -> None:
    group = carried()
    session = carrier(group, "c", "a")
    assert session is not None
    packet = bytearray(packet_of(group, "b" if whose == "another's" else "c", "a"))
    if whose == "a hello":
        packet[1] = 2
    if whose == "forged":
        packet[-1] ^= 1
    dropped = dict(group.node("a").statistics().dropped)
    say(group, "c", session, Packet(bytes(packet)))
    group.run(0.002)
    now = group.node("a").statistics().dropped
    if whose == "forged":
        assert now["does not open"] == dropped.get("does not open", 0) + 1
    else:
        assert now["stream Untrusted"] == dropped.get("stream Untrusted", 0) + 1
        assert carrier(group, "a", "c") is not session


def test_nothing_is_asked_on_a_carrier() -> None:
    group = carried()
    session = carrier(group, "c", "a")
    assert session is not None
    say(group, "c", session, b"\x92\x07\x91\xa4mesh")  # a question for a policy set
    group.run(0.002)
    assert group.node("a").statistics().dropped["stream Untrusted"] == 1
    assert carrier(group, "a", "c") is not session


def test_no_packet_comes_on_a_stream_that_was_opened_to_ask() -> None:
    group = carried()
    node: Any = group.node("c")
    assert node._streams.open_to(node._catalog.get(group.node("a").own_node_id), "policy", "mesh")
    group.perform(group.hosts["c"], node._finish())
    (asked,) = [one for one in node._streams._sessions.values() if one.purpose == "policy"]
    while asked.sealer is None:
        group.run(0.0005)
    say(group, "c", asked, Packet(packet_of(group, "c", "a")))
    group.run(0.002)
    assert group.node("a").statistics().dropped["stream Untrusted"] == 1


def test_a_stream_of_packets_keeps_nobody_from_comparing() -> None:
    """Whoever answers on a stream of a member opens none to it, but for one that only carries."""
    group = carried()
    node: Any = group.node("a")
    assert any(s.purpose == CARRY for s in node._streams._sessions.values())
    assert not node._streams.serves(bytes(group.node("c").own_node_id))


def test_both_may_open_one_and_one_stays() -> None:
    group = carried()
    for one, other in (("a", "c"), ("c", "a")):
        node: Any = group.node(one)
        node._streams.open_to(node._catalog.get(group.node(other).own_node_id), CARRY)
        group.perform(group.hosts[one], node._finish())
    group.run(3)
    for name in ("a", "c"):
        node = group.node(name)
        kept = [s for s in node._streams._sessions.values() if s.purpose == CARRY]
        others = len([other for other in ("a", "b", "c") if other != name])
        assert len(kept) <= others


def test_what_is_too_long_for_a_packet_is_no_frame() -> None:
    group = carried()
    session = carrier(group, "c", "a")
    assert session is not None
    say(group, "c", session, Packet(bytes(limits.DATAGRAM_BYTES_MAX + 1)))
    group.run(0.002)
    assert group.node("a").statistics().dropped["stream MalformedInput"] == 1


def test_a_peer_of_the_first_builds_passes_over_frames_that_it_does_not_know() -> None:
    """It keeps the stream, and every packet went to it as a datagram as well."""
    group = carried()
    session = carrier(group, "c", "a")
    assert session is not None
    say(group, "c", session, b"\x92\x63\xc4\x01x")
    group.run(0.002)
    assert carrier(group, "a", "c") is not None
    assert "stream MalformedInput" not in group.node("a").statistics().dropped
