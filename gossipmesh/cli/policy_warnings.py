"""What may be meant and is worth a word: warnings, never verdicts.

A backend nobody serves yet may be served a minute from now, and a 404 may be meant: this stops no push.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from gossipmesh.cli.admin_client import AdminClient
from gossipmesh.cli.policy_files import SourceDocument, subset_references
from gossipmesh.model.policy import AccessPolicy, HTTPRoute, HTTPRouteMatch, Subset
from gossipmesh.wire.problems import Path, Problem

UNSERVED = "GM2001"
FALLS_THROUGH = "GM2003"
_DESCRIBED_MAX = 6


def catalog_warnings(documents: Iterable[SourceDocument], client: AdminClient) -> list[Problem]:
    """Return where `documents` name a service or a subset that no node serves now.

    Raises:
        OperatorError: the agent does not answer.
    """
    served = {str(row["service"]) for row in client.get_json("/v1/services")}
    labels_of: dict[str, list[Mapping[str, str]]] = {}
    warnings = []
    for item in documents:
        for path, service in _services(item):
            if service not in served:
                message = f"nobody serves {service} now"
                warnings.append(item.source.problem(path, UNSERVED, message))
        if isinstance(item.document, Subset):
            service = f"{item.document.metadata.namespace}/{item.document.spec.service}"
            if service in served and service not in labels_of:
                rows = client.get_json("/v1/endpoints", service=service)
                labels_of[service] = [dict(row.get("labels") or {}) for row in rows]
            wanted = item.document.spec.labels
            if service in served and not any(wanted.items() <= have.items() for have in labels_of[service]):
                told = ", ".join(f"{key}={value}" for key, value in sorted(wanted.items()))
                message = f"no registration of {service} carries {told} now"
                warnings.append(item.source.problem(("spec", "labels"), UNSERVED, message))
    return warnings


def fallthroughs(bodies: Mapping[str, bytes], services: Iterable[str]) -> dict[str, str]:
    """Return, by service, what of its requests no rule takes once the set is `bodies`; only what has routes.

    Args:
        bodies: the set to be, name -> body.
        services: `namespace/name` of those to look at.
    """
    rules: dict[str, list[tuple[HTTPRoute, HTTPRouteMatch]]] = {service: [] for service in services}
    for name, body in bodies.items():
        if not name.startswith("HTTPRoute/"):
            continue
        route = msgspec.json.decode(body, type=HTTPRoute)
        for service in rules.keys() & set(parents_of(route)):
            rules[service] += [
                (route, match) for rule in route.spec.rules for match in rule.matches or (HTTPRouteMatch(),)
            ]
    return {
        service: _rest_of(service, taken)
        for service, taken in sorted(rules.items())
        if taken and not any(_takes_all(route, match) for route, match in taken)
    }


def parents_of(route: HTTPRoute) -> list[str]:
    """Return the services a route applies to, `namespace/name`, in its order."""
    return [f"{ref.namespace or route.metadata.namespace}/{ref.name}" for ref in route.spec.parentRefs]


def _takes_all(route: HTTPRoute, match: HTTPRouteMatch) -> bool:
    path = match.path
    every_path = path is None or (path.type == "PathPrefix" and not path.value.strip("/"))
    return every_path and match.method is None and not match.headers and not route.spec.hostnames


def _rest_of(service: str, taken: Sequence[tuple[HTTPRoute, HTTPRouteMatch]]) -> str:
    told = list(dict.fromkeys(_describe(route, match) for route, match in taken))
    more = f" and {len(told) - _DESCRIBED_MAX} more" if len(told) > _DESCRIBED_MAX else ""
    taken_told = f"{', '.join(told[:_DESCRIBED_MAX])}{more}"
    return (
        f"requests to {service} that no rule takes are answered with 404: all but {taken_told}; "
        "add a rule without matches for the rest, unless that is meant"
    )


def _describe(route: HTTPRoute, match: HTTPRouteMatch) -> str:
    path = "any path"
    if match.path is not None:
        below = "/*" if match.path.type == "PathPrefix" else ""
        path = match.path.value.rstrip("/") + below if below else match.path.value
    words = [match.method, path]
    words += [f"with {header.name}: {header.value}" for header in match.headers]
    words += [f"at {' or '.join(route.spec.hostnames[:3])}"] if route.spec.hostnames else []
    return " ".join(word for word in words if word)


def _services(item: SourceDocument) -> Iterator[tuple[Path, str]]:
    """Yield where a document names a service, and its full name."""
    document = item.document
    namespace = document.metadata.namespace
    if isinstance(document, Subset):
        yield ("spec", "service"), f"{namespace}/{document.spec.service}"
    elif isinstance(document, AccessPolicy):
        yield ("spec", "targetRef", "name"), f"{namespace}/{document.spec.targetRef.name}"
    elif isinstance(document, HTTPRoute):
        for index, service in enumerate(parents_of(document)):
            path: Path = ("spec", "parentRefs", index, "name")
            yield path, service
        subsets = {path for path, _ in subset_references(document)}
        for number, rule in enumerate(document.spec.rules):
            for index, backend in enumerate(rule.backendRefs):
                path = ("spec", "rules", number, "backendRefs", index)
                if path not in subsets:
                    yield (*path, "name"), f"{backend.namespace or namespace}/{backend.name}"
