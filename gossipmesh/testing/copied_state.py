"""A copy of a node's state folder, started on another address beside its owner: the step, and what is judged.

The whole machine is copied: folder, services and workloads. The copy must end, and its engine with it.
"""

import shutil
import signal
from pathlib import Path
from typing import Any, Final

import trio

from gossipmesh.net.files import PARENT_MODE, make_folder
from gossipmesh.testing import departures, knock, layout
from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.layout import NodeLayout
from gossipmesh.testing.mesh import GOSSIPMESH, Mesh, MeshNode
from gossipmesh.testing.waiting import WaitedInVain, wait_until

COPY_STATE: Final = "copy-state"
ELSEWHERE: Final = 200  # added to a node's number: another address, in another namespace where there are some
EXIT_CODE: Final = 78
INCARNATIONS_MAX: Final = 4
_KEPT: Final = ("records.log", "records.snapshot", "snapshot.bin")
_SAID_LENGTH_MAX: Final = 500


async def copy_state(mesh: Mesh, name: str, within_s: float) -> dict[str, Any]:
    """Start a copy of a running node elsewhere, with all it serves; return what became of the two.

    `agent_ended_after_s` and `engine_ended_after_s` are the copy's, from the start of its process; None when
    not `within_s`. `copy` and `owner` are what callers met at each afterwards, `before` at the owner before.
    """
    owner = mesh.nodes[name]
    asker = next(node for node in mesh.nodes.values() if node.name != name)
    before = await owner.status()
    answered_before = await knock.knock_at(mesh, owner, asker)
    copy = _make_copy(mesh, owner)
    started_s = trio.current_time()
    words = [*GOSSIPMESH, "agent", "--config", str(copy.config_path)]
    copy.agent = mesh.keeper.start(_label(name), [*mesh.network.prefix(copy.layout.number), *words])
    ended = await departures.watch_ends({"agent": copy.agent.pid}, started_s, within_s)
    engine_ended_s = await _watch_engines(copy, started_s, within_s)
    log = mesh.keeper.log_path(_label(name)).read_text(errors="replace").strip()
    detail: dict[str, Any] = {
        "exit_code": copy.agent.poll(),
        "agent_ended_after_s": ended["agent"],
        "engine_ended_after_s": engine_ended_s,
        "owner_at": f"{owner.host}:{layout.GOSSIP_PORT}",
        "before": answered_before,
        "copy": await knock.knock_at(mesh, copy, asker),
        "owner": await knock.knock_at(mesh, owner, asker),
        "said": log.splitlines()[-1][-_SAID_LENGTH_MAX:] if log else "",
    }
    for process in copy.workloads.values():
        mesh.keeper.signal(process.pid, signal.SIGKILL)
    after = await owner.status()
    detail["owner_runs_on"] = owner.agent is not None and owner.agent.poll() is None
    detail["same_engine"] = after["engine"]["pid"] == before["engine"]["pid"]
    detail["epochs"] = [before["incarnation"]["epoch"], after["incarnation"]["epoch"]]
    return detail


def _label(name: str) -> str:
    return f"{name}-copy-agent"


def _make_copy(mesh: Mesh, owner: MeshNode) -> MeshNode:
    """Copy what is on a node's disk to another address, and start its workloads there."""
    place = NodeLayout(f"{owner.name}-copy", owner.layout.number + ELSEWHERE, owner.layout.services)
    mesh.network.attach(place.number, mesh.keeper)
    directory = mesh.directory / place.name
    copy = MeshNode(place, mesh.network.host(place.number), directory, mesh.keeper)
    make_folder(copy.services_directory, PARENT_MODE)
    state, copied = owner.directory / "state", directory / "state"
    make_folder(copied, 0o700)
    shutil.copytree(state / "identity", copied / "identity")
    for file_name in _KEPT:
        if (state / file_name).exists():
            shutil.copy2(state / file_name, copied / file_name)
    others = [other for other in mesh.nodes.values() if other.name != owner.name]
    seeds = [f"{other.host}:{layout.GOSSIP_PORT}" for other in others[:2]]
    config = layout.agent_config(copy.host, directory, owner.directory / "token", seeds, {})
    layout.write_document(copy.config_path, config)
    mesh.nodes[place.name] = copy
    try:
        for service in place.services:
            mesh.write_service(place.name, service)
            mesh.start_workload(place.name, service)
    finally:
        del mesh.nodes[place.name]
    return copy


async def _watch_engines(node: MeshNode, started_s: float, within_s: float) -> float | None:
    """Return when no engine of a node ran any more, in seconds since `started_s`; None: one does still."""

    async def ended() -> str | None:
        engines = _engines(node)
        return f"{engines} run" if engines else None

    try:
        await wait_until(f"the engine of {node.name} ends", ended, within_s)
    except WaitedInVain:
        return None
    return round(trio.current_time() - started_s, 3)


def _engines(node: MeshNode) -> list[int]:
    wanted = str(node.directory / "state" / "engine").encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # it ended while we looked
    return found


def copies_ended_s(evidence: Evidence) -> list[float | None]:
    """Return for each copy after how many seconds it and its engine had ended; None: they run."""
    rows = []
    for fault in _copies(evidence):
        times = [fault.detail["agent_ended_after_s"], fault.detail["engine_ended_after_s"]]
        rows.append(None if None in times else max(times))
    return rows


def _copies(evidence: Evidence) -> list[FaultFired]:
    return [fault for fault in evidence.faults if fault.kind == COPY_STATE]


def finally_copies_ended(evidence: Evidence, within_s: float) -> list[str]:
    """Each copy ended in time and in words, and nobody is answered there; its owner serves as before."""
    problems = []
    for fault, took_s in zip(_copies(evidence), copies_ended_s(evidence), strict=True):
        problems += [f"{fault.node}: {problem}" for problem in _problems(fault.detail, took_s, within_s)]
    return problems


def _problems(detail: dict[str, Any], took_s: float | None, within_s: float) -> list[str]:
    problems = []
    if took_s is None or took_s > within_s:
        problems.append(f"the copy and its engine ended after {took_s} s, bound {within_s:g} s")
    if detail["exit_code"] != EXIT_CODE or f"runs at {detail['owner_at']} too" not in detail["said"]:
        problems.append(f"the copy ended with {detail['exit_code']}: {detail['said']}")
    for who, answer in (("before", "answered"), ("owner", "answered"), ("copy", "refused")):
        if set(detail[who].values()) != {answer}:
            problems.append(f"callers of {who} were not {answer}: {detail[who]}")
    if not detail["owner_runs_on"] or not detail["same_engine"]:
        problems.append("the owner's agent or engine did not go on")
    before, after = detail["epochs"]
    if after - before > INCARNATIONS_MAX:
        problems.append(f"the owner signed from epoch {before} to {after}")
    return problems
