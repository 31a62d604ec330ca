"""Records a member signs of itself to split views or to put somebody out; all end with one view."""

import msgspec
import pytest

from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import NodePhase
from gossipmesh.model.records import SEQUENCE_WHOLE, NodeState, RecordKind, ServiceSet, SignedRecord
from gossipmesh.trust.records import sign_record, signed_bytes
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import encode_message
from tests.simulation.test_byzantine import HOSTILE, mesh, send, state_of
from tests.unit.gossip.group import DOMAIN, Group, credential_of, key_of

_OTHERS = "bcde"


def unknown(group: Group, kind: int) -> bytes:
    state = state_of(group, HOSTILE)
    body = encode([state.node_id, state.generation, state.epoch, 1, b"x"])
    signature = key_of(HOSTILE).sign(signed_bytes(DOMAIN, kind, body))
    return encode_message(SignedRecord(kind, body, signature))


def mute(group: Group) -> None:
    """Have the hostile member contradict nothing of what is said in its name."""
    group.node(HOSTILE)._intake._about_us = lambda *_: True


def is_one_view(group: Group) -> bool:
    return len({group.node(name).state_sums() for name in _OTHERS}) == 1


def comparisons(group: Group) -> int:
    return sum(group.node(name).statistics().repairs_started for name in _OTHERS)


def end_as_one(group: Group) -> None:
    """Let it settle without whoever did it, and require that nobody goes on comparing."""
    group.run_until(lambda: is_one_view(group), 30)
    group.kill(HOSTILE, silent=True)
    group.run(20)
    before = comparisons(group)
    group.run(30)
    assert is_one_view(group)
    assert comparisons(group) - before <= 4, "one regular comparison of each at most"


def test_unknown_kinds_in_whatever_order_end_as_one_view() -> None:
    group = mesh("a b c d e")
    mute(group)
    group.partition("b c", "d e")
    for kind in range(20, 28):
        send(group, "b", unknown(group, kind))
        send(group, "d", unknown(group, kind + 8))
        group.run(0.5)
    group.heal()
    end_as_one(group)
    member = group.node("d")._catalog.get(credential_of(HOSTILE).node_id)
    assert sorted(member.opaque) == list(range(20, 28))


def signed(state: NodeState) -> bytes:
    return encode_message(sign_record(DOMAIN, RecordKind.NODE_STATE, state, key_of(HOSTILE)))


def test_who_leaves_and_serves_in_one_life_has_left_everywhere() -> None:
    group = mesh("a b c d e")
    mute(group)
    state = state_of(group, HOSTILE)
    left = msgspec.structs.replace(state, sequence=state.sequence + 1, phase=int(NodePhase.LEFT))
    serving = msgspec.structs.replace(state, sequence=state.sequence + 2)
    group.partition("b c", "d e")
    send(group, "b", signed(left))
    group.run(0.01)
    send(group, "d", signed(serving))
    group.run(2)
    group.heal()
    end_as_one(group)
    assert {group.status(name, HOSTILE) for name in _OTHERS} == {"left"}


@pytest.mark.parametrize("kind", [RecordKind.NODE_STATE, RecordKind.SERVICE_SET, 200])
def test_no_kind_of_record_drives_an_epoch_beyond_reach(kind: int) -> None:
    """Whoever has the key of a member signs in its name; the member must be able to outbid it."""
    group = mesh("a b c")
    state = state_of(group, "b")
    for epoch, sequence in ((2**61, 1), (state.epoch, SEQUENCE_WHOLE)):
        if kind == RecordKind.NODE_STATE:
            body = encode(msgspec.structs.replace(state, epoch=epoch, sequence=sequence))
        elif kind == RecordKind.SERVICE_SET:
            body = encode(ServiceSet(state.node_id, state.generation, epoch, sequence, ()))
        else:
            body = encode([state.node_id, state.generation, epoch, sequence, b"x"])
        record = SignedRecord(int(kind), body, key_of("b").sign(signed_bytes(DOMAIN, int(kind), body)))
        for name in "abc":
            node = group.node(name)
            node._ctx.now = Instant(group.now)
            node._intake.take(record, None, Checks(12))
            group.perform(group.hosts[name], node._ctx.drain())
        group.run(5)
        assert group.node("b").incarnation[1] < 2**40
        assert group.converged()
        assert group.status("a", "b") == group.status("c", "b") == "alive"
