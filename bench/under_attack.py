"""Good clients' latency while one party takes all it can: `python -m bench.under_attack [--json]`.

Each case runs a flood and good clients at a constant rate, in rounds: a quiet stretch, the flood grows, a
stretch under attack, the flood ends, a pause. A row is judged by the median over the rounds of p99 divided by
p99 when quiet, both while the flood grows (from its first connection on) and once it has; by every good
request's having succeeded, in all of the run; by the engines' (the authority's, the agents') being the same
processes as before; and by their memory, SETTLED_S after the last flood, being what it was. Needs root:
floods are another user's, and the peak of memory is measured anew for each case.

Floods and good clients are processes on the same cores as what is measured. Floods are niced and keep a pace
(`gossipmesh.testing.floods`), so that a slower answer is the flooded side's and not a lack of cores.
"""

import argparse
import json
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from bench.good_clients import CLIENTS, Clients
from bench.processes import forget_peak, peak_mb, rss_mb
from bench.run import machine
from gossipmesh.model.errors import OperatorError
from gossipmesh.testing import layout
from gossipmesh.testing.flood_control import FLOOD_SOURCE, Flood, stranger_uid
from gossipmesh.testing.interrupts import end_like_ctrl_c
from gossipmesh.testing.mesh import GOSSIPMESH, Mesh
from gossipmesh.testing.sessions import now_s
from gossipmesh.testing.waiting import WaitedInVain, first_leaf

ROUNDS: Final = 5
SECONDS: Final = 2.0
GROW_S: Final = 2.5
PAUSE_S: Final = 1.0
SETTLED_S: Final = 10.0
RATIO_MAX: Final = 3.0
GROWTH_MAX_MB: Final = 10.0
FEW_DESCRIPTORS: Final = 256
METRICS_GROWTH_MAX: Final = 2.0

STRETCHES: Final = ("quiet", "growing", "attack")
CALLER, CALLEE, POOR = "caller", "callee", "poor"
# The flooded service and the good clients' are different processes; the third node has few descriptors.
LAYOUT: Final = layout.MeshLayout(
    (
        layout.NodeLayout(CALLER, 1, ()),
        layout.NodeLayout(CALLEE, 2, (layout.LONE_WEB, layout.LONE_CART)),
        layout.NodeLayout(POOR, 3, (layout.ServiceLayout("db", "poor", "http"),)),
    )
)


class Case:
    """A flood, and the good clients whose latency is judged; `floods` are (kind, places, words)."""

    def __init__(
        self,
        what: str,
        clients: Sequence[str],
        floods: Callable[[Mesh], list[tuple[str, list[str], list[str]]]],
    ) -> None:
        self.what = what
        self.clients = clients
        self.floods = floods


def _at(mesh: Mesh, node: str, port: int) -> str:
    return f"{mesh.nodes[node].host}:{port}"


def _count(number: int, *words: str) -> list[str]:
    return ["--count", str(number), *words]


def _hellos() -> list[str]:
    """1,600 of them, asking for the server every other node's probe asks for."""
    return _count(1_600, "--host", f"{CALLEE}.node.{layout.TRUST_DOMAIN}")


CASES: Final = {
    "chunked-request": Case(
        "requests of 600,000 one-byte chunks (3.6 MB), one after the other, to the proxy port",
        ["requests"],
        lambda mesh: [
            ("chunks", [_at(mesh, CALLER, layout.PROXY_PORT)], _count(600_000, "--host", "cart.shop"))
        ],
    ),
    "chunked-answer": Case(
        "answers of 100,000 one-byte chunks, one after the other, through the proxy port",
        ["requests"],
        lambda mesh: [
            ("answers", [_at(mesh, CALLER, layout.PROXY_PORT)], _count(100_000, "--host", "cart.shop"))
        ],
    ),
    "idle-proxy": Case(
        "a local user's 10,000 idle connections to the proxy port",
        ["requests"],
        lambda mesh: [("idle", [_at(mesh, CALLER, layout.PROXY_PORT)], _count(10_000))],
    ),
    "silent-mesh": Case(
        "10,000 silent connections to the mesh port",
        ["requests"],
        lambda mesh: [("idle", [_at(mesh, CALLEE, layout.MESH_PORT)], _count(10_000))],
    ),
    "half-hellos": Case(
        "1,600 connections to the mesh port that send half of a TLS client's first message",
        ["requests"],
        lambda mesh: [("half-hellos", [_at(mesh, CALLEE, layout.MESH_PORT)], _hellos())],
    ),
    "hellos": Case(
        "1,600 connections to the mesh port that send a TLS client's first message and nothing more",
        ["requests"],
        lambda mesh: [("hellos", [_at(mesh, CALLEE, layout.MESH_PORT)], _hellos())],
    ),
    "few-descriptors": Case(
        f"300 silent connections to the mesh port and 300 to the proxy port of a node with {FEW_DESCRIPTORS} "
        "descriptors",
        ["requests-of-poor", "requests-to-poor"],
        lambda mesh: [
            ("idle", [_at(mesh, POOR, layout.MESH_PORT), _at(mesh, POOR, layout.PROXY_PORT)], _count(600))
        ],
    ),
    "authority": Case(
        "100 idle connections to the authority; the good clients enrol",
        ["enrolments"],
        lambda mesh: [("idle", [mesh.authority_address], _count(100))],
    ),
    "admin": Case(
        "300 idle connections each to the API, the metrics port and the agent's own socket",
        ["members", "scrapes"],
        lambda mesh: [
            (
                "idle",
                [_at(mesh, CALLER, layout.API_PORT), _at(mesh, CALLER, layout.METRICS_PORT)],
                _count(600),
            ),
            ("idle", [str(mesh.nodes[CALLER].socket_path)], ["--count", "300"]),
        ],
    ),
    "random-names": Case(
        "2,200 requests for services that do not exist",
        ["requests", "scrapes"],
        lambda mesh: [
            ("names", [_at(mesh, CALLER, layout.PROXY_PORT)], _count(440, "--rate", "100"))  # a round
        ],
    ),
}


async def run_case(mesh: Mesh, name: str, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Run one case on a mesh that is ready; return its row."""
    case = CASES[name]
    before = await processes(mesh)
    for seen in before.values():
        forget_peak(seen["pid"])
    windows: list[dict[str, Any]] = []
    clients = Clients(mesh, name, case.clients)
    async with trio.open_nursery() as nursery:
        await clients.start(nursery)
        metrics_before = await metrics_bytes(mesh)  # with what the good clients themselves put there
        for _ in range(ROUNDS):
            windows.append(await run_round(mesh, case, seconds, nursery))
            say(f"{name}: round {len(windows)}: {windows[-1]['floods']}")
        outcomes = await clients.stop()
        nursery.cancel_scope.cancel()
    await trio.sleep(SETTLED_S)
    after = await processes(mesh)
    row: dict[str, Any] = {
        "case": name,
        "what": case.what,
        "clients": {client: judged(outcomes[client], windows) for client in case.clients},
        "rounds": windows,
        "processes": {"before": before, "after": after},
        "metrics_bytes": {"before": metrics_before, "after": await metrics_bytes(mesh)},
    }
    row["ratio"] = max(client["ratio"] for client in row["clients"].values())
    row["problems"] = problems_of(row)
    row["ok"] = not row["problems"]
    figures = {
        client: [seen[f"{stretch}_p99_ms"] for stretch in STRETCHES]
        for client, seen in row["clients"].items()
    }
    say(f"{name}: ratio {row['ratio']:.2f} {figures} {'ok' if row['ok'] else row['problems']}")
    return row


async def run_round(
    mesh: Mesh, case: Case, seconds: float, nursery: trio.Nursery, quiet_s: float | None = None
) -> dict[str, Any]:
    """A quiet stretch (as long, or `quiet_s`) and one under attack; return when, and what the floods did."""
    began_s = now_s()
    await trio.sleep(seconds if quiet_s is None else quiet_s)
    quiet = [began_s, now_s()]
    floods = []
    for kind, places, words in case.floods(mesh):
        # Only its owner may open the agent's socket: that flood is the same user's.
        own = places[0].startswith("/")
        options = [] if own else ["--uid", str(stranger_uid()), "--from", FLOOD_SOURCE]
        floods.append(Flood(mesh.keeper, kind, places, *words, *options))
    try:
        for flood in floods:
            flood.start(nursery)
        for flood in floods:
            await flood.wait_firing()
        growing_s = now_s()
        await trio.sleep(GROW_S)
        attack_s = now_s()
        await trio.sleep(seconds)
        attack = [attack_s, now_s()]
    finally:
        told = [flood.stop() for flood in floods]
    await trio.sleep(PAUSE_S)
    return {"quiet": quiet, "growing": [growing_s, attack[0]], "attack": attack, "floods": told}


def judged(outcomes: list[dict[str, Any]], windows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a client's figures for each stretch, the ratio, and everything that failed."""
    rounds = [{kind: figures_of(outcomes, *window[kind]) for kind in STRETCHES} for window in windows]
    ratios = {kind: [_ratio(seen[kind], seen["quiet"]) for seen in rounds] for kind in STRETCHES[1:]}
    medians = {kind: _median_of_all(found) for kind, found in ratios.items()}
    return {
        "rounds": rounds,
        "ratios": ratios,
        "medians": medians,
        "ratio": max(medians.values()),
        **{f"{kind}_p99_ms": _median_p99_ms(rounds, kind) for kind in STRETCHES},
        "sent": len(outcomes),
        "failures": [outcome for outcome in outcomes if outcome["error"]],
    }


def _median_p99_ms(rounds: list[dict[str, Any]], kind: str) -> float:
    return statistics.median(float(seen[kind]["p99_ms"]) for seen in rounds)


def _median_of_all(ratios: list[float]) -> float:
    return float("inf") if float("inf") in ratios else round(statistics.median(ratios), 3)


def _ratio(attacked: dict[str, Any], quiet: dict[str, Any]) -> float:
    """Return how many times slower; infinite when nothing was sent in one of the stretches."""
    if not (attacked["count"] and quiet["count"]):
        return float("inf")
    return round(float(attacked["p99_ms"]) / max(float(quiet["p99_ms"]), 0.001), 3)


def figures_of(outcomes: list[dict[str, Any]], start_s: float, end_s: float) -> dict[str, Any]:
    """Return count and quantiles of what was sent in a stretch; what failed counts by the time it took."""
    taken = sorted(row["latency_ms"] for row in outcomes if start_s <= row["at_s"] <= end_s)
    if not taken:
        return {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
    p99 = taken[min(len(taken) - 1, int(len(taken) * 0.99))]
    return {"count": len(taken), "p50_ms": taken[len(taken) // 2], "p99_ms": p99, "max_ms": taken[-1]}


def problems_of(row: dict[str, Any]) -> list[str]:
    """Return what keeps a row from being good, from nothing but its own figures."""
    problems = []
    for name, client in row["clients"].items():
        if client["ratio"] > RATIO_MAX:
            problems.append(f"p99 of {name} under attack is {client['ratio']} times that of quiet")
        if client["failures"]:
            problems.append(f"{len(client['failures'])} of {client['sent']} {name} failed")
    before, after = row["processes"]["before"], row["processes"]["after"]
    changed = [what for what, seen in before.items() if after.get(what, {}).get("pid") != seen["pid"]]
    if changed:
        problems.append(f"another process than before: {', '.join(changed)}")
    for what, seen in before.items():
        growth_mb = after.get(what, seen)["rss_mb"] - seen["rss_mb"]
        if growth_mb > GROWTH_MAX_MB:
            problems.append(f"{what} has {growth_mb:.1f} MB more, {SETTLED_S:g} s after the flood")
    size = row["metrics_bytes"]
    if size["after"] > METRICS_GROWTH_MAX * size["before"]:
        problems.append(f"/metrics grew from {size['before']} to {size['after']} bytes")
    if not all(told.get("opened") for window in row["rounds"] for told in window["floods"]):
        problems.append("a flood did nothing")
    return problems


async def processes(mesh: Mesh) -> dict[str, dict[str, Any]]:
    """Return every engine, agent and the authority: its pid, its memory, and the peak of that."""
    pids: dict[str, int] = {} if mesh.authority is None else {"authority": mesh.authority.pid}
    for name, node in mesh.nodes.items():
        await node.status()
        pids |= {f"{what} of {name}": pid for what in ("agent", "engine") for pid in node.pids(what)}
    return {
        what: {"pid": pid, "rss_mb": round(rss_mb(pid), 1), "peak_mb": round(peak_mb(pid), 1)}
        for what, pid in pids.items()
        if mesh.keeper.is_running(pid)
    }


async def metrics_bytes(mesh: Mesh) -> int:
    """Return the size of the caller's metrics."""
    return len(await CLIENTS["scrapes"](mesh).once())


async def measure(names: Sequence[str], seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Start the mesh, run the cases in turn, end everything."""
    rows = []
    with Mesh(LAYOUT) as mesh:
        # As systemd's LimitNOFILE would set it: for the agent and the engine it starts.
        poor = ["sh", "-c", f'ulimit -n {FEW_DESCRIPTORS}; exec "$@"', "sh", *GOSSIPMESH]
        await mesh.start({POOR: poor})
        for name in names:
            rows.append(await run_case(mesh, name, seconds, say))
    return rows


def main(words: Sequence[str]) -> int:
    """Measure what is asked for; exit 0 only if every row is good."""
    parser = argparse.ArgumentParser(prog="bench.under_attack", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(CASES), help="this case only")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each stretch")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(words)
    end_like_ctrl_c(signal.SIGTERM)

    def say(line: str) -> None:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    stranger_uid()
    rows = trio.run(measure, options.only or list(CASES), options.seconds, say)
    ok = all(row["ok"] for row in rows)
    if options.json:
        print(json.dumps({"ok": ok, "machine": machine(), "rows": rows}))
    return 0 if ok else 1


def run() -> int:
    """Run the command; a failure a person can mend is one sentence."""
    try:
        return main(sys.argv[1:])
    except* (OperatorError, WaitedInVain) as group:
        print(f"bench: {first_leaf(group)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(run())
