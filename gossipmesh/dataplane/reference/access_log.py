"""The access log: one JSON line per request or TCP connection, with Envoy's field names.

Lines are made at once and written by a thread in batches, so that a slow disk never holds a request; what
waits is bounded and what does not fit is counted. SIGHUP reopens the file.
"""

import os
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec
import trio

from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits

_FLUSH_INTERVAL_S: Final = 0.2
_NANOSECOND: Final = 1_000_000_000


class AccessRecord(msgspec.Struct):
    """One line. Durations in milliseconds, sizes of bodies or, for TCP, of everything."""

    start_time: str | int
    direction: str
    method: str | None
    path: str | None
    authority: str | None
    protocol: str
    response_code: int
    response_flags: str
    response_code_details: str
    bytes_received: int
    bytes_sent: int
    duration: float
    route_name: str
    upstream_cluster: str
    upstream_host: str | None
    upstream_request_attempt_count: int
    requested_server_name: str | None
    downstream_remote_address: str
    downstream_peer_uri_san: str
    upstream_peer_uri_san: str | None
    user_agent: str | None
    traceparent: str | None


class AccessLog:
    """A bounded buffer and the task that empties it into the file."""

    def __init__(self, path: Path, counters: Counters) -> None:
        self._path = path
        self._counters = counters
        self._lines = bytearray()
        self._lines_count = 0
        self._encoder = msgspec.json.Encoder()
        self._wake = trio.Event()
        self._descriptor = _open(path)

    def write(self, record: AccessRecord) -> None:
        """Add one line, or count it as dropped."""
        if self._lines_count >= limits.ACCESS_LOG_QUEUE_MAX:
            self._counters.add("access_log_dropped")
            return
        if isinstance(record.start_time, int):
            record.start_time = _civil(record.start_time)
        self._encoder.encode_into(record, self._lines, -1)
        self._lines += b"\n"
        self._lines_count += 1
        if self._lines_count == 1:
            self._wake.set()

    def reopen(self) -> None:
        """Go on in a new file of the same name, after a rotation."""
        try:
            descriptor = _open(self._path)
        except OSError:
            self._counters.add("access_log_errors")
            return
        old, self._descriptor = self._descriptor, descriptor
        os.close(old)

    async def run(self) -> None:
        """Write until cancelled; what is queued then is written before returning."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await self.flush()
                await trio.sleep(_FLUSH_INTERVAL_S)
        finally:
            self._write_out(self._take())

    async def flush(self) -> None:
        """Write what is queued, in a thread."""
        while self._lines:
            # A duplicate, because `reopen` may close the descriptor while the thread writes.
            descriptor = os.dup(self._descriptor)
            failed = await trio.to_thread.run_sync(_write, descriptor, self._take())
            if failed:
                self._counters.add("access_log_errors")

    def _take(self) -> bytearray:
        lines, self._lines, self._lines_count = self._lines, bytearray(), 0
        return lines

    def _write_out(self, data: bytearray) -> None:
        if _write(os.dup(self._descriptor), data):
            self._counters.add("access_log_errors")

    def close(self) -> None:
        """Write what is left and close the file."""
        self._write_out(self._take())
        os.close(self._descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _write(descriptor: int, data: bytearray) -> bool:
    """Write everything and close; True when that failed."""
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _civil(wall_ns: int) -> str:
    seconds, rest = divmod(wall_ns, _NANOSECOND)
    return f"{_civil_second(seconds)}.{rest // 1_000_000:03d}Z"


@lru_cache(maxsize=16)  # lines that are written together mostly began in the same second
def _civil_second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
