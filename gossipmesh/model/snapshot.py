"""What an engine executes: a tree of immutable sections, each named by the hash of its bytes.

Everything clever happened in the compiler: routes stand in match order, weights are numbers, identities
are sets, no engine fills in a default. What is not known is refused, never skipped: a field that narrows
something must not be lost. Spec: docs/ENGINE.md. Section names:

    routes/<namespace>/<service>     RoutesSection     what a request to the service is matched against
    upstream/<upstream>              UpstreamSection   one concrete set: shop/cart or shop/cart@cart-v2
    inbound/<registration>           InboundSection    a local workload and who may call it
    listeners                        ListenersSection  explicit upstream ports, and the fixed ones
    callers                          CallersSection    which uid speaks for which identity
    limits                           LimitsSection
    pins/<xx>                        PinsSection       whose keys begin with this byte
    credentials/<xx>                 CredentialsSection  nodes whose short id begins with this byte
    trust                            TrustSection      who issues certificates
"""

from typing import Final

import msgspec

from gossipmesh.model.member import Address


class PathMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`kind` is `exact` or `prefix`; a prefix matches whole path elements (Gateway API PathPrefix)."""

    kind: str
    value: str


class HeaderMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exact match of one header; `name` is lower case."""

    name: str
    value: str


class RouteMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All parts must hold; None or empty matches everything."""

    path: PathMatch | None
    method: str | None
    headers: tuple[HeaderMatch, ...]


class WeightedUpstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An upstream's name and its share; weights are >= 0 and not all zero."""

    upstream: str
    weight: int


class RetryRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`attempts` is the number of retries after the first try; `statuses` are retried when idempotent."""

    attempts: int
    statuses: tuple[int, ...]
    backoff_base_ns: int


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule's match and what to do; `name` is `namespace/route#rule`. Timeouts: None is none.

    No backends at all: the rule's weights are all zero, and the answer is 500 `NC`.
    `try_timeout_idempotent_only`: the per-try timeout is the default that agents of 0.1 write, not an
    operator's wish, and is not kept.
    """

    name: str
    hostnames: tuple[str, ...]
    match: RouteMatch
    backends: tuple[WeightedUpstream, ...]
    request_timeout_ns: int | None
    try_timeout_ns: int | None
    retry: RetryRule
    try_timeout_idempotent_only: bool = False


class RoutesSection(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """All routes of one service, most specific first; a request matching none gets 404 `NR`.

    `requires`: words an engine must name (model.engine_features) to execute the section, sorted.
    """

    service: str
    protocol: str
    routes: tuple[Route, ...]
    requires: tuple[str, ...] = ()


class SnapshotEndpoint(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One endpoint. `server_name` is the SNI; `spiffe_id` what its certificate must be.

    `pins`: 16 bytes each, of the keys its node uses for `spiffe_id`; None: its node has no key set.

    `tier` is 0 (alive), 1 (suspect: used only when tier 0 has none); `weight` is effective, >= 1
    (unattended members count half); endpoints that are failing, draining or dead are not listed.
    """

    registration: str
    node: str
    address: Address
    server_name: str
    spiffe_id: str
    tier: int
    weight: int
    pins: tuple[bytes, ...] | None = None


class UpstreamSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The endpoints a route can choose from, sorted by (node, registration).

    `draining` names, as `node/registration`, those that finish what they have and take nothing new.
    """

    upstream: str
    service: str
    protocol: str
    endpoints: tuple[SnapshotEndpoint, ...]
    draining: tuple[str, ...] = ()


class AccessSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who: exact SPIFFE IDs or namespaces; both empty is anyone with an identity of this mesh."""

    identities: tuple[str, ...]
    namespaces: tuple[str, ...]


class AccessTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What: methods (upper case) and path matches; both empty is everything. TCP has neither."""

    methods: tuple[str, ...]
    paths: tuple[PathMatch, ...]


class AccessRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule of one AccessPolicy; `name` is `namespace/policy#rule`; sources and targets are alternatives."""

    name: str
    allow: bool
    sources: tuple[AccessSource, ...]
    targets: tuple[AccessTarget, ...]


class InboundSection(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One local workload: where it listens, as whom it serves, who may call.

    `rules` hold denies first, then allows; `default_allow` is what happens when none matches
    (False as soon as any Allow policy targets the service). `requires` as in RoutesSection.
    """

    registration: str
    service: str
    protocol: str
    server_name: str
    spiffe_id: str
    workload: Address
    rules: tuple[AccessRule, ...]
    default_allow: bool
    requires: tuple[str, ...] = ()


class UpstreamListener(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An explicit upstream port (descriptor `name`); only sockets of `uid` may use it, as `spiffe_id`."""

    name: str
    address: Address
    service: str
    protocol: str
    spiffe_id: str
    uid: int


class ListenersSection(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Names of descriptors (`mesh`, `proxy`, `readiness`) and the explicit upstream ports, sorted by name.

    `closed`: why this node answers no call from others, which readiness then says; empty: it does.
    """

    upstreams: tuple[UpstreamListener, ...]
    closed: str = ""


class Caller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A uid that owns exactly one service of this node speaks with that service's identity."""

    uid: int
    spiffe_id: str


class CallersSection(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Callers sorted by uid; any other uid speaks as `unregistered`.

    None: as `node_spiffe_id`, which is all that engines of 0.2 read; empty: as nobody, it may not call.
    `requires` as in RoutesSection.
    """

    node_spiffe_id: str
    callers: tuple[Caller, ...]
    unregistered: str | None = None
    requires: tuple[str, ...] = ()


class LimitsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers an engine enforces; see docs/TRAFFIC.md for sources."""

    connect_timeout_ns: int
    idle_timeout_http_ns: int
    idle_timeout_tcp_ns: int
    drain_timeout_ns: int
    replay_body_bytes: int
    retry_budget_ratio: float
    retry_budget_floor_per_s: int
    upstream_connections: int
    upstream_requests: int
    ejection_consecutive: int
    ejection_base_ns: int
    ejection_share: float
    panic_share: float
    downstream_connections: int


class PinsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys in use by members: `entries` of PIN_ENTRY_BYTES, ascending, no duplicates.

    An entry is a pin (16 bytes, the first of them the section's) and its node's short id (8 bytes).
    """

    entries: bytes


class CredentialsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What members' credentials say: `entries` of CREDENTIAL_ENTRY_BYTES, ascending, no duplicate ids.

    An entry is a short id (8 bytes, the first of them the section's), generation and serial (8 bytes each,
    big endian) and flags (1 byte): HAS_KEY_SETS, REVOKED.
    """

    entries: bytes


class TrustSection(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`intermediates` (PEM, any order) may issue certificates; `hears`: the agent hears other members.

    `revoked_leaves`: serial numbers of certificates that count no more, in hex; left out where there is none.
    A snapshot without this section says nothing of keys: whoever a root vouches for is who it says.
    """

    intermediates: tuple[str, ...]
    hears: bool
    revoked_leaves: tuple[str, ...] = ()


PIN_ENTRY_BYTES: Final = 24
CREDENTIAL_ENTRY_BYTES: Final = 25
HAS_KEY_SETS: Final = 1
"""Flag: the node signs key sets, so that a key which none of them lists is not its."""
REVOKED: Final = 2
"""Flag: nothing of this generation or an earlier one is the node's any more (a tombstone)."""

Section = (
    RoutesSection
    | UpstreamSection
    | InboundSection
    | ListenersSection
    | CallersSection
    | LimitsSection
    | PinsSection
    | CredentialsSection
    | TrustSection
)
