"""Metrics are collected in small steps, and tell of every limit that was reached."""

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from gossipmesh.agent import metrics_families
from gossipmesh.agent.engine_counts import EngineCounts
from gossipmesh.agent.gossip_shell import ShellStatistics
from gossipmesh.net.streams import StreamStatistics
from gossipmesh.telemetry.counters import LABEL_SETS_MAX, Counters
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


def test_every_limit_that_was_reached_is_told() -> None:
    counts = EngineCounts()
    for number in range(LABEL_SETS_MAX + 3):
        counts.denials.add("shop/web", "shop/cart", f"rule{number}")
    shell, streams = ShellStatistics(engine_probes_dropped_count=1), StreamStatistics(2, 3, 4, 5, 6, 7)
    parts: Any = SimpleNamespace(
        policy_refusals=Counters(),
        shell=SimpleNamespace(statistics=shell, streams=SimpleNamespace(statistics=streams)),
    )
    text = metrics_families.render([metrics_families._limits(parts, counts)]).decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("gossipmesh"))
    assert {name.split('"')[1]: float(count) for name, count in lines.items()} == {
        "engine_probes": 1,
        "label_sets": 3,
        "stream_queue": streams.overflowed_count,
        "stream_silence": streams.silent_count,
        "streams": streams.refused_count,
    }
