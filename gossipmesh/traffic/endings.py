"""Why an exchange, or one try of it, ended: one vocabulary for answers, access log and endpoints' records.

Spec: docs/TRAFFIC.md "Exchanges" has the table; flags are Envoy's letters. Rules:

1. Whoever meets an end says its name (`of`), and nothing else: status, flag, what it says of the endpoint and
   what a client is told follow from it.
2. The name is the first word of what the access log says as details.
"""

from typing import Final

import msgspec

from gossipmesh.traffic.outcomes import Outcome


class Ending(msgspec.Struct, frozen=True):
    """One row of the table.

    `outcome` is what it says of the endpoint, `CANCELLED` for nothing. `status` is what a client is answered
    when nothing has been answered yet, 0 for nothing; `reason` is what it is told. `log` is what the details
    say where that is not the name.
    """

    name: str
    status: int
    flag: str
    outcome: Outcome
    reason: str
    log: str = ""

    @property
    def detail(self) -> str:
        """Return the details' first word."""
        return self.log or self.name


_NOT_ASKED: Final = Outcome.CANCELLED
_NO_CONNECTION: Final = "no connection to the service could be made"
_ENDED_FIRST: Final = "the service ended the connection before it answered"
_SHORT: Final = "too many connections to the service, or this node lacks what a connection takes"
_NOBODY: Final = "no endpoint of the service is healthy"
_NOT_HTTP: Final = "the service's answer is not HTTP"

_TABLE: Final = (
    # Refused before an endpoint was chosen.
    Ending(
        "service_not_named",
        404,
        "NR",
        _NOT_ASKED,
        "no service of the mesh has this name",
        "route_not_found",
    ),
    Ending("route_not_found", 404, "NR", _NOT_ASKED, "no route takes this request"),
    Ending("host_missing", 400, "DPE", _NOT_ASKED, "neither Host nor target names a service"),
    Ending("service_not_known", 503, "NC", _NOT_ASKED, "this node knows no routes of the service"),
    Ending("service_is_tcp", 400, "DPE", _NOT_ASKED, "the service is opaque TCP; use CONNECT"),
    Ending("service_is_http", 400, "DPE", _NOT_ASKED, "the service is HTTP"),
    Ending("ambiguous_path", 400, "DPE", _NOT_ASKED, "the path can be read in two ways"),
    Ending("hop_limit", 508, "LR", _NOT_ASKED, "the request went in a circle"),
    Ending("no_backend", 500, "NC", _NOT_ASKED, "the route leads nowhere"),
    Ending("upstream_requests_overflow", 503, "UO", _NOT_ASKED, "too many requests to the service"),
    Ending("no_healthy_upstream", 503, "UH", _NOT_ASKED, _NOBODY),
    Ending("registration_gone", 503, "UH", _NOT_ASKED, "the workload is no longer here"),
    Ending("connect_inbound", 405, "DPE", _NOT_ASKED, "CONNECT is for proxies"),
    # No connection: what never reached the workload.
    Ending("connect_refused", 503, "UF", Outcome.CONNECT_REFUSED, _NO_CONNECTION),
    Ending("connect_failed", 503, "UF", Outcome.CONNECT_FAILED, _NO_CONNECTION),
    Ending("connect_timeout", 503, "UF", Outcome.CONNECT_FAILED, _NO_CONNECTION),
    Ending("found_before", 503, "UF", Outcome.OVERLOADED, _NO_CONNECTION),
    Ending("own_lag", 503, "UO", Outcome.OVERLOADED, _SHORT),
    Ending("own_shortage", 503, "UO", _NOT_ASKED, _SHORT),
    Ending("upstream_connections_overflow", 503, "UO", _NOT_ASKED, _SHORT),
    Ending("no_svid", 503, "UF", _NOT_ASKED, _NO_CONNECTION),
    Ending("no_snapshot", 503, "UF", _NOT_ASKED, _NO_CONNECTION),
    Ending("endpoint_revoked", 503, "UF", Outcome.CONNECT_FAILED, _NO_CONNECTION),
    # What a callee says before the first byte of a TCP connection, or does not say.
    Ending("workload_refused", 503, "UF", Outcome.CONNECT_REFUSED, _NO_CONNECTION),
    Ending("workload_gone", 503, "UH", Outcome.CONNECT_REFUSED, _NOBODY),
    Ending("workload_overloaded", 503, "UO", Outcome.OVERLOADED, _SHORT),
    Ending("no_status", 503, "UF", Outcome.CONNECT_FAILED, _NO_CONNECTION),
    Ending("no_status_in_time", 503, "UF", Outcome.CONNECT_FAILED, _NO_CONNECTION),
    Ending("closed_before_status", 503, "UF", Outcome.CONNECT_FAILED, _NO_CONNECTION),
    Ending("denied", 403, "UAEX", Outcome.SUCCESS, "denied"),
    # Ended by us.
    Ending("endpoint_removed", 503, "UF", Outcome.MOVED, _NO_CONNECTION),
    Ending("endpoint_cut", 503, "UF", Outcome.MOVED, _NO_CONNECTION),
    Ending("revoked_and_moved", 503, "UF", Outcome.MOVED, _NO_CONNECTION, "endpoint_revoked"),
    Ending("revoked_and_cut", 503, "UF", Outcome.RESET, _NO_CONNECTION, "endpoint_revoked"),
    Ending("upstream_timeout", 504, "UT", Outcome.TIMEOUT, "the service did not answer in time"),
    Ending("downstream_timeout", 504, "UT", _NOT_ASKED, "the request was not there whole in time"),
    # Ended by the endpoint or its workload.
    Ending("upstream_reset_before_response", 503, "UC", Outcome.RESET, _ENDED_FIRST),
    Ending("upstream_reset_after_response", 503, "UC", Outcome.RESET, _ENDED_FIRST),
    Ending("upstream_protocol_error", 502, "UPE", Outcome.RESET, _NOT_HTTP),
    Ending("via_upstream", 0, "", Outcome.SUCCESS, ""),
    Ending("max_forwards", 200, "", _NOT_ASKED, ""),
    # Ended by the client.
    Ending("downstream_disconnect", 0, "DC", _NOT_ASKED, ""),
    Ending("downstream_protocol_error", 400, "DPE", _NOT_ASKED, "the request is unreadable"),
)

ENDINGS: Final = {ending.name: ending for ending in _TABLE}
"""The table, by name, in its order."""


def of(name: str) -> Ending:
    """Return the row of a name.

    Raises:
        KeyError: no ending is called so. Local fault. State unchanged.
    """
    return ENDINGS[name]


SERVICE_NOT_NAMED: Final = of("service_not_named")
ROUTE_NOT_FOUND: Final = of("route_not_found")
HOST_MISSING: Final = of("host_missing")
SERVICE_NOT_KNOWN: Final = of("service_not_known")
SERVICE_IS_TCP: Final = of("service_is_tcp")
SERVICE_IS_HTTP: Final = of("service_is_http")
AMBIGUOUS_PATH: Final = of("ambiguous_path")
HOP_LIMIT: Final = of("hop_limit")
NO_BACKEND: Final = of("no_backend")
REQUESTS_OVERFLOW: Final = of("upstream_requests_overflow")
NO_HEALTHY_UPSTREAM: Final = of("no_healthy_upstream")
REGISTRATION_GONE: Final = of("registration_gone")
CONNECT_INBOUND: Final = of("connect_inbound")
CONNECT_REFUSED: Final = of("connect_refused")
CONNECT_FAILED: Final = of("connect_failed")
CONNECT_TIMEOUT: Final = of("connect_timeout")
FOUND_BEFORE: Final = of("found_before")
OWN_LAG: Final = of("own_lag")
OWN_SHORTAGE: Final = of("own_shortage")
CONNECTIONS_OVERFLOW: Final = of("upstream_connections_overflow")
NO_SVID: Final = of("no_svid")
NO_SNAPSHOT: Final = of("no_snapshot")
ENDPOINT_REVOKED: Final = of("endpoint_revoked")
WORKLOAD_REFUSED: Final = of("workload_refused")
WORKLOAD_GONE: Final = of("workload_gone")
WORKLOAD_OVERLOADED: Final = of("workload_overloaded")
NO_STATUS: Final = of("no_status")
NO_STATUS_IN_TIME: Final = of("no_status_in_time")
CLOSED_BEFORE_STATUS: Final = of("closed_before_status")
DENIED: Final = of("denied")
ENDPOINT_REMOVED: Final = of("endpoint_removed")
ENDPOINT_CUT: Final = of("endpoint_cut")
REVOKED_AND_MOVED: Final = of("revoked_and_moved")
REVOKED_AND_CUT: Final = of("revoked_and_cut")
UPSTREAM_TIMEOUT: Final = of("upstream_timeout")
DOWNSTREAM_TIMEOUT: Final = of("downstream_timeout")
RESET_BEFORE_RESPONSE: Final = of("upstream_reset_before_response")
RESET_AFTER_RESPONSE: Final = of("upstream_reset_after_response")
PROTOCOL_ERROR: Final = of("upstream_protocol_error")
VIA_UPSTREAM: Final = of("via_upstream")
MAX_FORWARDS: Final = of("max_forwards")
DISCONNECT: Final = of("downstream_disconnect")
DOWNSTREAM_ERROR: Final = of("downstream_protocol_error")
