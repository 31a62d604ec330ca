"""Metrics are collected in small steps, and tell of every limit that was reached."""

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from gossipmesh.agent.admin import metrics_families
from gossipmesh.agent.engine.engine_counts import EngineCounts
from gossipmesh.agent.gossip_shell import ShellStatistics
from gossipmesh.agent.state.state_writer import WriterStatistics
from gossipmesh.dataplane.protocol import RequestsDelta, Statistics
from gossipmesh.net.streams import StreamStatistics
from gossipmesh.telemetry.counters import LABEL_SETS_MAX, Counters
from gossipmesh.telemetry.traffic import RequestLabels, RequestSeries

_STEP_MAX = 50
WEB = "spiffe://mesh.test/ns/shop/svc/web"


class WatchedTable:
    """Three hundred series, and how many of them were looked at."""

    evicted_count = 0

    def __init__(self) -> None:
        self.looked_at = 0

    def __iter__(self) -> Iterator[tuple[RequestLabels, RequestSeries]]:
        for number in range(300):
            self.looked_at += 1
            series = RequestSeries((1, 10))
            series.requests_count = number
            yield (
                RequestLabels(
                    "shop/web", "spiffe://a", f"shop/s{number}", "", "r", "http", "200", "-", "outbound"
                ),
                series,
            )


def test_a_full_table_of_traffic_is_collected_in_small_steps() -> None:
    table: Any = WatchedTable()
    counts = EngineCounts()
    counts.requests = table
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


def test_durations_are_seconds_in_fifteen_buckets_at_most() -> None:
    counts = EngineCounts()
    delta = RequestsDelta(
        *("outbound", WEB, "shop/cart", "shop/cart-canary@v2", "cart/0", "http", 503, "UF,URX"),
        requests_count=3,
        retries_count=2,
        duration_counts=(1, 1, *(0,) * 12, 1),
        duration_sum_us=40_003_500,
        received_bytes=10,
        sent_bytes=20,
    )
    counts.add(Statistics(1_000, (), {}, {}, (delta,), ()))
    families = [family for family in metrics_families._traffic(counts) if family is not None]
    lines = metrics_families.render(families).decode().splitlines()
    labels = (
        'destination_service="shop/cart-canary",destination_subset="v2",direction="outbound",{le}protocol="http",'
        'response_code="503",response_flags="UF,URX",route="cart/0",source_principal="' + WEB + '",'
        'source_service="shop/web"'
    )
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    told = {name.replace(",le=", ",{le}le=") for name in values}
    plain = "{" + labels.replace("{le}", "") + "}"
    assert values[f"gossipmesh_requests_total{plain}"] == "3.0"
    assert values[f"gossipmesh_retries_total{plain}"] == "2.0"
    assert values[f"gossipmesh_request_bytes_total{plain}"] == "10.0"
    assert values[f"gossipmesh_request_duration_seconds_sum{plain}"] == "40.0035"
    assert values[f"gossipmesh_request_duration_seconds_count{plain}"] == "3.0"
    buckets = [name.split('le="')[1].split('"')[0] for name in told if "_bucket{" in name]
    assert sorted(buckets, key=float) == [
        *("0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "0.2", "0.5"),
        *("1.0", "2.0", "5.0", "10.0", "30.0", "+Inf"),
    ]


def test_every_limit_that_was_reached_is_told() -> None:
    counts = EngineCounts()
    for number in range(LABEL_SETS_MAX + 3):
        counts.denials.add("shop/web", "shop/cart", f"rule{number}")
    shell, streams = ShellStatistics(engine_probes_dropped_count=1), StreamStatistics(2, 3, 4, 5, 6, 7)
    parts: Any = SimpleNamespace(
        policy_refusals=Counters(),
        shell=SimpleNamespace(
            statistics=shell,
            streams=SimpleNamespace(statistics=streams),
            writer=SimpleNamespace(statistics=WriterStatistics(dropped_count=8)),
        ),
    )
    text = metrics_families.render([metrics_families._limits(parts, counts)]).decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("gossipmesh"))
    assert {name.split('"')[1]: float(count) for name, count in lines.items()} == {
        "engine_probes": 1,
        "label_sets": 3,
        "state_records": 8,
        "stream_queue": streams.overflowed_count,
        "stream_silence": streams.silent_count,
        "streams": streams.refused_count,
    }
