"""What Prometheus makes of a mesh: each query of docs/OPERATIONS.md, asked of the real one over real traffic.

node1 calls as web; node2 serves cart v1 and db, node3 cart v2, the canary. What was sent is known, and so is
what each query must answer. `promtool` reads every node's metrics.
"""

import http.client
import json
import re
import socket
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from gossipmesh.testing import layout
from gossipmesh.testing.layout import DB, WEB, MeshLayout, NodeLayout, ServiceLayout
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.waiting import wait_until
from tests.e2e.scripted import ScriptedWorkload

pytestmark = pytest.mark.programs("prometheus", "promtool")

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "OPERATIONS.md"
NODES = (
    NodeLayout("node1", 1, (WEB,)),
    NodeLayout("node2", 2, (ServiceLayout("cart", "v1", "http"), DB)),
    NodeLayout("node3", 3, (ServiceLayout("cart", "v2", "http"),)),
)
PROMETHEUS_PORT = 9190
STABLE_COUNT, CANARY_COUNT, FAILED_COUNT, SLOW_COUNT, TUNNELS_COUNT = 60, 20, 5, 4, 3
SLOW_S = 1.2  # into the bucket that ends at 2 s
WAIT_S = 30.0
FAILS = "/fails/1000000/always"  # this often 503, then never again


class Scene(NamedTuple):
    """A running mesh and what it is looked at with."""

    mesh: Mesh
    stable: ScriptedWorkload


def queries() -> dict[str, str]:
    """Return the queries of the document by the sentence before each, in its order."""
    text = OPERATIONS.read_text()
    found: dict[str, str] = {}
    for match in re.finditer(r"```promql\n(.*?)```", text, re.DOTALL):
        before = text[: match.start()].rstrip().splitlines()[-1]
        title = before if not before.startswith("```") else f"{list(found)[-1]} (2)"
        found[title] = match[1]
    return found


def policy() -> list[dict[str, Any]]:
    subsets = [
        {
            "apiVersion": "gossipmesh.dev/v1",
            "kind": "Subset",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"service": "cart", "labels": {"version": name}},
        }
        for name in ("v1", "v2")
    ]
    canary = {"headers": [{"name": "x-canary", "value": "yes"}]}
    rules = [{"matches": [canary], "backendRefs": [backend("v2")]}, {"backendRefs": [backend("v1")]}]
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "cart"}], "rules": rules},
    }
    return [*subsets, route]


def backend(subset: str) -> dict[str, str]:
    return {"group": "gossipmesh.dev", "kind": "Subset", "name": subset}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("prometheus")

    async def start(mesh: Mesh) -> None:
        await mesh.start_authority(init=True)
        for node in mesh.layout.nodes:
            await mesh.prepare_node(node.name)
        mesh.start_workload("node1", WEB)
        mesh.start_workload("node2", DB)
        for name in mesh.nodes:
            mesh.start_agent(name)
        await mesh.wait_ready()
        layout.write_policy(folder / "policy.yaml", policy())
        result = await mesh.push(folder / "policy.yaml", "node1", "--wait")
        assert result.code == 0, result.stderr
        start_prometheus(mesh, folder)

    with ExitStack() as stack:
        mesh = stack.enter_context(Mesh(MeshLayout(NODES)))
        stable, _ = (
            stack.enter_context(ScriptedWorkload(mesh.nodes[name].host, layout.WORKLOAD_PORTS["cart"]))
            for name in ("node2", "node3")
        )
        trio.run(start, mesh)
        yield Scene(mesh, stable)


def start_prometheus(mesh: Mesh, folder: Path) -> None:
    targets = [f"{node.host}:{layout.METRICS_PORT}" for node in mesh.nodes.values()]
    scrapes = [{"job_name": "gossipmesh", "static_configs": [{"targets": targets}]}]
    config = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": scrapes}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    words = ["prometheus", f"--config.file={folder / 'prometheus.yml'}"]
    words += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address(mesh)}"]
    mesh.keeper.start("prometheus", words)


def address(mesh: Mesh) -> str:
    return f"{mesh.nodes['node1'].host}:{PROMETHEUS_PORT}"


def get(host: str, port: int, path: str) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return text
    finally:
        connection.close()


async def ask(mesh: Mesh, query: str) -> list[tuple[dict[str, str], float]]:
    """Return each sample's labels and value; nothing while Prometheus does not answer yet."""
    path = f"/api/v1/query?query={urllib.parse.quote(query)}"
    try:
        text = await trio.to_thread.run_sync(get, mesh.nodes["node1"].host, PROMETHEUS_PORT, path)
    except OSError:
        return []
    return [(sample["metric"], float(sample["value"][1])) for sample in json.loads(text)["data"]["result"]]


def post(mesh: Mesh, path: str, *, canary: bool) -> int:
    connection = http.client.HTTPConnection(mesh.nodes["node1"].host, layout.PROXY_PORT, timeout=30)
    try:
        headers = {"Host": "cart.shop", **({"x-canary": "yes"} if canary else {})}
        connection.request("POST", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def tunnel(mesh: Mesh) -> bytes:
    """Open a TCP connection to db, and end it."""
    with socket.create_connection((mesh.nodes["node1"].host, layout.PROXY_PORT), timeout=10) as sock:
        sock.sendall(b"CONNECT db.shop:5432 HTTP/1.1\r\nHost: db.shop:5432\r\n\r\n")
        return sock.recv(64)


async def send_traffic(scene: Scene, times: int) -> None:
    """Send the known mix, `times` times over; failures lie between successes, so that nothing is ejected."""
    mesh = scene.mesh
    for _ in range(times):
        for number in range(CANARY_COUNT):
            fails = number % (CANARY_COUNT // FAILED_COUNT) == 1
            path = FAILS if fails else "/fine"
            status = await trio.to_thread.run_sync(lambda path=path: post(mesh, path, canary=True))
            assert status == (503 if fails else 200)
        for _ in range(STABLE_COUNT - SLOW_COUNT):
            assert await trio.to_thread.run_sync(lambda: post(mesh, "/fine", canary=False)) == 200
        for _ in range(TUNNELS_COUNT):
            assert (await trio.to_thread.run_sync(tunnel, mesh)).startswith(b"HTTP/1.1 200")


async def send_slow(scene: Scene) -> float:
    """Send requests that take SLOW_S, all at once; return how long they took at most, on this machine."""
    statuses: list[int] = []
    began = trio.current_time()

    async def one() -> None:
        path = "/held/slow"
        statuses.append(await trio.to_thread.run_sync(lambda: post(scene.mesh, path, canary=False)))

    async with trio.open_nursery() as nursery:
        for _ in range(SLOW_COUNT):
            nursery.start_soon(one)
        await trio.sleep(SLOW_S)
        scene.stable.release()
    assert statuses == [200] * SLOW_COUNT
    return trio.current_time() - began


async def until_counted(mesh: Mesh, count: int) -> None:
    """Wait until Prometheus has scraped that many requests and connections of the caller's."""
    query = 'sum({__name__=~"gossipmesh_(requests|tcp_connections_opened)_total",direction="outbound"})'

    async def scraped() -> str | None:
        found = await ask(mesh, query)
        return None if found and found[0][1] == count else f"{found} of {count}"

    await wait_until(f"{count} are counted", scraped, WAIT_S)


async def test_every_query_of_the_manual_answers_what_was_sent(scene: Scene) -> None:
    mesh = scene.mesh
    asked = queries()
    assert len(asked) == 5
    await trio.to_thread.run_sync(lambda: until_served(mesh))
    base = await settled(mesh)
    await send_traffic(scene, 1)
    mix_count = CANARY_COUNT + STABLE_COUNT - SLOW_COUNT + TUNNELS_COUNT
    await until_counted(mesh, base + mix_count)  # each kind has a series from here on
    began = trio.current_time()
    await send_traffic(scene, 1)
    took_s = await send_slow(scene)
    await until_counted(mesh, base + 2 * mix_count + SLOW_COUNT)
    # The manual looks back five minutes; here only what was sent since every series is there.
    window = f"[{int((trio.current_time() - began) * 1000)}ms]"
    assert all("[5m]" in query for query in asked.values())
    answers = [await ask(mesh, query.replace("[5m]", window)) for query in asked.values()]
    success, half, most, edges, canary = answers

    told = {labels["destination_service"]: value for labels, value in success}
    requests_count = CANARY_COUNT + STABLE_COUNT
    assert told == {"shop/cart": pytest.approx(1 - FAILED_COUNT / requests_count, abs=0.02)}
    ((labels, half_s),) = half
    assert labels == {"destination_service": "shop/cart"}
    ((_, most_s),) = most
    assert 0 < half_s < 0.5
    assert 1.0 < most_s <= (2.0 if took_s <= 2.0 else 2.5 * took_s), "no bucket is wider"
    found = {(labels["source_service"], labels["destination_service"]): value for labels, value in edges}
    assert set(found) == {("shop/web", "shop/cart"), ("shop/web", "shop/db")}
    share = found["shop/web", "shop/db"] / found["shop/web", "shop/cart"]
    assert share == pytest.approx(TUNNELS_COUNT / requests_count, rel=0.2)
    by_subset = {labels["destination_subset"]: value for labels, value in canary}
    assert by_subset == {"v1": 0.0, "v2": pytest.approx(FAILED_COUNT / CANARY_COUNT, abs=0.02)}


def until_served(mesh: Mesh) -> None:
    """Ask once each way, until the route's endpoints have passed their checks."""
    for canary in (False, True):
        for _ in range(200):
            if post(mesh, "/warm", canary=canary) == 200:
                break
        else:
            raise AssertionError(f"canary={canary}: no endpoint")


async def settled(mesh: Mesh) -> int:
    """Return how many requests the caller's engine has counted, once Prometheus knows them all."""
    seen = [-1.0, -2.0]

    async def same() -> str | None:
        direction = 'direction="outbound"'
        found = await ask(mesh, f"sum(gossipmesh_requests_total{{{direction}}})")
        seen.append(found[0][1] if found else -len(seen) - 1.0)
        still = seen[-1] > 0 and len(set(seen[-6:])) == 1
        return None if still else f"{seen[-6:]}"

    await wait_until("what was sent is counted", same, WAIT_S, interval_s=0.5)
    return int(seen[-1])


async def test_promtool_has_nothing_to_say(scene: Scene) -> None:
    for node in scene.mesh.nodes.values():
        text = await trio.to_thread.run_sync(get, node.host, layout.METRICS_PORT, "/metrics")
        result = await scene.mesh.keeper.command(["promtool", "check", "metrics"], stdin=text.encode())
        assert (result.code, result.stdout, result.stderr) == (0, "", "")


def ask_for_many(mesh: Mesh, numbers: range) -> set[int]:
    """Ask for services nobody has: in one namespace, in as many as there are names, and by long names."""
    connection = http.client.HTTPConnection(mesh.nodes["node1"].host, layout.PROXY_PORT, timeout=30)
    statuses: set[int] = set()
    for number in numbers:
        host = (f"n{number}.shop", f"cart.n{number}", f"{'x' * 50}{number}.{'y' * 60}")[number % 3]
        connection.request("GET", f"/{number}", headers={"Host": host})
        answer = connection.getresponse()
        answer.read()
        statuses.add(answer.status)
    connection.close()
    return statuses


async def test_names_nobody_vouches_for_are_one_unknown(scene: Scene) -> None:
    node = scene.mesh.nodes["node1"]
    assert await trio.to_thread.run_sync(lambda: post(scene.mesh, "/kept", canary=False)) == 200
    before = await trio.to_thread.run_sync(get, node.host, layout.METRICS_PORT, "/metrics")
    statuses: set[int] = set()

    async def some(start: int) -> None:
        found = await trio.to_thread.run_sync(ask_for_many, scene.mesh, range(start, start + 550))
        statuses.update(found)

    async with trio.open_nursery() as nursery:
        for start in range(0, 2_200, 550):
            nursery.start_soon(some, start)
    assert statuses == {503}
    texts: list[str] = []

    async def counted() -> str | None:
        texts.append(await trio.to_thread.run_sync(get, node.host, layout.METRICS_PORT, "/metrics"))
        lines = [line for line in texts[-1].splitlines() if 'destination_service="unknown"' in line]
        totals = [line for line in lines if line.startswith("gossipmesh_requests_total{")]
        return None if sum(float(line.rsplit(" ", 1)[1]) for line in totals) >= 2_200 else str(totals)

    await wait_until("all are counted as unknown", counted, WAIT_S)
    assert len(texts[-1]) < len(before) * 1.2
    assert 'destination_service="shop/cart"' in texts[-1]
    assert "yyyy" not in texts[-1]
