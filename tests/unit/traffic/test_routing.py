"""The index finds what a plain walk over the rules finds; weights come out as asked."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.snapshot import (
    HeaderMatch,
    PathMatch,
    RetryRule,
    Route,
    RouteMatch,
    RoutesSection,
    WeightedUpstream,
)
from gossipmesh.traffic.paths import matched_path_untrusted, path_matches
from gossipmesh.traffic.routing import RouteTable, ServiceRouter, pick_backend, service_of_host

RETRY = RetryRule(2, (503,), 25_000_000)
ELEMENTS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3)


def route(name: str, match: RouteMatch, *backends: WeightedUpstream) -> Route:
    return Route(name, (), match, backends, None, None, RETRY)


@st.composite
def matches(draw: st.DrawFn) -> RouteMatch:
    path = "/" + "/".join(draw(ELEMENTS))
    kind = draw(st.sampled_from(["exact", "prefix", None]))
    method = draw(st.sampled_from(["GET", "POST", None]))
    headers = draw(st.sampled_from([(), (HeaderMatch("x-a", "1"),)]))
    return RouteMatch(None if kind is None else PathMatch(kind, path), method, headers)


@settings(max_examples=200, deadline=None)
@given(st.lists(matches(), max_size=8), ELEMENTS, st.sampled_from(["GET", "POST"]), st.booleans())
def test_the_index_agrees_with_a_plain_walk(
    rules: list[RouteMatch], elements: list[str], method: str, with_header: bool
) -> None:
    path = "/" + "/".join(elements)
    headers = [("X-A", "1")] if with_header else []
    routes = tuple(route(f"r#{n}", match) for n, match in enumerate(rules))

    def takes(one: Route) -> bool:
        match = one.match
        return (
            (match.path is None or path_matches(match.path, path))
            and match.method in (None, method)
            and (not match.headers or with_header)
        )

    expected = next((one for one in routes if takes(one)), None)
    router = ServiceRouter(RoutesSection("shop/cart", "http", routes))
    assert router.find_untrusted("cart.shop", path, method, headers) is expected


def test_a_path_of_thousands_of_elements_costs_what_a_short_one_does() -> None:
    """Only ancestors no longer than the longest prefix are looked at."""
    router = ServiceRouter(
        RoutesSection("shop/cart", "http", (route("r#0", RouteMatch(PathMatch("prefix", "/x"), None, ())),))
    )
    router.find_untrusted("cart.shop", "/", "GET", [])
    looked_at: list[str] = []

    class Watched(dict[str, list[int]]):
        def get(self, key: str, default: list[int]) -> list[int]:  # type: ignore[override]
            looked_at.append(key)
            return super().get(key, default)

    router._prefix = Watched(router._prefix)
    assert router.find_untrusted("cart.shop", "/x" * 30_000, "GET", []) is not None
    assert len(looked_at) <= 2


@given(st.binary(max_size=60))
def test_any_path_is_matched_or_refused(data: bytes) -> None:
    try:
        matched = matched_path_untrusted(data.decode("latin-1"))
    except MalformedInput:
        return
    assert matched == "*" or matched.startswith("/")
    assert "//" not in matched
    assert not {".", ".."} & set(matched.split("/"))


@given(st.text(max_size=60))
def test_any_host_is_a_service_or_none(host: str) -> None:
    service = service_of_host(host)
    assert service is None or service.count("/") == 1


def test_weights_come_out_as_asked() -> None:
    backends = (WeightedUpstream("a", 1), WeightedUpstream("b", 0), WeightedUpstream("c", 3))
    one = route("r#0", RouteMatch(None, None, ()), *backends)
    rng = random.Random(7)
    counts = Counter(pick_backend(one, rng.random()) for _ in range(20_000))
    assert set(counts) == {"a", "c"}
    assert abs(counts["a"] / 20_000 - 0.25) < 0.01


def test_a_new_table_keeps_the_routers_of_unchanged_sections() -> None:
    """Indexes are made once per section, so applying a snapshot does not stall."""
    kept, old, new = (
        RoutesSection(service, "http", ()) for service in ("shop/cart", "shop/books", "shop/books")
    )
    first = RouteTable.build([kept, old])
    second = RouteTable.build([kept, new], first)
    assert second.router("shop/cart") is first.router("shop/cart")
    assert second.router("shop/books") is not first.router("shop/books")
    assert second.find("gone.shop", "/", "GET", []) is None
