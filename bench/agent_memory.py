"""What one whole agent costs in memory, and how long it holds its loop, while it joins a synthetic mesh.

`python -m bench.agent_memory [MEMBERS] [--json]`: a real `gossipmesh agent` with its engine, on loopback,
joins by a real peer that knows MEMBERS signed members who only exist on paper (`bench.synthetic_peer`). It is
looked at from outside until its root and the peer's are equal; then each thing is done to it that walks over
all members. Ends with one line of JSON; exit 1 when a gate is missed. MEMBERS counts the newcomer and the
peer; bytes a member are of memory that is no file's page, the whole agent's. Stalls are judged by the loop's
own CPU time, and told by the clock too: a busy machine is not our stall.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from bench.gossip.ours import enrol_all
from bench.mesh import scrape
from bench.processes import anonymous_mb, cpu_s, peak_mb, pss_mb, rss_mb
from gossipmesh.net.interpreter import module_words
from gossipmesh.testing import layout
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.waiting import wait_until

GATES: Final = {"peak_mb": 75.0, "record_bytes": 3_000, "busy_stalls": 0}
_JOIN_TIMEOUT_S: Final = 90.0
_ENGINE_TIMEOUT_S: Final = 30.0
_AFTER_S: Final = 0.5  # what a look starts goes on in the agent: compiling, saving
_REST_S: Final = 10.0
_CALLER: Final = layout.ServiceLayout("web", "v1", "http", upstream="s07")
_READS: Final = ("members", "services", "endpoints", "status", "policy/status", "check", "why?node=node-7")


class Looker:
    """Samples the agent's memory from outside, and what it says of its own loop."""

    def __init__(self, node: MeshNode, peer_log: Path) -> None:
        assert node.agent is not None
        self._node = node
        self._peer_log = peer_log
        self._pid = node.agent.pid
        self.stages: list[dict[str, Any]] = []

    def peer(self) -> dict[str, Any]:
        """Return what the peer printed last; nothing before it is there."""
        lines = self._peer_log.read_text().splitlines() if self._peer_log.exists() else []
        told: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return told

    async def stage(self, name: str, act: Callable[[], Awaitable[object]]) -> dict[str, Any]:
        """Do something to the agent, and note what came of it."""
        before = self.stages[-1] if self.stages else {}
        cpu, began = cpu_s([self._pid]), time.perf_counter()
        await act()
        took_s = time.perf_counter() - began
        await trio.sleep(_AFTER_S)
        loop = (await self._node.status())["lag"]["loop"]
        stage = {
            "stage": name,
            "took_s": round(took_s, 3),
            "cpu_s": round(cpu_s([self._pid]) - cpu, 2),
            "rss_mb": round(rss_mb(self._pid), 1),
            "anonymous_mb": round(anonymous_mb(self._pid), 1),
            "pss_mb": round(pss_mb(self._pid), 1),
            "peak_mb": round(peak_mb(self._pid), 1),
            "stalls": loop["stalls"] - before.get("stalls_so_far", 0),
            "busy_stalls": loop["busy_stalls"] - before.get("busy_stalls_so_far", 0),
            "stalls_so_far": loop["stalls"],
            "busy_stalls_so_far": loop["busy_stalls"],
            "longest_ms_so_far": loop["longest_ms"],
            "longest_busy_ms_so_far": loop["longest_busy_ms"],
            "longest_busy_task": loop["longest_busy_task"],
        }
        self.stages.append(stage)
        return stage

    async def serves(self) -> None:
        """Wait until the engine is there: its start is no part of the join."""

        async def attached() -> str | None:
            return None if (await self._node.status())["engine"]["attached"] else "no engine"

        await wait_until("the engine is attached", attached, _ENGINE_TIMEOUT_S)

    async def peer_is_there(self) -> None:
        """Wait until the peer has signed all its members; the agent meanwhile asks for it in vain."""

        async def told() -> str | None:
            return None if self.peer() else "nothing"

        await wait_until("the peer is there", told, _JOIN_TIMEOUT_S)

    async def joined(self) -> None:
        """Wait until the agent's root equals the peer's."""

        async def equal() -> str | None:
            root = (await self._node.status())["state_sums"]["group"]
            return None if root == self.peer()["root"] else f"roots {root} and {self.peer()['root']}"

        await wait_until("the agent holds what the peer holds", equal, _JOIN_TIMEOUT_S)

    async def read(self, path: str) -> None:
        """Ask the agent's own socket."""
        await self._node.ask(f"/v1/{path}", timeout_s=10.0)

    async def scraped(self) -> None:
        """Scrape twice: the first time loads what renders."""
        for _ in range(2):
            await scrape(self._node.host)


async def measure(members: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Start both processes, go through the stages, and return what was seen."""
    directory = Path(tempfile.mkdtemp(prefix="gossipmesh-bench-"))
    plan = layout.MeshLayout((layout.NodeLayout("newcomer", 1, (_CALLER,)),))
    with Mesh(plan, directory=directory) as mesh:
        node = mesh.nodes["newcomer"]
        peer_host = mesh.network.host(node.layout.number + 1)
        node.services_directory.mkdir(parents=True)
        seeds = [f"{peer_host}:{layout.GOSSIP_PORT}"]
        config = layout.agent_config(node.host, node.directory, node.directory / "token", seeds)
        layout.write_document(node.config_path, config)
        mesh.write_service(node.name, _CALLER)
        await enrol_all([node], directory / "authority")
        mesh.start_agent(node.name)
        looker = Looker(node, mesh.keeper.log_path("peer"))
        alone = await looker.stage("alone", looker.serves)
        words = [str(directory / "authority"), str(members - 2), peer_host]
        mesh.keeper.start("peer", [*module_words("bench.synthetic_peer"), *words])
        await looker.stage("waiting", looker.peer_is_there)
        say(f"alone: {alone}")
        joined = await looker.stage("join", looker.joined)
        say(f"joined: {joined}")
        acts: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("rest", partial(trio.sleep, _REST_S)),
            *((path, partial(looker.read, path)) for path in _READS),
            ("scrape", looker.scraped),
            ("rest again", partial(trio.sleep, _REST_S)),
        ]
        for name, act in acts:
            say(f"{name}: {await looker.stage(name, act)}")
        return _report(members, looker, alone, joined)


def _report(members: int, looker: Looker, alone: dict[str, Any], joined: dict[str, Any]) -> dict[str, Any]:
    last = looker.stages[-1]
    seen = {
        "members": members,
        "record_bytes": looker.peer()["record_bytes"],
        "bytes_per_member": round((joined["anonymous_mb"] - alone["anonymous_mb"]) * 1e6 / members),
        "rss_alone_mb": alone["rss_mb"],
        "rss_joined_mb": joined["rss_mb"],
        "rss_mb": last["rss_mb"],
        "anonymous_mb": last["anonymous_mb"],
        "pss_mb": last["pss_mb"],
        "peak_mb": last["peak_mb"],
        "join_s": joined["took_s"],
        "join_cpu_s": joined["cpu_s"],
        "busy_stalls": last["busy_stalls_so_far"],
        "stalls": last["stalls_so_far"],
        "longest_busy_ms": last["longest_busy_ms_so_far"],
        "longest_busy_task": last["longest_busy_task"],
        "longest_ms": last["longest_ms_so_far"],
        "load": round(os.getloadavg()[0], 1),
    }
    missed = [name for name, most in GATES.items() if seen[name] > most]
    return {"ok": not missed, "missed": missed, "gates": GATES, **seen, "stages": looker.stages}


def main() -> None:
    """Measure, say what is seen, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("members", type=int, nargs="?", default=10_000)
    parser.add_argument("--json", action="store_true", help="print the JSON only")
    options = parser.parse_args()

    def say(line: str) -> None:
        if not options.json:
            print(line, file=sys.stderr)

    report = trio.run(measure, options.members, say)
    print(json.dumps(report))
    sys.exit(0 if report["ok"] else 1)


if __name__ == "__main__":
    main()
