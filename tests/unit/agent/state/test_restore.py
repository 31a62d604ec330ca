"""What a restarted agent takes back from its disk, verified again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from gossipmesh.agent.identity.identity_store import NodeIdentity
from gossipmesh.agent.state import restore
from gossipmesh.agent.state.restore import own_address, remember_enrolment, restore_documents, restore_state
from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.member import Address
from gossipmesh.model.opening import Enrolled, KeptOpening, Unconfirmed
from gossipmesh.testing.builders import TrustDomainBuilder, http_route
from gossipmesh.trust.documents import PolicyRefusal, PolicySet
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.codec import encode

NOW = WallSeconds(1_800_000_000)
DOMAIN = TrustDomainBuilder()


@dataclass
class Identity:
    """As much of an identity as restoring reads."""

    trust_domain: str = DOMAIN.trust_domain
    trust_envelopes: tuple[bytes, ...] = (DOMAIN.trust_envelope,)


def _restore(store: StateStore) -> Any:
    return restore_documents(cast(NodeIdentity, Identity()), store, Verifier())


def _keep(store: StateStore, policy_set: PolicySet) -> tuple[int, bytes]:
    accepted = DOMAIN.documents().check_untrusted(policy_set)
    store.put(PersistKind.POLICY_SET, b"mesh", policy_set.to_bytes(), durable=False)
    store.put(PersistKind.FLOOR, b"mesh", encode(list(accepted.floor)), durable=True)
    return accepted.floor


def test_the_set_in_force_and_its_floor_come_back(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    floor = _keep(store, DOMAIN.policy_set(3, [http_route("cart")]))
    documents = _restore(store)
    assert documents.in_force("mesh").version == 3
    assert documents.floor("mesh") == floor
    with pytest.raises(PolicyRefusal, match="below 3"):
        documents.check_untrusted(DOMAIN.policy_set(2))


def test_a_set_that_was_changed_on_disk_is_left_out_and_the_floor_stays(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    good = DOMAIN.policy_set(3, [http_route("cart")])
    floor = _keep(store, good)
    tampered = PolicySet(good.manifest, (good.bodies[0].replace(b"cart", b"bank"),))
    store.put(PersistKind.POLICY_SET, b"mesh", tampered.to_bytes(), durable=True)
    documents = _restore(store)
    assert documents.in_force("mesh") is None
    assert documents.floor("mesh") == floor


@pytest.mark.parametrize(
    ("kept", "enrolled_now", "epoch"),
    [(encode(7), False, 7), (None, True, 0), (None, False, NOW), (b"\xc1", False, NOW)],
)
def test_the_epoch_is_the_last_one_or_above_any_that_was_lost(
    tmp_path: Path, kept: bytes | None, enrolled_now: bool, epoch: int
) -> None:
    store = StateStore(tmp_path)
    if kept is not None:
        store.put(PersistKind.EPOCH, b"", kept, durable=True)
    store.put(PersistKind.MEMBER, b"a", b"record", durable=True)
    ends = WallSeconds(NOW + 3600)
    restored = restore_state(store, NOW, ends=ends, enrolled_now=enrolled_now)
    assert restored.epoch == epoch
    years_ahead = restore_state(store, WallSeconds(NOW + 10**9), ends=ends, enrolled_now=enrolled_now)
    assert years_ahead.epoch == (ends if epoch == NOW else epoch), "others take no epoch of days to come"
    assert restored.members == ((b"a", b"record"),)


@pytest.mark.parametrize(
    ("enrolled", "expected"),
    [
        (Enrolled(4, is_founder=False), Unconfirmed(4)),
        (Enrolled(1, is_founder=True), Unconfirmed(1, is_founder=True)),
        (Enrolled(), None),
        (None, Unconfirmed(0)),
    ],
)
def test_what_the_authority_said_outlives_a_start_that_opened_nothing(
    tmp_path: Path, enrolled: Enrolled | None, expected: Unconfirmed | None
) -> None:
    store = StateStore(tmp_path)
    ends = WallSeconds(NOW + 3600)
    remember_enrolment(store, enrolled, NOW)
    first = restore_state(store, NOW, ends=ends, enrolled_now=True, enrolled=enrolled)
    assert first.unconfirmed == expected
    store.put(PersistKind.EPOCH, b"", encode(1), durable=True)
    store.close()
    again = StateStore(tmp_path)
    remember_enrolment(again, None, WallSeconds(NOW + 5))
    assert restore_state(again, NOW, ends=ends, enrolled_now=False).unconfirmed == expected


def test_who_was_open_is_open_at_each_start_until_its_disk_is_damaged(tmp_path: Path) -> None:
    ends = WallSeconds(NOW + 3600)
    store = StateStore(tmp_path)
    store.put(PersistKind.OPENING, b"", encode(KeptOpening("by peers")), durable=True)
    store.put(PersistKind.EPOCH, b"", encode(1), durable=True)
    for enrolled in (None, Enrolled(9, is_founder=False)):
        remember_enrolment(store, enrolled, NOW)
        assert restore_state(store, NOW, ends=ends, enrolled_now=False, enrolled=enrolled).unconfirmed is None
    store.damage.append("a record reads differently than it was written")
    remember_enrolment(store, None, NOW)
    store.close()
    mended = StateStore(tmp_path)
    assert not mended.damage
    assert restore_state(mended, NOW, ends=ends, enrolled_now=False).unconfirmed == Unconfirmed(0)


def test_state_of_a_build_before_is_open(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.put(PersistKind.EPOCH, b"", encode(1), durable=True)
    remember_enrolment(store, None, NOW)
    assert store.get(PersistKind.OPENING, b"") is None
    restored = restore_state(store, NOW, ends=WallSeconds(NOW + 3600), enrolled_now=False)
    assert restored.unconfirmed is None


def test_a_wildcard_is_told_as_the_address_used_towards_the_seeds() -> None:
    bind, seed = Address("0.0.0.0", 7948), Address("127.0.0.1", 7948)
    assert own_address(bind, None, [seed], "gossip") == Address("127.0.0.1", 7948)
    assert own_address(bind, Address("10.0.0.9", 1), [seed], "gossip") == Address("10.0.0.9", 1)
    ipv6 = own_address(Address("::", 7948), None, [seed, Address("::1", 7948)], "gossip")
    assert ipv6 == Address("::1", 7948)


def test_an_address_of_this_machine_or_one_link_alone_is_told_to_nobody_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A route by loopback, or by an address that a lease did not come for, leads to nobody else."""
    sources = {"10.0.0.1": "127.0.0.1", "10.0.0.2": "169.254.3.4", "10.0.0.3": "10.9.9.9"}
    sources |= {"169.254.7.7": "169.254.3.4", "fd00::1": "fe80::3"}
    monkeypatch.setattr(restore, "_source_towards", sources.get)

    def found(bind: str, *towards: str) -> Address:
        return own_address(Address(bind, 7948), None, [Address(host, 1) for host in towards], "gossip")

    assert found("0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3") == Address("10.9.9.9", 7948)
    assert found("0.0.0.0", "169.254.7.7") == Address("169.254.3.4", 7948), "all of a mesh may be on one link"
    with pytest.raises(OperatorError, match="no route"):
        found("0.0.0.0", "10.0.0.1", "10.0.0.2")
    with pytest.raises(OperatorError, match="no route"):
        found("::", "fd00::1")
