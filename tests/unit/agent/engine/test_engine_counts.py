"""What engines count becomes what Prometheus reads, today's engines' and one of 0.1's that was kept."""

import pytest

from gossipmesh.agent.engine.engine_counts import EngineCounts, services_of
from gossipmesh.dataplane.protocol import (
    DURATION_BUCKETS_MS,
    LATENCY_BUCKETS_MS,
    ConnectionsDelta,
    Outcome,
    RequestsDelta,
    Statistics,
    TrafficDelta,
)
from gossipmesh.telemetry.traffic import ConnectionLabels, RequestLabels

WEB = "spiffe://mesh.test/ns/shop/svc/web"
NODE = "spiffe://mesh.test/node/n1"
DURATIONS = (2, *(0,) * 14)


def requests(
    *, caller: str = WEB, service: str = "shop/cart", upstream: str = "", code: int = 200
) -> RequestsDelta:
    return RequestsDelta(
        "outbound", caller, service, upstream, "cart/0", "http", code, "-", 2, 0, DURATIONS, 900, 1, 2
    )


def told(*deltas: RequestsDelta) -> Statistics:
    return Statistics(1_000, (), {}, {}, deltas, ())


@pytest.mark.parametrize(
    ("delta", "source", "destination", "subset"),
    [
        (requests(upstream="shop/cart@v2"), "shop/web", "shop/cart", "v2"),
        (requests(upstream="shop/cart-next"), "shop/web", "shop/cart-next", ""),
        (requests(), "shop/web", "shop/cart", ""),
        (requests(caller=NODE), "unknown", "shop/cart", ""),
        (requests(service=""), "shop/web", "unknown", ""),
        (requests(caller="other", service="other"), "other", "other", ""),
        (requests(caller=""), "unknown", "shop/cart", ""),
    ],
)
def test_who_called_whom(delta: RequestsDelta, source: str, destination: str, subset: str) -> None:
    counts = EngineCounts()
    counts.add(told(delta))
    ((labels, series),) = counts.requests
    assert (labels.source_service, labels.destination_service, labels.destination_subset) == (
        source,
        destination,
        subset,
    )
    assert (series.requests_count, series.duration_us.total) == (2, 900)


def test_connections_open_and_close_under_one_name_but_for_how_they_ended() -> None:
    counts = EngineCounts()
    key = ("inbound", WEB, "shop/db", "", "")
    for delta in (
        ConnectionsDelta(*key, "", 2, 0, 0, 0, 0),
        ConnectionsDelta(*key, "UC", 0, 1, 0, 5, 6),
    ):
        counts.add(Statistics(1_000, (), {}, {}, (), (delta,)))
    assert [
        (labels.response_flags, one.opened_count, one.closed_count) for labels, one in counts.connections
    ] == [
        ("", 2, 0),
        ("UC", 0, 1),
    ]
    assert {labels._replace(response_flags="") for labels, _ in counts.connections} == {
        ConnectionLabels("shop/web", WEB, "shop/db", "", "", "", "inbound")
    }


def test_an_engine_of_before_is_counted_by_class_with_every_sum_kept() -> None:
    """Its buckets are finer; each of today's bounds is one of its bounds, so nothing is guessed."""
    counts = EngineCounts()
    latencies = tuple(range(1, len(LATENCY_BUCKETS_MS) + 2))
    outcomes = (Outcome("2xx", "", 5), Outcome("5xx", "UH", 90), Outcome("0", "DC", 1))
    http = TrafficDelta("outbound", WEB, "shop/cart", "r", "http", outcomes, latencies, 7, 10, 20, 3)
    tcp = TrafficDelta(
        "inbound", WEB, "shop/db", "", "tcp", (Outcome("tcp", "", 4),), latencies, 7, 10, 20, 0
    )
    counts.add(Statistics(1_000, (http, tcp), {}, {}))
    found = {(labels.response_code, labels.response_flags): series for labels, series in counts.requests}
    assert {key: series.requests_count for key, series in found.items()} == {
        ("2xx", "-"): 5,
        ("5xx", "UH"): 90,
        ("0", "DC"): 1,
    }
    main = found["5xx", "UH"]
    assert sum(main.duration_us.counts) == sum(latencies)
    for number, bound in enumerate(DURATION_BUCKETS_MS):
        before = sum(latencies[: LATENCY_BUCKETS_MS.index(bound) + 1])
        assert sum(main.duration_us.counts[: number + 1]) == before
    assert (main.duration_us.total, main.retries_count, main.sent_bytes) == (7_000, 3, 20)
    opened, ended = [series for _, series in counts.connections]
    assert (opened.opened_count, ended.closed_count, opened.received_bytes) == (4, 4, 10)
    assert list(services_of(Statistics(1_000, (http, tcp), {}, {}))) == ["shop/cart", "shop/db"]


def test_a_flood_of_names_leaves_sums_and_the_series_in_use() -> None:
    counts = EngineCounts()
    for number in range(3_000):
        counts.add(told(requests(), requests(service=f"shop/s{number}")))
    found = {labels.destination_service: series.requests_count for labels, series in counts.requests}
    assert found["shop/cart"] == 6_000
    assert sum(found.values()) == 12_000
    assert len(found) == 1_001
    assert isinstance(next(iter(counts.requests))[0], RequestLabels)
