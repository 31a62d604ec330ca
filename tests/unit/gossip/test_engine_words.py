"""What a node says of an engine older than its build reaches everybody, and goes with another engine."""

from gossipmesh.model.instant import Instant
from tests.unit.gossip.group import Group
from tests.unit.gossip.test_transcripts import everybody


def say(group: Group, *features: str) -> None:
    group.perform(group.hosts["a"], group.node("a").set_engine_lacks(features, Instant(group.now)))


def heard(group: Group, at: str) -> list[str]:
    """Return what a node knows of node a beside what its build says."""
    (state,) = (view.state for view in group.node(at).each_member() if view.name == "a")
    return [word for word in state.features if word.startswith("engine-lacks-")]


def test_what_an_engine_lacks_is_known_to_all_until_another_one_serves() -> None:
    group = Group("a b c")
    group.start_all()
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    say(group, "mesh-policy")
    group.run_until(lambda: all(heard(group, at) == ["engine-lacks-mesh-policy"] for at in "abc"), 10)
    sequence = group.node("a").own_state.sequence
    say(group, "mesh-policy")
    assert group.node("a").own_state.sequence == sequence, "nothing is signed for what was said"
    say(group)
    group.run_until(lambda: all(heard(group, at) == [] for at in "abc"), 10)
