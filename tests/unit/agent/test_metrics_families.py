"""Metrics are collected in small steps."""

import itertools
from collections.abc import Iterator
from typing import Any

from gossipmesh.agent import metrics_families
from gossipmesh.agent.engine_counts import EngineCounts
from gossipmesh.telemetry.traffic import TrafficKey, TrafficSeries

_STEP_MAX = 50


class WatchedTable:
    """Three hundred series, and how many of them were looked at."""

    evicted_count = 0

    def __init__(self) -> None:
        self.looked_at = 0

    def __iter__(self) -> Iterator[tuple[TrafficKey, TrafficSeries]]:
        for number in range(300):
            self.looked_at += 1
            series = TrafficSeries((1, 10))
            series.outcomes["2xx", ""] = number
            yield TrafficKey("outbound", "shop/web", f"shop/s{number}", "r", "http"), series


def test_a_full_table_of_traffic_is_collected_in_small_steps() -> None:
    table: Any = WatchedTable()
    counts = EngineCounts()
    counts.traffic = table
    steps = [0]
    families = []
    for family in metrics_families._traffic(counts):
        steps.append(table.looked_at)
        if family is not None:
            families.append(family)
    assert steps[-1] == 300
    assert max(later - earlier for earlier, later in itertools.pairwise(steps)) <= _STEP_MAX
    text = metrics_families.render(families).decode()
    assert text.count("gossipmesh_requests_total{") == 300
