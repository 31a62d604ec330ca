"""Reading members one by one, counting them, and how a member's messages are kept."""

from gossipmesh.gossip.member import Messages
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import RecordKind
from tests.unit.gossip.group import Group


def joined(names: str) -> Group:
    group = Group(names)
    group.start_all()
    group.run_until(group.converged, 10)
    return group


def test_what_is_counted_is_what_is_listed() -> None:
    group = joined("a b c d e f g")
    group.kill("g", silent=True)
    group.run(8)
    node = group.node("a")
    views = node.members()
    tally = node.tally()
    assert tally.members_count == len(views) == 7
    for status in MemberStatus:
        names = [view.name for view in views if view.status is status]
        assert tally.by_status[status] == len(names)
        assert node.names((status,), 3) == names[:3]
    assert tally.attended_count == 6
    assert tally.unreachable_count == sum(view.unreachable for view in views)


def test_a_member_is_found_by_name_and_by_id() -> None:
    group = joined("a b c")
    node = group.node("a")
    node_id = node.find("b")
    assert node_id == group.node("b").own_node_id
    view = node.member(node_id)
    assert view is not None
    assert view.name == "b"
    assert node.find("nobody") is None


def test_a_slow_walk_sees_none_that_was_forgotten_meanwhile() -> None:
    node = joined("a b c d").node("a")
    walk = node.each_member()
    assert next(walk).name == "a"
    forgotten = node._catalog.get(node.find("c") or b"")
    assert forgotten is not None
    node._catalog.forget(forgotten)
    assert [view.name for view in walk] == ["b", "d"]


def test_messages_are_a_mapping_by_kind() -> None:
    messages = Messages()
    model: dict[int, bytes] = {}
    for kind in (RecordKind.NODE_STATE, 77, RecordKind.CREDENTIAL, RecordKind.CERTIFICATE, 78):
        messages[kind] = model[int(kind)] = bytes((kind,))
    assert dict(messages.items()) == model
    assert (len(messages), sorted(messages)) == (5, sorted(model))
    assert messages.get(RecordKind.SERVICE_SET) is None
    assert RecordKind.SERVICE_SET not in messages
    for kind in list(model):
        messages.drop(kind)
        del model[kind]
        assert dict(messages.items()) == model
    messages.drop(77)
    assert len(messages) == 0
