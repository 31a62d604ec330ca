"""What the catalog amounts to, and what a change costs."""

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.policy import (
    API_VERSIONS,
    BackendRef,
    MeshPolicy,
    MeshPolicySpec,
    Metadata,
    Unregistered,
)
from gossipmesh.model.service import EndpointHealth
from gossipmesh.model.snapshot import (
    Caller,
    CallersSection,
    InboundSection,
    ListenersSection,
    UpstreamListener,
)
from gossipmesh.traffic.compiler import SnapshotCompiler
from tests.unit.traffic.builders import (
    catalog_endpoint,
    compiled,
    http_route,
    inputs,
    local_service,
    routes_of,
    rule,
    subset,
    upstream_of,
)

PORT = Address("127.0.0.1", 9001)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (0, 100)),
        ({"status": MemberStatus.SUSPECT}, (1, 100)),
        ({"status": MemberStatus.UNATTENDED}, (0, 50)),
        ({"status": MemberStatus.UNATTENDED, "weight": 1}, (0, 1)),
        ({"status": MemberStatus.DEAD}, None),
        ({"status": MemberStatus.LEFT}, None),
        ({"health": EndpointHealth.FAILING}, None),
        ({"health": EndpointHealth.UNKNOWN}, None),
        ({"draining": True}, None),
    ],
)
def test_an_endpoint_is_used_by_status_and_health(
    changes: dict[str, Any], expected: tuple[int, int] | None
) -> None:
    found = upstream_of(compiled(catalog=(catalog_endpoint(**changes),))).endpoints
    assert [(one.tier, one.weight) for one in found] == ([] if expected is None else [expected])


def test_an_endpoint_says_how_to_reach_and_recognise_it() -> None:
    (found,) = upstream_of(compiled(catalog=(catalog_endpoint(registration="cart-v2"),))).endpoints
    assert found.server_name == "cart-v2.cart.shop.mesh.example"
    assert found.spiffe_id == "spiffe://mesh.example/ns/shop/svc/cart"


def test_a_snapshot_is_made_of_no_other_services_than_it_says_it_reads() -> None:
    route = http_route("cart", rule("other"), rule("third"))
    names = ("shop/cart", "shop/other", "shop/third", "shop/unasked")
    everything = inputs(
        catalog=tuple(catalog_endpoint(f"n{number}", service=name) for number, name in enumerate(names)),
        policies=(route,),
        wanted=("shop/cart",),
    )
    read = SnapshotCompiler().reads(everything)
    assert read == ["shop/cart", "shop/other", "shop/third"]
    needed = {service: members for service, members in everything.serving.items() if service in read}
    fewer = msgspec.structs.replace(everything, serving=needed)
    assert SnapshotCompiler().compile(fewer).version == SnapshotCompiler().compile(everything).version


def test_endpoints_are_sorted_by_node_and_registration() -> None:
    catalog = [catalog_endpoint(node, registration=name) for node in ("n2", "n1") for name in ("b", "a")]
    found = upstream_of(compiled(catalog=tuple(catalog))).endpoints
    assert [(one.node, one.registration) for one in found] == [
        ("n1", "a"),
        ("n1", "b"),
        ("n2", "a"),
        ("n2", "b"),
    ]


def test_a_subset_is_the_registrations_with_its_labels() -> None:
    route = http_route("r", rule(BackendRef("v2", "Subset", "gossipmesh.dev")))
    catalog = (
        catalog_endpoint("n1", labels={"version": "1"}),
        catalog_endpoint("n2", labels={"version": "2", "zone": "a"}),
        catalog_endpoint("n3"),
    )
    snapshot = compiled(catalog=catalog, policies=(route, subset("v2", version="2")))
    assert [one.node for one in upstream_of(snapshot, "shop/cart@v2").endpoints] == ["n2"]
    gone = compiled(catalog=catalog, policies=(route,))
    assert upstream_of(gone, "shop/@v2").endpoints == ()


def test_only_what_is_wanted_is_compiled() -> None:
    catalog = tuple(catalog_endpoint(service=f"shop/{name}") for name in ("cart", "books", "pay"))
    local = local_service(upstreams=(("shop/books", PORT),))
    names = list(compiled(catalog=catalog, local=(local,), wanted=("shop/cart",)).root)
    assert names == [
        "callers",
        "inbound/web",
        "limits",
        "listeners",
        "routes/shop/books",
        "routes/shop/cart",
        "upstream/shop/books",
        "upstream/shop/cart",
    ]


def test_what_is_wanted_and_unknown_has_rules_and_no_endpoints() -> None:
    """The engine answers 503 UH at once instead of asking again for each request."""
    snapshot = compiled(wanted=("shop/nothing",))
    assert len(routes_of(snapshot, "shop/nothing").routes) == 1
    assert upstream_of(snapshot, "shop/nothing").endpoints == ()


def test_a_tcp_service_is_opaque_and_keeps_to_itself() -> None:
    catalog = (
        catalog_endpoint("n1", protocol="tcp"),
        catalog_endpoint("n2", protocol="tcp"),
        catalog_endpoint("n3"),
    )
    snapshot = compiled(catalog=catalog, policies=(http_route("r", rule("books")),))
    assert routes_of(snapshot).protocol == "tcp"
    (route,) = routes_of(snapshot).routes
    assert (route.name, route.try_timeout_ns, route.retry.statuses) == ("shop/cart#default", None, ())
    assert [one.node for one in upstream_of(snapshot).endpoints] == ["n1", "n2"]


def test_local_services_listen_and_speak_for_themselves() -> None:
    web = local_service("shop/web", upstreams=(("shop/cart", PORT),))
    web_v2 = local_service("shop/web", registration="web-v2", upstreams=(("shop/cart", PORT),))
    pay, books = local_service("shop/pay", uid=7), local_service("shop/books", uid=7)
    snapshot = compiled(local=(pay, web_v2, books, web), catalog=(catalog_endpoint(protocol="tcp"),))
    identity = "spiffe://mesh.example/ns/shop/svc/web"
    assert snapshot.section("callers") == CallersSection(
        "spiffe://mesh.example/node/n0", (Caller(1000, identity),)
    )
    assert snapshot.section("listeners") == ListenersSection(
        (UpstreamListener("upstream/shop/cart/127.0.0.1:9001", PORT, "shop/cart", "tcp", identity, 1000),)
    )
    inbound = snapshot.section("inbound/web-v2")
    assert isinstance(inbound, InboundSection)
    assert inbound.server_name == "web-v2.web.shop.mesh.example"
    assert inbound.spiffe_id == identity


def test_a_change_makes_one_section_and_keeps_the_others() -> None:
    compiler = SnapshotCompiler()
    catalog = tuple(catalog_endpoint(f"n{n}", f"shop/s{n % 5}") for n in range(20))
    wanted = tuple(f"shop/s{n}" for n in range(5))
    before = compiler.compile(inputs(catalog=catalog, wanted=wanted))
    made = compiler.sections_made_count
    changed = (msgspec.structs.replace(catalog[0], weight=7), *catalog[1:])
    after = compiler.compile(inputs(catalog=changed, wanted=wanted))
    assert compiler.sections_made_count == made + 1
    differing = [name for name in after.root if after.root[name] != before.root[name]]
    assert differing == ["upstream/shop/s0"]
    for digest, data in after.sections.items():
        assert digest not in before.sections or before.sections[digest] is data


def test_what_changes_nothing_is_the_same_snapshot() -> None:
    compiler = SnapshotCompiler()
    catalog = (catalog_endpoint("n1"), catalog_endpoint("n2", health=EndpointHealth.FAILING))
    first = compiler.compile(inputs(catalog=catalog))
    assert compiler.compile(inputs(catalog=catalog)) is first
    assert compiler.compile(inputs(catalog=(catalog[0],))) is first
    assert compiler.compile(inputs(catalog=catalog[::-1])) is first
    assert compiler.compile(inputs(catalog=catalog[1:])) is not first


ENDPOINTS = st.builds(
    catalog_endpoint,
    node=st.sampled_from([f"n{n}" for n in range(6)]),
    service=st.sampled_from(["shop/cart", "shop/books"]),
    status=st.sampled_from(list(MemberStatus)),
    health=st.sampled_from(list(EndpointHealth)),
    weight=st.integers(1, 3),
    draining=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(ENDPOINTS, unique_by=lambda one: (one.node, one.service), max_size=8), max_size=4),
    st.randoms(use_true_random=False),
)
def test_history_and_order_leave_no_trace(rounds: list[list[Any]], rng: Any) -> None:
    """A compiler that lived through changes and a fresh one agree, whatever the order of the inputs."""
    compiler = SnapshotCompiler()
    for catalog in rounds:
        wanted = ["shop/cart", "shop/books"]
        lived = compiler.compile(inputs(catalog=tuple(catalog), wanted=tuple(wanted)))
        rng.shuffle(catalog)
        rng.shuffle(wanted)
        fresh = compiled(catalog=tuple(catalog), wanted=tuple(wanted))
        assert fresh == lived
        assert list(fresh.root) == sorted(fresh.root)


def test_the_version_is_the_same_under_any_hash_seed() -> None:
    program = (
        "import json\n"
        "from tests.unit.traffic.builders import *\n"
        "s = compiled(\n"
        "    catalog=tuple(catalog_endpoint(n, labels={'v': '2'}) for n in set('abcdefgh')),\n"
        "    policies=[PolicyInput(http_route('r', rule('cart')), 1), PolicyInput(subset('v', v='2'), 1)],\n"
        "    wanted=tuple({'shop/a', 'shop/b', 'shop/cart'}),\n"
        "    local=(local_service(),),\n"
        ")\n"
        "print(json.dumps([s.version, list(s.root)]))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("0", "1", "2")
    ]
    assert printed[0] == printed[1] == printed[2]
    assert len(json.loads(printed[0])[1]) > 5


def test_a_service_nobody_serves_keeps_the_protocol_last_known() -> None:
    compiler = SnapshotCompiler()
    tcp = (catalog_endpoint(protocol="tcp"),)
    assert routes_of(compiler.compile(inputs(catalog=tcp))).protocol == "tcp"
    known = (("shop/cart", "tcp"),)
    assert routes_of(compiler.compile(inputs(protocols=known))).protocol == "tcp"
    assert routes_of(compiler.compile(inputs())).protocol == "http"
    http = (catalog_endpoint(),)
    assert routes_of(compiler.compile(inputs(catalog=http, protocols=known))).protocol == "http"


def test_a_dead_nodes_registration_is_none_but_its_protocol_is_remembered() -> None:
    dead = (catalog_endpoint(protocol="tcp", status=MemberStatus.DEAD),)
    found = compiled(catalog=dead, protocols=(("shop/cart", "tcp"),))
    assert (routes_of(found).protocol, upstream_of(found).endpoints) == ("tcp", ())


def mesh_policy(word: Unregistered, name: str = "mesh") -> MeshPolicy:
    return MeshPolicy(API_VERSIONS["MeshPolicy"], Metadata(name), MeshPolicySpec(word))


NODE = "spiffe://mesh.example/node/n0"
SHARED = "spiffe://mesh.example/node/n0/workloads"
WEB = "spiffe://mesh.example/ns/shop/svc/web"


@pytest.mark.parametrize(
    ("words", "workloads", "unregistered", "two_services"),
    [
        ((), SHARED, None, None),
        (("workloads",), SHARED, SHARED, SHARED),
        (("workloads",), None, NODE, NODE),
        (("deny",), SHARED, "", SHARED),
        (("deny",), None, "", NODE),
        (("workloads", "deny"), SHARED, "", SHARED),
    ],
    ids=["nothing said", "workloads", "no such identity yet", "deny", "deny, none yet", "the strictest"],
)
def test_who_processes_of_no_service_are(
    words: tuple[str, ...], workloads: str | None, unregistered: str | None, two_services: str | None
) -> None:
    """A user of two services belongs to both: it is not refused, and neither name is lent to it."""
    policies = tuple(mesh_policy(Unregistered(word), f"p{n}") for n, word in enumerate(words))
    both = (local_service("shop/pay", uid=7), local_service("shop/books", uid=7))
    snapshot = compiled(local=(local_service("shop/web"), *both), policies=policies, workloads=workloads)
    shared = () if two_services is None else (Caller(7, two_services),)
    requires = () if unregistered is None else ("unregistered",)
    expected = CallersSection(NODE, (*shared, Caller(1000, WEB)), unregistered, requires)
    assert snapshot.section("callers") == expected


def test_an_engine_of_0_2_reads_the_callers_and_skips_what_is_new() -> None:
    class Before(msgspec.Struct, frozen=True):
        node_spiffe_id: str
        callers: tuple[Caller, ...]

    old, new = (CallersSection(NODE, (Caller(7, WEB),), word) for word in (None, ""))
    assert msgspec.msgpack.encode(old) == msgspec.msgpack.encode(Before(NODE, (Caller(7, WEB),)))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=Before) == Before(NODE, (Caller(7, WEB),))
