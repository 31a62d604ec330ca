"""Meshes that need a namespace of their own: run as a program inside one, by `test_namespaces.py`.

Usage: python -m tests.e2e.scenes ipv6|lost-address|full-disk|slow-disk|logs-on-a-small-disk DIRECTORY. Prints
what was seen as one JSON object.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model.member import Address
from gossipmesh.net.interpreter import module_words
from gossipmesh.testing import layout
from gossipmesh.testing.layout import CART_V1, DB, WEB, MeshLayout, NodeLayout
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.namespaces import LoopbackNetwork
from gossipmesh.testing.processes import ProcessKeeper
from gossipmesh.testing.waiting import wait_until
from gossipmesh.wire.codec import decode_untrusted
from tests.e2e.json_lines import json_lines

# One request for web crosses everything: HTTP by Host, an explicit HTTP port, an explicit TCP port.
CHAIN = MeshLayout((NodeLayout("node1", 1, (WEB,)), NodeLayout("node2", 2, (CART_V1, DB))))
THREE = MeshLayout((*CHAIN.nodes, NodeLayout("node3", 3, ())))
SLOW_S = 5  # a node may be silent for half of that
DISK_BYTES = 4_194_304
ROUTES = 60  # documents of a set that no half-filled page of a file has room for
ANSWER_S = 20.0
ENDED_S = 30.0
REQUESTS, FEW_REQUESTS = 3_200, 200  # of 2.7 kB in the log each


class Ipv6Loopback(LoopbackNetwork):
    """Every node on an address of its own in fd71::/64, added to this namespace's loopback device."""

    def host(self, number: int) -> str:
        return f"[fd71::{number:x}]"

    def attach(self, number: int, keeper: ProcessKeeper) -> None:
        self.address("add", number, "nodad")

    def address(self, do: str, number: int, *more: str) -> None:
        """Add or delete the address of a node."""
        words = ["ip", "-6", "address", do, f"fd71::{number:x}/128", "dev", "lo", *more]
        subprocess.run(words, check=True)


async def ipv6(directory: Path) -> dict[str, Any]:
    network = Ipv6Loopback()
    with Mesh(CHAIN, network=network, directory=directory) as mesh:
        network.attach(layout.AUTHORITY_NODE, mesh.keeper)
        await mesh.start()
        answer = await answered(mesh.nodes["node1"], "web.shop")
        pushed = await push(mesh, directory, 1)
        node = mesh.nodes["node2"]
        await node.status()
        node.signal("agent", signal.SIGKILL)
        await mesh.wait_ended("node2")
        mesh.start_agent("node2")
        await mesh.wait_statuses({"node1": "alive", "node2": "alive"})
        starts = (await node.status())["engine"]["starts"]
        members = json.loads(await mesh.must("members", "-o", "json", node="node1"))
        return {
            "answer": answer,
            "pushed": pushed,
            "engine_starts_after_kill": starts,
            "addresses": [[row["gossip_address"], row["mesh_address"]] for row in members],
        }


async def lost_address(directory: Path) -> dict[str, Any]:
    """The address that a node is configured with goes, and another is there; then it comes back."""
    network = Ipv6Loopback()
    with Mesh(CHAIN, network=network, directory=directory) as mesh:
        network.attach(layout.AUTHORITY_NODE, mesh.keeper)
        await mesh.start()
        node = mesh.nodes["node2"]
        network.attach(99, mesh.keeper)
        network.address("del", 2)
        lost = await address_row(node, "FAIL")
        told = {row["name"]: row["gossip_address"] for row in await mesh.nodes["node1"].ask("/v1/members")}
        network.attach(2, mesh.keeper)
        back = await address_row(node, "ok")
        await mesh.wait_statuses({"node1": "alive", "node2": "alive"})
        lines = mesh.keeper.log_path("node2-agent").read_text().splitlines()
        errors = [line for line in lines if "this machine has lost" in line]
        answer = await answered(mesh.nodes["node1"], "web.shop")
        return {"lost": lost, "back": back, "told": told, "errors": errors, "answer": answer}


async def address_row(node: MeshNode, mark: str) -> dict[str, Any]:
    """Return the row of a node's check about its addresses once it has a mark."""
    rows: list[dict[str, Any]] = []

    async def marked() -> str | None:
        rows.append(next(row for row in await node.ask("/v1/check") if row["name"] == "addresses"))
        return None if rows[-1]["mark"] == mark else str(rows[-1])

    await wait_until(f"the addresses of {node.name} are {mark}", marked, ANSWER_S)
    return rows[-1]


async def full_disk(directory: Path) -> dict[str, Any]:
    with Mesh(CHAIN, directory=directory) as mesh:
        node = mesh.nodes["node2"]
        state = node.directory / "state"
        state.mkdir(parents=True)
        await trio.run_process(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(state)]
        )
        await mesh.start()
        pushed = [await push(mesh, directory, 1)]
        before = await node.status()
        fill(state / "fill")
        pushed.append(await push(mesh, directory, ROUTES))
        await mesh.wait_ended("node2", ENDED_S)
        ends = [end_of(mesh, node)]
        engine_runs = mesh.keeper.is_running(before["engine"]["pid"])
        answer = await answered(mesh.nodes["node1"], "web.shop")
        kept = kept_state(state, directory / "copy")
        mesh.start_agent("node2")
        await mesh.wait_ended("node2", ENDED_S)
        ends.append(end_of(mesh, node))
        (state / "fill").unlink()
        mesh.start_agent("node2")
        await mesh.wait_statuses({"node1": "alive", "node2": "alive"})
        await mesh.wait_policy(2)
        after = await node.status()
        return {
            "pushed": pushed,
            "ends": ends,
            "engine_runs": engine_runs,
            "answer": answer,
            "kept": kept,
            "incarnations": [before["incarnation"], after["incarnation"]],
            "engine_pids": [before["engine"]["pid"], after["engine"]["pid"]],
        }


async def slow_disk(directory: Path) -> dict[str, Any]:
    """Three nodes, one on a disk that takes twice as long as a node may be silent; two pushes at it."""
    program = [*module_words("gossipmesh.testing.slow_disk"), str(SLOW_S)]
    with Mesh(THREE, directory=directory) as mesh:
        await mesh.start({"node2": program})
        before = [await node.status() for node in mesh.nodes.values()]
        pushed = []
        for version in (1, 2):
            path = routes_file(directory, version)
            pushed.append(await mesh.push(path, "node2"))
            await mesh.wait_policy(version, timeout_s=60.0)
        await mesh.wait_statuses(dict.fromkeys(mesh.nodes, "alive"))
        await mesh.wait_sums_equal()
        after = [await node.status() for node in mesh.nodes.values()]
        return {
            "pushed": [{"code": one.code, "said": one.stderr.strip().splitlines()[-1]} for one in pushed],
            "incarnations": [[status["incarnation"] for status in seen] for seen in (before, after)],
            "answer": await answered(mesh.nodes["node1"], "web.shop"),
        }


async def logs_on_a_small_disk(directory: Path) -> dict[str, Any]:
    """Load whose access log is twice the disk; then a disk others filled but for a twentieth."""
    with Mesh(CHAIN, directory=directory) as mesh:
        node = mesh.nodes["node1"]
        state = node.directory / "state"
        state.mkdir(parents=True)
        await trio.run_process(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(state)]
        )
        await mesh.start()
        await answered(node, "cart.shop")
        failed = await asked_often(node, REQUESTS)
        used = sum(path.stat().st_size for path in (state / "log").iterdir())
        free = free_share(state)
        fill(state / "fill", down_to=0.05)
        failed += await asked_often(node, FEW_REQUESTS)
        shed = await counted_by_engine(node, "access_log_shed")
        left = free_share(state)
        engine_pid = (await node.status())["engine"]["pid"]
        node.signal("agent", signal.SIGKILL)
        await mesh.wait_ended("node1")
        mesh.start_agent("node1")
        await mesh.wait_statuses({"node1": "alive", "node2": "alive"})
        (state / "fill").unlink()
        failed += await asked_often(node, FEW_REQUESTS)
        last = await last_line(state / "log" / "access.log", "/last")
        return {
            "failed": failed,
            "used": used,
            "free": [free, left],
            "shed": shed,
            "same_engine": engine_pid == (await node.status())["engine"]["pid"],
            "last": last,
            "unreadable": unreadable(state / "log"),
        }


async def asked_often(node: MeshNode, count: int) -> int:
    """Ask for cart with long paths, four at a time; return how many answers were not 200."""
    failed = [0]

    def ask(times: int) -> None:
        connection = http.client.HTTPConnection(node.host, layout.PROXY_PORT, timeout=30)
        for number in range(times):
            path = "/last" if number == times - 1 else f"/{number}{'x' * 1_000}"
            connection.request("GET", path, headers={"Host": "cart.shop", "User-Agent": "y" * 1_000})
            response = connection.getresponse()
            response.read()
            failed[0] += response.status != 200
        connection.close()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(trio.to_thread.run_sync, ask, count // 4)
    return failed[0]


async def counted_by_engine(node: MeshNode, name: str) -> float:
    """Return a count of the engine's, once it has told one."""
    found: list[float] = []
    wanted = f'gossipmesh_engine_events_total{{name="{name}"}} '

    async def told() -> str | None:
        text = await trio.to_thread.run_sync(metrics_of, node)
        found.extend(float(line.split()[-1]) for line in text.splitlines() if line.startswith(wanted))
        return None if found else f"no {name}"

    await wait_until(f"{name} is counted", told, ANSWER_S)
    return found[-1]


def metrics_of(node: MeshNode) -> str:
    connection = http.client.HTTPConnection(node.host, layout.METRICS_PORT, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


async def last_line(path: Path, wanted: str) -> dict[str, Any]:
    """Return the log's last line, once it is of the path that was asked for last."""
    seen: list[dict[str, Any]] = []

    async def written() -> str | None:
        seen.extend(json_lines(path)[-1:] or [{"path": None}])
        return None if seen[-1]["path"] == wanted else str(seen[-1]["path"])[:20]

    await wait_until("the last request is logged", written, ANSWER_S)
    return seen[-1]


def unreadable(folder: Path) -> list[str]:
    """Return the lines of all log files that are no JSON."""
    found: list[str] = []
    for line in [line for path in folder.iterdir() for line in path.read_text().splitlines()]:
        try:
            json.loads(line)
        except ValueError:
            found.append(line[:80])
    return found


def free_share(path: Path) -> float:
    disk = os.statvfs(path)
    return disk.f_bavail / disk.f_blocks


def fill(path: Path, down_to: float = 0.0) -> None:
    """Leave no free block on the disk of `path`, or that share of them."""
    with path.open("wb", buffering=0) as file:
        try:
            while free_share(path) > down_to and file.write(bytes(4_096)):
                pass
        except OSError:
            return


def end_of(mesh: Mesh, node: MeshNode) -> dict[str, Any]:
    """Return how the agent of a node ended, and the last it said."""
    log = mesh.keeper.log_path(f"{node.name}-agent").read_text()
    code = None if node.agent is None else node.agent.returncode
    last = log.strip().splitlines()[-1]
    return {"code": code, "said": last, "tracebacks": log.count("Traceback")}


def kept_state(state: Path, copy: Path) -> dict[str, Any]:
    """Return what the next agent will read, from a copy of the records."""
    copy.mkdir()
    for path in state.glob("records.*"):
        (copy / path.name).write_bytes(path.read_bytes())
    store = StateStore(copy)
    floor = store.get(PersistKind.FLOOR, b"mesh")
    store.close()
    version = None if floor is None else decode_untrusted(floor, tuple[int, bytes], bytes_max=1_024)[0]
    return {"damage": store.damage, "floor": version, "identity": (state / "identity").exists()}


async def answered(node: MeshNode, host: str) -> Any:
    """Ask through a node's proxy until the answer is good; return it."""
    seen: list[Any] = []

    def call() -> None:
        where = Address.parse(f"{node.host}:{layout.PROXY_PORT}")
        connection = http.client.HTTPConnection(where.host, where.port, timeout=10)
        try:
            connection.request("GET", "/", headers={"Host": host})
            response = connection.getresponse()
            seen.append((response.status, response.read()))
        finally:
            connection.close()

    async def good() -> str | None:
        try:
            await trio.to_thread.run_sync(call)
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        return None if seen[-1][0] == 200 else str(seen[-1])

    await wait_until(f"{host} answers", good, ANSWER_S)
    return json.loads(seen[-1][1])


async def push(mesh: Mesh, directory: Path, count: int) -> int:
    """Push a set of `count` routes at node1; return the exit code."""
    return (await mesh.push(routes_file(directory, count), "node1", "--wait=all", "--timeout", "10s")).code


def routes_file(directory: Path, count: int) -> Path:
    """Write a set of `count` routes."""
    path = directory / f"{count}.yaml"
    document = layout.canary(1, 1)[2]
    document["spec"]["rules"][0]["backendRefs"] = [{"name": "cart"}]
    routes = [{**document, "metadata": {"name": f"cart-{n}", "namespace": "shop"}} for n in range(count)]
    layout.write_policy(path, routes)
    return path


SCENES = {
    "ipv6": ipv6,
    "lost-address": lost_address,
    "full-disk": full_disk,
    "slow-disk": slow_disk,
    "logs-on-a-small-disk": logs_on_a_small_disk,
}

if __name__ == "__main__":
    print(json.dumps(trio.run(SCENES[sys.argv[1]], Path(sys.argv[2]))))
