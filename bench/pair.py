"""CPU per request of the mTLS pair: our two engines beside two HAProxy processes, in turns.

nginx behind, wrk before, fifty keep-alive connections, proxies on one core, load and backend on the
other; the figure is user and system CPU of the two proxy processes, divided by requests answered.
"""

import contextlib
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from bench import peers
from bench.processes import cpu_s, pin, pss_mb
from gossipmesh.testing import layout
from gossipmesh.testing.mesh import Mesh

ROUNDS = 5
SECONDS = 3
CONNECTIONS = 50

PAIR_LAYOUT = layout.MeshLayout((layout.NodeLayout("caller", 1, ()), layout.NodeLayout("callee", 2, ())))


async def measure_pair(say: Callable[[str], None]) -> dict[str, Any]:
    """Run the rounds; return medians, ranges and every raw figure."""
    missing = peers.missing_tools()
    if missing:
        return {"skipped": f"not installed: {', '.join(missing)}"}
    with tempfile.TemporaryDirectory() as name:
        async with our_pair(Path(name)) as (our_url, our_pids):
            with peers.haproxy_pair(Path(name)) as peer_pids:
                targets = {
                    "gossipmesh": (our_url, our_pids),
                    "haproxy": (f"http://{peers.FRONT[0]}:{peers.FRONT[1]}/", peer_pids),
                }
                return run_rounds(targets, say)


def run_rounds(targets: dict[str, tuple[str, list[int]]], say: Callable[[str], None]) -> dict[str, Any]:
    """Load each target in turn, after one second of warm-up each."""
    raw: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
    for url, _ in targets.values():
        peers.wrk(url, 1, CONNECTIONS)
    for number in range(ROUNDS):
        for name, (url, pids) in targets.items():
            before = cpu_s(pids)
            requests, p99_ms, failed = peers.wrk(url, SECONDS, CONNECTIONS)
            used_us = (cpu_s(pids) - before) * 1e6 / requests
            row = {"us_per_request": used_us, "requests": requests, "p99_ms": p99_ms, "failed": failed}
            raw[name].append(row)
            say(f"pair round {number + 1}: {name} {used_us:.0f} us a request, p99 {p99_ms:.1f} ms")
    result: dict[str, Any] = {"rounds": raw, "haproxy_version": peers.version_of("haproxy")}
    for name, (_, pids) in targets.items():
        figures = [row["us_per_request"] for row in raw[name]]
        result[name] = {
            "us_per_request_median": statistics.median(figures),
            "us_per_request_min": min(figures),
            "us_per_request_max": max(figures),
            "pss_mb": sum(pss_mb(pid) for pid in pids),
        }
    ours, theirs = result["gossipmesh"], result["haproxy"]
    result["ratio"] = ours["us_per_request_median"] / theirs["us_per_request_median"]
    return result


@contextlib.asynccontextmanager
async def our_pair(folder: Path) -> AsyncIterator[tuple[str, list[int]]]:
    """Two real nodes, their engines between wrk and nginx; yield a URL and the engines' pids."""
    with Mesh(PAIR_LAYOUT) as mesh:
        callee = mesh.nodes["callee"].host
        with peers.backend(folder, (callee, layout.CART_V1.port)), _haproxy_backend(folder):
            await mesh.start()
            mesh.write_service("caller", layout.WEB)
            mesh.write_service("callee", layout.CART_V1)
            await mesh.wait_passing(1, service=f"{layout.NAMESPACE}/cart")
            pids = []
            for node in mesh.nodes.values():
                await node.status()
                pids += node.pids("engine")
            for pid in pids:
                pin(pid, peers.PROXY_CORE)
            port = layout.upstream_port("web")
            yield f"http://{mesh.nodes['caller'].host}:{port}/", pids


@contextlib.contextmanager
def _haproxy_backend(folder: Path) -> Any:
    second = folder / "haproxy-backend"
    second.mkdir()
    with peers.backend(second):
        yield
