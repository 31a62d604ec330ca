"""When the engine tells what it counted, and when it keeps quiet."""

from gossipmesh.dataplane.reference.statistics import SILENT_MS_MAX, Counters

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


def test_traffic_is_told_the_same_second() -> None:
    counters = Counters()
    key = ("inbound", "spiffe://a", "shop/cart", "", "http")
    counters.request(key, code_class="2xx", flag="", latency_ns=1, received_bytes=2, sent_bytes=3)
    told = counters.take_due(SECOND_MS)
    assert told is not None
    assert [delta.service for delta in told.traffic] == ["shop/cart"]
