"""Counters and histograms stay exact and bounded."""

from gossipmesh.telemetry.counters import Counters
from gossipmesh.telemetry.histogram import Histogram
from gossipmesh.telemetry.traffic import TrafficKey, TrafficTable


def _key(service: str) -> TrafficKey:
    return TrafficKey("outbound", "shop/web", service, "", "http")


def test_a_histogram_is_cumulative_when_told() -> None:
    histogram = Histogram((1, 10))
    histogram.merge((1, 2, 3), 60)
    histogram.merge((1, 0, 0), 1)
    assert histogram.cumulative() == [("1", 2), ("10", 4), ("+Inf", 7)]
    assert histogram.total == 61


def test_intervals_add_up() -> None:
    table = TrafficTable((1, 10))
    table.add(_key("shop/cart"), [("2xx", "", 5), ("5xx", "UH", 1)], (6, 0, 0), 6)
    series = table.add(_key("shop/cart"), [("2xx", "", 2)], (0, 2, 0), 12)
    assert series.outcomes == {("2xx", ""): 7, ("5xx", "UH"): 1}
    assert series.duration_ms.counts == [6, 2, 0]


def test_the_least_lately_used_series_goes() -> None:
    table = TrafficTable((1,), series_max=2)
    for service in ("a/a", "b/b", "a/a", "c/c"):
        table.series(_key(service))
    assert [key.service for key, _ in table] == ["a/a", "c/c"]
    assert table.evicted_count == 1


def test_label_sets_are_bounded_and_the_rest_is_counted() -> None:
    counters = Counters(label_sets_max=1)
    counters.add("a")
    counters.add("a", count=2)
    counters.add("b")
    assert counters.items() == [(("a",), 3)]
    assert counters.overflow_count == 1
