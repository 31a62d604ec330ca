"""What is known of one request or TCP connection while it lasts; the journal writes it down when it ends."""

from gossipmesh.dataplane.reference.http1 import RequestHead
from gossipmesh.dataplane.reference.tcp import TunnelEnd
from gossipmesh.model.instant import Instant


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
        "moved",
        "protocol",
        "received_bytes",
        "remote",
        "route",
        "sent_bytes",
        "server_name",
        "service",
        "status",
        "traceparent",
        "uid",
        "upstream",
        "upstream_host",
    )

    def __init__(self, direction: str, protocol: str, remote: str, caller: str, now: Instant) -> None:
        self.direction = direction
        self.protocol = protocol
        self.remote = remote
        self.caller = caller
        self.began = now
        self.uid: int | None = None  # whose process it came from, on this machine
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
        self.moved: TunnelEnd | None = None
        self.received_bytes = 0
        self.sent_bytes = 0

    def flag(self, flag: str) -> None:
        """Add a response flag once."""
        if flag and flag not in self.flags:
            self.flags.append(flag)
