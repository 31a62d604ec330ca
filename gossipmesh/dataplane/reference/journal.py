"""Writing down what a request or connection was: access log, statistics, events for the agent.

Requests that end close upon one another are written down together: what that takes of code and tables is then
in the processor's caches for all but the first, which is two thirds of its cost.
"""

from typing import Final, NamedTuple

from gossipmesh.dataplane.reference.access_line import access_line
from gossipmesh.dataplane.reference.access_log import AccessLog
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.statistics import ConnectionsKey, Counters, duration_bucket
from gossipmesh.dataplane.reference.tcp import TunnelEnd
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.net.clock import wall_ns

_TRACE_RANDOM_FROM, _TRACE_RANDOM_TO = 27, 35  # of a traceparent: the last 32 bits of the trace's number
_TRACE_RANDOM_RANGE = 1 << 32
_TOGETHER_MAX: Final = 8  # takes no longer than a request
_QUIET_NS: Final = 10 * MILLISECOND_NS  # after this a request is written down by itself


class _Finished(NamedTuple):
    """A request that has ended, and when."""

    entry: Entry
    at: Instant


class Journal:
    """Where entries go when they end."""

    def __init__(self, log: AccessLog, counters: Counters) -> None:
        self._log = log
        self._counters = counters
        self._open: dict[Entry, TunnelEnd] = {}
        self._finished: list[_Finished] = []  # and not written down
        self._finished_at = Instant(-SECOND_NS)  # the last; long ago
        self._sampled_count = 0.0
        self._wall_offset_ns = 0
        self._wall_read_at: Instant | None = None

    def bad_request(self, entry: Entry, reason: str, now: Instant) -> None:
        """Write down what was refused, with the entry's status, before it was a request."""
        entry.flag("DPE")
        entry.details = f"http1.codec_error: {reason}"
        self.end(entry, now)

    def end(self, entry: Entry, now: Instant) -> None:
        """Count and log a finished entry, or soon: with those that end next, or at `write_down`."""
        self._note_wall_time(now)
        quiet = now - self._finished_at > _QUIET_NS
        self._finished_at = now
        self._finished.append(_Finished(entry, now))
        if quiet or len(self._finished) >= _TOGETHER_MAX or entry.protocol == "tcp":
            self.write_down()

    def write_down(self) -> None:
        """Count and log all that has finished."""
        finished, self._finished = self._finished, []
        for entry, now in finished:
            self._write(entry, now)

    def _write(self, entry: Entry, now: Instant) -> None:
        flags = ",".join(entry.flags) if entry.flags else "-"
        duration_ns = now - entry.began
        if entry.protocol == "tcp":
            self._closed(entry, flags)
        else:
            sums = self._counters.requests(
                (
                    entry.direction,
                    entry.caller,
                    entry.service,
                    entry.upstream,
                    entry.route,
                    entry.protocol,
                    entry.status,
                    flags,
                )
            )
            sums.requests_count += 1
            sums.duration_counts[duration_bucket(duration_ns)] += 1
            sums.duration_sum_ns += duration_ns
            sums.received_bytes += entry.received_bytes
            sums.sent_bytes += entry.sent_bytes
            if entry.attempts > 1:
                sums.retries_count += entry.attempts - 1
        if self._log.sample_ratio >= 1 or self._is_written(entry):
            self._log.write(access_line(entry, flags, duration_ns, self._wall_offset_ns + entry.began))

    def opened(self, entry: Entry) -> None:
        """Count a TCP connection whose far end is known; without it, `end` counts both.

        What it carries goes into `entry.moved`, and is counted while it lasts.
        """
        entry.moved = self._open[entry] = TunnelEnd()
        self._counters.connections(_open_key(entry)).opened_count += 1

    def count_moved(self) -> None:
        """Count what connections that are open have carried since the last time; once a second."""
        for entry in self._open:
            self._count_moved(entry)

    def _count_moved(self, entry: Entry) -> None:
        moved = entry.moved
        if moved is None:
            return
        received_bytes = moved.received_bytes - entry.received_bytes
        sent_bytes = moved.sent_bytes - entry.sent_bytes
        if received_bytes or sent_bytes:
            entry.received_bytes, entry.sent_bytes = moved.received_bytes, moved.sent_bytes
            sums = self._counters.connections(_open_key(entry))
            sums.received_bytes += received_bytes
            sums.sent_bytes += sent_bytes

    def _closed(self, entry: Entry, flags: str) -> None:
        if entry.moved is None:
            self.opened(entry)
        self._count_moved(entry)
        self._open.pop(entry, None)
        key = (entry.direction, entry.caller, entry.service, entry.upstream, entry.route, flags)
        sums = self._counters.connections(key)
        sums.closed_count += 1
        sums.retries_count += max(0, entry.attempts - 1)

    def _is_written(self, entry: Entry) -> bool:
        """Tell whether a line is written: each one of a failure, of the others the share that is set.

        A traced request is judged by its trace, so that both sides of the mesh keep the same ones.
        """
        if entry.flags or entry.status >= 500:
            return True
        ratio = self._log.sample_ratio
        if entry.traceparent is not None:
            number = int(entry.traceparent[_TRACE_RANDOM_FROM:_TRACE_RANDOM_TO], 16)
            return number < ratio * _TRACE_RANDOM_RANGE
        self._sampled_count += ratio
        if self._sampled_count < 1:
            return False
        self._sampled_count -= 1
        return True

    def _note_wall_time(self, now: Instant) -> None:
        """Read civil time, once a second."""
        read_at = self._wall_read_at
        if read_at is None or now - read_at > SECOND_NS:
            self._wall_read_at = now
            self._wall_offset_ns = wall_ns() - now


def _open_key(entry: Entry) -> ConnectionsKey:
    return (entry.direction, entry.caller, entry.service, entry.upstream, entry.route, "")
