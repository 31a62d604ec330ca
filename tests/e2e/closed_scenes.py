"""A mesh whose nodes are closed, and what opens them: run as a program in a namespace, by `test_closed.py`.

Usage: python -m tests.e2e.closed_scenes joining|without-disks DIRECTORY. Prints what was seen as one JSON
object.
"""

import http.client
import json
import signal
import sys
from collections.abc import Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import trio

from gossipmesh.testing import layout
from gossipmesh.testing.layout import LONE_CART, LONE_WEB, MeshLayout, NodeLayout
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.waiting import wait_until

FOUR = MeshLayout(
    (
        NodeLayout("node1", 1, (LONE_WEB,)),
        NodeLayout("node2", 2, (LONE_CART,)),
        NodeLayout("node3", 3, (LONE_CART,)),
        NodeLayout("node4", 4, (LONE_CART,)),
    )
)
NOBODY = ["127.0.0.99:7948"]
OPENS_S = 20.0
FEWER_S = 100.0  # a minute, and a start of everything
CLOSED_FOR_S = 8.0
CALLS = 40
LOST = ("records.log", "records.snapshot", "floors.bin", "snapshot.bin")


async def joining(directory: Path) -> dict[str, Any]:
    """A founder alone, a mesh, a joiner that finds nobody; then one of them from disk, with nobody there."""
    with Mesh(FOUR, directory=directory) as mesh:
        await mesh.start_authority(init=True)
        for name in mesh.nodes:
            await mesh.prepare_node(name)
            mesh.start_workloads(name)
        first, joiner = mesh.nodes["node1"], mesh.nodes["node4"]
        mesh.start_agent("node1")
        founder = await readiness_is(first, 200)
        for name in ("node2", "node3"):
            mesh.start_agent(name)
            await readiness_is(mesh.nodes[name], 200)
        pushed = await push(mesh, directory)
        seed(joiner, NOBODY)
        mesh.start_agent("node4")
        closed = await readiness_is(joiner, 503, "closed: ")
        answered_by = await callees(first)
        await trio.sleep(CLOSED_FOR_S)
        still = await readiness_is(joiner, 503, "closed: ")
        check = await row_of(joiner, "opening")
        await end(mesh, ["node4"])
        seed(joiner, [f"{first.host}:{layout.GOSSIP_PORT}"])
        mesh.start_agent("node4")
        opened = await readiness_is(joiner, 200)
        policies = (await joiner.ask("/v1/policy/status"))["scopes"]
        await mesh.wait_passing(4, on=["node1"])
        answered_later = await answering(first, {"node4"})
        await end(mesh, list(mesh.nodes))
        mesh.kill_authority()
        mesh.start_agent("node2")
        return {
            "founder": founder,
            "pushed": pushed,
            "closed": closed,
            "still": still,
            "check": check,
            "answered_by": answered_by,
            "opened": opened,
            "policy": [row["version"] for row in policies],
            "answered_later": answered_later,
            "alone": await readiness_is(mesh.nodes["node2"], 200),
        }


async def without_disks(directory: Path) -> dict[str, Any]:
    """Every node loses all but its identity: all are closed, and one command opens them all."""
    with Mesh(FOUR, directory=directory) as mesh:
        await mesh.start()
        names = list(mesh.nodes)
        await end(mesh, names)
        for node in mesh.nodes.values():
            for name in LOST:
                (node.directory / "state" / name).unlink(missing_ok=True)
        for name in names:
            mesh.start_agent(name)
        closed = [await readiness_is(mesh.nodes[name], 503, "closed: ") for name in names]
        said = (await mesh.must("release", "--open", node="node2")).strip()
        opened = [await readiness_is(mesh.nodes[name], 200, within_s=FEWER_S) for name in names]
        members = await mesh.nodes["node1"].ask("/v1/members")
        await mesh.wait_passing(4, on=["node1"])
        return {
            "closed": closed,
            "said": said,
            "opened": opened,
            "by_hand": [row["name"] for row in members if row["opened_by_hand"]],
            "answered_by": await answering(mesh.nodes["node1"], {"node2", "node3", "node4"}),
        }


def seed(node: MeshNode, seeds: Sequence[str]) -> None:
    """Have a node start from these seeds."""
    document = json.loads(node.config_path.read_text())
    document["spec"]["seeds"] = list(seeds)
    layout.write_document(node.config_path, document)


async def end(mesh: Mesh, names: Sequence[str]) -> None:
    """Kill agents and engines, as a power cut does."""
    for name in names:
        node = mesh.nodes[name]
        await node.status()
        node.signal("agent", signal.SIGKILL)
        node.signal("engine", signal.SIGKILL)
    for name in names:
        await mesh.wait_ended(name)


async def push(mesh: Mesh, directory: Path) -> int:
    path = directory / "routes.yaml"
    route = layout.canary(1, 1)[2]
    route["spec"]["rules"][0]["backendRefs"] = [{"name": "cart"}]
    layout.write_policy(path, [route])
    return (await mesh.push(path, "node1", "--wait", "--timeout", "20s")).code


async def readiness_is(
    node: MeshNode, status: int, text: str = "", within_s: float = OPENS_S
) -> tuple[int, str]:
    """Return what a node's readiness says, once it says that."""
    seen: list[tuple[int, str]] = []

    async def said() -> str | None:
        seen.append(await trio.to_thread.run_sync(partial(readiness, node)))
        return None if seen[-1][0] == status and text in seen[-1][1] else f"it says {seen[-1]}"

    await wait_until(f"readiness of {node.name} is {status} {text}", said, within_s)
    return seen[-1]


def readiness(node: MeshNode) -> tuple[int, str]:
    connection = http.client.HTTPConnection(node.host, layout.READINESS_PORT, timeout=2)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode().strip()
    except OSError as error:
        return 0, str(error)
    finally:
        connection.close()


async def row_of(node: MeshNode, name: str) -> dict[str, Any]:
    """Return a row of a node's check."""
    rows: list[dict[str, Any]] = await node.ask("/v1/check")
    return next(row for row in rows if row["name"] == name)


async def callees(node: MeshNode) -> list[str]:
    """Call cart from a node many times; return which nodes answered, and any failure as its status."""
    seen: set[str] = set()
    for _ in range(CALLS):
        seen.add(await trio.to_thread.run_sync(partial(callee, node)))
    return sorted(seen)


async def answering(node: MeshNode, wanted: Set[str]) -> list[str]:
    """Call cart from a node until all of `wanted` have answered; return whoever did, and any failure.

    An endpoint that passes is in the catalog of an agent a moment before its engine calls it.
    """
    seen: set[str] = set()

    async def all_did() -> str | None:
        seen.update(await callees(node))
        missing = sorted(wanted - seen)
        return f"{missing} have not, {sorted(seen)} have" if missing else None

    await wait_until(f"{sorted(wanted)} answer calls of {node.name}", all_did, OPENS_S)
    return sorted(seen)


def callee(node: MeshNode) -> str:
    connection = http.client.HTTPConnection(node.host, layout.PROXY_PORT, timeout=10)
    try:
        connection.request("GET", "http://cart.shop/", headers={"Host": "cart.shop"})
        answer = connection.getresponse()
        body = answer.read()
        return str(json.loads(body)["node"]) if answer.status == 200 else str(answer.status)
    finally:
        connection.close()


SCENES = {"joining": joining, "without-disks": without_disks}

if __name__ == "__main__":
    print(json.dumps(trio.run(SCENES[sys.argv[1]], Path(sys.argv[2]))))
