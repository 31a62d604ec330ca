"""Whom to probe next: everybody once a round, in an order that is drawn as it is needed."""

import random

from gossipmesh.gossip.failure.probe import ProbeList
from tests.unit.gossip.group import Group


class CountingRandom(random.Random):
    """Counts the numbers drawn below a bound."""

    drawn_count = 0

    def randrange(self, *bounds: int) -> int:  # type: ignore[override]
        self.drawn_count += 1
        return super().randrange(*bounds)


def test_a_round_probes_everybody_once_in_an_order_of_its_own() -> None:
    group = Group("a b c d e f g h")
    group.start_all()
    group.run_until(group.converged, 10)
    catalog = group.node("a")._catalog
    probed = ProbeList(random.Random(1))
    rounds = []
    for _ in range(3):
        names = [member.name for _ in range(7) if (member := probed.next(catalog)) is not None]
        assert sorted(names) == list("bcdefgh")
        rounds.append(names)
    assert len({tuple(names) for names in rounds}) == 3


def test_a_round_is_drawn_member_by_member() -> None:
    group = Group("a b c d e f g h")
    group.start_all()
    group.run_until(group.converged, 10)
    rng = CountingRandom(1)
    probed = ProbeList(rng)
    for count in range(1, 20):
        assert probed.next(group.node("a")._catalog) is not None
        assert rng.drawn_count == count


def test_who_is_alone_probes_nobody_and_who_left_is_passed_over() -> None:
    group = Group("a b c")
    group.start_all()
    group.run_until(group.converged, 10)
    catalog = group.node("a")._catalog
    probed = ProbeList(random.Random(1))
    assert probed.next(catalog) is not None
    for name in ("b", "c"):
        member = catalog.get(group.node(name).own_node_id)
        assert member is not None
        catalog.forget(member)
    assert probed.next(catalog) is None
