"""Policy documents as rules an engine executes: routes in match order, denies before allows.

Spec: Gateway API v1.6 HTTPRoute, its precedence of matches; GEP-1731 (retries), GEP-2257 (durations).
Documents were validated before they were signed; what slipped through is compiled to the safe side.
Rules:

1. Order: host name (exact before wildcard, longer first), exact path, longest prefix, method, number of
   headers, lower `since`, namespace/name, rule, match.
2. A rule without a backend that has a weight keeps its place and has no backends: 500 `NC`, as the
   Gateway API says. (Such a document is refused before it is signed.)
3. A backend that names no known `Subset` keeps its share and has no endpoints: 503 `UH`.
4. A route whose `parentRefs` name a service of another namespace applies to all its callers.
   Deviation: the Gateway API would narrow it to callers of the route's namespace.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from gossipmesh.model.durations import parse_duration_untrusted
from gossipmesh.model.engine_features import SECTION_FEATURES, STRICT_SECTIONS, UNREGISTERED
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import MILLISECOND_NS
from gossipmesh.model.limits import ROUTE_RULES_PER_SERVICE_MAX
from gossipmesh.model.policy import (
    AccessFrom,
    AccessPolicy,
    AccessRuleSpec,
    AccessTo,
    BackendRef,
    Document,
    HTTPRoute,
    HTTPRouteMatch,
    HTTPRouteRule,
    MeshPolicy,
    Subset,
    Unregistered,
)
from gossipmesh.model.snapshot import (
    AccessRule,
    AccessSource,
    AccessTarget,
    HeaderMatch,
    RetryRule,
    Route,
    RouteMatch,
    RoutesSection,
    WeightedUpstream,
)
from gossipmesh.traffic.inputs import PolicyInput
from gossipmesh.traffic.paths import normal_path_match

DEFAULT_RETRY: Final = RetryRule(attempts=2, statuses=(503,), backoff_base_ns=25 * MILLISECOND_NS)
TCP_RETRY: Final = RetryRule(attempts=2, statuses=(), backoff_base_ns=25 * MILLISECOND_NS)

BEYOND_ENGINE: Final = "beyond-this-engine"
"""The name of the one route of a service whose rules the attached engine cannot execute."""

# What a kind of document asks of an engine beyond 0.1. Which kinds there are is model.policy's.
_NEEDS: Final[dict[type, frozenset[str]]] = {MeshPolicy: frozenset((UNREGISTERED,))}

_Ranked = tuple[tuple[object, ...], Route]


class PolicyIndex(msgspec.Struct, frozen=True):
    """Documents by what they apply to; each list in (since, namespace, name) order.

    `unregistered`: who processes of no service are; None: the node, as before there was a choice.
    """

    routes: dict[str, list[PolicyInput]]
    access: dict[str, list[PolicyInput]]
    subsets: dict[tuple[str, str], Subset]
    unregistered: Unregistered | None = None


def index_policies(policies: Iterable[PolicyInput]) -> PolicyIndex:
    """Sort documents by the service they apply to."""
    index = PolicyIndex({}, {}, {})
    ordered = sorted(policies, key=_policy_key)
    for given in ordered:
        document = given.document
        namespace = document.metadata.namespace
        if isinstance(document, HTTPRoute):
            parents = [f"{ref.namespace or namespace}/{ref.name}" for ref in document.spec.parentRefs]
            for parent in dict.fromkeys(parents):
                index.routes.setdefault(parent, []).append(given)
        elif isinstance(document, AccessPolicy):
            index.access.setdefault(f"{namespace}/{document.spec.targetRef.name}", []).append(given)
        elif isinstance(document, Subset):
            index.subsets[(namespace, document.metadata.name)] = document
    return msgspec.structs.replace(index, unregistered=_unregistered(ordered))


def _unregistered(policies: Iterable[PolicyInput]) -> Unregistered | None:
    """Return the strictest word on processes of no service; None where no document says one."""
    documents = (given.document for given in policies)
    words = {document.spec.unregistered for document in documents if isinstance(document, MeshPolicy)}
    return next((word for word in (Unregistered.DENY, Unregistered.WORKLOADS) if word in words), None)


def services_named(policies: Iterable[PolicyInput]) -> frozenset[str]:
    """Return every service a document applies to or leads to: somebody who may sign knows it."""
    index = index_policies(policies)
    backends = {
        f"{backend.namespace or given.document.metadata.namespace}/{backend.name}"
        for found in index.routes.values()
        for given in found
        if isinstance(given.document, HTTPRoute)
        for rule in given.document.spec.rules
        for backend in rule.backendRefs
        if backend.kind == "Service"
    }
    subsets = {f"{namespace}/{subset.spec.service}" for (namespace, _), subset in index.subsets.items()}
    return frozenset({*index.routes, *index.access, *backends, *subsets})


def needs_of(document: Document) -> frozenset[str]:
    """Return the words an engine must name to enforce a document; none: every engine can."""
    return _NEEDS.get(type(document), frozenset())


def kinds_beyond(features: frozenset[str]) -> list[str]:
    """Return the kinds of documents that an engine which names these words cannot enforce, sorted."""
    return sorted(kind.__name__ for kind, needed in _NEEDS.items() if needed - features)


def unenforced(policies: Iterable[PolicyInput], features: frozenset[str]) -> list[tuple[str, list[str]]]:
    """Return the documents an engine cannot enforce, sorted, each with the words it does not name."""
    return sorted(
        (
            f"{type(one.document).__name__} {one.document.metadata.namespace}/{one.document.metadata.name}",
            sorted(missing),
        )
        for one in policies
        if (missing := needs_of(one.document) - features)
    )


def required_of(documents: Iterable[PolicyInput], features: frozenset[str]) -> tuple[str, ...]:
    """Return what a section made of these documents requires, as an engine that is strict reads it."""
    needed = frozenset[str]().union(*(needs_of(one.document) for one in documents))
    return tuple(sorted(needed & features)) if STRICT_SECTIONS in features else ()


def compile_routes(
    service: str, protocol: str, index: PolicyIndex, features: frozenset[str] = SECTION_FEATURES
) -> RoutesSection:
    """Return the rules of `service`; without an HTTPRoute, the default one to all its endpoints.

    Where a document is beyond the engine, nothing is routed: rules may be what keeps requests away.
    """
    documents = index.routes.get(service, []) if protocol == "http" else []
    if not documents:
        return RoutesSection(service, protocol, (_default_route(service, protocol),))
    if unenforced(documents, features):
        shut = msgspec.structs.replace(
            _default_route(service, protocol), name=f"{service}#{BEYOND_ENGINE}", backends=()
        )
        return RoutesSection(service, protocol, (shut,))
    ranked: list[_Ranked] = []
    for given in documents:
        document = given.document
        assert isinstance(document, HTTPRoute)
        for number, rule in enumerate(document.spec.rules):
            ranked.extend(_compile_rule(given.since, document, number, rule, index))
    ranked.sort(key=lambda one: one[0])
    routes = tuple(route for _, route in ranked[:ROUTE_RULES_PER_SERVICE_MAX])
    return RoutesSection(service, protocol, routes, required_of(documents, features))


def compile_access(
    service: str, index: PolicyIndex, features: frozenset[str] = SECTION_FEATURES
) -> tuple[tuple[AccessRule, ...], bool]:
    """Return (rules, denies first; whether a call no rule matches is allowed) for `service`.

    Where a document is beyond the engine, nobody may call.
    """
    if unenforced(index.access.get(service, []), features):
        return (), False
    denies: list[AccessRule] = []
    allows: list[AccessRule] = []
    default_allow = True
    for given in index.access.get(service, []):
        document = given.document
        assert isinstance(document, AccessPolicy)
        # Whatever is not an Allow denies: an action this version does not know must not open a door.
        allow = document.spec.action == "Allow"
        default_allow = default_allow and not allow
        name = f"{document.metadata.namespace}/{document.metadata.name}"
        rules = allows if allow else denies
        for number, rule in enumerate(document.spec.rules):
            rules.append(_compile_access_rule(f"{name}#{number}", allow, rule))
    return (*denies, *allows), default_allow


def split_upstream(upstream: str) -> tuple[str, str | None]:
    """Split an upstream's name into (service, name of its subset or None)."""
    service, at, subset = upstream.partition("@")
    return service, subset if at else None


def _policy_key(given: PolicyInput) -> tuple[int, str, str, str]:
    metadata = given.document.metadata
    return given.since, metadata.namespace, metadata.name, type(given.document).__name__


def _default_route(service: str, protocol: str) -> Route:
    return Route(
        name=f"{service}#default",
        hostnames=(),
        match=RouteMatch(None, None, ()),
        backends=(WeightedUpstream(service, 1),),
        request_timeout_ns=None,
        try_timeout_ns=None,
        retry=DEFAULT_RETRY if protocol == "http" else TCP_RETRY,
    )


def _compile_rule(
    since: int, document: HTTPRoute, number: int, rule: HTTPRouteRule, index: PolicyIndex
) -> Iterable[_Ranked]:
    namespace, name = document.metadata.namespace, document.metadata.name
    timeouts = rule.timeouts
    template = Route(
        name=f"{namespace}/{name}#{number}",
        hostnames=(),
        match=RouteMatch(None, None, ()),
        backends=_backends(namespace, rule.backendRefs, index),
        request_timeout_ns=_timeout_ns(timeouts.request if timeouts else None),
        try_timeout_ns=_timeout_ns(timeouts.backendRequest if timeouts else None),
        retry=_retry(rule),
    )
    # One entry per host name: which name matched comes first in the order, so names must stand apart.
    for hostname in dict.fromkeys(name.lower() for name in document.spec.hostnames) or (None,):
        for at, match in enumerate(rule.matches or (HTTPRouteMatch(),)):
            compiled = _match(match)
            route = msgspec.structs.replace(
                template, hostnames=() if hostname is None else (hostname,), match=compiled
            )
            yield (*_specificity(hostname, compiled), since, namespace, name, number, at), route


def _specificity(hostname: str | None, match: RouteMatch) -> tuple[int, ...]:
    """Return the ranks of a match; smaller is more specific, and first."""
    wildcard = hostname is None or hostname.startswith("*.")
    path = match.path
    return (
        1 if wildcard else 0,
        -len(hostname or ""),
        0 if path is not None and path.kind == "exact" else 1,
        -len(path.value) if path is not None else 0,
        0 if match.method is not None else 1,
        -len(match.headers),
    )


def _match(match: HTTPRouteMatch) -> RouteMatch:
    path = None
    if match.path is not None:
        path = normal_path_match("exact" if match.path.type == "Exact" else "prefix", match.path.value)
    headers: dict[str, str] = {}
    for header in match.headers:
        headers.setdefault(header.name.lower(), header.value)
    return RouteMatch(path, match.method, tuple(HeaderMatch(*pair) for pair in sorted(headers.items())))


def _backends(
    namespace: str, refs: tuple[BackendRef, ...], index: PolicyIndex
) -> tuple[WeightedUpstream, ...]:
    weights: dict[str, int] = {}
    for ref in refs:
        upstream = _upstream_of(ref, namespace, index)
        weights[upstream] = weights.get(upstream, 0) + max(ref.weight, 0)
    if not any(weights.values()):
        return ()
    return tuple(WeightedUpstream(upstream, weight) for upstream, weight in weights.items())


def _upstream_of(ref: BackendRef, namespace: str, index: PolicyIndex) -> str:
    namespace = ref.namespace or namespace
    if ref.kind != "Subset":
        return f"{namespace}/{ref.name}"
    subset = index.subsets.get((namespace, ref.name))
    # No such subset: a name no service can have, so it stays an upstream without endpoints.
    return f"{namespace}/{subset.spec.service if subset else ''}@{ref.name}"


def _timeout_ns(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_duration_untrusted(text) or None
    except MalformedInput:
        return None


def _retry(rule: HTTPRouteRule) -> RetryRule:
    retry = rule.retry
    if retry is None:
        return DEFAULT_RETRY
    return RetryRule(
        attempts=DEFAULT_RETRY.attempts if retry.attempts is None else max(retry.attempts, 0),
        statuses=tuple(sorted(set(retry.codes))) or DEFAULT_RETRY.statuses,
        backoff_base_ns=_timeout_ns(retry.backoff) or DEFAULT_RETRY.backoff_base_ns,
    )


def _compile_access_rule(name: str, allow: bool, rule: AccessRuleSpec) -> AccessRule:
    sources = tuple(_source(source) for source in rule.from_)
    return AccessRule(name, allow, sources, tuple(_target(target) for target in rule.to))


def _source(source: AccessFrom) -> AccessSource:
    return AccessSource(tuple(sorted(set(source.identities))), tuple(sorted(set(source.namespaces))))


def _target(target: AccessTo) -> AccessTarget:
    paths = []
    for path in target.paths:
        kind, value = ("prefix", path[:-2] or "/") if path.endswith("/*") else ("exact", path)
        match = normal_path_match(kind, value)
        if match is None:
            # One alternative covers every path, so the paths say nothing at all.
            return AccessTarget(tuple(sorted(set(target.methods))), ())
        paths.append(match)
    return AccessTarget(tuple(sorted(set(target.methods))), tuple(paths))
