"""A node whose address changes while it runs: what it says, who finds it, and what nobody gains by it."""

from gossipmesh.gossip.base.effects import SendDatagram
from gossipmesh.gossip.base.settings import NodeAddresses
from gossipmesh.model import limits
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address
from gossipmesh.wire.datagram import DATA, PacketType, decode_header_untrusted
from tests.unit.gossip.group import Group

ELSEWHERE = Address("10.9.0.7", 7948)
TAPPED = Address("192.0.2.66", 4_000)
NAMES = "a b c d e"


def settled(names: str = NAMES) -> Group:
    group = Group(names)
    group.start_all()
    group.run_until(group.converged, 10)
    group.run(3)
    return group


def lose(group: Group, name: str) -> None:
    """Take a host's address: nothing reaches it, nor leaves it."""
    del group.by_address[group.hosts[name].address]
    group.mute.add(name)


def find(group: Group, name: str, address: Address = ELSEWHERE) -> None:
    """Give a host another address, of which its core is not told yet."""
    group.hosts[name].address = address
    group.by_address[address] = group.hosts[name]
    group.mute.discard(name)


def tell(group: Group, name: str, address: Address = ELSEWHERE) -> list:
    told = NodeAddresses((address,), (Address(address.host, 15008),))
    effects = group.node(name).addresses_changed(told, Instant(group.now))
    group.perform(group.hosts[name], effects)
    return effects


def known_at(group: Group, of: str) -> set[Address]:
    views = [view for host in group.hosts.values() if host.node for view in host.node.members()]
    return {address for view in views if view.name == of for address in view.state.gossip_addresses}


def is_found(group: Group, name: str) -> bool:
    return known_at(group, name) == {ELSEWHERE} and set(group.statuses(name).values()) == {"alive"}


def packets_of(group: Group, sender: str, receiver: str, count: int = 1) -> list[bytes]:
    """Return packets that a node just sent another, and that never arrived there."""
    there, before = str(group.hosts[receiver].address), len(group.trace)

    def sealed() -> list[bytes]:
        sent = [(name, to, payload) for _, name, to, payload in group.trace[before:]]
        return [payload for *way, payload in sent if way == [sender, there] and payload[1] == DATA]

    group.partition(sender, receiver)
    group.run_until(lambda: len(sealed()) >= count, 60)
    group.heal()
    return sealed()[:count]


def sent_to(effects: list, address: Address) -> list[bytes]:
    return [e.payload for e in effects if isinstance(e, SendDatagram) and e.destination == address]


def test_the_new_address_is_a_new_record_of_the_same_incarnation_and_goes_round_at_once() -> None:
    group = settled()
    before = group.node("b").own_state
    lose(group, "b")
    find(group, "b")
    tell(group, "b")
    state = group.node("b").own_state
    assert (state.generation, state.epoch) == (before.generation, before.epoch)
    assert state.sequence > before.sequence
    assert group.run_until(lambda: is_found(group, "b"), 1) <= 0.5


def test_what_others_were_told_last_is_nothing_new() -> None:
    group = settled()
    state = group.node("b").own_state
    assert tell(group, "b", group.hosts["b"].address) == []
    assert group.node("b").own_state == state


def test_who_was_held_dead_is_told_at_its_new_address_and_lives() -> None:
    group = settled()
    lose(group, "b")
    group.run_until(lambda: set(group.statuses("b").values()) == {"dead"}, 10)
    find(group, "b")
    tell(group, "b")
    assert group.run_until(lambda: is_found(group, "b"), 2) <= 1
    assert all(host.node.statistics().quarantines == 0 for host in group.hosts.values() if host.node)


def test_who_was_held_dead_is_told_at_its_new_address_in_the_same_step() -> None:
    group = settled()
    lose(group, "b")
    group.run_until(lambda: set(group.statuses("b").values()) == {"dead"}, 10)
    find(group, "b")
    told = NodeAddresses((ELSEWHERE,), (Address(ELSEWHERE.host, 15008),))
    pushed = group.node("b").addresses_changed(told, Instant(group.now))
    (packet,) = sent_to(pushed, group.hosts["a"].address)
    answers = group.node("a").receive_datagram(packet, ELSEWHERE, Instant(group.now))
    assert sent_to(answers, ELSEWHERE)
    assert sent_to(answers, Address("10.0.0.2", 7948)) == []
    verdict = group.node("a")._catalog.get(group.node("b").own_node_id).verdict_message
    assert verdict is not None
    assert any(len(payload) > len(verdict) for payload in sent_to(answers, ELSEWHERE))


def test_who_moved_unheard_is_asked_where_it_speaks_from() -> None:
    """Its word of the new address was lost with the network: nothing but its packets tells where it is.

    Unasked it would be found in the end, when it doubts the others and connects to them by TCP: deaf by then.
    """
    for cut_s in (0.5, 8):
        group = settled()
        lose(group, "b")
        tell(group, "b")
        group.run(cut_s)
        find(group, "b")
        assert group.run_until(lambda group=group: is_found(group, "b"), 10) < 4
        assert all(host.node.statistics().quarantines == 0 for host in group.hosts.values() if host.node)


def test_whoever_sends_a_packet_on_redirects_nothing_and_gets_less_than_it_sent() -> None:
    """The victim of a tapped line is held dead; its packet comes from where the thief listens."""
    group = settled()
    (packet,) = packets_of(group, "b", "a")
    lose(group, "b")
    group.run_until(lambda: set(group.statuses("b").values()) == {"dead"}, 10)
    a, there = group.node("a"), group.hosts["b"].address
    effects = a.receive_datagram(packet, TAPPED, Instant(group.now))
    drawn = sent_to(effects, TAPPED)
    assert [decode_header_untrusted(payload).type for payload in drawn] == [PacketType.COOKIE]
    assert sum(map(len, drawn)) <= len(packet)
    assert sent_to(effects, there), "what is held against it goes where it says that it is found"
    group.perform(group.hosts["a"], effects)
    assert sent_to(a.receive_datagram(packet, TAPPED, Instant(group.now)), TAPPED) == [], "sent on twice"
    assert known_at(group, "b") == {there}


def test_a_member_that_nobody_doubts_may_speak_from_wherever_it_likes() -> None:
    """Several addresses of one machine, or a translator between, are nothing to ask about."""
    group = settled()
    (packet,) = packets_of(group, "b", "a")
    a = group.node("a")
    assert a._detector.desk.get(group.node("b").own_node_id) is None
    assert sent_to(a.receive_datagram(packet, TAPPED, Instant(group.now)), TAPPED) == []
    assert a.statistics().cookies_elsewhere == 0


def test_it_is_asked_twice_a_second_at_most() -> None:
    group = settled()
    packets = packets_of(group, "b", "a", 10)
    lose(group, "b")
    group.run_until(lambda: set(group.statuses("b").values()) == {"dead"}, 10)
    a = group.node("a")

    def drawn_by(some: list[bytes]) -> int:
        return sum(len(sent_to(a.receive_datagram(one, TAPPED, Instant(group.now)), TAPPED)) for one in some)

    assert drawn_by(packets[:5]) == limits.COOKIES_PER_MEMBER_BURST
    group.run(1)
    assert drawn_by(packets[5:]) == limits.COOKIES_PER_MEMBER_PER_S


def test_a_link_local_address_is_the_same_with_its_zone_and_without() -> None:
    group = settled("a b")
    zoned = Address("fe80::7%eth0", 7948)
    tell(group, "b", zoned)
    group.run(1)
    member = group.node("a")._catalog.get(group.node("b").own_node_id)
    assert member.address == zoned
    assert member.is_found_at(Address("fe80::7", 7948))
    assert not member.is_found_at(Address("fe80::7", 7949))
    assert not member.is_found_at(Address("fe80::8", 7948))
