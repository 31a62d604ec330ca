"""Counters and histograms stay exact and bounded."""

from gossipmesh.telemetry.counters import Counters
from gossipmesh.telemetry.histogram import Histogram
from gossipmesh.telemetry.traffic import (
    ConnectionLabels,
    ConnectionSeries,
    RequestLabels,
    RequestSeries,
    SeriesTable,
)


def _labels(service: str, code: str = "200", flags: str = "-") -> RequestLabels:
    return RequestLabels("shop/web", "spiffe://a", service, "", "", "http", code, flags, "outbound")


def _table(series_max: int) -> SeriesTable[RequestLabels, RequestSeries]:
    return SeriesTable(lambda: RequestSeries((1, 10)), series_max)


def test_a_histogram_is_cumulative_when_told() -> None:
    histogram = Histogram((1, 10))
    histogram.merge((1, 2, 3), 60)
    histogram.merge((1, 0, 0), 1)
    assert histogram.cumulative() == [("1", 2), ("10", 4), ("+Inf", 7)]
    assert histogram.total == 61


def test_intervals_add_up() -> None:
    table = _table(2)
    for counts in ((6, 0, 0), (0, 2, 0)):
        series = table.series(_labels("shop/cart"))
        series.requests_count += sum(counts)
        series.duration_us.merge(counts, 6)
    ((_, series),) = table
    assert (series.requests_count, series.duration_us.counts, series.duration_us.total) == (8, [6, 2, 0], 12)


def test_the_least_lately_used_series_goes_and_its_sums_stay_under_other() -> None:
    table = _table(2)
    services = ("a/a", "b/b", "a/a", "c/c", "d/d", "b/b")
    for service in services:
        series = table.series(_labels(service))
        series.requests_count += 1
        series.sent_bytes += 10
        series.duration_us.merge((0, 1, 0), 5)
    found = {labels.destination_service: series for labels, series in table}
    assert sorted(found) == ["b/b", "d/d", "other"]
    assert table.evicted_count == 3
    assert sum(series.requests_count for series in found.values()) == len(services)
    assert found["other"].requests_count == 4
    assert (found["other"].sent_bytes, found["other"].duration_us.counts) == (40, [0, 4, 0])


def test_other_still_tells_failures_and_is_a_handful_whatever_the_codes() -> None:
    table = _table(1)
    for code in range(100, 600):
        for flags in ("-", "UF,URX", "UH"):
            table.series(_labels("shop/cart", str(code), flags)).requests_count += 1
    folded = [labels for labels, _ in table if labels.destination_service == "other"]
    assert sorted({labels.response_code for labels in folded}) == ["1xx", "2xx", "3xx", "4xx", "5xx"]
    assert len(folded) == 10
    assert sum(series.requests_count for _, series in table) == 1_500


def test_connections_fold_as_well() -> None:
    table: SeriesTable[ConnectionLabels, ConnectionSeries] = SeriesTable(ConnectionSeries, 1)
    for number in range(5):
        for flags in ("", "-", "UC"):
            name = ConnectionLabels("a", "b", f"shop/s{number}", "v1", "r", flags, "inbound")
            table.series(name).opened_count += 1
    assert sum(series.opened_count for _, series in table) == 15
    assert {labels.response_flags for labels, _ in table} == {"", "-", "other", "UC"}


def test_label_sets_are_bounded_and_the_rest_is_counted() -> None:
    counters = Counters(label_sets_max=1)
    counters.add("a")
    counters.add("a", count=2)
    counters.add("b")
    assert counters.items() == [(("a",), 3)]
    assert counters.overflow_count == 1
