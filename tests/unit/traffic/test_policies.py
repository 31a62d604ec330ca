"""Documents as rules: the Gateway API's order, and the safe side of every doubt."""

import random

import pytest

from gossipmesh.model.policy import (
    AccessFrom,
    AccessRuleSpec,
    AccessTo,
    BackendRef,
    HeaderMatchSpec,
    HTTPRouteMatch,
    HTTPRouteRetry,
    HTTPRouteTimeouts,
)
from gossipmesh.model.snapshot import InboundSection, PathMatch, RetryRule, WeightedUpstream
from gossipmesh.traffic.authorization import decide
from gossipmesh.traffic.compiler import PolicyInput
from tests.unit.traffic.builders import (
    access_policy,
    compiled,
    exact,
    http_route,
    inputs,
    local_service,
    prefix,
    routes_of,
    rule,
    subset,
)

SECOND_NS = 1_000_000_000
WEB = "spiffe://mesh.example/ns/shop/svc/web"


def names(*documents: object) -> list[str]:
    return [route.name for route in routes_of(compiled(policies=documents)).routes]


def test_a_service_without_a_route_gets_the_default_one() -> None:
    (route,) = routes_of(compiled()).routes
    assert route.name == "shop/cart#default"
    assert route.backends == (WeightedUpstream("shop/cart", 1),)
    assert route.retry == RetryRule(2, (503,), 25_000_000)
    assert (route.try_timeout_ns, route.try_timeout_idempotent_only) == (None, False)
    assert route.request_timeout_ns is None


def test_matches_stand_in_gateway_api_order() -> None:
    """Exact path, longest prefix, method, most headers; the rule's place in the file decides last."""
    header = (HeaderMatchSpec("X-A", "1"),)
    document = http_route(
        "r",
        rule("cart"),
        rule("cart", match=prefix("/a")),
        rule("cart", match=prefix("/a", headers=header)),
        rule("cart", match=prefix("/a", headers=(*header, HeaderMatchSpec("x-b", "1")))),
        rule("cart", match=prefix("/a", method="GET")),
        rule("cart", match=prefix("/a/longer")),
        rule("cart", match=exact("/a")),
        rule("cart", match=prefix("/a/")),
    )
    assert names(document) == [f"shop/r#{n}" for n in (6, 5, 4, 3, 2, 1, 7, 0)]


def test_an_exact_path_beats_any_prefix_and_longer_paths_come_first() -> None:
    document = http_route(
        "r",
        rule(match=prefix("/a/very/long/prefix")),
        rule(match=exact("/a")),
        rule(match=exact("/abc")),
    )
    assert names(document) == ["shop/r#2", "shop/r#1", "shop/r#0"]


def test_the_older_document_wins_then_its_name() -> None:
    same = rule(match=prefix("/a"))
    young, old = PolicyInput(http_route("a", same), 7), PolicyInput(http_route("z", same), 3)
    twin = PolicyInput(http_route("b", same), 7)
    assert names(twin, young, old) == ["shop/z#0", "shop/a#0", "shop/b#0"]


def test_host_names_come_before_paths() -> None:
    wild = http_route("wild", rule(match=exact("/a")), hostnames=("*.Example.com",))
    precise = http_route("precise", rule(), hostnames=("www.example.com", "a.example.com"))
    anywhere = http_route("any", rule(match=exact("/a")))
    snapshot = compiled(policies=(anywhere, wild, precise))
    assert [(r.name, r.hostnames) for r in routes_of(snapshot).routes] == [
        ("shop/precise#0", ("www.example.com",)),
        ("shop/precise#0", ("a.example.com",)),
        ("shop/wild#0", ("*.example.com",)),
        ("shop/any#0", ()),
    ]


def test_backends_are_services_and_subsets_with_their_weights() -> None:
    document = http_route(
        "r",
        rule(
            BackendRef("v2", "Subset", "gossipmesh.dev", weight=10),
            BackendRef("cart", weight=80),
            BackendRef("cart", weight=10),
            BackendRef("gone", "Subset", "gossipmesh.dev"),
            BackendRef("books", namespace="lib", weight=0),
        ),
        rule(BackendRef("cart", weight=0), match=prefix("/off")),
        rule(match=prefix("/none")),
    )
    snapshot = compiled(policies=(document, subset("v2", version="2")))
    by_name = {route.name: route.backends for route in routes_of(snapshot).routes}
    assert by_name["shop/r#0"] == (
        WeightedUpstream("shop/cart@v2", 10),
        WeightedUpstream("shop/cart", 90),
        WeightedUpstream("shop/@gone", 1),
        WeightedUpstream("lib/books", 0),
    )
    assert by_name["shop/r#1"] == ()
    assert by_name["shop/r#2"] == ()
    assert [name for name in snapshot.root if name.startswith("upstream/")] == [
        "upstream/lib/books",
        "upstream/shop/@gone",
        "upstream/shop/cart",
        "upstream/shop/cart@v2",
    ]


def test_timeouts_and_retries_are_the_operators() -> None:
    document = http_route(
        "r",
        rule(
            timeouts=HTTPRouteTimeouts(request="10s", backendRequest="1s"),
            retry=HTTPRouteRetry((502, 500), 4, "100ms"),
        ),
        rule(match=prefix("/b"), timeouts=HTTPRouteTimeouts("0s", "0s"), retry=HTTPRouteRetry(attempts=0)),
    )
    zero, ten = routes_of(compiled(policies=(document,))).routes
    assert (ten.request_timeout_ns, ten.try_timeout_ns) == (10 * SECOND_NS, SECOND_NS)
    assert ten.retry == RetryRule(4, (500, 502), 100_000_000)
    assert (zero.request_timeout_ns, zero.try_timeout_ns) == (None, None)
    assert not ten.try_timeout_idempotent_only
    assert zero.retry.attempts == 0


def test_paths_are_compiled_to_the_form_requests_are_matched_in() -> None:
    document = http_route(
        "r",
        rule(match=prefix("/caf\u00e9/")),
        rule(match=exact("/a%20b")),
        rule(match=exact("/../x")),
        rule(match=HTTPRouteMatch(headers=(HeaderMatchSpec("X", "1"), HeaderMatchSpec("x", "2")))),
    )
    by_name = {route.name: route.match for route in routes_of(compiled(policies=(document,))).routes}
    assert by_name["shop/r#0"].path == PathMatch("prefix", "/caf\u00c3\u00a9")
    assert by_name["shop/r#1"].path == PathMatch("exact", "/a b")
    assert by_name["shop/r#2"].path == PathMatch("exact", "/../x")
    assert [(h.name, h.value) for h in by_name["shop/r#3"].headers] == [("x", "1")]


def inbound(*documents: object) -> InboundSection:
    section = compiled(policies=documents, local=(local_service("shop/cart"),)).section("inbound/cart")
    assert isinstance(section, InboundSection)
    return section


def test_denies_stand_first_and_any_allow_turns_the_default() -> None:
    everyone = AccessRuleSpec()
    assert inbound().default_allow
    assert inbound(access_policy("d", "Deny", everyone)).default_allow
    section = inbound(
        access_policy("a", "Allow", everyone),
        access_policy("d", "Deny", AccessRuleSpec(from_=(AccessFrom(namespaces=("shop",)),)), everyone),
        access_policy("other", "Allow", everyone, service="books"),
    )
    assert [(one.name, one.allow) for one in section.rules] == [
        ("shop/d#0", False),
        ("shop/d#1", False),
        ("shop/a#0", True),
    ]
    assert not section.default_allow


def test_an_unknown_action_denies() -> None:
    assert not decide(inbound(access_policy("x", "Permit", AccessRuleSpec())), WEB, "GET", "/").allow


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/admin", True), ("/admin/x", True), ("/administrator", False), ("/", False)],
)
def test_a_star_covers_the_path_itself_and_what_is_below(path: str, allowed: bool) -> None:
    policy = access_policy("a", "Allow", AccessRuleSpec(to=(AccessTo(paths=("/admin/*",)),)))
    assert decide(inbound(policy), WEB, "GET", path).allow is allowed


def test_a_star_alone_covers_every_path() -> None:
    policy = access_policy("a", "Allow", AccessRuleSpec(to=(AccessTo(("GET",), ("/x", "/*")),)))
    assert decide(inbound(policy), WEB, "GET", "/anything").allow
    assert not decide(inbound(policy), WEB, "POST", "/anything").allow


def test_the_order_documents_arrive_in_does_not_matter() -> None:
    documents = [
        *(PolicyInput(http_route(f"r{n}", rule(match=prefix(f"/{n % 3}"))), n % 2) for n in range(6)),
        *(PolicyInput(access_policy(f"p{n}", "Allow", AccessRuleSpec()), 1) for n in range(3)),
        PolicyInput(subset("v2", version="2"), 1),
    ]
    first = compiled(policies=documents, local=(local_service("shop/cart"),))
    for seed in range(5):
        random.Random(seed).shuffle(documents)
        shuffled = inputs(policies=documents, local=(local_service("shop/cart"),))
        assert compiled(policies=shuffled.policies, local=shuffled.local).version == first.version
