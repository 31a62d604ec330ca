"""What a member's build cannot execute is not published, and the member is named."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gossipmesh.cli.admin_client import AdminClient
from gossipmesh.cli.push_flow import Push, PushSettings
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.policy import (
    MeshPolicy,
    MeshPolicySpec,
    Metadata,
    Subset,
    SubsetSpec,
    Unregistered,
)
from gossipmesh.trust.manifest import encode_documents, upsert
from gossipmesh.wire.versions import FEATURES
from tests.unit.cli.fake_agent import POLICY_KEY, FakeAgent

MESH = MeshPolicy("gossipmesh.dev/v1", Metadata("all", "shop"), MeshPolicySpec(Unregistered.WORKLOADS))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    """A mesh of three, of which node-2 is of 0.2."""
    agent = FakeAgent({"node-2": ("alive", True), "node-3": ("alive", True)})
    agent.features["node-2"] = FEATURES
    with agent.serving(tmp_path / "agent.sock"):
        yield agent


def push(folder: Path, *documents: Subset | MeshPolicy) -> None:
    """Publish these beside what is there."""
    settings = PushSettings("mesh", wait=None, timeout_s=0, rebase=False)
    client, ticks = AdminClient(str(folder / "agent.sock")), iter(range(1_000))
    flow = Push(client, settings, clock=lambda: next(ticks), pause=lambda _: None, tell=lambda _: None)
    flow.publish(lambda base: upsert(base, encode_documents(documents), prune=False), POLICY_KEY, created=0)


def subset(name: str) -> Subset:
    return Subset("gossipmesh.dev/v1", Metadata(name, "shop"), SubsetSpec("cart", {"v": "1"}))


def test_a_kind_that_is_new_to_the_scope_waits_for_the_upgrade(agent: FakeAgent, tmp_path: Path) -> None:
    """It would keep its set, and refuse callers under a name that the others take."""
    with pytest.raises(OperatorError, match=r"node-2 \(mesh-policy\); upgrade .*, nothing was sent"):
        push(tmp_path, MESH)
    assert agent.offers_count == 0
    push(tmp_path, subset("what-it-can-execute"))
    agent.features["node-2"] = (*FEATURES, "mesh-policy")
    push(tmp_path, MESH)
    assert agent.runs[0] == 2


def test_who_is_dead_keeps_nobody_from_pushing(agent: FakeAgent, tmp_path: Path) -> None:
    agent.others["node-2"] = ("dead", False)
    push(tmp_path, MESH)
    assert agent.runs[0] == 1


def test_what_a_scope_has_already_can_go_on_being_changed(agent: FakeAgent, tmp_path: Path) -> None:
    """A node of an older build that joins later must not hold up everybody's policy."""
    agent.features.clear()
    push(tmp_path, MESH)
    agent.features["node-2"] = FEATURES
    push(tmp_path, subset("another"))
    assert agent.runs[0] == 2
