"""Who holds a key set is asked of a view that is whole, and not for ever."""

from types import SimpleNamespace
from typing import Any

import pytest

from gossipmesh.agent.engine import key_use
from gossipmesh.agent.engine.key_use import AgentKeyUse
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import IdentityPins

NODE = "spiffe://mesh.test/node/n1"
CART = "spiffe://mesh.test/ns/shop/svc/cart"
PIN = bytes(16)
OWN, OTHER = NodeId(b"own" + bytes(13)), NodeId(b"other" + bytes(11))


class Rig:
    """A use of a mesh of five, of which some hold the set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        self.heard = self.whole = True
        self.agreed_count = 0
        self.statuses: dict[NodeId, MemberStatus] = {}
        self.published: list[tuple[IdentityPins, ...]] = []
        self.refuse = False
        node: Any = SimpleNamespace(
            tally=lambda: SimpleNamespace(attended_count=5),
            isolated_since=None,
            hears_anybody=lambda _: self.heard,
            key_set_heard_count=lambda: self.agreed_count,
            own_node_id=OWN,
            member=lambda node_id: (
                SimpleNamespace(status=self.statuses[node_id]) if node_id in self.statuses else None
            ),
        )
        engine: Any = SimpleNamespace()
        self.node = node
        monkeypatch.setattr(key_use, "monotonic", lambda: self.now)
        self.older: list[NodeId] = []
        self.use = AgentKeyUse(
            engine,
            node,
            publish=self._publish,
            is_whole=lambda: self.whole,
            without_key_sets=lambda: self.older,
        )

    def _publish(self, entries: tuple[IdentityPins, ...]) -> None:
        if self.refuse:
            raise Untrusted("an identity the credential does not allow")
        self.published.append(entries)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_nothing_is_known_before_a_set_is_out_and_the_view_is_whole(rig: Rig) -> None:
    rig.agreed_count = 4
    assert rig.use.holders() is None
    rig.whole = False
    assert rig.use.publish_pins({NODE: (PIN,)})
    assert rig.use.holders() is None
    rig.whole = True
    assert rig.use.holders() == (4, 4)


def test_a_mesh_that_never_rests_is_waited_for_five_seconds(rig: Rig) -> None:
    rig.use.publish_pins({NODE: (PIN,)})
    rig.now = 5 * SECOND_NS - 1
    assert rig.use.holders() == (0, 4)
    rig.now += 1
    assert rig.use.holders() == (4, 4)
    rig.use.publish_pins({NODE: (PIN, PIN)})
    assert rig.use.holders() == (0, 4)


def test_who_hears_nobody_waits_on(rig: Rig) -> None:
    rig.use.publish_pins({NODE: (PIN,)})
    rig.heard, rig.now = False, 60 * SECOND_NS
    assert rig.use.holders() == (0, 4)


def test_who_is_cut_off_waits_for_nobody(rig: Rig) -> None:
    rig.use.publish_pins({NODE: (PIN,)})
    rig.heard, rig.node.isolated_since = False, 7
    assert rig.use.holders() == (0, 0)


def test_a_set_goes_out_by_path_and_a_refused_one_is_asked_for_again(rig: Rig) -> None:
    rig.refuse = True
    assert not rig.use.publish_pins({NODE: (PIN,)})
    assert rig.use.holders() is None
    rig.refuse = False
    rig.use.publish_pins({CART: (PIN,), NODE: (PIN,)})
    assert [entry.path for entry in rig.published[-1]] == ["/node/n1", "/ns/shop/svc/cart"]


@pytest.mark.parametrize(
    ("older", "statuses", "needed"),
    [
        ([], {}, False),
        ([OWN], {OWN: MemberStatus.ALIVE}, False),  # before our own first set
        ([OTHER], {}, False),  # a credential of a node that never said anything
        ([OTHER], {OTHER: MemberStatus.DEAD}, False),
        ([OTHER], {OTHER: MemberStatus.UNATTENDED}, True),  # its engine serves on
        ([OWN, OTHER], {OWN: MemberStatus.ALIVE, OTHER: MemberStatus.ALIVE}, True),
    ],
)
def test_certificates_are_needed_while_a_member_is_there_that_signs_no_key_sets(
    rig: Rig, older: list[NodeId], statuses: dict[NodeId, MemberStatus], needed: bool
) -> None:
    rig.older, rig.statuses = older, statuses
    assert rig.use.certified_only() is needed
