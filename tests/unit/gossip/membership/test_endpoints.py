"""Endpoints are decoded once, kept as they are in use, and whoever takes every delta knows them all."""

import msgspec
import pytest

from gossipmesh.gossip import rehearsal
from gossipmesh.gossip.base.effects import Event, MemberChanged, ServicesChanged
from gossipmesh.gossip.inspection import untold
from gossipmesh.gossip.membership.endpoints import shared_entries
from gossipmesh.gossip.replay.checkpoint import open_checkpoint_untrusted, write_checkpoint
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.records import ServiceSet
from gossipmesh.model.service import (
    EndpointsDelta,
    NodeEndpoints,
    ServiceEntry,
    services_differing,
    services_of,
)
from gossipmesh.testing.builders import service_entry
from gossipmesh.trust import records
from gossipmesh.wire.codec import decode_untrusted, encode
from tests.unit.gossip.group import Group, exchange_of, key_of, signed_credential

CART = service_entry("shop/cart")
PAY = service_entry("shop/pay", registration="pay")


def joined(names: str) -> Group:
    group = Group(names)
    group.start_all()
    group.run_until(group.converged, 10)
    return group


def publish(group: Group, name: str, *entries: ServiceEntry) -> None:
    group.perform(group.hosts[name], group.node(name).publish_services(entries, Instant(group.now)))
    group.run(2)


def deltas(events: list[Event]) -> list[EndpointsDelta]:
    told = [event.endpoints for event in events if isinstance(event, MemberChanged | ServicesChanged)]
    return [delta for delta in told if delta is not None]


def held(events: list[Event]) -> list[NodeEndpoints]:
    """Return what whoever took every delta holds, by name; what a delta does not name may not differ."""
    found: dict[NodeId, NodeEndpoints] = {}
    for delta in deltas(events):
        before = found.pop(delta.node_id, None)
        if delta.after is not None:
            found[delta.node_id] = delta.after
        old, new = (() if one is None else one.entries for one in (before, delta.after))
        shared = None if before is None else msgspec.structs.replace(before, entries=new)
        least = services_differing(old, new) if shared == delta.after else services_of((*old, *new))
        assert delta.services
        assert set(least) <= set(delta.services) <= set(services_of((*old, *new)))
    return sorted(found.values(), key=lambda one: one.node)


def agree(group: Group) -> None:
    """Check that events and reads of every host that was started once say the same."""
    for host in group.hosts.values():
        if host.node is not None and host.starts == 1:
            assert held(host.events) == host.node.endpoints()
            assert untold(host.node) == []


def of(group: Group, at: str, name: str) -> NodeEndpoints | None:
    node = group.node(at)
    return node.endpoints_of(node.find(name) or b"")


def die_together(group: Group, names: str) -> None:
    """Let members die that serve shop/cart, with their engines, their machines answering."""
    for name in names:
        publish(group, name, CART)
    for name in names:
        group.hosts[name].engine_serves = False
        group.kill(name)
    group.run_until(lambda: all(set(group.statuses(name).values()) == {"dead"} for name in names), 20)


def test_a_record_is_decoded_once_by_whoever_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes to each from several others, and what is asked for later was decoded already."""
    group = joined("a b c d")
    decoded: list[str] = []

    def counted(body: bytes, shape: type, *, bytes_max: int) -> object:
        if shape is ServiceSet:
            decoded.append(shape.__name__)
        return decode_untrusted(body, shape, bytes_max=bytes_max)

    monkeypatch.setattr(records, "decode_untrusted", counted)
    publish(group, "d", CART, PAY)
    group.run(5)
    assert len(decoded) == 3
    group.kill("d", silent=True)
    group.run_until(lambda: group.statuses("d") == dict.fromkeys("abc", "dead"), 10)
    group.start("d", "a")
    group.run_until(lambda: all(of(group, at, "d") is not None for at in "abc"), 10)
    agree(group)
    assert len(decoded) == 3 + 1  # its own, from its disk: it signed nothing new


def test_what_is_told_is_what_is_kept_and_equal_entries_are_one_object() -> None:
    group = joined("a b c")
    publish(group, "b", CART)
    publish(group, "c", msgspec.msgpack.decode(msgspec.msgpack.encode(CART), type=ServiceEntry))
    b, c = of(group, "a", "b"), of(group, "a", "c")
    assert b is not None
    assert c is not None
    assert b.entries is c.entries
    told = [delta.after for delta in deltas(group.hosts["a"].events)]
    assert [one is not None and one.entries is b.entries for one in told] == [True, True]
    agree(group)


def test_entries_are_shared_whatever_words_they_came_in() -> None:
    one, other = (
        decode_untrusted(encode((CART, PAY)), tuple[ServiceEntry, ...], bytes_max=1_000) for _ in range(2)
    )
    assert one is not other
    assert shared_entries(one) is shared_entries(other)
    assert shared_entries(one) == (CART, PAY)
    assert shared_entries((PAY, CART))[1] is shared_entries(one)[0]


def test_coming_changing_and_going_is_told_service_by_service() -> None:
    group = joined("a b c")
    publish(group, "b", CART, PAY)
    failing = msgspec.structs.replace(PAY, health=2)
    publish(group, "b", CART, failing)
    publish(group, "b", failing)
    publish(group, "b", failing)
    group.perform(group.hosts["b"], group.node("b").set_draining(Instant(group.now)))
    group.run(1)
    agree(group)
    group.perform(group.hosts["b"], group.node("b").leave(Instant(group.now)))
    group.run(2)
    told = [(delta.services, delta.after is None) for delta in deltas(group.hosts["a"].events)]
    assert told == [
        (("shop/cart", "shop/pay"), False),
        (("shop/pay",), False),
        (("shop/cart",), False),
        (("shop/pay",), False),  # draining
        (("shop/pay",), True),
    ]
    agree(group)


def test_status_and_place_are_told_of_all_a_member_serves() -> None:
    group = joined("a b c d e")
    publish(group, "e", CART)
    group.kill("e")  # its engine serves on
    group.run_until(lambda: set(group.statuses("e").values()) == {"unattended"}, 20)
    found = of(group, "a", "e")
    assert found is not None
    assert (found.status, found.address) == (MemberStatus.UNATTENDED, Address("10.0.0.5", 15008))
    agree(group)
    group.hosts["e"].engine_serves = group.hosts["e"].is_up = False
    group.run_until(lambda: set(group.statuses("e").values()) == {"dead"}, 60)
    assert of(group, "a", "e") is None
    agree(group)
    group.start("e", "a")
    group.run_until(lambda: set(group.statuses("e").values()) == {"alive"}, 20)
    agree(group)


def test_who_is_not_heard_is_told_as_unreachable_until_it_is() -> None:
    group = joined("a b")
    publish(group, "b", CART)
    group.partition("a", "b")
    group.run(8)
    found = of(group, "a", "b")
    assert found is not None
    assert found.unreachable
    agree(group)
    group.heal()
    group.run(8)
    found = of(group, "a", "b")
    assert found is not None
    assert not found.unreachable
    agree(group)


def test_who_died_with_many_others_is_retained_until_released() -> None:
    group = joined("a b c d e f g")
    die_together(group, "efg")
    assert [one.node for one in group.node("a").endpoints() if one.retained] == ["e", "f", "g"]
    agree(group)
    group.start("e", "a")
    group.run_until(lambda: set(group.statuses("e").values()) == {"alive"}, 20)
    group.perform(group.hosts["a"], group.node("a").release_mass_death(Instant(group.now)))
    assert [(one.node, one.retained) for one in group.node("a").endpoints()] == [("e", False)]
    agree(group)


def test_who_left_after_it_died_with_many_others_is_not_in_use() -> None:
    group = joined("a b c d e f g")
    die_together(group, "efg")
    group.start("e", "a")
    group.perform(group.hosts["e"], group.node("e").leave(Instant(group.now)))
    group.run_until(lambda: set(group.statuses("e").values()) == {"left"}, 20)
    assert of(group, "a", "e") is None
    agree(group)


def test_who_is_enrolled_anew_is_told_anew() -> None:
    group = Group("a b c again")
    for name in "abc":
        group.start(name, *("a" if name != "a" else ""))
    group.run_until(group.converged, 10)
    publish(group, "c", CART)
    group.kill("c")
    group.start("again", "a", enrolled_as="c")
    group.run(10)
    agree(group)
    publish(group, "again", PAY)
    found = of(group, "a", "c")
    assert found is not None
    assert (found.entries, found.address.host) == ((PAY,), "10.0.0.4")
    agree(group)


def test_who_is_held_dead_uses_its_own_as_ever() -> None:
    group = joined("a b c d e")
    publish(group, "e", CART)
    group.deaf = {"e"}
    group.run_until(lambda: set(group.statuses("e").values()) == {"dead"}, 30)
    group.deaf = set()
    group.run_until(lambda: group.status("e", "e") == "dead", 10)
    assert of(group, "a", "e") is None
    own = of(group, "e", "e")
    assert own is not None
    assert (own.status, own.retained, own.unreachable) == (MemberStatus.ALIVE, False, False)
    agree(group)


@pytest.mark.parametrize("enrolled_anew", [False, True])
def test_who_is_forgotten_goes_with_its_endpoints(enrolled_anew: bool) -> None:
    """Even if all that ever came of a later enrolment was its credential."""
    group = joined("a b c")
    publish(group, "c", CART)
    node, host = group.node("a"), group.hosts["a"]
    member = node._catalog.get(node.find("c") or b"")
    assert member is not None
    if enrolled_anew:
        group.perform(host, rehearsal.hear(node, signed_credential("c", generation=2), Instant(group.now)))
        assert member.state is None
    node._catalog.forget(member)
    group.perform(host, node.handle_deadline(Instant(group.now)))
    assert of(group, "a", "c") is None
    assert [one.node for one in held(host.events)] == []


def test_a_checkpoint_knows_them_as_they_were_told() -> None:
    group = joined("a b c")
    publish(group, "b", CART)
    publish(group, "c", PAY)
    group.kill("c", silent=True)
    group.run(10)
    node = group.node("a")
    again = open_checkpoint_untrusted(write_checkpoint(node), key_of("a"), exchange_of("a"))
    assert again.endpoints() == node.endpoints() != []
    assert untold(again) == []
