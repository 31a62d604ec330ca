"""A member that lies about TLS keys, its own or others', and forged tombstones: nobody believes any of it."""

import msgspec
import pytest

from gossipmesh.gossip.base.effects import ForeignKeySet, Revoked
from gossipmesh.model import limits
from gossipmesh.model.identity import node_path, service_path
from gossipmesh.model.instant import DAY_S, Instant
from gossipmesh.model.records import IdentityPins, KeySet, RecordKind
from gossipmesh.trust.keys import SigningKey
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.datagram import encode_message
from tests.simulation.test_byzantine import HOSTILE, VICTIM, alive, mesh, spray
from tests.unit.gossip.group import AUTHORITY, DOMAIN, WALL_OFFSET_S, Group, credential_of, key_of

OTHERS = "bcdefg"


def entry(path: str, *numbers: int) -> IdentityPins:
    return IdentityPins(path, tuple(f"{path[-6:]:8}{number:8}".encode() for number in numbers or (1, 2)))


def publish(group: Group, name: str, *entries: IdentityPins) -> None:
    group.perform(group.hosts[name], group.node(name).turn_keys(entries, Instant(group.now)))


def lie(
    group: Group, *entries: IdentityPins, of: str = HOSTILE, signer: str = HOSTILE, ahead: int = 5
) -> bytes:
    """Return a key set in the name of a node, above what that node signed."""
    state = group.node(of).own_state
    keys = KeySet(state.node_id, state.generation, state.epoch, state.sequence + ahead, entries)
    return encode_message(sign_record(DOMAIN, RecordKind.KEY_SET, keys, key_of(signer)))


def held(group: Group, of: str) -> set[tuple[IdentityPins, ...] | None]:
    """Return what the honest hold of a node's keys."""
    found = set()
    for name in OTHERS:
        keys = group.node(name).keys_of(credential_of(of).node_id)
        assert keys is not None
        found.add(keys.entries)
    return found


def refused_count(group: Group) -> int:
    return sum(sum(group.node(name).statistics().refused.values()) for name in OTHERS)


TOO_MANY = tuple(entry(service_path(f"shop/s{n:03}"), 1) for n in range(limits.KEY_SET_ENTRIES_MAX + 1))
LIES = {
    "a service it may not serve": (entry(node_path(HOSTILE)), entry(service_path("bank/vault"))),
    "another node": (entry(node_path(VICTIM)),),
    "the authority": (entry("/authority"),),
    "four keys": (entry(node_path(HOSTILE), 1, 2, 3, 4),),
    "no key": (IdentityPins(node_path(HOSTILE), ()),),
    "a short pin": (IdentityPins(node_path(HOSTILE), (b"short",)),),
}


@pytest.mark.parametrize("what", LIES)
def test_pins_for_what_a_member_may_not_be_are_refused_whole(what: str) -> None:
    group = mesh()
    publish(group, HOSTILE, entry(node_path(HOSTILE)))
    group.run(3)
    before = refused_count(group)
    spray(group, lie(group, *LIES[what]))
    group.run(3)
    assert held(group, HOSTILE) == {(entry(node_path(HOSTILE)),)}
    assert refused_count(group) - before >= len(OTHERS)
    assert alive(group)
    assert group.converged()


def test_a_set_beyond_limits_is_refused_wherever_it_comes() -> None:
    """Too long for a packet, it would come by a stream: it is refused as it is merged."""
    group = mesh()
    state = group.node(HOSTILE).own_state
    keys = KeySet(state.node_id, state.generation, state.epoch, state.sequence + 5, TOO_MANY)
    record = sign_record(DOMAIN, RecordKind.KEY_SET, keys, key_of(HOSTILE))
    member = group.node(HOSTILE)._own_member()
    group.node(HOSTILE)._catalog.install_keys(member, keys, record)
    group.run(5)
    assert held(group, HOSTILE) == {None}
    assert alive(group)


def test_an_older_set_is_no_news() -> None:
    group = mesh()
    publish(group, HOSTILE, entry(node_path(HOSTILE), 1, 2))
    older = group.node(HOSTILE)._own_member().messages.keys
    assert older is not None
    group.run(2)
    publish(group, HOSTILE, entry(node_path(HOSTILE), 2, 3))
    group.run(2)
    spray(group, older, older)
    group.run(2)
    assert held(group, HOSTILE) == {(entry(node_path(HOSTILE), 2, 3),)}
    assert group.converged()


def test_nobody_signs_for_another() -> None:
    group = mesh()
    publish(group, VICTIM, entry(node_path(VICTIM)))
    group.run(2)
    spray(group, lie(group, entry(node_path(VICTIM), 7), of=VICTIM))
    group.run(2)
    assert held(group, VICTIM) == {(entry(node_path(VICTIM)),)}
    assert [event for event in group.hosts[VICTIM].events if isinstance(event, ForeignKeySet)] == []


def test_a_thief_of_a_key_is_found_out_and_overruled() -> None:
    """It has the victim's own key: the victim alone can tell, and everybody sees that it did."""
    group = mesh()
    publish(group, VICTIM, entry(node_path(VICTIM)))
    group.run(2)
    spray(group, lie(group, entry(node_path(VICTIM), 7), of=VICTIM, signer=VICTIM))
    group.run(5)
    assert [event.paths for event in group.hosts[VICTIM].events if isinstance(event, ForeignKeySet)] == [
        (node_path(VICTIM),)
    ]
    assert held(group, VICTIM) == {(entry(node_path(VICTIM)),)}
    assert group.converged()


def tombstone(signer: SigningKey, **fields: object) -> bytes:
    ended = msgspec.structs.replace(
        credential_of(VICTIM, generation=2), signing_key=b"", exchange_key=b"", service_patterns=()
    )
    credential = msgspec.structs.replace(ended, **fields)
    return encode_message(sign_record(DOMAIN, RecordKind.CREDENTIAL, credential, signer))


FORGED = {
    "by a member": tombstone(key_of(HOSTILE)),
    "that allows something": tombstone(AUTHORITY, service_patterns=("*/*",)),
    "with an exchange key": tombstone(AUTHORITY, exchange_key=bytes(32)),
    "of a generation beyond the clock": tombstone(AUTHORITY, generation=WALL_OFFSET_S + 30 * DAY_S),
    "of a serial beyond the clock": tombstone(AUTHORITY, serial=WALL_OFFSET_S + 30 * DAY_S),
    "of a date to come": tombstone(AUTHORITY, not_before=WALL_OFFSET_S + DAY_S),
    "that has ended": tombstone(AUTHORITY, ends=WALL_OFFSET_S - DAY_S),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_tombstone_takes_nobody_out(what: str) -> None:
    group = mesh()
    spray(group, FORGED[what], FORGED[what])
    group.run(5)
    assert alive(group)
    assert group.converged()
    assert [event for event in group.hosts[VICTIM].events if isinstance(event, Revoked)] == []
