"""The arithmetic of the pair's benchmark: what others print, open-loop answers, ratios, gates, words."""

import json
import socket
import threading
from pathlib import Path

import pytest

from bench.mesh_pair import __main__ as command
from bench.mesh_pair.certificates import Authority
from bench.mesh_pair.envoy import LOG_FIELDS, Configs
from bench.mesh_pair.load import FixedRate, percentile, read_answer, read_wrk
from bench.mesh_pair.peers import version_in
from bench.mesh_pair.rounds import (
    CLOSED_50,
    CONNECTS,
    KINDS,
    RATE_500,
    STREAM,
    Kind,
    Measured,
    Memory,
    Results,
)
from bench.mesh_pair.verdict import Gate, build_row, gates, ratio_median, verdict
from gossipmesh.model.member import Address

WRK = """Running 3s test @ http://127.72.4.1:18081/
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    17.21ms    5.62ms  62.10ms   81.30%
    Req/Sec     2.70k   310.22     3.20k    70.00%
  Latency Distribution
     50%   {p50}
     75%   18.90ms
     90%   22.01ms
     99%   {p99}
  8039 requests in {elapsed}, 1.72MB read
{errors}Requests/sec:   2672.00
Transfer/sec:    585.12KB
"""


@pytest.mark.parametrize(
    ("p50", "p99", "elapsed", "p50_ms", "p99_ms", "elapsed_s"),
    [
        ("17.21ms", "36.44ms", "3.01s", 17.21, 36.44, 3.01),
        ("420.00us", "1.10s", "3.01s", 0.42, 1_100.0, 3.01),
        ("17.21ms", "1.50m", "1.00m", 17.21, 90_000.0, 60.0),
    ],
)
def test_wrk_is_read_whatever_its_units(
    p50: str, p99: str, elapsed: str, p50_ms: float, p99_ms: float, elapsed_s: float
) -> None:
    load = read_wrk(WRK.format(p50=p50, p99=p99, elapsed=elapsed, errors=""))
    assert (load.units, load.failed) == (8_039, 0)
    assert (load.p50_ms, load.p99_ms, load.elapsed_s) == pytest.approx((p50_ms, p99_ms, elapsed_s))


def test_wrk_counts_errors_of_sockets_and_statuses() -> None:
    errors = "  Socket errors: connect 1, read 20, write 3, timeout 4\n  Non-2xx or 3xx responses: 500\n"
    assert read_wrk(WRK.format(p50="1ms", p99="2ms", elapsed="3s", errors=errors)).failed == 528


@pytest.mark.parametrize("text", ["", "unable to connect", "12 requests in 3.0s, nothing else"])
def test_other_words_than_wrks_are_no_figure(text: str) -> None:
    with pytest.raises(RuntimeError, match="wrk printed"):
        read_wrk(text)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length:3\r\nx: y\r\n\r\nabc", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", False),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", False),
    ],
)
def test_an_answer_is_right_only_when_it_is_whole(answer: bytes, right: bool | None) -> None:
    assert read_answer(answer) is right


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 99, 0.0),
        ([7.0], 50, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.0),
        ([float(number) for number in range(1, 101)], 99, 99.0),
        ([float(number) for number in range(1, 102)], 99, 100.0),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


HELD_S = 0.3


def _answer_all(listener: socket.socket) -> None:
    """Answer each request of each connection, the very first one only after HELD_S."""
    waits = [HELD_S]

    def serve(sock: socket.socket) -> None:
        with sock:
            while sock.recv(4_096):
                threading.Event().wait(waits.pop() if waits else 0)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


@pytest.mark.parametrize(("connections_max", "percent_held"), [(256, 1), (1, 50)])
def test_a_stall_is_counted_for_every_request_it_held(
    connections_max: int, percent_held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty requests due within 49 ms, the first held longer: with one connection all of them wait for it.

    The bounds are the server's own pause less when the last was due, whatever else the machine does.
    """
    monkeypatch.setattr("bench.mesh_pair.load._CONNECTIONS_MAX", connections_max)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answer_all, args=(listener,), daemon=True).start()
        load = FixedRate(Address(*listener.getsockname()), 1_000, 50).run()
        listener.shutdown(socket.SHUT_RDWR)
    assert (load.units, load.failed) == (50, 0)
    assert 1 <= load.notes["connections"] <= connections_max
    seen = load.p50_ms if percent_held == 50 else load.p99_ms
    assert seen is not None
    assert seen >= HELD_S * 1_000 - 50


def test_answers_that_never_come_are_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.mesh_pair.load._ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        load = FixedRate(Address(*listener.getsockname()), 1_000, 10).run()
    assert (load.units, load.failed, load.p99_ms) == (0, 10, float("inf"))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12-1+deb12u4"),
        ("nginx version: nginx/1.22.1", "1.22.1"),
        ("envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0"),
        ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer", "4.1.0-3+b2"),
        ("command not found", "unknown"),
    ],
)
def test_versions_are_found_in_programs_words(text: str, version: str) -> None:
    assert version_in(text) == version


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([200.0, 300.0, 1_000.0], [100.0, 100.0, 250.0], 3.0),  # rounds' ratios 2, 3 and 4
        ([1.0], [2.0], 0.5),
        ([], [], None),
        ([1.0, None], [1.0, 1.0], None),
        ([1.0], [None], None),
        ([1.0], [0.0], None),
        ([1.0, 2.0], [1.0], None),
    ],
)
def test_ratio_is_the_median_of_the_rounds_ratios(
    ours: list[float | None], theirs: list[float | None], expected: float | None
) -> None:
    assert ratio_median(ours, theirs) == expected


def measured(cpu_us: float, *, rate: float = 500, p99_ms: float | None = 1.0, failed: int = 0) -> Measured:
    return Measured(cpu_us, rate, failed, p99_ms, p99_ms, 30.0, {})


def results(
    kinds: tuple[Kind, ...] = KINDS,
    *,
    cpu: float = 280,
    p99_ms: float = 1.2,
    rate: float = 250,
    idle_mb: float = 32,
    failed: int = 0,
) -> Results:
    """Return two rounds in which Envoy takes 100 us, 1 ms, and does 500 a second."""
    ours = [measured(cpu, rate=rate, p99_ms=p99_ms, failed=failed)] * 2
    theirs = {"envoy": [measured(100)] * 2, "envoy_plain": [measured(80)] * 2, "haproxy": [measured(40)] * 2}
    rounds = {kind.key: {"ours": ours, **theirs} for kind in kinds}
    memory = {name: Memory(40.0, idle_mb) for name in ("ours", *theirs)}
    return Results(rounds, memory, memory)


def test_gates_are_met_at_their_bounds() -> None:
    told = verdict(results())
    assert told["ok"]
    assert [gate["met"] for gate in told["gates"]] == [True] * 5
    json.dumps(told)


@pytest.mark.parametrize(
    ("missed", "worse"),
    [
        (0, results(cpu=280.1)),
        (1, results(p99_ms=1.21)),
        (2, results(rate=249)),
        (3, results(idle_mb=32.1)),
        (4, results(failed=1)),
    ],
)
def test_each_gate_can_be_missed_alone(missed: int, worse: Results) -> None:
    assert [gate.met for gate in gates(worse)] == [number != missed for number in range(5)]
    assert not verdict(worse)["ok"]


@pytest.mark.parametrize("left_out", [CLOSED_50, RATE_500, STREAM])
def test_what_was_not_measured_is_not_met(left_out: Kind) -> None:
    told = verdict(results(tuple(kind for kind in KINDS if kind is not left_out)))
    assert not told["ok"]
    assert [gate["figure"] for gate in told["gates"]].count(None) == 1


def test_a_row_says_what_its_readers_look_for() -> None:
    row = build_row(CLOSED_50, results())
    wanted = {"protocol", "connections", "ours_cpu_us", "envoy_cpu_us", "haproxy_cpu_us", "ratio_envoy"}
    wanted |= {"ratio_haproxy", "rate_per_s", "p99_ratio_envoy", "rss_mb", "evidence"}
    assert wanted <= row.keys()
    assert (row["ratio_envoy"], row["ratio_envoy_plain"], row["ratio_haproxy"]) == (2.8, 3.5, 7.0)
    assert (row["p99_ratio_envoy"], row["rss_mb"]) == (1.2, 30.0)
    assert "ours 280 to 280" in row["evidence"]


def test_a_fixed_rates_row_says_how_many_connections_it_took() -> None:
    made = results()
    took = [Measured(100, 500, 0, 1.0, 1.0, 30.0, {"connections": float(count)}) for count in (3, 7)]
    made.rounds[RATE_500.key]["ours"] = took
    assert build_row(RATE_500, made)["connections"] == 7
    assert build_row(CLOSED_50, made)["connections"] == 50


def test_a_load_without_latencies_has_none_in_its_row() -> None:
    made = results()
    silent = [measured(100, p99_ms=None)] * 2
    made.rounds[CONNECTS.key] = dict.fromkeys(("ours", "envoy", "envoy_plain", "haproxy"), silent)
    assert build_row(CONNECTS, made)["p99_ratio_envoy"] is None


def test_a_gate_that_wants_at_least_is_missed_below() -> None:
    assert Gate("x", 0.5, 0.5, least=True).met
    assert not Gate("x", 0.49, 0.5, least=True).met
    assert not Gate("x", None, 0.5, least=True).met


def test_envoy_with_features_has_them_and_plain_has_none(tmp_path: Path) -> None:
    features, plain = (
        json.dumps([configs.far(tmp_path), configs.near(tmp_path)])
        for configs in (Configs(tmp_path, 1, features=True), Configs(tmp_path, 2, features=False))
    )
    for word in (
        *("RBAC", "FileAccessLog", "outlier_detection", "LEAST_REQUEST", "circuit_breakers", "num_retries"),
        *("match_typed_subject_alt_names", "SANITIZE_SET", "HTTPFault", "Cors"),
    ):
        assert word in features
        assert word not in plain
    for word in ("require_client_certificate", "TLSv1_3", "server_names", "max_session_keys"):
        assert word in features
        assert word in plain
    assert len(LOG_FIELDS) == 22


def test_missing_programs_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "missing_programs", lambda: ["envoy", "wrk"])
    assert command.main(["--json"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "error: cannot compare, not installed: envoy, wrk; `make bench` installs them\n"


def test_one_core_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "missing_programs", list)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {3})
    assert command.main(["--quick"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot measure on one core")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (BaseExceptionGroup("", [RuntimeError("wrk died"), KeyboardInterrupt()]), 130, "interrupted"),
        (ExceptionGroup("", [ExceptionGroup("", [RuntimeError("wrk died")])]), 2, "error: wrk died"),
        (OSError("disk full"), 2, "error: disk full"),
    ],
)
def test_an_end_before_the_verdict_is_one_sentence(
    error: BaseException,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> int:
        raise error

    monkeypatch.setattr(command, "main", fail)
    assert command.run() == code
    assert capsys.readouterr().err.startswith(told)


def test_a_mistake_of_ours_is_not_made_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise ExceptionGroup("", [KeyError("no such pair")])

    monkeypatch.setattr(command, "main", fail)
    with pytest.raises(KeyError, match="no such pair"):
        command.run()


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--rounds", "101"], ["--only", "udp"]])
def test_words_it_does_not_know_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.arguments(words)


def test_quick_is_fewer_rounds_and_a_count_wins() -> None:
    assert [command.arguments(words).rounds for words in ([], ["--quick"], ["--quick", "--rounds", "7"])] == [
        5,
        2,
        7,
    ]


def test_certificates_name_one_identity_each() -> None:
    identity = Authority().issue("spiffe://mesh.test/ns/shop/svc/web")
    assert identity.chain_pem.startswith(b"-----BEGIN CERTIFICATE-----")
    assert b"PRIVATE KEY" in identity.key_pem
