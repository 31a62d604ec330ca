"""Reading members one by one, counting them, and how a member's messages are kept."""

from gossipmesh.gossip.membership.member import Messages
from gossipmesh.model.instant import SECOND_NS
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


def test_counts_and_monitors_follow_each_change_without_a_walk() -> None:
    group = joined("a b c d e f g")
    node = group.node("a")
    catalog, monitors = node._catalog, node._detector.monitors
    monitors.others_count(b"")
    listed_before = monitors.listed_count

    def agrees() -> None:
        statuses = [member.status for member in catalog if member.state is not None]
        assert node.tally().by_status == {status: statuses.count(status) for status in MemberStatus}
        assert monitors.others_count(b"") == len(catalog.eligible.ids())
        assert sorted(monitors._members) == sorted(catalog.eligible.ids())

    agrees()
    group.kill("g", silent=True)
    for _ in range(16):
        group.run(0.5)
        agrees()
    assert node.tally().by_status[MemberStatus.DEAD] == 1
    for name in ("c", "g"):
        forgotten = catalog.get(node.find(name) or b"")
        assert forgotten is not None
        catalog.forget(forgotten)
        agrees()
    assert monitors.listed_count == listed_before


def test_flags_are_counted_of_those_with_a_state() -> None:
    node = joined("a b c d").node("a")
    assert (node.tally().unreachable_count, node.statistics().endpoints_retained) == (0, 0)
    for name in ("b", "c"):
        member = node._catalog.get(node.find(name) or b"")
        assert member is not None
        member.unreachable = member.endpoints_retained = True
        member.messages.state = member.messages.state if name == "b" else None
    tally = node.tally()
    assert (tally.unreachable_count, tally.endpoints_retained_count) == (1, 1)
    assert node.statistics().endpoints_retained == 1


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
    for kind in (RecordKind.NODE_STATE, 77, RecordKind.CREDENTIAL, RecordKind.VERDICT, 78):
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


def test_whoever_hears_nobody_knows_it_whatever_it_holds_of_the_others() -> None:
    group = joined("a b c")
    node = group.node("a")
    group.run(3)
    assert node.hears_anybody(10 * SECOND_NS)
    group.partition("a", "b c")
    group.run(30)
    assert not node.hears_anybody(10 * SECOND_NS)
    assert node.tally().attended_count == 3, "one of three condemns nobody"
    group.heal()
    group.run(5)
    assert node.hears_anybody(10 * SECOND_NS)
    assert not Group("z").start("z").hears_anybody(10 * SECOND_NS), "it does not hear itself"
