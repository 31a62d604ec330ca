"""When the engine tells what it counted, and when it keeps quiet."""

from gossipmesh.dataplane.protocol import LATENCY_BUCKETS_MS
from gossipmesh.dataplane.reference.statistics import (
    SILENT_MS_MAX,
    TRAFFIC_KEYS_MAX,
    Counters,
    RequestsKey,
    duration_bucket,
)

SECOND_MS = 1_000


def test_what_moved_is_told_the_same_second_and_once() -> None:
    counters = Counters()
    counters.add("retries", 2)
    told = counters.take_due(SECOND_MS)
    assert told is not None
    assert (told.counters, told.interval_ms) == ({"retries": 2}, SECOND_MS)
    assert counters.take_due(SECOND_MS) is None


def test_when_nothing_moves_a_sign_of_life_comes_every_other_second() -> None:
    counters = Counters()
    told = [counters.take_due(SECOND_MS) for _ in range(6)]
    assert [frame is not None for frame in told] == [False, True] * 3
    assert {frame.interval_ms for frame in told if frame is not None} == {SILENT_MS_MAX}


def test_a_level_is_told_when_it_moves_and_stays() -> None:
    counters = Counters()
    counters.adjust("downstream_connections", 1)
    first = counters.take_due(SECOND_MS)
    assert first is not None
    assert first.gauges == {"downstream_connections": 1}
    assert counters.take_due(SECOND_MS) is None
    again = counters.take_due(SECOND_MS)
    assert again is not None
    assert again.gauges == {"downstream_connections": 1}
    counters.adjust("downstream_connections", -1)
    moved = counters.take_due(SECOND_MS)
    assert moved is not None
    assert moved.gauges == {"downstream_connections": 0}
    assert first.gauges == {"downstream_connections": 1}, "what was told is no view of what is counted"


KEY = ("outbound", "spiffe://a", "shop/cart", "shop/cart@v2", "cart/0", "http", 200, "-")


def ended(counters: Counters, key: RequestsKey, duration_ms: float, *, retries_count: int = 0) -> None:
    duration_ns = int(duration_ms * 1_000_000)
    sums = counters.requests(key)
    sums.requests_count += 1
    sums.duration_counts[duration_bucket(duration_ns)] += 1
    sums.duration_sum_ns += duration_ns
    sums.retries_count += retries_count
    sums.received_bytes += 2
    sums.sent_bytes += 3


def test_requests_are_told_the_same_second() -> None:
    counters = Counters()
    for duration_ms in (1, 1.5, 30_000, 30_001):
        ended(counters, KEY, duration_ms)
    told = counters.take_due(SECOND_MS)
    assert told is not None
    (delta,) = told.requests
    assert (delta.service, delta.upstream, delta.response_code) == ("shop/cart", "shop/cart@v2", 200)
    assert delta.duration_counts == (1, 1, *(0,) * 11, 1, 1)
    assert delta.duration_sum_us == 60_003_500
    assert (told.traffic, told.connections) == ((), ())
    assert len(delta.duration_counts) <= 15


def test_connections_are_told_when_they_open_and_when_they_close() -> None:
    counters = Counters()
    counters.connections(("inbound", "a", "shop/db", "", "", "")).opened_count += 2
    told = counters.take_due(SECOND_MS)
    assert told is not None
    assert [(one.opened_count, one.closed_count) for one in told.connections] == [(2, 0)]


def test_an_agent_of_before_is_told_the_same_sums_by_fewer_names() -> None:
    counters = Counters()
    ended(counters, KEY, 2, retries_count=1)
    ended(counters, (*KEY[:6], 503, "UH"), 45)
    ended(counters, (*KEY[:3], "shop/cart@v1", *KEY[4:6], 0, "DC"), 60_000)
    closed = counters.connections(("inbound", "a", "shop/db", "", "", "UC"))
    closed.closed_count, closed.sent_bytes = 2, 9
    told = counters.take_due(SECOND_MS, before=True)
    assert told is not None
    assert (told.requests, told.connections) == ((), ())
    tcp, http = told.traffic
    assert [(one.code_class, one.flag, one.requests_count) for one in http.outcomes] == [
        ("0", "DC", 1),
        ("2xx", "", 1),
        ("5xx", "UH", 1),
    ]
    found = {index: count for index, count in enumerate(http.latency_counts) if count}
    assert found == {LATENCY_BUCKETS_MS.index(2): 1, LATENCY_BUCKETS_MS.index(50): 1, 25: 1}
    assert (http.latency_sum_ms, http.retries_count, http.sent_bytes) == (60_047, 1, 9)
    assert [(one.code_class, one.flag, one.requests_count) for one in tcp.outcomes] == [("tcp", "UC", 2)]


def test_names_beyond_the_bound_are_one_other() -> None:
    counters = Counters()
    for number in range(TRAFFIC_KEYS_MAX + 5):
        ended(counters, (*KEY[:2], f"shop/s{number}", *KEY[3:]), 1)
        counters.connections(("inbound", f"c{number}", "shop/db", "", "", "")).opened_count += 1
    told = counters.take_due(SECOND_MS)
    assert told is not None
    assert len(told.requests) == len(told.connections) == TRAFFIC_KEYS_MAX + 1
    assert told.requests[-1].service == told.connections[-1].service == "other"
    assert told.requests[-1].requests_count == told.connections[-1].opened_count == 5
    assert told.counters["statistics_overflow"] == 10
