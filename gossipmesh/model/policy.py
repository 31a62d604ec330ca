"""Policy documents as typed values: HTTPRoute, AccessPolicy, Subset, MeshPolicy.

Spec: Gateway API v1.6 for HTTPRoute (`parentRefs` to `kind: Service`); the rest is ours. A signed
body is JSON; any unknown kind or field is refused, because ignoring one could open a door.
"""

from enum import StrEnum

import msgspec


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Names a document; (kind, namespace, name) is unique in a scope."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] = {}


class ParentRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The service a route applies to; `namespace` None is the route's own."""

    name: str
    kind: str = "Service"
    group: str = ""
    namespace: str | None = None


class PathMatchSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`type` is Exact or PathPrefix."""

    type: str = "PathPrefix"
    value: str = "/"


class HeaderMatchSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`type` is Exact."""

    name: str
    value: str
    type: str = "Exact"


class HTTPRouteMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All given parts must match."""

    path: PathMatchSpec | None = None
    headers: tuple[HeaderMatchSpec, ...] = ()
    method: str | None = None


class BackendRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A `Service` (group "") or a `Subset` (group gossipmesh.dev) and its share, 0..1,000,000."""

    name: str
    kind: str = "Service"
    group: str = ""
    namespace: str | None = None
    weight: int = 1


class HTTPRouteTimeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """GEP-2257 durations; `0s` is none. `backendRequest` is per try."""

    request: str | None = None
    backendRequest: str | None = None


class HTTPRouteRetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """GEP-1731: status codes 400..599 to retry, how often, minimum backoff (GEP-2257)."""

    codes: tuple[int, ...] = ()
    attempts: int | None = None
    backoff: str | None = None


class HTTPRouteRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Matches are alternatives; none at all matches everything."""

    backendRefs: tuple[BackendRef, ...] = ()
    matches: tuple[HTTPRouteMatch, ...] = ()
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    name: str | None = None


class HTTPRouteSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """1..16 parents, 1..64 rules; `hostnames` narrow what `Host` may be, `*.` prefix allowed."""

    parentRefs: tuple[ParentRef, ...]
    rules: tuple[HTTPRouteRule, ...]
    hostnames: tuple[str, ...] = ()


class SubsetSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The registrations of `service` (same namespace) that carry all of `labels`."""

    service: str
    labels: dict[str, str]


class TargetRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The service a policy protects, in the policy's namespace."""

    name: str
    kind: str = "Service"
    group: str = ""


class AccessFrom(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Exact SPIFFE IDs or namespaces; at least one of the two."""

    identities: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()


class AccessTo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Methods, and paths: exact, or a prefix ending in `/*`; at least one of the two."""

    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


class AccessRuleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`from` and `to` are lists of alternatives; an absent one matches anything."""

    from_: tuple[AccessFrom, ...] = msgspec.field(name="from", default=())
    to: tuple[AccessTo, ...] = ()


class AccessPolicySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`action` is Allow or Deny; 1..64 rules."""

    targetRef: TargetRef
    action: str
    rules: tuple[AccessRuleSpec, ...]


class HTTPRoute(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="HTTPRoute",
    omit_defaults=True,
):
    """Where requests to a service go."""

    apiVersion: str
    metadata: Metadata
    spec: HTTPRouteSpec


class Subset(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="Subset",
    omit_defaults=True,
):
    """A named part of a service."""

    apiVersion: str
    metadata: Metadata
    spec: SubsetSpec


class AccessPolicy(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="AccessPolicy",
    omit_defaults=True,
):
    """Who may call a service."""

    apiVersion: str
    metadata: Metadata
    spec: AccessPolicySpec


class Unregistered(StrEnum):
    """Who processes are that belong to no registered service of their node."""

    WORKLOADS = "workloads"
    DENY = "deny"


class MeshPolicySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`unregistered`: they speak as `/node/NAME/workloads`, or may not call at all."""

    unregistered: Unregistered


class MeshPolicy(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="MeshPolicy",
    omit_defaults=True,
):
    """What holds on every node of the mesh; of several, the strictest."""

    apiVersion: str
    metadata: Metadata
    spec: MeshPolicySpec


Document = HTTPRoute | Subset | AccessPolicy | MeshPolicy

API_VERSIONS = {
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "Subset": "gossipmesh.dev/v1",
    "AccessPolicy": "gossipmesh.dev/v1",
    "MeshPolicy": "gossipmesh.dev/v1",
}


def document_name(document: Document) -> str:
    """Return `Kind/namespace/name`, the document's name in a manifest."""
    kind = type(document).__name__
    return f"{kind}/{document.metadata.namespace}/{document.metadata.name}"
