"""A deny that matches always wins; nothing but the rules and the certificate decides."""

from hypothesis import given
from hypothesis import strategies as st

from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import AccessRule, AccessSource, AccessTarget, InboundSection, PathMatch
from gossipmesh.traffic.authorization import decide

DOMAIN = "spiffe://mesh.example"
IDENTITIES = [f"{DOMAIN}/ns/shop/svc/web", f"{DOMAIN}/ns/api/svc/web", f"{DOMAIN}/node/n1"]

SOURCES = st.builds(
    AccessSource,
    st.lists(st.sampled_from(IDENTITIES), max_size=2).map(tuple),
    st.lists(st.sampled_from(["shop", "api"]), max_size=1).map(tuple),
)
TARGETS = st.builds(
    AccessTarget,
    st.lists(st.sampled_from(["GET", "POST"]), max_size=1).map(tuple),
    st.lists(
        st.builds(PathMatch, st.sampled_from(["exact", "prefix"]), st.sampled_from(["/a", "/b"])), max_size=2
    ).map(tuple),
)


def rules(allow: bool) -> st.SearchStrategy[list[AccessRule]]:
    one = st.builds(
        AccessRule,
        st.just("deny" if not allow else "allow"),
        st.just(allow),
        st.lists(SOURCES, max_size=2).map(tuple),
        st.lists(TARGETS, max_size=2).map(tuple),
    )
    return st.lists(one, max_size=3)


def inbound(chosen: list[AccessRule], default_allow: bool) -> InboundSection:
    return InboundSection(
        "cart",
        "shop/cart",
        "http",
        "cart.cart.shop.mesh.example",
        f"{DOMAIN}/ns/shop/svc/cart",
        Address("127.0.0.1", 9000),
        tuple(chosen),
        default_allow,
    )


@given(
    rules(False),
    rules(True),
    st.booleans(),
    st.sampled_from(IDENTITIES),
    st.sampled_from(["GET", "POST", None]),
    st.sampled_from(["/a", "/a/x", "/b", "/c"]),
)
def test_deny_wins(
    denies: list[AccessRule],
    allows: list[AccessRule],
    default_allow: bool,
    identity: str,
    method: str | None,
    path: str,
) -> None:
    asked = path if method else None
    denied = decide(inbound(denies, True), identity, method, asked)
    verdict = decide(inbound([*denies, *allows], default_allow), identity, method, asked)
    if not denied.allow:
        assert verdict == denied
    else:
        assert verdict == decide(inbound(allows, default_allow), identity, method, asked)


@given(st.text(max_size=80))
def test_a_strange_identity_is_refused_even_without_policy(identity: str) -> None:
    if identity not in IDENTITIES:
        verdict = decide(inbound([], True), identity, "GET", "/")
        assert verdict.allow is False
        assert verdict.rule == "identity"
