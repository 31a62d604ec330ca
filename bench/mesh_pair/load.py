"""Four loads on one pair: closed loop (wrk), a fixed rate, new connections, one long stream.

The fixed rate is an open loop: each request has a time at which it is due, and is sent then whether or not
earlier ones were answered. What waits for a free connection counts from when it was due, so that a stall of
the proxies is counted for every request it held; what the driver itself woke up late for is not.
"""

import re
import select
import socket
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from bench.mesh_pair.peers import BIG_FILE_BYTES
from gossipmesh.model.member import Address

_CONNECTIONS_MAX: Final = 256
_ANSWER_S: Final = 10.0
_RECEIVE_BYTES: Final = 1_048_576
_SCALES: Final = {"us": 0.001, "ms": 1.0, "s": 1_000.0, "m": 60_000.0}
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Load:
    """What one load did: units are requests, connections or MB (10^6 bytes); latencies in ms."""

    units: float
    elapsed_s: float
    failed: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    notes: dict[str, float] = field(default_factory=dict)


def wrk(address: Address, connections: int, seconds: float) -> Load:
    """Keep `connections` busy for `seconds`."""
    count = max(1, round(seconds))
    words = ["wrk", "-t1", f"-c{connections}", f"-d{count}s", "--latency", f"http://{address}/"]
    told = subprocess.run(words, capture_output=True, text=True, check=False, timeout=count + 30)
    if told.returncode:
        raise RuntimeError(
            f"wrk ended with code {told.returncode}: {(told.stderr or told.stdout)[-400:].strip()}"
        )
    return read_wrk(told.stdout)


def read_wrk(text: str) -> Load:
    """Read what wrk prints.

    Raises:
        RuntimeError: it printed something else.
    """
    counts = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)\b", text)
    if counts is None:
        raise RuntimeError(f"wrk printed something else: {text[:400]!r}")
    elapsed_s = float(counts[2]) * _SCALES[counts[3]] / 1_000
    failed = sum(int(number) for number in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    for line in re.findall(r"Socket errors:.*", text):
        failed += sum(int(number) for number in re.findall(r"\d+", line))
    return Load(
        int(counts[1]), elapsed_s, failed, p50_ms=_wrk_percentile(text, 50), p99_ms=_wrk_percentile(text, 99)
    )


def _wrk_percentile(text: str, percent: int) -> float:
    found = re.search(rf"\b{percent}%\s+([\d.]+)(us|ms|s|m)\b", text)
    if found is None:
        raise RuntimeError(f"wrk printed no {percent} % latency: {text[:400]!r}")
    return float(found[1]) * _SCALES[found[2]]


class _Connection:
    """One keep-alive connection of the fixed rate."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address.socket_address(), timeout=_ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.counts_from = 0.0
        self._answer = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def ask(self, request: bytes, counts_from: float) -> None:
        self._answer = b""
        self.counts_from = counts_from
        self.socket.sendall(request)

    def receive(self) -> bool | None:
        """Return whether the answer is whole and right; None while more is to come."""
        data = self.socket.recv(65_536)
        self._answer += data
        return False if not data else read_answer(self._answer)


def read_answer(answer: bytes) -> bool | None:
    """Return whether one HTTP answer is whole and 200; None while more is to come."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return None
    length = _LENGTH.search(head)
    if length is None or len(body) > int(length[1]):
        return False
    if len(body) < int(length[1]):
        return None
    return head.startswith(b"HTTP/1.1 200 ")


class FixedRate:
    """Requests due one after another, whatever becomes of them."""

    def __init__(self, address: Address, per_s: int, count: int) -> None:
        self._address = address
        self._request = f"GET / HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench\r\n\r\n".encode()
        self._per_s = per_s
        self._count = count
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._latencies_ms: list[float] = []
        self._late_ms: list[float] = []
        self._failed = 0

    def run(self) -> Load:
        """Send all, wait for their answers, return what was seen."""
        began = time.perf_counter() + 0.01
        try:
            self._all(began)
        finally:
            self._failed += len(self._busy)
            for connection in [*self._idle, *self._busy]:
                connection.socket.close()
        latencies = sorted(self._latencies_ms) or [float("inf")]
        return Load(
            len(self._latencies_ms),
            time.perf_counter() - began,
            self._failed,
            p50_ms=percentile(latencies, 50),
            p99_ms=percentile(latencies, 99),
            notes={
                "driver_late_p99_ms": percentile(sorted(self._late_ms), 99),
                "connections": float(len(self._idle) + len(self._busy)),
            },
        )

    def _all(self, began: float) -> None:
        waiting: deque[float] = deque()
        sent_count = 0
        deadline = began + self._count / self._per_s + _ANSWER_S
        while sent_count < self._count or waiting or self._busy:
            now = time.perf_counter()
            if now > deadline:
                self._failed += len(waiting)
                return
            while sent_count < self._count and began + sent_count / self._per_s <= now:
                due = began + sent_count / self._per_s
                sent_count += 1
                if waiting or not self._send(now):
                    waiting.append(due)
                else:
                    self._late_ms.append((now - due) * 1_000)
            next_due = began + sent_count / self._per_s if sent_count < self._count else deadline
            self._receive(max(0.0, next_due - time.perf_counter()))
            while waiting and self._send(waiting[0]):
                waiting.popleft()

    def _send(self, counts_from: float) -> bool:
        if not self._idle and len(self._busy) >= _CONNECTIONS_MAX:
            return False
        connection = self._idle.pop() if self._idle else _Connection(self._address)
        connection.ask(self._request, counts_from)
        self._busy.add(connection)
        return True

    def _receive(self, timeout_s: float) -> None:
        # select waits to the microsecond, epoll and poll only to the millisecond.
        readable, _, _ = select.select(list(self._busy), [], [], timeout_s)
        for connection in readable:
            try:
                right = connection.receive()
            except OSError:
                right = False
            if right is None:
                continue
            self._busy.discard(connection)
            if right:
                self._latencies_ms.append((time.perf_counter() - connection.counts_from) * 1_000)
                self._idle.append(connection)
            else:
                self._failed += 1
                connection.socket.close()


def percentile(ordered: list[float], percent: float) -> float:
    """Return the value that `percent` of the sorted values do not exceed (nearest rank); 0 for none."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def new_connections(address: Address, seconds: float) -> Load:
    """Open a connection, ask once, read to the end, close; one after another."""
    request = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    began = time.perf_counter()
    done, failed = 0, 0
    while time.perf_counter() - began < seconds:
        try:
            with socket.create_connection(address.socket_address(), timeout=_ANSWER_S) as sock:
                sock.sendall(request)
                answer = b""
                while data := sock.recv(65_536):
                    answer += data
            right = bool(read_answer(answer))
        except OSError:
            right = False
        done += right
        failed += not right
    return Load(done, time.perf_counter() - began, failed)


def throughput(address: Address, seconds: float) -> Load:
    """Read a big file again and again over one connection."""
    request = b"GET /big HTTP/1.1\r\nHost: bench\r\n\r\n"
    buffer = memoryview(bytearray(_RECEIVE_BYTES))
    began = time.perf_counter()
    received = 0
    with socket.create_connection(address.socket_address(), timeout=_ANSWER_S) as sock:
        while time.perf_counter() - began < seconds:
            sock.sendall(request)
            received += _read_one(sock, buffer)
    return Load(received / 1e6, time.perf_counter() - began)


def _read_one(sock: socket.socket, buffer: memoryview) -> int:
    """Read one answer of BIG_FILE_BYTES; return its bytes, the head included."""
    count = sock.recv_into(buffer)
    head_bytes = bytes(buffer[:count]).find(b"\r\n\r\n") + 4
    if head_bytes < 4 or not bytes(buffer[:9]) == b"HTTP/1.1 " or not bytes(buffer[9:12]) == b"200":
        raise RuntimeError(f"the stream answered {bytes(buffer[: min(count, 200)])!r}")
    left = head_bytes + BIG_FILE_BYTES - count
    while left:
        count = sock.recv_into(buffer)
        if not count:
            raise RuntimeError("the stream ended before the file")
        left -= count
    return head_bytes + BIG_FILE_BYTES
