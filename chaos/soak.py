"""`python -m chaos.soak --minutes 20 --json`: five nodes under load, all goes wrong in turn.

Mixed requests and sessions from every node all the time. Meanwhile, one after the other and over again:
floods of every kind, policy pushes, one node's disk that fills up and empties, SIGHUP to every agent and
engine; access logs rotate by a small size, and one node has 256 descriptors. Ends with a JSON object: raw
evidence, and `ok` derived from it by `chaos.soak_checks`. Needs root: floods are another user's, and the disk
is a mount of this process alone. `--minutes 2` goes through everything twice, quickly; what grows is judged
of longer ones only.
"""

import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import trio

from bench.processes import rss_mb
from chaos.soak_checks import is_ok, judge, judged_series
from chaos.words import SEED, Number, run_command
from gossipmesh.model.errors import OperatorError
from gossipmesh.testing import layout, sessions
from gossipmesh.testing.admin import AdminError, AgentSilent
from gossipmesh.testing.flood_control import FLOOD_SOURCE, Flood, stranger_uid
from gossipmesh.testing.interrupts import end_like_ctrl_c
from gossipmesh.testing.load_control import Load
from gossipmesh.testing.mesh import GOSSIPMESH, Mesh, MeshNode
from gossipmesh.testing.namespaces import enter_private_mounts
from gossipmesh.testing.scraping import samples_of, scrape, shed_counts
from gossipmesh.testing.waiting import WaitedInVain

POOR, FULL = "node5", "node4"  # few descriptors; the disk that fills up
FEW_DESCRIPTORS: Final = 256
DISK_BYTES: Final = 8_388_608
LOG_BYTES_MAX: Final = 65_536
LOGS_KEPT: Final = 3
CYCLE_S_MAX: Final = 200.0
FULL_SHARE: Final = 0.3  # of a cycle
SAMPLES_PER_RUN: Final = 240
BYTES_PER_MB: Final = 1_048_576
SAMPLE_S_MIN: Final = 1.0
MIXED: Final = ("post", "slow-get", "slow-post", "stream", "tcp")
HELD: Final = ("websocket", "tcp", "stream")
SESSION_LIFE_S: Final = 20.0
END_TIMEOUT_S: Final = 60.0
PUSH_TIMEOUT_S: Final = 15.0
TRACEBACK: Final = b"Traceback (most recent call last)"

FLOODS: Final[dict[str, tuple[str, str, int, int, tuple[str, ...]]]] = {
    "idle-proxy": ("idle", "node1", layout.PROXY_PORT, 5_000, ()),
    "silent-mesh": ("idle", "node2", layout.MESH_PORT, 5_000, ()),
    "chunked-request": ("chunks", "node1", layout.PROXY_PORT, 600_000, ("--host", "web.shop")),
    "chunked-answer": ("answers", "node3", layout.PROXY_PORT, 100_000, ("--host", "web.shop")),
    "few-descriptors": ("idle", POOR, layout.MESH_PORT, 300, ()),
    "metrics": ("idle", "node3", layout.METRICS_PORT, 300, ()),
    "random-names": ("names", "node2", layout.PROXY_PORT, 440, ("--rate", "50")),
    "authority": ("idle", "", layout.AUTHORITY_PORT, 100, ()),
}
"""name -> kind, node ("": the authority), port, count, further words."""

# As the demo's, but the node of few descriptors passes nothing on: what is shed there breaks no other chain.
LAYOUT: Final = layout.MeshLayout(
    (
        layout.NodeLayout("node1", 1, (layout.WEB,)),
        layout.NodeLayout("node2", 2, (layout.WEB, layout.CART_V1)),
        layout.NodeLayout("node3", 3, (layout.CART_V1, layout.DB)),
        layout.NodeLayout("node4", 4, (layout.CART_V2, layout.DB)),
        layout.NodeLayout("node5", 5, (layout.LONE_WEB,)),
    )
)

Say = Callable[[str], None]


class Soak:
    """One soak on one mesh."""

    def __init__(self, mesh: Mesh, minutes: float, seed: int, say: Say) -> None:
        self._mesh = mesh
        self._rng = random.Random(seed)
        self._say = say
        self._length_s = minutes * 60
        # Everything happens at least twice: the first time may fill pools, the second may not.
        self._cycle_s = min(CYCLE_S_MAX, self._length_s / 2)
        self._start_s = sessions.now_s()
        self._is_full = False
        self.evidence: dict[str, Any] = {
            "processes": {},
            "floods": [],
            "pushes": [],
            "disk": [],
            "hangups": [],
            "sheds": {},
            "unfinished": [],
            "length_s": self._length_s,
            "poor": POOR,
        }

    def _now_s(self) -> float:
        return round(sessions.now_s() - self._start_s, 2)

    async def run(self) -> dict[str, Any]:
        """Start the mesh, soak it, and gather everything."""
        mesh = self._mesh
        state = mesh.nodes[FULL].directory / "state"
        state.mkdir(parents=True)
        await trio.run_process(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(state)]
        )
        try:
            few = ["sh", "-c", f'ulimit -n {FEW_DESCRIPTORS}; exec "$@"', "sh", *GOSSIPMESH]
            await mesh.start({POOR: few})
            self._say("the mesh is ready")
            await self._soak()
            await self._finish()
        finally:
            with trio.CancelScope(shield=True):
                mesh.keeper.close()
                await trio.run_process(["umount", "--lazy", str(state)], check=False)
        return self.evidence

    async def _soak(self) -> None:
        names = list(self._mesh.nodes)
        requests = Load(self._mesh, names, rate_per_s=30.0, timeout_s=20.0)
        mixed = Load(
            *(self._mesh, [name for name in names if name != POOR]),
            rate_per_s=8.0,
            timeout_s=20.0,
            kinds=MIXED,
            sessions=HELD,
            session_life_s=SESSION_LIFE_S,
            name="mixed",
        )
        self._start_s = sessions.now_s()
        async with trio.open_nursery() as nursery:
            for load in (requests, mixed):
                load.start(nursery)
            with trio.move_on_after(self._length_s):
                async with trio.open_nursery() as breaking:
                    for task in (self._sample, self._flood, self._push, self._fill_disk, self._hang_up):
                        breaking.start_soon(task)
            if self._is_full:
                self._empty_disk()
            for name, load in (("requests", requests), ("mixed", mixed)):
                self.evidence[name] = await load.stop()
                for failure in self.evidence[name]["failures"]:
                    failure["at_s"] = round(failure["at_s"] - self._start_s, 2)
            self.evidence["sessions"] = mixed.session_ends
            nursery.cancel_scope.cancel()

    async def _sample(self) -> None:
        """Write down memory and descriptors of every agent and engine, over and over."""
        while True:
            for name, node in self._mesh.nodes.items():
                recorder_mb = {"engine": 0.0}
                try:
                    status = await node.status()
                    recorder_mb["agent"] = status["recorder"]["bytes"] / BYTES_PER_MB
                except (AgentSilent, AdminError):
                    self._say(f"{self._now_s():7.1f} s  the agent of {name} does not answer")
                for what, known_mb in recorder_mb.items():
                    for pid in node.pids(what):
                        self._sample_process(f"{what} of {name}", pid, known_mb)
            await trio.sleep(max(SAMPLE_S_MIN, self._length_s / SAMPLES_PER_RUN))

    def _sample_process(self, name: str, pid: int, recorder_mb: float) -> None:
        try:
            figures = [round(rss_mb(pid), 2), len(os.listdir(f"/proc/{pid}/fd")), round(recorder_mb, 3)]
        except (OSError, ValueError):
            return  # it has ended
        self.evidence["processes"].setdefault(name, []).append([self._now_s(), pid, *figures])

    async def _flood(self) -> None:
        """Flood one after the other, each for most of its share of a cycle."""
        share_s = self._cycle_s / len(FLOODS)
        async with trio.open_nursery() as nursery:
            while True:
                for name in FLOODS:
                    await self._flood_once(name, share_s, nursery)

    async def _flood_once(self, name: str, share_s: float, nursery: trio.Nursery) -> None:
        kind, node, port, count, words = FLOODS[name]
        host = self._mesh.nodes[node].host if node else self._mesh.authority_address.rpartition(":")[0]
        options = ["--count", str(count), "--uid", str(stranger_uid()), "--from", FLOOD_SOURCE, *words]
        flood = Flood(self._mesh.keeper, kind, [f"{host}:{port}"], *options)
        at_s = self._now_s()
        try:
            flood.start(nursery)
            await trio.sleep(share_s * 0.8)
        finally:
            told = flood.stop()
            row = {"name": name, "at_s": at_s, "ended_s": self._now_s(), "opened": 0, **told}
            self.evidence["floods"].append(row)
        self._say(f"{self._now_s():7.1f} s  {name}: {told}")
        await trio.sleep(share_s * 0.2)

    async def _push(self) -> None:
        """Push a canary at any node, over and over."""
        while True:
            await trio.sleep(self._cycle_s / 10)
            node, weight = self._rng.choice([*self._mesh.nodes]), self._rng.randint(1, 99)
            path = self._mesh.directory / "soak.yaml"
            documents = layout.canary(100 - weight, weight)
            for rule in documents[-1]["spec"]["rules"]:
                del rule["timeouts"]  # slow requests are part of the load
            layout.write_policy(path, documents)
            at_s, was_full = self._now_s(), self._is_full
            words = ("--wait", "--timeout", f"{PUSH_TIMEOUT_S:g}s")
            result = await self._mesh.push(path, node, *words, timeout_s=PUSH_TIMEOUT_S + 15)
            self.evidence["pushes"].append(
                {
                    "at_s": at_s,
                    "ended_s": self._now_s(),
                    "node": node,
                    "ok": result.code == 0,
                    # Whoever has no room for a policy cannot take it, and says so.
                    "excused": was_full or self._is_full or self._disk_was_full_since(at_s),
                    "said": (result.stdout + result.stderr).strip()[-400:],
                }
            )

    def _disk_was_full_since(self, at_s: float) -> bool:
        return any(row["emptied_s"] >= at_s - PUSH_TIMEOUT_S for row in self.evidence["disk"])

    async def _fill_disk(self) -> None:
        """Fill one node's disk for a while, and empty it; its agent is started again if it ended."""
        while True:
            await trio.sleep(self._cycle_s * (1 - FULL_SHARE) / 2)
            self._is_full, full_s = True, self._now_s()
            _fill(self._disk_file())
            self._say(f"{full_s:7.1f} s  the disk of {FULL} is full")
            await trio.sleep(self._cycle_s * FULL_SHARE)
            self._empty_disk(full_s)
            await trio.sleep(self._cycle_s * (1 - FULL_SHARE) / 2)

    def _disk_file(self) -> Path:
        return self._mesh.nodes[FULL].directory / "state" / "fill"

    def _empty_disk(self, full_s: float = 0.0) -> None:
        self._disk_file().unlink()
        self._is_full = False
        agent = self._mesh.nodes[FULL].agent
        ended = agent is not None and agent.poll() is not None
        if ended:
            self._mesh.start_agent(FULL)  # as systemd does
        row = {"full_s": full_s, "emptied_s": self._now_s(), "agent_ended": ended}
        self.evidence["disk"].append(row)
        self._say(f"{self._now_s():7.1f} s  the disk of {FULL} has room again: {row}")

    async def _hang_up(self) -> None:
        """Send SIGHUP to every agent and engine, as logrotate does."""
        while True:
            await trio.sleep(self._cycle_s / 4)
            hit = [
                pid
                for node in self._mesh.nodes.values()
                for what in ("agent", "engine")
                for pid in node.signal(what, signal.SIGHUP)
            ]
            self.evidence["hangups"].append({"at_s": self._now_s(), "pids": hit})

    async def _finish(self) -> None:
        """Wait until all is well again, and read what is left to read."""
        waits: list[Callable[[], Awaitable[float]]] = [
            lambda: self._mesh.wait_ready(END_TIMEOUT_S),
            lambda: self._mesh.wait_sums_equal(timeout_s=END_TIMEOUT_S),
        ]
        for wait in waits:
            try:
                await wait()
            except (WaitedInVain, OperatorError) as error:
                self.evidence["unfinished"].append(str(error))
        for name, node in self._mesh.nodes.items():
            try:
                self.evidence["sheds"][name] = shed_counts(samples_of(await scrape(node.host)))
            except AgentSilent as error:
                self.evidence["unfinished"].append(str(error))
        self.evidence["tracebacks"] = self._tracebacks()
        self.evidence["access_logs"] = {name: access_logs(node) for name, node in self._mesh.nodes.items()}

    def _tracebacks(self) -> list[dict[str, Any]]:
        """Return every log with a traceback, and the lines around the first of them."""
        logs = sorted((self._mesh.directory / "logs").glob("*.log"))
        logs += sorted(self._mesh.directory.rglob("engine.log*"))
        found = []
        for log in logs:
            before, mark, after = log.read_bytes().partition(TRACEBACK)
            if mark:
                lines = before.splitlines()[-1:] + after.splitlines()[:40]
                found.append({"log": str(log), "lines": [line.decode(errors="replace") for line in lines]})
        return found


def access_logs(node: MeshNode) -> dict[str, Any]:
    """Return how many files and bytes a node's access log is, and what it may be."""
    files = sorted((node.directory / "state" / "log").glob("access.log*"))
    size = sum(file.stat().st_size for file in files)
    # A line that crosses the bound is written whole.
    return {"rotated": len(files) > 1, "bytes": size, "bytes_max": LOG_BYTES_MAX * (LOGS_KEPT + 1)}


def _fill(path: Path) -> None:
    """Leave no free block on the disk of `path`."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4_096)):
                pass
        except OSError:
            return


def soak(minutes: float, seed: int, say: Say, keep: bool) -> dict[str, Any]:
    """Soak a mesh of its own; return the result."""
    logs = {"maxBytes": LOG_BYTES_MAX, "keep": LOGS_KEPT}
    with Mesh(LAYOUT, keep_files=keep, config={"accessLog": logs}) as mesh:
        evidence = trio.run(Soak(mesh, minutes, seed, say).run)
        checks = judge(evidence)
        mesh.keep_files = keep or not is_ok(checks)
        place = str(mesh.directory) if mesh.keep_files else None
    growth = judged_series(evidence)
    result = {"ok": is_ok(checks), "minutes": minutes, "seed": seed, "checks": checks, "growth": growth}
    return {**result, "logs": place, "evidence": evidence}


@click.command()
@click.option("--minutes", type=Number(1, 24 * 60, whole=False), default=20.0, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Chooses where policies are pushed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all evidence.")
@click.option("--keep", is_flag=True, help="Leave logs and state behind.")
def main(minutes: float, seed: int, as_json: bool, keep: bool) -> None:
    """Soak five nodes for MINUTES; exit 0 only if everything holds."""
    end_like_ctrl_c(signal.SIGTERM)
    enter_private_mounts(["-m", "chaos.soak", *sys.argv[1:]])
    result = soak(minutes, seed, lambda line: click.echo(line, err=True), keep)
    for check in result["checks"]:
        click.echo(f"{'ok  ' if check['ok'] else 'FAIL'}  {check['check']}", err=as_json)
        for problem in check["problems"]:
            click.echo(f"      {problem}", err=as_json)
    if result["logs"]:
        click.echo(f"logs: {result['logs']}", err=True)
    if as_json:
        click.echo(msgspec.json.encode(result))
    raise SystemExit(0 if result["ok"] else 1)


def run() -> None:
    """Run the command; a failure a person can mend is one sentence."""
    run_command(main)


if __name__ == "__main__":
    run()
