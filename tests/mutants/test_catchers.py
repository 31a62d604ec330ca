"""Small tests that stand between a rule and its loss; `tests.mutants.table` names what each must notice."""

import itertools
from contextlib import suppress

import msgspec
import pytest

from gossipmesh.gossip.base.effects import Effect, Persist, PersistKind, SendDatagram
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import NodePhase, Order
from gossipmesh.model.records import RecordKind, ServiceSet, SignedRecord
from gossipmesh.testing.builders import TrustDomainBuilder, http_route
from gossipmesh.trust.documents import PolicyRefusal
from gossipmesh.trust.keys import Verifier
from gossipmesh.trust.records import open_owned_untrusted, sign_record, signed_bytes
from gossipmesh.wire.codec import encode
from tests.unit.gossip.group import DOMAIN, WALL_OFFSET_S, Group, credential_of, key_of, signed_credential
from tests.unit.gossip.membership.test_lattice import state_record, view_after


def lone() -> Group:
    """Return a group of one node that knows x and y by their credentials."""
    group = Group("a")
    node = group.start("a")
    for name in "xy":
        node._intake.take(signed_credential(name), None, Checks(12))
    return group


def test_two_sets_of_one_version_have_one_winner_in_either_order() -> None:
    builder = TrustDomainBuilder()
    rivals = [builder.policy_set(5, [http_route(name)]) for name in ("left", "right", "middle")]
    winners = set()
    for order in itertools.permutations(rivals):
        documents = builder.documents()
        for rival in order:
            with suppress(PolicyRefusal):
                documents.adopt(documents.check_untrusted(rival))
        winners.add(documents.floor("mesh"))
    assert len(winners) == 1


def test_a_signature_is_good_for_one_kind_alone() -> None:
    key = key_of("x")
    body = encode(ServiceSet(credential_of("x").node_id, 1, 1, 1, ()))
    for kind in (RecordKind.NODE_STATE, RecordKind.VERDICT):
        record = SignedRecord(int(RecordKind.SERVICE_SET), body, key.sign(signed_bytes(DOMAIN, kind, body)))
        with pytest.raises(Untrusted):
            open_owned_untrusted(record, DOMAIN, key.public, Verifier())


def test_a_credential_that_ended_is_no_ticket() -> None:
    catalog = lone().node("a")._catalog
    with pytest.raises(Untrusted):
        catalog.open_credential_untrusted(signed_credential("z", ends=WALL_OFFSET_S), Checks(12))
    assert catalog.open_credential_untrusted(signed_credential("z"), Checks(12)).serial == 1


def test_an_older_state_never_replaces_a_newer() -> None:
    newest = Order(1, 2, 1)
    for older in (state_record("x", 1, 9), state_record("x", 1, 1), state_record("x", 2, 0)):
        assert view_after([state_record("x", 2, 1), older])[1] == newest


def test_records_of_another_generation_are_nobodys() -> None:
    node = lone().node("a")
    value = [bytes(credential_of("x").node_id), 2, 1, 1, ()]
    node._intake.take(sign_record(DOMAIN, RecordKind.SERVICE_SET, value, key_of("x")), None, Checks(12))
    member = node._catalog.get(credential_of("x").node_id)
    assert member is not None
    assert member.entries is None
    assert node.statistics().refused == {"Untrusted": 1}


def test_unknown_kinds_of_one_member_are_eight() -> None:
    node = lone().node("a")
    body = encode([bytes(credential_of("x").node_id), 1, 1, 7])
    for kind in range(100, 112):
        signature = key_of("x").sign(signed_bytes(DOMAIN, kind, body))
        node._intake.take(SignedRecord(kind, body, signature), None, Checks(12))
    member = node._catalog.get(credential_of("x").node_id)
    assert member is not None
    assert len(member.opaque) == limits.UNKNOWN_KINDS_PER_MEMBER_MAX == 8


def test_one_input_costs_no_more_than_its_checks() -> None:
    checks = Checks(3)
    for _ in range(3):
        checks.spend_untrusted()
    with pytest.raises(MalformedInput):
        checks.spend_untrusted()


def test_an_epoch_is_durable_before_anybody_hears_of_it() -> None:
    """Both at a start and when a refutation raises it; losing it would sign two records of one order."""
    group = Group("a b")
    group.start("b")
    node = group.start("a", "b")
    group.run(2)
    node._ctx.now = Instant(group.now)
    node._own.raise_epoch(7, "outbid", (False,))
    node._intake.follow(node._own.publish_state(), None)
    assert node.own_state.epoch == node.incarnation[1] == 1
    written = [e for e in node._ctx.drain() if isinstance(e, Persist) and e.kind is PersistKind.EPOCH]
    assert [entry.value for entry in written] == [encode(8)]
    assert written[0].durable
    effects = node.persisted(written[0].ticket, Instant(group.now))
    assert node.own_state.epoch == node.incarnation[1] == 8
    assert any(isinstance(effect, SendDatagram) for effect in effects)


def test_nothing_is_said_before_the_epoch_of_a_start_is_on_disk() -> None:
    group = Group("a b")
    group.start("b")
    host = group.hosts["a"]
    told: list[list[Effect]] = []
    group.perform = lambda host, effects: told.append(effects)  # type: ignore[method-assign]
    node = group.start("a", "b")
    assert [type(effect) for effect in told.pop()] == [Persist]
    for _ in range(8):
        group.now = node.next_deadline()
        assert node.handle_deadline(Instant(group.now)) == []
    effects = node.persisted(1, Instant(group.now))
    assert any(isinstance(effect, SendDatagram) for effect in effects)
    assert host.node is node
    assert node.persisted(1, Instant(group.now)) == []


def test_every_state_we_sign_is_above_the_last() -> None:
    own = lone().node("a")._own
    orders = []
    for phase in (NodePhase.SERVING, NodePhase.DRAINING, NodePhase.SERVING):
        own.phase = phase
        own.publish_state()
        orders.append(own.state.order)
    assert orders == sorted(set(orders))


def test_a_service_outside_the_patterns_is_refused_from_anybody() -> None:
    from gossipmesh.testing.builders import service_entry

    node = lone().node("a")
    for sequence, service in enumerate(("bank/db", "shop/cart"), 1):
        entry = service_entry(service)
        value = ServiceSet(credential_of("x").node_id, 1, 1, sequence, (entry,))
        node._intake.take(sign_record(DOMAIN, RecordKind.SERVICE_SET, value, key_of("x")), None, Checks(12))
        member = node._catalog.get(credential_of("x").node_id)
        assert member is not None
        held = tuple(entry.service for entry in member.entries or ())
        assert held == (("shop/cart",) if service == "shop/cart" else ())
    assert node.statistics().refused == {"Untrusted": 1}
    assert msgspec.structs.asdict(node.statistics())["records_merged"] >= 3
