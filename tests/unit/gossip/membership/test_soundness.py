"""What a verified state may hold."""

import msgspec
import pytest

from gossipmesh.gossip.membership.soundness import state_is_sound
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeState
from tests.unit.gossip.membership.test_lattice import state_record


def _is_sound_at(host: str) -> bool:
    state = msgspec.msgpack.decode(state_record("x", 1, 1).body, type=NodeState)
    assert state_is_sound(state, "x")
    return state_is_sound(msgspec.structs.replace(state, gossip_addresses=(Address(host, 7948),)), "x")


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "fe80::1%eth0", "fe80::1%wg-a.100", "fe80::1%2"])
def test_an_address_may_name_an_interface(host: str) -> None:
    assert _is_sound_at(host)


@pytest.mark.parametrize("zone", ["", "a b", "eth0\n", "\x1b[2J", "\0", "../x", "x" * 16, "\u00e9"])
def test_a_zone_is_the_name_of_an_interface_and_no_other_text(zone: str) -> None:
    assert not _is_sound_at(f"fe80::1%{zone}")
