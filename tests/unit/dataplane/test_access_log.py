"""The access log's queue and lines: bounded, whole JSON whatever is said, sampled without losing failures."""

import json
import threading
from pathlib import Path

import pytest
import trio

from gossipmesh.dataplane.reference.access_log import AccessLog
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.http1 import RequestHead
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.log_file import Written
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.net.clock import wall_ns
from tests.unit.dataplane.engine_kit import Peer, answering, cart_pair, workload

NOW = Instant(5 * SECOND_NS)
FIELDS = [
    *("start_time", "direction", "method", "path", "authority", "protocol"),
    *("response_code", "response_flags", "response_code_details"),
    *("bytes_received", "bytes_sent", "duration", "route_name", "upstream_cluster"),
    *("upstream_host", "requested_server_name", "downstream_peer_uri_san", "upstream_peer_uri_san"),
    *("upstream_request_attempt_count", "downstream_remote_address", "user_agent", "traceparent"),
]


def log_in(folder: Path, counters: Counters, *, sample_ratio: float = 1.0) -> AccessLog:
    return AccessLog(AccessLogSettings(folder / "access.log", sample_ratio=sample_ratio), counters)


def entry_of(path: bytes = b"/", *, status: int = 200, trace: str | None = None) -> Entry:
    entry = Entry("outbound", "http", "127.0.0.1:4000", "spiffe://t.example/ns/shop/svc/web", NOW)
    entry.head = RequestHead("GET", path, "1.1", [(b"user-agent", b'cu"rl\\\xe9')])
    entry.head.host = b"cart.shop"
    entry.status = status
    entry.traceparent = trace
    return entry


def lines_in(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "access.log").read_text().splitlines()]


def wait_for_lines(folder: Path, *lines: str) -> None:
    while tuple((folder / "access.log").read_text().split()) != lines:
        threading.Event().wait(0.01)


def counted(counters: Counters) -> dict[str, int]:
    told = counters.take_due(1_000)
    return {} if told is None else told.counters


def test_a_line_is_one_json_object_whatever_the_client_says(tmp_path: Path) -> None:
    counters = Counters()
    log = log_in(tmp_path, counters)
    entry = entry_of(b'/"\\\x00\x1b\xff' + b"x" * 5_000)
    assert entry.head is not None
    entry.head.host = b"a" * 60_000 + b'"'
    entry.details = 'said "no"\n' + "y" * 5_000
    entry.flag("UF")
    Journal(log, counters).end(entry, Instant(NOW + 1_234_567))
    log.close()
    (line,) = lines_in(tmp_path)
    assert list(line) == FIELDS
    assert line["path"] == '/"\\\x00\x1b\xff' + "x" * 1_018
    assert line["authority"] == "a" * 1_024
    assert line["user_agent"] == 'cu"rl\\\xe9'
    assert str(line["response_code_details"]).startswith('said "no"\n')
    assert (line["duration"], line["response_flags"], line["upstream_host"]) == (1.235, "UF", None)


@pytest.mark.parametrize("hostile", [b"\x9b31m", b"\x85", b"\xad", b"\xa0", b"\x7f", b"\x1b[2J", b"\x00"])
def test_a_line_moves_no_cursor_and_says_what_came(tmp_path: Path, hostile: bytes) -> None:
    counters = Counters()
    log = log_in(tmp_path, counters)
    entry = entry_of(b"/" + hostile)
    assert entry.head is not None
    entry.head.headers = [(b"user-agent", b"a" + hostile)]
    entry.head.host = hostile
    entry.details = f"it said {hostile.decode('latin-1')}\u202e"
    Journal(log, counters).end(entry, Instant(NOW + 1))
    log.close()
    (text,) = (tmp_path / "access.log").read_text().splitlines()
    assert text.isprintable()
    line = json.loads(text)
    assert line["authority"] == hostile.decode("latin-1")
    assert line["response_code_details"] == entry.details


def test_a_connection_has_no_request(tmp_path: Path) -> None:
    counters = Counters()
    log = log_in(tmp_path, counters)
    Journal(log, counters).end(Entry("inbound", "tcp", "10.0.0.1:4000", "spiffe://t/x", NOW), NOW)
    log.close()
    (line,) = lines_in(tmp_path)
    assert [line[name] for name in ("method", "path", "authority", "protocol", "user_agent")] == [
        None, None, None, "TCP", None,
    ]  # fmt: skip


def test_the_beginning_is_civil_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters()
    log = log_in(tmp_path, counters)
    entry = entry_of()
    monkeypatch.setattr("gossipmesh.dataplane.reference.journal.wall_ns", lambda: 1_700_000_002_250_000_000)
    Journal(log, counters).end(entry, Instant(NOW + 2 * SECOND_NS))
    log.close()
    assert lines_in(tmp_path)[0]["start_time"] == "2023-11-14T22:13:20.250Z"
    assert wall_ns() > 0


def test_half_of_the_traces_are_written_the_same_on_both_sides_and_every_failure(tmp_path: Path) -> None:
    traces = [f"00-{number * 2654435761 % 2**32:032x}-00000000000000aa-01" for number in range(1, 1_001)]
    kept: list[list[object]] = []
    for side in ("near", "far"):
        (tmp_path / side).mkdir()
        counters = Counters()
        log = log_in(tmp_path / side, counters, sample_ratio=0.5)
        journal = Journal(log, counters)
        for trace in traces:
            journal.end(entry_of(trace=trace), NOW)
        failed = entry_of(status=503, trace=traces[0])
        journal.end(failed, NOW)
        denied = entry_of(status=403)
        denied.flag("UAEX")
        journal.end(denied, NOW)
        journal.write_down()
        log.close()
        kept.append([line["traceparent"] for line in lines_in(tmp_path / side)])
        assert [line["response_code"] for line in lines_in(tmp_path / side)[-2:]] == [503, 403]
    assert kept[0] == kept[1]
    assert 450 < len(kept[0]) < 550


def test_requests_that_end_close_upon_one_another_are_written_down_together(tmp_path: Path) -> None:
    counters = Counters()
    log = log_in(tmp_path, counters)
    journal = Journal(log, counters)

    def end(number: int, after_ms: int = 0, protocol: str = "http") -> list[str]:
        """Return what has been written once `number` has ended."""
        entry = entry_of(b"/%d" % number)
        entry.protocol = protocol
        journal.end(entry, Instant(NOW + after_ms * MILLISECOND_NS))
        log._write_batch()
        return [str(line["path"]) for line in lines_in(tmp_path)]

    assert end(1) == ["/1"], "after a pause each by itself"
    assert all(end(number, 5) == ["/1"] for number in range(2, 9))
    assert len(end(9, 5)) == 9, "eight at a time"
    assert len(end(10, 6)) == 9
    assert len(end(11, 30)) == 11, "and what waited, with the first after a pause"
    assert len(end(12, 30)) == 11
    assert len(end(13, 30, "tcp")) == 13
    assert len(end(14, 31)) == 13
    journal.write_down()
    log._write_batch()
    assert [line["path"] for line in lines_in(tmp_path)] == [f"/{number}" for number in range(1, 15)]
    told = counters.take_due(1_000)
    assert told is not None
    assert sum(sums.requests_count for sums in told.requests) == 13
    log.close()


async def test_an_engine_that_ends_has_written_down_every_request(tmp_path: Path) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            for _ in range(5):
                assert (await peer.ask(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"))[0] == 200
    for node in (near, far):
        assert len(node.log_path.read_text().splitlines()) == 5


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (0.25, 25), (1.0, 100)])
def test_what_has_no_trace_is_written_evenly(tmp_path: Path, ratio: float, expected: int) -> None:
    counters = Counters()
    log = log_in(tmp_path, counters, sample_ratio=ratio)
    journal = Journal(log, counters)
    for _ in range(100):
        journal.end(entry_of(), NOW)
    journal.write_down()
    log.close()
    assert len(lines_in(tmp_path)) == expected


def test_what_waits_is_bounded_by_lines_and_by_bytes(tmp_path: Path) -> None:
    counters = Counters()
    log = log_in(tmp_path, counters)
    for _ in range(limits.ACCESS_LOG_QUEUE_MAX + 7):
        log.write("{}")
    assert counted(counters) == {"access_log_dropped": 7}
    log.close()
    log = log_in(tmp_path, counters)
    for _ in range(9):
        log.write("x" * (limits.ACCESS_LOG_QUEUE_BYTES_MAX // 8))
    assert counted(counters) == {"access_log_dropped": 1}
    log.close()


def test_lines_wait_for_a_thread_when_none_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = Counters()
    log = log_in(tmp_path, counters)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    log.write("{}")
    log.maintain()
    monkeypatch.undo()
    assert counted(counters) == {"access_log_errors": 1}
    log.maintain()
    wait_for_lines(tmp_path, "{}")
    log.close()
    assert counted(counters) == {}


def test_the_thread_goes_on_after_each_pause_and_ends_with_the_log(tmp_path: Path) -> None:
    counters = Counters()
    log = log_in(tmp_path, counters)
    log.maintain()
    thread = log._thread
    assert thread is not None
    for number in range(3):
        log.write(str(number))
        wait_for_lines(tmp_path, *map(str, range(number + 1)))
    log.write("last")
    log.close()
    thread.join(5)
    assert not thread.is_alive()
    assert (tmp_path / "access.log").read_text().split() == ["0", "1", "2", "last"]


def test_what_the_disk_refuses_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters()
    log = log_in(tmp_path, counters)
    monkeypatch.setattr(log._file, "write", lambda lines: Written(1, len(lines)))
    for _ in range(2):
        log.write("a")
        log.write("b")
        log._write_batch()
    log.maintain()
    log.maintain()
    assert counted(counters) == {"access_log_errors": 2, "access_log_shed": 4}
    monkeypatch.undo()
    log.close()


async def test_flushes_at_once_write_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain flushes while the usual flush is under way: the file has one writer at a time."""
    counters = Counters()
    log = log_in(tmp_path, counters)
    real, inside, most = log._file.write, threading.Semaphore(1), []

    def write(lines: list[str]) -> object:
        most.append(inside.acquire(blocking=False))
        try:
            return real(lines)
        finally:
            inside.release()

    monkeypatch.setattr(log._file, "write", write)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            log.write(str(number))
            nursery.start_soon(log.flush)
    log.close()
    assert all(most)
    assert (tmp_path / "access.log").read_text().split() == [str(number) for number in range(20)]
