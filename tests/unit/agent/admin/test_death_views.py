"""When something was said of a member, to a tenth of a second: that is what its rows show."""

from types import SimpleNamespace
from typing import Any

import pytest

from gossipmesh.agent.admin import death_views
from gossipmesh.gossip.base.history import HistoryEntry
from gossipmesh.gossip.base.settings import GossipStatistics
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import SECOND_NS, Instant

_NODE = NodeId(b"n" * 16)


class Core:
    """What is read of a core that remembers one vote."""

    local_health = 0

    def find(self, name: str) -> NodeId:
        return _NODE

    def member(self, node_id: NodeId) -> None:
        return None

    def history(self, node_id: NodeId) -> list[HistoryEntry]:
        return [HistoryEntry(Instant(10 * SECOND_NS), _NODE, "vote-sent", _NODE, "silent", "", 0)]

    def statistics(self) -> GossipStatistics:
        return GossipStatistics()


def test_civil_time_is_not_rounded_to_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes' rows are laid side by side; cut to seconds they would be out of order."""
    monkeypatch.setattr(death_views, "monotonic", lambda: 12_250_000_000)
    monkeypatch.setattr("gossipmesh.net.clock.time.time_ns", lambda: 1_700_000_002_750_000_000)
    parts: Any = SimpleNamespace(node=Core(), identity=SimpleNamespace(identity=SimpleNamespace(name="here")))
    (row,) = death_views.why(parts, "n")["entries"]
    assert row["age_s"] == 2.25
    assert row["wall"] == 1_700_000_000.5
