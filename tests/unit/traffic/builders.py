"""Values the traffic tests speak about; every argument has a boring default."""

from typing import Any

from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.policy import (
    API_VERSIONS,
    AccessPolicy,
    AccessPolicySpec,
    AccessRuleSpec,
    BackendRef,
    HTTPRoute,
    HTTPRouteMatch,
    HTTPRouteRule,
    HTTPRouteSpec,
    Metadata,
    ParentRef,
    PathMatchSpec,
    Subset,
    SubsetSpec,
    TargetRef,
)
from gossipmesh.model.service import EndpointHealth
from gossipmesh.model.snapshot import RoutesSection, SnapshotEndpoint, UpstreamSection
from gossipmesh.testing.builders import OneEndpoint, serving
from gossipmesh.traffic.compiler import (
    DEFAULT_LIMITS,
    LocalService,
    PolicyInput,
    SnapshotCompiler,
    SnapshotInputs,
)
from gossipmesh.traffic.sections import Snapshot


def catalog_endpoint(node: str = "n1", service: str = "shop/cart", **changes: Any) -> OneEndpoint:
    values: dict[str, Any] = {
        "registration": service.partition("/")[2],
        "service": service,
        "protocol": "http",
        "labels": {},
        "weight": 100,
        "health": EndpointHealth.PASSING,
        "draining": False,
        "node": node,
        "address": Address("10.0.0.1", 15008),
        "status": MemberStatus.ALIVE,
    }
    return OneEndpoint(**{**values, **changes})


def local_service(service: str = "shop/web", **changes: Any) -> LocalService:
    values: dict[str, Any] = {
        "registration": service.partition("/")[2],
        "service": service,
        "protocol": "http",
        "workload": Address("127.0.0.1", 9000),
        "uid": 1000,
    }
    return LocalService(**{**values, **changes})


def http_route(
    name: str, *rules: HTTPRouteRule, service: str = "cart", hostnames: tuple[str, ...] = ()
) -> HTTPRoute:
    spec = HTTPRouteSpec(parentRefs=(ParentRef(service),), rules=rules, hostnames=hostnames)
    return HTTPRoute(API_VERSIONS["HTTPRoute"], Metadata(name, "shop"), spec)


def rule(*backends: BackendRef | str, match: HTTPRouteMatch | None = None, **changes: Any) -> HTTPRouteRule:
    refs = tuple(BackendRef(one) if isinstance(one, str) else one for one in backends)
    return HTTPRouteRule(backendRefs=refs, matches=() if match is None else (match,), **changes)


def prefix(value: str, **changes: Any) -> HTTPRouteMatch:
    return HTTPRouteMatch(path=PathMatchSpec(value=value), **changes)


def exact(value: str, **changes: Any) -> HTTPRouteMatch:
    return HTTPRouteMatch(path=PathMatchSpec("Exact", value), **changes)


def subset(name: str, service: str = "cart", **labels: str) -> Subset:
    return Subset(API_VERSIONS["Subset"], Metadata(name, "shop"), SubsetSpec(service, labels))


def access_policy(name: str, action: str, *rules: AccessRuleSpec, service: str = "cart") -> AccessPolicy:
    spec = AccessPolicySpec(TargetRef(service), action, rules)
    return AccessPolicy(API_VERSIONS["AccessPolicy"], Metadata(name, "shop"), spec)


def inputs(**changes: Any) -> SnapshotInputs:
    """Return inputs of a node that wants shop/cart; `catalog` are endpoints of any services.

    `policies` may be bare documents, since 1, 2, ...
    """
    policies = tuple(
        one if isinstance(one, PolicyInput) else PolicyInput(one, since)
        for since, one in enumerate(changes.pop("policies", ()), start=1)
    )
    values: dict[str, Any] = {
        "trust_domain": "mesh.example",
        "node": "n0",
        "local": (),
        "serving": serving(changes.pop("catalog", ())),
        "policies": policies,
        "wanted": ("shop/cart",),
        "limits": DEFAULT_LIMITS,
    }
    return SnapshotInputs(**{**values, **changes})


def compiled(**changes: Any) -> Snapshot:
    return SnapshotCompiler().compile(inputs(**changes))


def routes_of(snapshot: Snapshot, service: str = "shop/cart") -> RoutesSection:
    section = snapshot.section(f"routes/{service}")
    assert isinstance(section, RoutesSection)
    return section


def upstream_of(snapshot: Snapshot, upstream: str = "shop/cart") -> UpstreamSection:
    section = snapshot.section(f"upstream/{upstream}")
    assert isinstance(section, UpstreamSection)
    return section


def endpoint(node: str, **changes: Any) -> SnapshotEndpoint:
    values: dict[str, Any] = {
        "registration": "cart",
        "node": node,
        "address": Address("10.0.0.1", 15008),
        "server_name": "cart.cart.shop.mesh.example",
        "spiffe_id": "spiffe://mesh.example/ns/shop/svc/cart",
        "tier": 0,
        "weight": 100,
    }
    return SnapshotEndpoint(**{**values, **changes})


def upstream(*endpoints: SnapshotEndpoint) -> UpstreamSection:
    return UpstreamSection("shop/cart", "shop/cart", "http", endpoints)
