"""A deny that matches always wins; nothing but the rules and the certificate decides."""

from hypothesis import given
from hypothesis import strategies as st

from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import AccessRule, AccessSource, AccessTarget, InboundSection, PathMatch
from gossipmesh.traffic.authorization import decide
from gossipmesh.traffic.paths import closed_form

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


CLOSED = [AccessRule("deny", False, (), (AccessTarget((), (PathMatch("prefix", "/admin/Area 1"),)),))]
SEGMENTS = st.sampled_from(["secret", "x.y", "a b", ".hidden", "..."])
ENDS = st.text(st.sampled_from(". "), max_size=3)
PARAMETERS = st.sampled_from(["", ";", ";v=1", ";a;b", ";..", ";%2e"])


@st.composite
def spellings(draw: st.DrawFn, text: str) -> str:
    """Return a segment as a lenient server might still take it for `text`."""
    letters = [draw(st.sampled_from([one.lower(), one.upper(), f"%{ord(one):02x}"])) for one in text]
    ends = "".join(draw(st.sampled_from([one, f"%{ord(one):02X}"])) for one in draw(ENDS))
    parameters = draw(PARAMETERS)
    return "".join(letters).replace(" ", "%20") + ends.replace(" ", "%20") + parameters


@given(spellings("admin"), spellings("area 1"), st.lists(SEGMENTS, max_size=2), st.sampled_from(["/", "//"]))
def test_no_spelling_of_a_closed_path_is_open(first: str, second: str, below: list[str], border: str) -> None:
    path = "/" + border.join([first, second, *below]).replace(" ", "%20")
    assert decide(inbound(CLOSED, True), IDENTITIES[0], "GET", path).allow is False


@given(st.text(st.sampled_from("abAB/.; %2eE0x"), max_size=30))
def test_a_closed_form_is_its_own(text: str) -> None:
    form = closed_form(f"/{text}")
    assert closed_form(form) == form
    assert form.startswith("/")
    assert "//" not in form


@given(st.text(st.sampled_from("admin/.;x%2f "), max_size=20))
def test_an_allow_opens_no_path_that_a_deny_of_the_same_closes(text: str) -> None:
    """Whatever an Allow for /admin opens, a Deny for /admin closes."""
    opened = [AccessRule("allow", True, (), (AccessTarget((), (PathMatch("prefix", "/admin"),)),))]
    closed = [AccessRule("deny", False, (), (AccessTarget((), (PathMatch("prefix", "/admin"),)),))]
    path = f"/admin{text}"
    if decide(inbound(opened, False), IDENTITIES[0], "GET", path).allow:
        assert not decide(inbound(closed, True), IDENTITIES[0], "GET", path).allow
