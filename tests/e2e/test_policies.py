"""Policies at work between two real nodes: routes, who may call whom, and what is told of it.

node1 is the caller: one service (web), so its processes speak as web. node2 serves cart, a workload that
does what the test says, and db over TCP.
"""

import http.client
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from gossipmesh.testing import forgery, layout
from gossipmesh.testing.admin import AdminError
from gossipmesh.testing.layout import DB, WEB, MeshLayout, NodeLayout, ServiceLayout
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.waiting import wait_until
from tests.e2e.json_lines import json_lines
from tests.e2e.scripted import ScriptedWorkload

CART = ServiceLayout("cart", "v1", "http")
WEB_ID = f"spiffe://{layout.TRUST_DOMAIN}/ns/shop/svc/web"
NARROWED_S = 5.0  # TRAFFIC.md: a narrowed rule ends what is open within this
ANSWER_S = 10.0


class Pair(NamedTuple):
    """The two nodes and the workload the test speaks for."""

    mesh: Mesh
    cart: ScriptedWorkload


class Answer(NamedTuple):
    """What a caller on node1 got."""

    status: int
    flag: str
    body: bytes


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    nodes = (NodeLayout("node1", 1, (WEB,)), NodeLayout("node2", 2, (CART, DB)))

    async def start() -> None:
        await mesh.start_authority(init=True)
        for node in mesh.layout.nodes:
            await mesh.prepare_node(node.name)
        mesh.start_workload("node1", WEB)
        mesh.start_workload("node2", DB)
        for name in mesh.nodes:
            mesh.start_agent(name)
        await mesh.wait_ready()

    with Mesh(MeshLayout(nodes)) as mesh, ScriptedWorkload(mesh.nodes["node2"].host, CART.port) as cart:
        trio.run(start)
        yield Pair(mesh, cart)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def call(pair: Pair, method: str, path: str, headers: dict[str, str] | None = None) -> Answer:
    connection = http.client.HTTPConnection(pair.mesh.nodes["node1"].host, layout.PROXY_PORT, timeout=30)
    try:
        connection.request(method, path, headers={"Host": "cart.shop", **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, response.getheader("x-gossipmesh-flag", ""), response.read())
    finally:
        connection.close()


async def called(pair: Pair, method: str, path: str, headers: dict[str, str] | None = None) -> Answer:
    return await trio.to_thread.run_sync(call, pair, method, path, headers)


async def push(pair: Pair, folder: Path, *documents: dict[str, Any], node: str = "node1") -> dict[str, Any]:
    """Make the scope exactly `documents`, and wait for every node."""
    path = folder / "policy.yaml"
    layout.write_policy(path, list(documents))
    result = await pair.mesh.push(path, node, "--prune", "--wait", "-o", "json")
    assert result.code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return told


async def becomes(pair: Pair, path: str, status: int) -> Answer:
    """Ask until the answer has `status`: a policy in force reaches the engine a moment later."""
    seen: list[Answer] = []

    async def holds() -> str | None:
        seen.append(await called(pair, "GET", path))
        return None if seen[-1].status == status else str(seen[-1])

    await wait_until(f"{path} is answered {status}", holds, NARROWED_S)
    return seen[-1]


def route(*rules: dict[str, Any]) -> dict[str, Any]:
    backends = [{"name": "cart"}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"name": "cart"}],
            "rules": [{"backendRefs": backends, **rule} for rule in rules],
        },
    }


def prefix(path: str) -> list[dict[str, Any]]:
    return [{"path": {"type": "PathPrefix", "value": path}}]


def access(name: str, service: str, action: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "gossipmesh.dev/v1",
        "kind": "AccessPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"targetRef": {"name": service}, "action": action, "rules": list(rules)},
    }


NO_ADMIN = access(
    "no-admin", "cart", "Deny", {"from": [{"identities": [WEB_ID]}], "to": [{"paths": ["/admin/*"]}]}
)
NO_WEB = access("no-web", "cart", "Deny", {"from": [{"identities": [WEB_ID]}]})
NO_TCP = access("no-tcp", "db", "Deny", {"from": [{"namespaces": ["shop"]}]})
RETRIED = {"matches": prefix("/fails"), "retry": {"codes": [503], "attempts": 3, "backoff": "1ms"}}
SHORT_TRIES = {
    "matches": prefix("/held/tries"),
    "timeouts": {"request": "2s", "backendRequest": "300ms"},
    "retry": {"attempts": 1, "backoff": "1ms"},
}
SHORT_REQUEST = {"matches": prefix("/held/request"), "timeouts": {"request": "500ms"}}


async def test_the_workload_learns_who_calls_from_the_mesh_alone(pair: Pair) -> None:
    """Whatever a caller claims, under any spelling a server may fold into the same name, is stripped."""
    claims = {
        "x-forwarded-client-cert": "URI=spiffe://mesh.test/ns/shop/svc/admin",
        "X_Forwarded_Client_Cert": "URI=spiffe://mesh.test/ns/shop/svc/admin",
    }
    await becomes(pair, "/first", 200)
    assert (await called(pair, "GET", "/who", claims)).status == 200
    seen = {name.lower().replace("_", "-"): value for name, value in pair.cart.headers["/who"].items()}
    assert len(seen) == len(pair.cart.headers["/who"])
    assert seen["x-forwarded-client-cert"].endswith(f";URI={WEB_ID}")
    assert seen["traceparent"].startswith("00-")
    assert seen["host"] == "cart.shop"


async def test_a_route_retries_what_may_be_retried_and_nothing_else(pair: Pair, folder: Path) -> None:
    await push(pair, folder, route(RETRIED, {}))
    await becomes(pair, "/fails/2/get", 200)
    answer = await called(pair, "POST", "/fails/9/post")
    assert answer.status == 503
    assert pair.cart.requests["GET /fails/2/get"] == 3
    assert pair.cart.requests["POST /fails/9/post"] == 1
    assert (await called(pair, "GET", "/fails/9/spent")).status == 503
    assert pair.cart.requests["GET /fails/9/spent"] == 4


async def test_timeouts_of_a_route_hold_per_try_and_in_all(pair: Pair, folder: Path) -> None:
    await push(pair, folder, route(SHORT_TRIES, SHORT_REQUEST, {}))
    answer = await becomes(pair, "/held/tries", 504)
    assert "UT" in answer.flag.split(",")
    assert pair.cart.requests["GET /held/tries"] == 2
    answer = await called(pair, "POST", "/held/request")
    assert (answer.status, pair.cart.requests["POST /held/request"]) == (504, 1)
    assert "UT" in answer.flag.split(",")


async def test_a_denied_call_is_403_and_told_to_operators_only(pair: Pair, folder: Path) -> None:
    """The rule's name is in the callee's log and metrics and nowhere in the answer."""
    assert (await called(pair, "GET", "/admin/users")).status == 200
    await push(pair, folder, NO_ADMIN)
    answer = await becomes(pair, "/admin/users", 403)
    assert (answer.flag, answer.body) == ("UAEX", b"denied\n")
    served = pair.cart.requests["GET /admin/users"]
    for path in (
        "/admin//users",
        "/%61dmin/users",
        "/admin/users?x=/public",
        "/ADMIN/users",
        "/admin;v=1/users",
    ):
        assert (await called(pair, "GET", path)).status == 403, path
    ambiguous = ("//admin/users", "/public/../admin/users", "/public/%2e%2e/admin/users", "/admin%2fusers")
    for path in (*ambiguous, "/public/..;/admin/users"):
        assert (await called(pair, "GET", path)).status == 400, path
    assert pair.cart.requests["GET /admin/users"] == served
    assert (await called(pair, "GET", "/public")).status == 200
    node = pair.mesh.nodes["node2"]
    access_log = node.directory / "state" / "log" / "access.log"

    async def logged() -> str | None:
        denied = [line for line in json_lines(access_log) if line["response_flags"] == "UAEX"]
        rule = "rbac_access_denied_matched_policy[shop/no-admin#0]"
        named = [line for line in denied if line["response_code_details"] == rule]
        wrong = [line for line in named if line["downstream_peer_uri_san"] != WEB_ID]
        return None if named and not wrong else f"{len(denied)} denials, {wrong}"

    await wait_until("the denial is in node2's access log", logged, ANSWER_S)

    async def counted() -> str | None:
        text = await trio.to_thread.run_sync(get, node.host, layout.METRICS_PORT, "/metrics")
        found = [line for line in text.splitlines() if 'response_flags="UAEX"' in line and WEB_ID in line]
        return None if any(line.startswith("gossipmesh_requests_total{") for line in found) else "no series"

    await wait_until("the denial is in node2's metrics", counted, ANSWER_S)


async def test_a_narrowed_rule_ends_what_is_open(pair: Pair, folder: Path) -> None:
    """A request under way and a TCP connection end; when the rule is gone, both are served again."""
    await push(pair, folder, route({}))
    held: list[Answer | Exception] = []

    async def hold() -> None:
        try:
            held.append(await called(pair, "GET", "/held/open"))
        except (OSError, http.client.HTTPException) as error:
            held.append(error)

    async def under_way() -> str | None:
        return None if pair.cart.requests["GET /held/open"] else "not at the workload yet"

    async def ended() -> str | None:
        return None if held else "the request is still open"

    tunnel = await trio.to_thread.run_sync(open_tunnel, pair.mesh.nodes["node1"].host)
    with tunnel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await wait_until("the request is under way", under_way, ANSWER_S)
            await push(pair, folder, NO_WEB, NO_TCP)
            await wait_until("the open request has ended", ended, NARROWED_S)
        with pytest.raises(ConnectionResetError):  # a clean end would say that all had been sent
            await trio.to_thread.run_sync(tunnel.recv, 100)
    assert not isinstance(held[0], Answer) or held[0].status in (403, 503), held
    await becomes(pair, "/anything", 403)
    await push(pair, folder, route({}))
    await becomes(pair, "/anything", 200)
    await becomes_tcp(pair)


async def test_forged_sets_are_refused_and_the_reason_is_told(pair: Pair, folder: Path) -> None:
    """In the answer, in the log, in the metrics and, for what the operators signed, in `policy status`."""
    node = pair.mesh.nodes["node2"]
    older = await node.ask("/v1/policy/set?scope=mesh")
    pushed = await push(pair, folder, NO_ADMIN, route({}))
    current = await node.ask("/v1/policy/set?scope=mesh")
    offers = {
        "signature": forgery.tampered(current),
        "unsigned": forgery.unsigned(current),
        "older": older,
    }
    for code, raw in offers.items():
        with pytest.raises(AdminError) as refused:
            await node.ask("/v1/policy/offer", method="POST", body=raw)
        assert (refused.value.status, refused.value.code) == (409, code)
    stolen = await pair.mesh.push(folder / "policy.yaml", "node2", "--scope", "payments")
    assert stolen.code == 1
    assert "its signer may not sign for the scope 'payments'" in stolen.stderr

    async def told() -> str | None:
        text = await trio.to_thread.run_sync(get, node.host, layout.METRICS_PORT, "/metrics")
        log = pair.mesh.keeper.log_path("node2-agent").read_text()
        refused = [line for line in text.splitlines() if line.startswith("gossipmesh_policy_refused_total{")]
        counted = [code for code in offers if any(f'code="{code}"' in line for line in refused)]
        missing = [code for code in offers if code not in counted or f'"code": "{code}"' not in log]
        rows = json.loads(await pair.mesh.must("policy", "status", "-o", "json", node="node1"))
        (row,) = [row for row in rows if row["member"] == "node2"]
        if (row["version"], row["state"]) not in (
            (pushed["version"], "refused"),
            (pushed["version"], "current"),
        ):
            return f"{row}"
        reason = row["refused_reason"].partition(":")[0]
        return None if not missing and reason in offers else f"missing {missing}, status says {row}"

    await wait_until("the refusals are told", told, ANSWER_S)


async def test_an_agent_killed_finds_its_engine_and_the_same_snapshot(pair: Pair) -> None:
    node = pair.mesh.nodes["node2"]
    before = (await node.status())["engine"]
    assert node.signal("agent", signal.SIGKILL)
    await pair.mesh.wait_ended("node2")
    assert (await called(pair, "GET", "/while-it-is-gone")).status == 200
    pair.mesh.start_agent("node2")

    async def attached() -> str | None:
        status = await node.status()
        engine = status["engine"]
        return None if engine["acked"] and not status["holding_removals"] else f"{engine}"

    await wait_until("node2's agent is attached again", attached, 40.0)
    after = (await node.status())["engine"]
    assert (after["pid"], after["snapshot_version"]) == (before["pid"], before["snapshot_version"])
    assert after["starts"] == 0
    assert (await called(pair, "GET", "/after")).status == 200
    assert "ready" in await trio.to_thread.run_sync(get, node.host, layout.READINESS_PORT, "/")


def get(host: str, port: int, path: str) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200, response.status
        return response.read().decode()
    finally:
        connection.close()


def open_tunnel(host: str) -> socket.socket:
    """Return a connection to db by CONNECT that has answered one line."""
    connection = socket.create_connection((host, layout.PROXY_PORT), timeout=15)
    connection.sendall(b"CONNECT db.shop:80 HTTP/1.1\r\nHost: db.shop:80\r\n\r\n")
    head = connection.recv(1_000)
    if not head.startswith(b"HTTP/1.1 200 "):
        connection.close()
        raise OSError(head.decode())
    connection.sendall(b"hello\n")
    answer = connection.recv(1_000)
    if b'"db"' not in answer:
        connection.close()
        raise OSError(answer.decode() or "closed")
    return connection


async def becomes_tcp(pair: Pair) -> None:
    async def serves() -> str | None:
        try:
            (await trio.to_thread.run_sync(open_tunnel, pair.mesh.nodes["node1"].host)).close()
        except OSError as error:
            return str(error)
        return None

    await wait_until("db is served again", serves, NARROWED_S)


def mesh_policy(word: str) -> dict[str, Any]:
    return {
        "apiVersion": "gossipmesh.dev/v1",
        "kind": "MeshPolicy",
        "metadata": {"name": "mesh"},
        "spec": {"unregistered": word},
    }


async def by_a_stranger(pair: Pair, path: str) -> Answer:
    """Call cart from node1 as a user that owns no service there."""
    where = f"{pair.mesh.nodes['node1'].host}:{layout.PROXY_PORT}"
    curl = ["curl", "-sS", "-i", "-x", f"http://{where}", f"http://cart.shop{path}"]
    result = await pair.mesh.keeper.command(["setpriv", "--reuid=65534", "--clear-groups", *curl])
    assert result.code == 0, result.stderr
    head, _, body = result.stdout.partition("\r\n\r\n")
    flag = next((line for line in head.splitlines() if line.lower().startswith("x-gossipmesh-flag")), "")
    return Answer(int(head.split()[1]), flag.rpartition(" ")[2], body.encode())


async def speaks_as(pair: Pair, path: str, identity: str) -> None:
    """Wait until a stranger's call reaches cart as `identity`."""

    async def holds() -> str | None:
        answer = await by_a_stranger(pair, path)
        told = pair.cart.headers.get(path, {}).get("x-forwarded-client-cert", "")
        return None if answer.status == 200 and told.endswith(f"URI={identity}") else f"{answer} {told}"

    await wait_until(f"a process of no service speaks as {identity}", holds, NARROWED_S)


@pytest.mark.namespace
async def test_a_process_of_no_service_is_whom_the_mesh_policy_says(pair: Pair, folder: Path) -> None:
    """Without one it speaks as its node; with one as the node's workloads, or it may not call at all."""
    node = f"spiffe://{layout.TRUST_DOMAIN}/node/node1"
    await push(pair, folder, route({}))
    await speaks_as(pair, "/nobody/before", node)

    await push(pair, folder, route({}), mesh_policy("workloads"))
    await speaks_as(pair, "/nobody/shared", f"{node}/workloads")

    await push(pair, folder, route({}), mesh_policy("deny"))
    seen: list[Answer] = []

    async def denied() -> str | None:
        seen.append(await by_a_stranger(pair, "/nobody/denied"))
        return None if seen[-1].status == 403 else str(seen[-1])

    await wait_until("a process of no service is refused", denied, NARROWED_S)
    assert seen[-1].flag == "UAEX"
    assert b"belongs to no service registered on this node" in seen[-1].body
    assert (await called(pair, "GET", "/somebody")).status == 200, "web has its identity still"

    await push(pair, folder, route({}))
    await speaks_as(pair, "/nobody/after", node)
