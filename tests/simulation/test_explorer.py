"""Every order of few things, over the real cores of three and four nodes; more by `make explore`."""

import pytest

from gossipmesh.testing.explorer.search import Found, Search
from gossipmesh.testing.explorer.stories import STORIES


def explore(
    story: str, nodes_count: int, depth: int, states_max: int = 5_000, finish_every: int = 16
) -> Found:
    search = Search(
        STORIES[story](nodes_count), depth=depth, states_max=states_max, finish_every=finish_every
    )
    return search.run()


@pytest.mark.parametrize(
    ("story", "nodes_count", "depth"),
    [("floors", 3, 2), ("refutation", 3, 2), ("votes", 3, 4), ("quorum", 3, 3), ("votes", 4, 3)],
)
def test_nothing_breaks_in_any_order(story: str, nodes_count: int, depth: int) -> None:
    found = explore(story, nodes_count, depth)
    assert not found.violation, "\n  ".join([found.violation, *found.path])
    assert found.complete
    assert found.deepest == depth
    assert found.states > depth


def test_a_search_that_was_cut_short_says_so() -> None:
    found = explore("floors", 3, 3, states_max=5)
    assert not found.complete
    assert found.states == 5


def test_equal_states_are_explored_once() -> None:
    found = explore("quorum", 3, 3)
    assert found.states < found.transitions
