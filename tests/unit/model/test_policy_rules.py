"""The rules both `policy push` and every node apply: each mistake is named at its place."""

import json
from typing import Any

import msgspec
import pytest

from gossipmesh.model.policy import Document
from gossipmesh.model.policy_rules import document_violations

ROUTE: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "cart", "namespace": "shop", "labels": {"team": "a"}},
    "spec": {
        "parentRefs": [{"name": "cart", "kind": "Service", "group": "core"}],
        "hostnames": ["cart.example.com", "*.shop.test"],
        "rules": [
            {
                "matches": [
                    {
                        "path": {"type": "PathPrefix", "value": "/v1"},
                        "method": "GET",
                        "headers": [{"name": "X-Canary", "value": "yes please"}],
                    }
                ],
                "backendRefs": [
                    {"name": "cart", "weight": 90},
                    {"group": "gossipmesh.dev", "kind": "Subset", "name": "cart-v2", "weight": 10},
                ],
                "timeouts": {"request": "10s", "backendRequest": "1s500ms"},
                "retry": {"codes": [503], "attempts": 2, "backoff": "25ms"},
            }
        ],
    },
}
SUBSET: dict[str, Any] = {
    "apiVersion": "gossipmesh.dev/v1",
    "kind": "Subset",
    "metadata": {"name": "cart-v2", "namespace": "shop"},
    "spec": {"service": "cart", "labels": {"version": "v2"}},
}
ACCESS: dict[str, Any] = {
    "apiVersion": "gossipmesh.dev/v1",
    "kind": "AccessPolicy",
    "metadata": {"name": "cart", "namespace": "shop"},
    "spec": {
        "targetRef": {"name": "cart"},
        "action": "Allow",
        "rules": [
            {
                "from": [{"identities": ["spiffe://mesh.test/ns/shop/svc/web"]}, {"namespaces": ["ops"]}],
                "to": [{"methods": ["GET"], "paths": ["/", "/items/*", "/*"]}],
            }
        ],
    },
}
RULE = "spec.rules.0"

# document, where the mistake is made, what stands there, where it is reported
MISTAKES: list[tuple[dict[str, Any], str, Any, str]] = [
    (ROUTE, "apiVersion", "gateway.networking.k8s.io/v1beta1", "apiVersion"),
    (ROUTE, "metadata.name", "Cart", "metadata.name"),
    (ROUTE, "metadata.namespace", "a/b", "metadata.namespace"),
    (ROUTE, "metadata.labels", {"k": "v" * 129}, "metadata.labels.k"),
    (ROUTE, "spec.parentRefs", [], "spec.parentRefs"),
    (ROUTE, "spec.parentRefs.0.kind", "Gateway", "spec.parentRefs.0.kind"),
    (ROUTE, "spec.hostnames.1", "*.*.test", "spec.hostnames.1"),
    (ROUTE, "spec.rules", [], "spec.rules"),
    (ROUTE, f"{RULE}.matches.0.path.type", "RegularExpression", f"{RULE}.matches.0.path.type"),
    (ROUTE, f"{RULE}.matches.0.path.value", "v1", f"{RULE}.matches.0.path.value"),
    (ROUTE, f"{RULE}.matches.0.path.value", "/a/../b", f"{RULE}.matches.0.path.value"),
    (ROUTE, f"{RULE}.matches.0.path.value", "/a%2Fb", f"{RULE}.matches.0.path.value"),
    (ROUTE, f"{RULE}.matches.0.path.value", "/a?b", f"{RULE}.matches.0.path.value"),
    (ROUTE, f"{RULE}.matches.0.method", "get", f"{RULE}.matches.0.method"),
    (ROUTE, f"{RULE}.matches.0.headers.0.name", "a b", f"{RULE}.matches.0.headers.0.name"),
    (ROUTE, f"{RULE}.matches.0.headers.0.value", "a\nb", f"{RULE}.matches.0.headers.0.value"),
    (ROUTE, f"{RULE}.matches.0.headers.0.type", "Regex", f"{RULE}.matches.0.headers.0.type"),
    (ROUTE, f"{RULE}.backendRefs", [], f"{RULE}.backendRefs"),
    (ROUTE, f"{RULE}.backendRefs", [{"name": "cart", "weight": 0}], f"{RULE}.backendRefs"),
    (ROUTE, f"{RULE}.backendRefs.0.weight", -1, f"{RULE}.backendRefs.0.weight"),
    (ROUTE, f"{RULE}.backendRefs.1.group", "", f"{RULE}.backendRefs.1.kind"),
    (ROUTE, f"{RULE}.timeouts.request", "10", f"{RULE}.timeouts.request"),
    (ROUTE, f"{RULE}.timeouts.backendRequest", "11s", f"{RULE}.timeouts.backendRequest"),
    (ROUTE, f"{RULE}.retry.codes.0", 200, f"{RULE}.retry.codes.0"),
    (ROUTE, f"{RULE}.retry.attempts", 99, f"{RULE}.retry.attempts"),
    (ROUTE, f"{RULE}.retry.backoff", "1.5s", f"{RULE}.retry.backoff"),
    (SUBSET, "spec.service", "shop/cart", "spec.service"),
    (SUBSET, "spec.labels", {}, "spec.labels"),
    (ACCESS, "spec.action", "Audit", "spec.action"),
    (ACCESS, "spec.targetRef.kind", "Pod", "spec.targetRef.kind"),
    (ACCESS, "spec.rules", [], "spec.rules"),
    (ACCESS, f"{RULE}.from.0", {}, f"{RULE}.from.0"),
    (ACCESS, f"{RULE}.from.0.identities.0", "spiffe://mesh.test/*", f"{RULE}.from.0.identities.0"),
    (ACCESS, f"{RULE}.from.1.namespaces.0", "*", f"{RULE}.from.1.namespaces.0"),
    (ACCESS, f"{RULE}.to.0", {}, f"{RULE}.to.0"),
    (ACCESS, f"{RULE}.to.0.methods.0", "*", f"{RULE}.to.0.methods.0"),
    (ACCESS, f"{RULE}.to.0.paths.0", "/a*", f"{RULE}.to.0.paths.0"),
    (ACCESS, f"{RULE}.to.0.paths.0", "*/a", f"{RULE}.to.0.paths.0"),
]


def violations(document: dict[str, Any]) -> list[str]:
    """Return where violations are reported, as dotted paths."""
    decoded: Document = msgspec.json.decode(json.dumps(document).encode(), type=Document)
    return [".".join(str(step) for step in path) for path, _ in document_violations(decoded)]


def changed(document: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Return a deep copy with `value` at a dotted place."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    node: Any = copy
    *parents, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    for step in parents:
        node = node[step]
    node[last] = value
    return copy


@pytest.mark.parametrize("document", [ROUTE, SUBSET, ACCESS], ids=["route", "subset", "access"])
def test_good_documents_have_nothing_to_say(document: dict[str, Any]) -> None:
    assert violations(document) == []


@pytest.mark.parametrize(("document", "place", "value", "reported"), MISTAKES)
def test_names_the_mistake_and_nothing_else(
    document: dict[str, Any], place: str, value: Any, reported: str
) -> None:
    assert violations(changed(document, place, value)) == [reported]


def test_reports_every_mistake_at_once() -> None:
    wrong = changed(changed(ROUTE, "metadata.name", "-"), f"{RULE}.matches.0.method", "g")
    assert violations(wrong) == ["metadata.name", f"{RULE}.matches.0.method"]


def test_a_flood_of_mistakes_is_bounded() -> None:
    """Lists are judged up to their limit, so a hostile signer cannot make a node work for hours."""
    flood = changed(ACCESS, f"{RULE}.to.0.methods", ["*"] * 5_000)
    assert len(violations(flood)) == 65
