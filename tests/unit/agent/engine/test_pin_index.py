"""The tables agree with the members they were told of, and a delta touches the shards it must."""

import random
from collections.abc import Iterator

import msgspec

from gossipmesh.agent.engine.pin_index import PinIndex
from gossipmesh.model.identity import NodeId, service_path
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.model.records import IdentityPins
from gossipmesh.model.snapshot import HAS_KEY_SETS, REVOKED, CredentialsSection, PinsSection
from gossipmesh.traffic.sections import decode_section_untrusted, encode_section

CART = "shop/cart"


class FakeKeys:
    """What is known of members' keys, by id."""

    def __init__(self) -> None:
        self.members: dict[bytes, MemberKeys] = {}
        self.asked_count = 0

    def each_keys(self) -> Iterator[MemberKeys]:
        yield from self.members.values()

    def keys_of(self, node_id: bytes) -> MemberKeys | None:
        self.asked_count += 1
        return self.members.get(node_id)


def keys(number: int, *pins: bytes, has_key_sets: bool = True, is_revoked: bool = False) -> MemberKeys:
    """Return what is known of node `number`, which lists these pins for shop/cart."""
    entries = (IdentityPins(service_path(CART), pins),) if pins else None
    node_id = NodeId(bytes([number % 256]) + number.to_bytes(15, "big"))
    return MemberKeys(node_id, f"n{number}", 7, number, 2**40, has_key_sets, is_revoked, entries)


def begun(catalog: FakeKeys) -> PinIndex:
    """Return an index that has walked over its catalog."""
    index = PinIndex(catalog)
    for _ in index.begin():
        pass
    return index


def expected(members: dict[bytes, MemberKeys]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the tables made anew from all members."""
    pins = sorted(
        {
            pin + one.node_id[:8]
            for one in members.values()
            if not one.is_revoked
            for entry in one.entries or ()
            for pin in entry.pins
        }
    )
    credentials = sorted(
        one.node_id[:8]
        + one.generation.to_bytes(8, "big")
        + one.serial.to_bytes(8, "big")
        + bytes([(HAS_KEY_SETS if one.has_key_sets else 0) | (REVOKED if one.is_revoked else 0)])
        for one in members.values()
    )
    return by_shard(pins), by_shard(credentials)


def by_shard(entries: list[bytes]) -> dict[str, bytes]:
    shards: dict[str, bytes] = {}
    for entry in entries:
        name = f"{entry[0]:02x}"
        shards[name] = shards.get(name, b"") + entry
    return shards


def test_tables_follow_whatever_comes_and_goes() -> None:
    rng = random.Random(7)
    catalog = FakeKeys()
    index = begun(catalog)
    for _ in range(2_000):
        number = rng.randrange(120)
        pins = tuple(rng.randbytes(1) + bytes(15) for _ in range(rng.randrange(3)))
        one = keys(number, *pins, has_key_sets=rng.random() < 0.8, is_revoked=rng.random() < 0.1)
        if rng.random() < 0.2:
            catalog.members.pop(one.node_id, None)
            index.take(one.node_id, None)
        else:
            catalog.members[one.node_id] = one
            index.take(one.node_id, one)
    assert (dict(index.pins), dict(index.credentials)) == expected(catalog.members)
    for shard, entries in index.pins.items():
        decode_section_untrusted(f"pins/{shard}", encode_section(PinsSection(entries)))
    for shard, entries in index.credentials.items():
        decode_section_untrusted(f"credentials/{shard}", encode_section(CredentialsSection(entries)))


def test_the_walk_takes_its_time_and_loses_no_delta() -> None:
    catalog = FakeKeys()
    for number in range(250):
        catalog.members[keys(number).node_id] = keys(number, bytes([number]) * 16)
    index = PinIndex(catalog)
    walk = index.begin()
    next(walk)
    late = keys(249, b"x" * 16)
    catalog.members[late.node_id] = late
    index.take(late.node_id, late)
    assert sum(1 for _ in walk) == 1
    assert (dict(index.pins), dict(index.credentials)) == expected(catalog.members)
    assert list(index.begin()) == []


def test_a_delta_leaves_other_shards_the_very_same_bytes() -> None:
    catalog = FakeKeys()
    index = begun(catalog)
    for number in range(256):
        one = catalog.members[keys(number).node_id] = keys(number, bytes([number]) * 16)
        index.take(one.node_id, one)
    before = dict(index.pins)
    index.take(keys(3).node_id, keys(3, b"\x03" * 16, b"\x09" + bytes(15)))
    changed = [shard for shard, entries in index.pins.items() if entries is not before[shard]]
    assert changed == ["09"]


def test_pins_are_none_empty_or_listed() -> None:
    catalog = FakeKeys()
    index = PinIndex(catalog)
    unknown, older, waiting, listing = (keys(number).node_id for number in range(4))
    catalog.members[older] = keys(1, has_key_sets=False)
    catalog.members[waiting] = keys(2)
    catalog.members[listing] = keys(3, b"a" * 16, b"b" * 16)
    found = [index.pins_of(node_id, CART) for node_id in (unknown, older, waiting, listing)]
    assert found == [None, None, (), (b"a" * 16, b"b" * 16)]
    assert index.pins_of(listing, "shop/other") == ()


def test_pins_are_asked_for_once_until_a_delta_or_nobody_asks_any_more() -> None:
    catalog = FakeKeys()
    index = PinIndex(catalog)
    one = catalog.members[keys(1).node_id] = keys(1, b"a" * 16)
    for _ in range(3):
        index.pins_of(one.node_id, CART)
    assert catalog.asked_count == 1
    turned = catalog.members[one.node_id] = keys(1, b"b" * 16)
    index.take(one.node_id, turned)
    assert index.pins_of(one.node_id, CART) == (b"b" * 16,)
    index.read_only([])
    index.pins_of(one.node_id, CART)
    assert catalog.asked_count == 3


def test_a_revoked_node_lists_nothing_and_is_known() -> None:
    index = begun(FakeKeys())
    one = keys(1, b"a" * 16)
    index.take(one.node_id, one)
    index.take(one.node_id, msgspec.structs.replace(one, is_revoked=True, generation=8))
    assert dict(index.pins) == {}
    (entry,) = index.credentials.values()
    assert entry[8:16] == (8).to_bytes(8, "big")
    assert entry[-1] & REVOKED


def test_members_without_key_sets_are_counted_while_they_are_that() -> None:
    catalog = FakeKeys()
    older, newer, gone = keys(1, has_key_sets=False), keys(2), keys(3, has_key_sets=False)
    catalog.members = {one.node_id: one for one in (older, newer, gone)}
    index = begun(catalog)
    assert set(index.without_key_sets) == {older.node_id, gone.node_id}
    index.take(gone.node_id, None)
    index.take(older.node_id, keys(1, b"a" * 16))
    assert set(index.without_key_sets) == set()
    index.take(older.node_id, keys(1, has_key_sets=False, is_revoked=True))
    assert set(index.without_key_sets) == set()
