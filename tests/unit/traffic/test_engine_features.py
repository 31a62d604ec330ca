"""What an engine names is what it is written: the rest is refused or closed, and never dropped unsaid."""

from typing import Any

import msgspec
import pytest

from gossipmesh.model.engine_features import PINS, SECTION_FEATURES, STRICT_SECTIONS, UNREGISTERED
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.policy import (
    API_VERSIONS,
    AccessPolicy,
    AccessRuleSpec,
    HTTPRoute,
    MeshPolicy,
    MeshPolicySpec,
    Metadata,
    Unregistered,
)
from gossipmesh.model.snapshot import CallersSection, InboundSection, RoutesSection
from gossipmesh.traffic import policies
from gossipmesh.traffic.compiler import SnapshotCompiler
from gossipmesh.traffic.inputs import PeerInputs
from gossipmesh.traffic.policies import BEYOND_ENGINE, unenforced
from gossipmesh.traffic.sections import Snapshot, decode_section_untrusted, require_known, required_by
from gossipmesh.wire import codec
from tests.unit.traffic.builders import (
    access_policy,
    catalog_endpoint,
    compiled,
    http_route,
    inputs,
    local_service,
    rule,
)

LATER = "later"
DENY = MeshPolicy(API_VERSIONS["MeshPolicy"], Metadata("mesh"), MeshPolicySpec(Unregistered.DENY))
PEERS = PeerInputs({"00": b"\0" * 24}, {"00": b"\0" * 25}, ("pem",), True, {})


def everything(**more: Any) -> Snapshot:
    """Return a snapshot with a section of each kind."""
    given = inputs(
        catalog=(catalog_endpoint(),), local=(local_service(),), wanted=("shop/cart",), policies=(DENY,)
    )
    return SnapshotCompiler().compile(msgspec.structs.replace(given, peers=PEERS, **more))


SNAPSHOT = everything()


@pytest.mark.parametrize("name", SNAPSHOT.root)
def test_a_field_that_is_not_known_is_refused_and_not_skipped(name: str) -> None:
    """What it would have narrowed would be open."""
    data = SNAPSHOT.sections[SNAPSHOT.root[name]]
    decode_section_untrusted(name, data)
    value = codec.unpack_untrusted(data, bytes_max=len(data))
    assert isinstance(value, dict)
    with pytest.raises(MalformedInput, match="unknown field"):
        decode_section_untrusted(name, codec.encode({**value, "narrower": True}))
    for key, inner in value.items():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            changed = {**value, key: [{**inner[0], "narrower": True}, *inner[1:]]}
            with pytest.raises(MalformedInput, match="unknown field"):
                decode_section_untrusted(name, codec.encode(changed))


def test_a_section_that_requires_what_an_engine_does_not_name_is_not_executed() -> None:
    section = InboundSection("a", "s/a", "http", "n", "id", local_service().workload, (), True, (LATER,))
    with pytest.raises(MalformedInput, match=r"inbound/a requires later, which is not known here"):
        require_known("inbound/a", section, SECTION_FEATURES)
    require_known("inbound/a", section, {LATER})


@pytest.mark.parametrize(
    ("features", "unregistered", "requires"),
    [
        (SECTION_FEATURES, "", (UNREGISTERED,)),
        (SECTION_FEATURES - {STRICT_SECTIONS}, "", ()),
        (SECTION_FEATURES - {UNREGISTERED}, None, ()),
        (frozenset[str](), None, ()),
    ],
)
def test_nothing_is_written_that_an_engine_does_not_name(
    features: frozenset[str], unregistered: str | None, requires: tuple[str, ...]
) -> None:
    snapshot = everything(features=features)
    callers = snapshot.section("callers")
    assert isinstance(callers, CallersSection)
    assert (callers.unregistered, callers.requires) == (unregistered, requires)
    assert required_by(snapshot) == {PINS, *requires}, "a section says so itself"


def test_what_an_engine_cannot_enforce_is_named() -> None:
    given = inputs(policies=(DENY,)).policies
    assert unenforced(given, SECTION_FEATURES) == []
    (found,) = unenforced(given, SECTION_FEATURES - {UNREGISTERED})
    assert found[0].startswith("MeshPolicy ")
    assert found[1] == [UNREGISTERED]


@pytest.mark.parametrize("kind", [HTTPRoute, AccessPolicy])
def test_a_service_whose_rules_are_beyond_the_engine_is_closed(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And opens with an engine that names the word: the same compiler goes from one to the other."""
    monkeypatch.setitem(policies._NEEDS, kind, frozenset((LATER,)))
    given = inputs(
        catalog=(catalog_endpoint(),),
        local=(local_service("shop/cart", registration="cart"),),
        wanted=("shop/cart",),
        policies=(http_route("cart", rule("cart")), access_policy("only", "Allow", AccessRuleSpec())),
    )
    compiler = SnapshotCompiler()
    for features, is_closed in ((SECTION_FEATURES, True), (SECTION_FEATURES | {LATER}, False)):
        snapshot = compiler.compile(msgspec.structs.replace(given, features=features))
        routes, inbound = snapshot.section("routes/shop/cart"), snapshot.section("inbound/cart")
        assert isinstance(routes, RoutesSection)
        assert isinstance(inbound, InboundSection)
        if kind is HTTPRoute:
            assert (routes.routes[0].backends == ()) is is_closed
            assert routes.routes[0].name.endswith(BEYOND_ENGINE) is is_closed
            assert routes.requires == (() if is_closed else (LATER,))
        else:
            assert (inbound.rules == ()) is is_closed
            assert inbound.default_allow is False
            assert inbound.requires == (() if is_closed else (LATER,))


def test_an_engine_of_0_1_is_sent_what_it_always_was() -> None:
    """Byte for byte: no policy here asks for more."""
    catalog = (catalog_endpoint(),)
    old = compiled(catalog=catalog, features=frozenset[str]())
    assert old.root == compiled(catalog=catalog).root
