"""What the five-node mesh costs at rest, and how long a pushed policy takes to run on all of it."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import trio

from bench.processes import cpu_s, pss_mb, rss_mb
from gossipmesh.model.policy import (
    API_VERSIONS,
    BackendRef,
    HTTPRoute,
    HTTPRouteRule,
    HTTPRouteSpec,
    Metadata,
    ParentRef,
)
from gossipmesh.net.clock import wall_seconds
from gossipmesh.testing import layout
from gossipmesh.testing.mesh import Mesh
from gossipmesh.trust.manifest import (
    EMPTY_BASE,
    BaseSet,
    build_manifest,
    encode_document,
    encode_documents,
    sign_set,
)
from gossipmesh.trust.pem import signing_key_from_pem_untrusted

IDLE_S = 20
PUSHES = 20
COMMANDS = 5


async def measure_mesh(say: Callable[[str], None]) -> dict[str, Any]:
    """Start five nodes, let them rest, then push twenty policies; return medians and raw figures."""
    with Mesh() as mesh:
        await mesh.start()
        await mesh.wait_sums_equal()
        idle = await measure_idle(mesh, say)
        pushes = await measure_pushes(mesh, say)
    return {"idle": idle, "pushes": pushes}


async def measure_idle(mesh: Mesh, say: Callable[[str], None]) -> dict[str, Any]:
    """Return memory and CPU of each agent and engine over a while without load (checks go on).

    Each agent is scraped once first: rendering metrics loads code that stays.
    """
    for node in mesh.nodes.values():
        await node.status()
    pids = {
        (name, what): node.pids(what)[0] for name, node in mesh.nodes.items() for what in ("agent", "engine")
    }
    fresh_mb = statistics.median(rss_mb(pid) for (_, what), pid in pids.items() if what == "agent")
    for node in mesh.nodes.values():
        await scrape(node.host)
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
    summary: dict[str, Any] = {"rows": rows, "agent_rss_before_scrape_mb": fresh_mb}
    say(f"agent before its first scrape: {fresh_mb:.1f} MB RSS")
    for what in ("agent", "engine"):
        mine = [row for row in rows if row["process"] == what]
        summary[what] = {
            key: statistics.median(float(str(row[key])) for row in mine)
            for key in ("rss_mb", "pss_mb", "cpu_percent")
        }
        figures = summary[what]
        say(f"idle {what}: {figures['rss_mb']:.1f} MB RSS, {figures['cpu_percent']:.2f} % of a core")
    return summary


async def scrape(host: str) -> None:
    """Read /metrics once, as Prometheus does."""
    stream = await trio.open_tcp_stream(host, layout.METRICS_PORT)
    async with stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nhost: metrics\r\nconnection: close\r\n\r\n")
        answer = b"".join([part async for part in stream])
    if not answer.startswith(b"HTTP/1.1 200") or b"gossipmesh_" not in answer:
        raise RuntimeError(f"{host} answered a scrape with {answer[:200]!r}")


async def measure_pushes(mesh: Mesh, say: Callable[[str], None]) -> dict[str, Any]:
    """Push from the first node and wait for the last of five; once by API, once by the whole command."""
    offered = await offer_sets(mesh)
    commands = await run_commands(mesh)
    result: dict[str, Any] = {"offered_s": offered, "commands_s": commands}
    for name, seconds in (("offered", offered), ("command", commands)):
        result[f"{name}_median_s"] = statistics.median(seconds)
        result[f"{name}_max_s"] = max(seconds)
        median_s = statistics.median(seconds)
        say(f"push, {name}: median {median_s:.3f} s, max {max(seconds):.3f} s of {len(seconds)}")
    return result


async def offer_sets(mesh: Mesh) -> list[float]:
    """Offer PUSHES signed sets to one agent; seconds from each offer until every member runs it."""
    key = signing_key_from_pem_untrusted(mesh.signer_key.read_bytes())
    first = next(iter(mesh.nodes.values()))
    base, seconds = EMPTY_BASE, []
    for number in range(1, PUSHES + 1):
        bodies = encode_documents([route(number)])
        manifest = build_manifest(
            base, bodies, trust_domain=layout.TRUST_DOMAIN, scope="mesh", created=wall_seconds()
        )
        signed = sign_set(manifest, bodies, [key])
        started = time.perf_counter()
        await first.ask("/v1/policy/offer", method="POST", body=signed.policy_set.to_bytes())
        await mesh.wait_policy(manifest.version, timeout_s=20)
        seconds.append(time.perf_counter() - started)
        since = {entry.name: entry.since for entry in manifest.entries}
        base = BaseSet(manifest.version, signed.manifest_hash, since, bodies)
    return seconds


async def run_commands(mesh: Mesh) -> list[float]:
    """Run `policy push --wait` COMMANDS times; seconds each took, Python's own start included."""
    file = mesh.directory / "bench-route.yaml"
    first, seconds = next(iter(mesh.nodes)), []
    for number in range(COMMANDS):
        file.write_bytes(encode_document(route(PUSHES + 1 + number)))
        started = time.perf_counter()
        await mesh.must(
            "policy", "push", "-f", str(file), "--signer", str(mesh.signer_key), "--wait", node=first
        )
        seconds.append(time.perf_counter() - started)
    return seconds


def route(weight: int) -> HTTPRoute:
    """Return a route that differs from the last by its weight."""
    rule = HTTPRouteRule(backendRefs=(BackendRef("cart", weight=weight),))
    spec = HTTPRouteSpec(parentRefs=(ParentRef("cart"),), rules=(rule,))
    return HTTPRoute(API_VERSIONS["HTTPRoute"], Metadata("cart", layout.NAMESPACE), spec)
