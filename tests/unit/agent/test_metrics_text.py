"""What is rendered is what Prometheus' own client reads, and what it would have written."""

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from gossipmesh.agent.metrics_text import Family, Kind, render

AWKWARD = 'a "quoted" \\ path\nand a second line'
BUCKETS = [("5", 1), ("25", 3), ("+Inf", 4)]


def ours() -> list[Family]:
    requests = Family(Kind.COUNTER, "x_requests", "Requests that ended.", ("route", "flag"))
    requests.add(("r1", "-"), 7)
    requests.add((AWKWARD, "UH"), 2**53)
    level = Family(Kind.GAUGE, "x_level", AWKWARD)
    level.add((), 0.125)
    edges = Family(Kind.GAUGE, "x_edges", "Edges.", ("which",))
    for name, value in (("inf", float("inf")), ("-inf", float("-inf")), ("small", 1e-9), ("large", 1.5e300)):
        edges.add((name,), value)
    duration = Family(Kind.HISTOGRAM, "x_duration_ms", "Time.", ("route",))
    duration.add_histogram(("r1",), BUCKETS, 61.5)
    return [requests, level, edges, duration, Family(Kind.COUNTER, "x_never", "No sample yet.", ("why",))]


class Theirs(Collector):
    """The same values by the client library."""

    def collect(self) -> list[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        requests = CounterMetricFamily("x_requests", "Requests that ended.", labels=("route", "flag"))
        requests.add_metric(["r1", "-"], 7)
        requests.add_metric([AWKWARD, "UH"], 2**53)
        edges = GaugeMetricFamily("x_edges", "Edges.", labels=("which",))
        for name, value in (
            ("inf", float("inf")),
            ("-inf", float("-inf")),
            ("small", 1e-9),
            ("large", 1.5e300),
        ):
            edges.add_metric([name], value)
        duration = HistogramMetricFamily("x_duration_ms", "Time.", labels=("route",))
        duration.add_metric(["r1"], BUCKETS, 61.5)
        level = GaugeMetricFamily("x_level", AWKWARD, value=0.125)
        return [
            requests,
            level,
            edges,
            duration,
            CounterMetricFamily("x_never", "No sample yet.", labels=("why",)),
        ]


def read(text: bytes) -> list[tuple[object, ...]]:
    return [
        (family.name, family.type, family.documentation, [tuple(sample)[:3] for sample in family.samples])
        for family in text_string_to_metric_families(text.decode())
    ]


def test_what_is_rendered_reads_as_what_the_library_renders() -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Theirs())
    assert read(render(ours())) == read(generate_latest(registry))


def test_not_a_number_is_said_as_such_and_an_empty_list_is_empty() -> None:
    family = Family(Kind.GAUGE, "x", "X.")
    family.add((), float("nan"))
    assert render([family]) == b"# HELP x X.\n# TYPE x gauge\nx NaN\n"
    assert render([]) == b""
