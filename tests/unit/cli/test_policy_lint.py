"""What can never match is an error before it is signed, and nodes take it all the same."""

from pathlib import Path

import pytest

from gossipmesh.cli.policy_files import SourceDocument, load_files
from gossipmesh.cli.policy_lint import METHODS, unmatchable
from gossipmesh.cli.policy_warnings import fallthroughs
from gossipmesh.model.policy_rules import document_violations
from gossipmesh.trust.manifest import encode_documents

DOMAIN = "mesh.test"
ACCESS = """
apiVersion: gossipmesh.dev/v1
kind: AccessPolicy
metadata: {name: a, namespace: shop}
spec:
  targetRef: {name: cart}
  action: Deny
  rules: [RULE]
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME, namespace: shop}
spec:
  parentRefs: [{name: cart}]
  HOSTS
  rules: [RULES]
"""


def load(tmp_path: Path, text: str) -> list[SourceDocument]:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    loaded = load_files([file])
    assert [str(problem) for problem in loaded.problems] == []
    return list(loaded.documents)


def access(rule: str) -> str:
    return ACCESS.replace("RULE", rule)


def route(*rules: str, name: str = "cart", hosts: str = "") -> str:
    text = ROUTE.replace("RULES", ", ".join(rules)).replace("NAME", name)
    return text.replace("  HOSTS\n", f"  hostnames: [{hosts}]\n" if hosts else "")


def matching(match: str) -> str:
    return "{matches: [{" + match + "}], backendRefs: [{name: cart}]}"


ALL = "{backendRefs: [{name: cart}]}"
R = "$.spec.rules[0]"
NEVER = [
    (access("{to: [{methods: [DELTE]}]}"), f"{R}.to[0].methods[0]", "GM1021", "did you mean DELETE?"),
    (access("{to: [{methods: [GET, POTS]}]}"), f"{R}.to[0].methods[1]", "GM1021", "did you mean POST?"),
    (access("{to: [{methods: [PRI]}]}"), f"{R}.to[0].methods[0]", "GM1021", "--allow-method PRI"),
    (access("{to: [{methods: [GETT], paths: [/x]}]}"), f"{R}.to[0].methods[0]", "GM1021", "mean GET?"),
    (access("{to: [{methods: [XYZZY]}]}"), f"{R}.to[0].methods[0]", "GM1021", "'XYZZY' is no method"),
    (route(matching("method: UPDAT")), f"{R}.matches[0].method", "GM1021", "did you mean UPDATE?"),
    (
        access("{from: [{identities: ['spiffe://other.test/ns/shop/svc/web']}]}"),
        f"{R}.from[0].identities[0]", "GM1022", "did you mean spiffe://mesh.test/ns/shop/svc/web?",
    ),
    (
        access("{from: [{identities: ['spiffe://mesh.tst/node/n1']}]}"),
        f"{R}.from[0].identities[0]", "GM1022", "this mesh is mesh.test",
    ),
    (
        access("{from: [{identities: ['spiffe://mesh.test/authority']}]}"),
        f"{R}.from[0].identities[0]", "GM1022", "calls nobody",
    ),
    (access("{to: [{paths: ['/a/%2e%2e/b']}]}"), f"{R}.to[0].paths[0]", "GM1023", "dot segment"),
    (access("{to: [{paths: ['/%2E%2E/*']}]}"), f"{R}.to[0].paths[0]", "GM1023", "dot segment"),
    (access("{to: [{paths: ['/x/..;/admin']}]}"), f"{R}.to[0].paths[0]", "GM1023", "dot segment"),
    (access("{to: [{paths: ['/a%5cb']}]}"), f"{R}.to[0].paths[0]", "GM1023", "refused in every request"),
    (access("{to: [{paths: ['/a%00']}]}"), f"{R}.to[0].paths[0]", "GM1023", "refused in every request"),
    (access("{to: [{paths: ['/a%zz/*']}]}"), f"{R}.to[0].paths[0]", "GM1023", "refused in every request"),
    (route(matching("path: {value: '/a%'}")), f"{R}.matches[0].path.value", "GM1023", "refused"),
    (route(matching("path: {value: '/;x'}")), f"{R}.matches[0].path.value", "GM1023", "refused"),
    (access("{from: []}"), f"{R}.from", "GM1024", "leave `from` out"),
    (access("{to: []}"), f"{R}.to", "GM1024", "leave `to` out"),
    (
        access("{from: [{identities: [], namespaces: [shop]}]}"),
        f"{R}.from[0].identities", "GM1024", "identities",
    ),
    (access("{to: [{methods: [GET], paths: []}]}"), f"{R}.to[0].paths", "GM1024", "paths"),
    (
        route(matching("headers: [{name: x-beta, value: ' on'}]")),
        f"{R}.matches[0].headers[0].value", "GM1025", "no space at either end",
    ),
    (
        route(matching("headers: [{name: x-beta, value: 'on '}]")),
        f"{R}.matches[0].headers[0].value", "GM1025", "no space at either end",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "code", "words"), NEVER)
def test_what_can_never_match_is_named_and_nodes_take_it(
    tmp_path: Path, text: str, place: str, code: str, words: str
) -> None:
    """Nodes' rules stay as they are, so that no upgrade refuses what is in force."""
    (item,) = load(tmp_path, text)
    (problem,) = unmatchable(item, DOMAIN)
    assert (problem.path, problem.code) == (place, code)
    assert words in problem.message
    assert document_violations(item.document) == []


@pytest.mark.parametrize(
    "text",
    [
        access("{}"),
        access("{to: [{methods: [" + ", ".join(sorted(METHODS)) + "]}]}"),
        access("{from: [{identities: ['spiffe://mesh.test/node/n1']}, {namespaces: [nobody-yet]}]}"),
        access("{from: [{identities: ['spiffe://mesh.test/node/n1/workloads']}]}"),
        access("{to: [{paths: ['/', '/*', '/a%20b', '/a;v=1/*', '/caf%C3%A9', '/.well-known/*']}]}"),
        route(matching("path: {type: Exact, value: '/a;b=c'}, headers: [{name: x, value: 'a b'}]")),
    ],
)
def test_what_can_match_is_not_complained_about(tmp_path: Path, text: str) -> None:
    (item,) = load(tmp_path, text)
    assert unmatchable(item, DOMAIN) == []


def test_a_method_of_ones_own_is_named_once(tmp_path: Path) -> None:
    (item,) = load(tmp_path, access("{to: [{methods: [FROBNICATE]}]}"))
    assert len(unmatchable(item, DOMAIN)) == 1
    assert unmatchable(item, DOMAIN, ["FROBNICATE"]) == []


def test_without_an_agent_the_trust_domain_is_not_guessed(tmp_path: Path) -> None:
    (item,) = load(tmp_path, access("{from: [{identities: ['spiffe://other.test/ns/a/svc/b']}]}"))
    assert unmatchable(item, None) == []


def test_one_mistake_is_one_line(tmp_path: Path) -> None:
    """What the kind's own rules refuse already is not told twice."""
    file = tmp_path / "a.yaml"
    file.write_text(access("{to: [{methods: [get], paths: [/a/../b]}], from: [{identities: [nobody]}]}"))
    loaded = load_files([file])
    assert len(loaded.problems) == 3
    assert unmatchable(loaded.documents[0], DOMAIN) == []


def rest(tmp_path: Path, *texts: str, service: str = "shop/cart") -> str:
    bodies = encode_documents(item.document for item in load(tmp_path, "---".join(texts)))
    return fallthroughs(bodies, [service]).get(service, "")


@pytest.mark.parametrize(
    ("texts", "taken"),
    [
        ([route(matching("path: {value: /items}"))], "all but /items/*;"),
        ([route(matching("path: {type: Exact, value: /items}"))], "all but /items;"),
        ([route(matching("method: GET"))], "all but GET any path;"),
        ([route(matching("headers: [{name: x-beta, value: 'on'}]"))], "all but any path with x-beta: on;"),
        ([route(ALL, hosts="cart.example.com")], "all but any path at cart.example.com;"),
        ([route(matching("path: {value: /a}"), matching("path: {value: /b}"))], "all but /a/*, /b/*;"),
        (
            [route(matching("path: {value: /a}")), route(matching("method: PUT"), name="other")],
            "all but /a/*, PUT any path;",
        ),
        ([route(*(matching(f"path: {{value: /p{n}}}") for n in range(9)))], "/p5/* and 3 more;"),
    ],
)
def test_what_falls_through_is_named(tmp_path: Path, texts: list[str], taken: str) -> None:
    told = rest(tmp_path, *texts)
    assert told.startswith("requests to shop/cart that no rule takes are answered with 404: all but ")
    assert taken in told


@pytest.mark.parametrize(
    "texts",
    [
        [route(ALL)],
        [route(matching("path: {value: /}"))],
        [route(matching("path: {value: /items}"), ALL)],
        [route(matching("path: {value: /items}")), route(ALL, name="rest")],
        [access("{}")],
    ],
)
def test_nothing_is_said_where_nothing_falls_through(tmp_path: Path, texts: list[str]) -> None:
    assert rest(tmp_path, *texts) == ""


def test_only_the_services_asked_for_are_looked_at(tmp_path: Path) -> None:
    assert rest(tmp_path, route(matching("method: GET")), service="shop/web") == ""
