"""What a dry run adds by looking at the live catalog: warnings, never verdicts.

A backend nobody serves yet may be served a minute from now, so none of this stops a push.
"""

from collections.abc import Iterable, Iterator, Mapping

from gossipmesh.cli.admin_client import AdminClient
from gossipmesh.cli.policy_files import SourceDocument, subset_references
from gossipmesh.model.policy import AccessPolicy, HTTPRoute, Subset
from gossipmesh.wire.problems import Path, Problem

UNSERVED = "GM2001"


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


def _services(item: SourceDocument) -> Iterator[tuple[Path, str]]:
    """Yield where a document names a service, and its full name."""
    document = item.document
    namespace = document.metadata.namespace
    if isinstance(document, Subset):
        yield ("spec", "service"), f"{namespace}/{document.spec.service}"
    elif isinstance(document, AccessPolicy):
        yield ("spec", "targetRef", "name"), f"{namespace}/{document.spec.targetRef.name}"
    elif isinstance(document, HTTPRoute):
        for index, parent in enumerate(document.spec.parentRefs):
            path: Path = ("spec", "parentRefs", index, "name")
            yield path, f"{parent.namespace or namespace}/{parent.name}"
        subsets = {path for path, _ in subset_references(document)}
        for number, rule in enumerate(document.spec.rules):
            for index, backend in enumerate(rule.backendRefs):
                path = ("spec", "rules", number, "backendRefs", index)
                if path not in subsets:
                    yield (*path, "name"), f"{backend.namespace or namespace}/{backend.name}"
