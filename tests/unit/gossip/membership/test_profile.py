"""A node says of itself what its profile says, wherever it is asked."""

import msgspec

from gossipmesh.gossip.base.settings import NodeProfile
from gossipmesh.model.member import Address
from gossipmesh.wire.versions import FEATURES, MEMBER_FEATURES
from tests.unit.gossip.group import Group

PROFILE = NodeProfile("a", (Address("10.0.0.1", 7948),), (Address("10.0.0.1", 15008),), "test")


def test_features_are_the_builds_unless_the_shell_says_more() -> None:
    assert PROFILE.features == FEATURES
    assert set(FEATURES) <= set(MEMBER_FEATURES)
    assert list(MEMBER_FEATURES) == sorted(set(MEMBER_FEATURES))


def test_features_of_a_profile_are_signed() -> None:
    group = Group("a b")
    group.start_all()
    own = group.node("a")._own
    own._profile = msgspec.structs.replace(PROFILE, features=("closed", "key-sets"))
    group.perform(group.hosts["a"], group.node("a").set_draining(group.now))
    group.run(3)
    seen = group.node("b").member(group.node("a").own_node_id)
    assert seen is not None
    assert seen.state.features == ("closed", "key-sets")
