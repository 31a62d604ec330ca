"""What the five-node mesh costs at rest, and how long a pushed policy takes to run on all of it."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from bench.processes import cpu_s, pss_mb, rss_mb
from gossipmesh.testing import layout
from gossipmesh.testing.mesh import Mesh

IDLE_S = 20
PUSHES = 20

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: cart, namespace: {namespace}}}
spec:
  parentRefs: [{{kind: Service, name: cart}}]
  rules:
    - backendRefs: [{{name: cart, weight: {weight}}}]
"""


async def measure_mesh(say: Callable[[str], None]) -> dict[str, Any]:
    """Start five nodes, let them rest, then push twenty policies; return medians and raw figures."""
    with Mesh() as mesh:
        await mesh.start()
        await mesh.wait_roots_equal()
        idle = await measure_idle(mesh, say)
        pushes = await measure_pushes(mesh, say)
    return {"idle": idle, "pushes": pushes}


async def measure_idle(mesh: Mesh, say: Callable[[str], None]) -> dict[str, Any]:
    """Return memory and CPU of each agent and engine over a while without load (checks go on)."""
    for node in mesh.nodes.values():
        await node.status()
    pids = {
        (name, what): node.pids(what)[0] for name, node in mesh.nodes.items() for what in ("agent", "engine")
    }
    before = {key: cpu_s([pid]) for key, pid in pids.items()}
    started = time.perf_counter()
    await trio.sleep(IDLE_S)
    elapsed = time.perf_counter() - started
    rows = [
        {
            "node": name,
            "process": what,
            "rss_mb": rss_mb(pid),
            "pss_mb": pss_mb(pid),
            "cpu_percent": (cpu_s([pid]) - before[name, what]) / elapsed * 100,
        }
        for (name, what), pid in pids.items()
    ]
    summary: dict[str, Any] = {"rows": rows}
    for what in ("agent", "engine"):
        mine = [row for row in rows if row["process"] == what]
        summary[what] = {
            key: statistics.median(float(str(row[key])) for row in mine)
            for key in ("rss_mb", "pss_mb", "cpu_percent")
        }
        figures = summary[what]
        say(f"idle {what}: {figures['rss_mb']:.1f} MB RSS, {figures['cpu_percent']:.2f} % of a core")
    return summary


async def measure_pushes(mesh: Mesh, say: Callable[[str], None]) -> dict[str, Any]:
    """Push from one node; time from the moment the set is offered until the last node runs it."""
    seconds = []
    folder = mesh.directory / "bench-policies"
    folder.mkdir()
    for number in range(1, PUSHES + 1):
        seconds.append(await time_push(mesh, folder, number))
    result = {"seconds": seconds, "median_s": statistics.median(seconds), "max_s": max(seconds)}
    say(f"push to all five: median {result['median_s']:.3f} s, max {result['max_s']:.3f} s of {PUSHES}")
    return result


async def time_push(mesh: Mesh, folder: Path, number: int) -> float:
    """Push one route; seconds from the start of the whole command until every member runs the version.

    The command's own start (some 300 ms of a Python interpreter) is inside: it is what a person waits for.
    """
    file = folder / "route.yaml"
    file.write_text(ROUTE.format(namespace=layout.NAMESPACE, weight=number))
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        words = ("policy", "push", "-f", str(file), "--signer", str(mesh.signer_key))
        first = next(iter(mesh.nodes))

        async def push() -> None:
            await mesh.must(*words, node=first)

        nursery.start_soon(push)
        await mesh.wait_policy(number, timeout_s=20)
        return time.perf_counter() - started
