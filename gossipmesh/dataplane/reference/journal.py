"""Writing down what a request or connection was: access log, statistics, events for the agent."""

from gossipmesh.dataplane.reference.access_log import AccessLog, AccessRecord
from gossipmesh.dataplane.reference.http1 import RequestHead
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model.instant import MILLISECOND_NS, Instant
from gossipmesh.net.clock import wall_ns

_TEXT_MAX = 1_024


class Entry:
    """One request or TCP connection while it lasts; what is known is filled in as it becomes known."""

    __slots__ = (
        "attempts",
        "began",
        "callee",
        "caller",
        "details",
        "direction",
        "flags",
        "head",
        "protocol",
        "received_bytes",
        "remote",
        "route",
        "sent_bytes",
        "server_name",
        "service",
        "started_wall_ns",
        "status",
        "traceparent",
        "upstream",
        "upstream_host",
    )

    def __init__(self, direction: str, protocol: str, remote: str, caller: str, now: Instant) -> None:
        self.direction = direction
        self.protocol = protocol
        self.remote = remote
        self.caller = caller
        self.began = now
        self.started_wall_ns = wall_ns()
        self.service = ""
        self.route = ""
        self.upstream = ""
        self.upstream_host: str | None = None
        self.callee: str | None = None
        self.server_name: str | None = None
        self.head: RequestHead | None = None
        self.traceparent: str | None = None
        self.status = 0
        self.flags: list[str] = []
        self.details = ""
        self.attempts = 0
        self.received_bytes = 0
        self.sent_bytes = 0

    def flag(self, flag: str) -> None:
        """Add a response flag once."""
        if flag and flag not in self.flags:
            self.flags.append(flag)


class Journal:
    """Where entries go when they end."""

    def __init__(self, log: AccessLog, counters: Counters) -> None:
        self._log = log
        self._counters = counters

    def bad_request(self, entry: Entry, reason: str, now: Instant) -> None:
        """Write down what was refused before it was a request."""
        entry.status = 400
        entry.flag("DPE")
        entry.details = f"http1.codec_error: {reason}"
        self.end(entry, now)

    def end(self, entry: Entry, now: Instant) -> None:
        """Count and log a finished entry."""
        flags = ",".join(entry.flags)
        duration_ns = now - entry.began
        self._counters.request(
            (entry.direction, entry.caller, entry.service, entry.route, entry.protocol),
            code_class=_code_class(entry),
            flag=flags,
            latency_ns=duration_ns,
            received_bytes=entry.received_bytes,
            sent_bytes=entry.sent_bytes,
            retries_count=max(0, entry.attempts - 1),
        )
        head = entry.head
        self._log.write(
            AccessRecord(
                start_time=entry.started_wall_ns,
                direction=entry.direction,
                method=None if head is None else head.method,
                path=None if head is None else head.path[:_TEXT_MAX],
                authority=None if head is None else head.host.decode("latin-1"),
                protocol="TCP" if head is None else f"HTTP/{head.version}",
                response_code=entry.status,
                response_flags=flags or "-",
                response_code_details=entry.details[:_TEXT_MAX],
                bytes_received=entry.received_bytes,
                bytes_sent=entry.sent_bytes,
                duration=round(duration_ns / MILLISECOND_NS, 3),
                route_name=entry.route,
                upstream_cluster=entry.upstream,
                upstream_host=entry.upstream_host,
                upstream_request_attempt_count=entry.attempts,
                requested_server_name=entry.server_name,
                downstream_remote_address=entry.remote,
                downstream_peer_uri_san=entry.caller,
                upstream_peer_uri_san=entry.callee,
                user_agent=_header(head, b"user-agent"),
                traceparent=entry.traceparent,
            )
        )


def _code_class(entry: Entry) -> str:
    if entry.protocol == "tcp":
        return "tcp"
    return f"{entry.status // 100}xx" if entry.status else "0"


def _header(head: RequestHead | None, name: bytes) -> str | None:
    value = None if head is None else head.get(name)
    return None if value is None else value[:_TEXT_MAX].decode("latin-1")
