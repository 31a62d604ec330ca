"""A node's identity folder is stolen and the node revoked: the step, and what is judged.

The thief calls every other node with every key in the folder, by the authority's certificates and by carrier
leaves alike. The node turns its TLS keys, which ends those. The thief steals the folder again, calls with all
of that, and holds a request, a WebSocket and a TCP connection open. The node is revoked by the command, ends,
and is enrolled again. Times count from the start of a command, its process included.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from gossipmesh.agent.identity.identity_store import load_identity
from gossipmesh.model.errors import OperatorError
from gossipmesh.testing import departures, enrolments, scraping
from gossipmesh.testing.evidence import Evidence, FaultFired, access_log_rows
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.thief import REFUSED, SERVED, Caller, Held, loot_of
from gossipmesh.testing.waiting import wait_until
from gossipmesh.trust.carrier import carrier_root_pem

STEAL_NODE_KEY: Final = "steal-node-key"
EXIT_CODE: Final = 77
KINDS: Final = ("request", "websocket", "tcp")
_LOOK_S: Final = 0.05
CUT: Final = "rbac_access_denied_matched_policy[revoked]"
_REFUSALS: Final = "peers_refused_"


async def steal_node_key(mesh: Mesh, name: str, within_s: float) -> dict[str, Any]:
    """Steal a node's keys, use them, revoke the node and enrol it again; return what the thief met.

    `before`, `after` and `enrolled_again` say of each other node what each key met there, `turned` the same
    of the keys before `keys turn --stolen`, of which none was served any more `turned_s` after that
    command's start. `held`: when each connection was closed. `refused_after_s`: when each other node first
    refused a new call, for good. `told_s`: when the command had ended. Times are None when not `within_s`.
    """
    owner = mesh.nodes[name]
    others = [node for node in mesh.nodes.values() if node.name != name]
    first = await _rob(mesh, owner, others, within_s)
    detail = await _turn(mesh, owner, first, others, within_s)
    callers = await _rob(mesh, owner, others, within_s)
    detail |= {"keys": len(callers), "before": await call_all(callers, others)}
    engine, agent = (await owner.status())["engine"]["pid"], owner.pids("agent")[0]
    detail |= await _revoke(mesh, name, others, list(callers.values()), within_s)
    started_s = trio.current_time()
    ended = await departures.watch_ends({"agent": agent, "engine": engine}, started_s, within_s)
    detail["exit_code"] = None if owner.agent is None or ended["agent"] is None else owner.agent.wait()
    detail["engine_ended"] = ended["engine"] is not None
    detail["after"] = await call_all(callers, others)
    await enrolments.enrol_anew(mesh, owner, within_s)
    detail["enrolled_again"] = await call_all(callers, others)
    detail["anew"] = await call_all(await _rob(mesh, owner, others, within_s), others)
    detail["refusals"] = {node.name: await refusals_of(node) for node in others}
    detail["logged"] = {node.name: logged_of(node) for node in others}
    return detail


async def _rob(mesh: Mesh, owner: MeshNode, others: Sequence[MeshNode], within_s: float) -> dict[str, Caller]:
    """Copy a node's identity folder; return who calls with each key in it, once all of them are served."""

    async def settled() -> str | None:
        told = await owner.ask("/v1/keys")
        return None if told["settled"] else f"its keys are not: {told}"

    await wait_until(f"the keys of {owner.name} are settled", settled, within_s)
    folder = Path(tempfile.mkdtemp(prefix=f"{owner.name}-stolen-", dir=mesh.directory))
    shutil.copytree(owner.directory / "state" / "identity", folder / "identity")
    bundle = bundle_of(owner)
    callers = {one.label: Caller(one, bundle) for one in loot_of(folder / "identity")}
    await wait_until(f"every key of {owner.name} is served", lambda: _not(SERVED, callers, others), within_s)
    return callers


async def _turn(
    mesh: Mesh, owner: MeshNode, callers: dict[str, Caller], others: Sequence[MeshNode], within_s: float
) -> dict[str, Any]:
    """Have a node whose TLS keys were stolen turn them, and see that no engine takes them any more."""
    started_s = trio.current_time()
    await mesh.must("keys", "turn", "--stolen", node=owner.name)
    await wait_until("no stolen key is served", lambda: _not(REFUSED, callers, others), within_s)
    turned_s = round(trio.current_time() - started_s, 3)
    return {"turned_s": turned_s, "turned": await call_all(callers, others)}


def bundle_of(node: MeshNode) -> bytes:
    """Return the roots a node trusts and the carrier's, PEM."""
    identity = load_identity(node.directory / "state" / "identity")
    if identity is None:
        raise OperatorError(f"{node.name} has no identity")
    return identity.bundle_pem + carrier_root_pem(identity.trust_domain)


def http_service(node: MeshNode) -> str:
    """Return the name of an HTTP service that a node serves."""
    return next(one.name for one in node.layout.services if one.protocol == "http")


async def call_all(callers: dict[str, Caller], nodes: Sequence[MeshNode]) -> dict[str, dict[str, str]]:
    """Return node -> key -> what a call with that key met there."""
    return {
        node.name: {label: await caller.call(node, http_service(node)) for label, caller in callers.items()}
        for node in nodes
    }


async def _not(expected: str, callers: dict[str, Caller], nodes: Sequence[MeshNode]) -> str | None:
    met = await call_all(callers, nodes)
    wrong = {
        f"{node} {key}": what for node, row in met.items() for key, what in row.items() if what != expected
    }
    return str(wrong) if wrong else None


async def _revoke(
    mesh: Mesh, name: str, others: Sequence[MeshNode], callers: Sequence[Caller], within_s: float
) -> dict[str, Any]:
    """Hold connections open, revoke the node, and watch them and new calls."""
    held = [await _hold(kind, callers[index], others) for index, kind in enumerate(KINDS)]
    closed: dict[str, Any] = dict.fromkeys(KINDS)
    refused: dict[str, float | None] = {node.name: None for node in others}
    started_s = trio.current_time()
    detail: dict[str, Any] = {"told_s": None, "held": closed, "refused_after_s": refused}

    async def watch(one: Held) -> None:
        async with one:
            closed[one.kind] = await one.wait_closed(started_s)

    async def order() -> None:
        words = ("authority", "revoke", name, "--dir", str(mesh.directory / "authority"))
        await mesh.must(*words, node=others[0].name)
        detail["told_s"] = round(trio.current_time() - started_s, 3)

    async def knock(node: MeshNode) -> None:
        while True:
            began_s = trio.current_time()
            met = await callers[0].call(node, http_service(node))
            if met != REFUSED:
                refused[node.name] = None
            elif refused[node.name] is None:
                refused[node.name] = round(began_s - started_s, 3)
            await trio.sleep(_LOOK_S)

    with trio.move_on_after(within_s):
        async with trio.open_nursery() as knocks:
            for node in others:
                knocks.start_soon(knock, node)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(order)
                for one in held:
                    nursery.start_soon(watch, one)
            await wait_until("all refuse", lambda: _missing(refused), within_s)
            knocks.cancel_scope.cancel()
    return detail


async def _missing(refused: dict[str, float | None]) -> str | None:
    return str(refused) if None in refused.values() else None


async def _hold(kind: str, caller: Caller, others: Sequence[MeshNode]) -> Held:
    wanted = "db" if kind == "tcp" else "cart"
    node = next(node for node in others if wanted in [one.name for one in node.layout.services])
    return await caller.hold(kind, node, wanted)


async def refusals_of(node: MeshNode) -> dict[str, int]:
    """Return what an engine has counted of peers it took for nobody, and of connections it cut."""
    counts: dict[str, int] = {}
    for name, labels, value in scraping.samples_of(await scraping.scrape(node.host)):
        what = labels.get("name", "")
        if name == "gossipmesh_engine_events_total" and (what.startswith(_REFUSALS) or what == "peers_cut"):
            counts[what] = counts.get(what, 0) + int(value)
    return counts


def logged_of(node: MeshNode) -> dict[str, int]:
    """Return how often a node's access log says why a peer was refused or cut off: the part in brackets."""
    counts: dict[str, int] = {}
    for row in access_log_rows(node):
        details = row.get("response_code_details") or ""
        if details.startswith("peer_refused[") or details == CUT:
            what = details.partition("]")[0] + "]"
            counts[what] = counts.get(what, 0) + 1
    return counts


def thefts_s(evidence: Evidence) -> list[dict[str, float]]:
    """Return of each theft when turned keys were refused, new calls were, and what was open was closed."""
    rows = []
    for detail in (fault.detail for fault in _thefts(evidence)):
        parts = {
            "turned_s": [detail["turned_s"]],
            "told_s": [detail["told_s"]],
            "refused_s": list(detail["refused_after_s"].values()),
            "closed_s": [held and held["after_s"] for held in detail["held"].values()],
        }
        rows.append({part: max(times) for part, times in parts.items() if None not in times})
    return rows


def _thefts(evidence: Evidence) -> list[FaultFired]:
    return [fault for fault in evidence.faults if fault.kind == STEAL_NODE_KEY]


def finally_stolen_keys_are_useless(
    evidence: Evidence, closed_within_s: float, at_once_s: float
) -> list[str]:
    """A thief was served before, refused everywhere and cut off in time once told, and never served again.

    `closed_within_s` bounds refusals and ends from the start of the command, `at_once_s` the first refusal
    of any node from the end of the command, which ends when one agent has the news.
    """
    problems = []
    for fault in _thefts(evidence):
        for judge in (_met, _closed(closed_within_s), _refused(closed_within_s, at_once_s), _written_down):
            problems += [f"{fault.node}: {problem}" for problem in judge(fault.detail)]
    return problems


Judge = Callable[[dict[str, Any]], list[str]]
_EXPECTED: Final = {
    "turned": REFUSED,
    "before": SERVED,
    "after": REFUSED,
    "enrolled_again": REFUSED,
    "anew": SERVED,
}


def _met(detail: dict[str, Any]) -> list[str]:
    return [
        f"{when}, at {node}: {key} was {met}, not {expected}"
        for when, expected in _EXPECTED.items()
        for node, row in detail[when].items()
        for key, met in row.items()
        if met != expected
    ]


def _closed(within_s: float) -> Judge:
    def judge(detail: dict[str, Any]) -> list[str]:
        problems = []
        for kind, held in detail["held"].items():
            if held is None or held["after_s"] > within_s:
                problems.append(f"its {kind} was open after {within_s:g} s: {held}")
            elif held["came"].endswith("200 OK"):
                problems.append(f"its {kind} was answered: {held['came']}")
        return problems

    return judge


def _refused(within_s: float, at_once_s: float) -> Judge:
    def judge(detail: dict[str, Any]) -> list[str]:
        times = detail["refused_after_s"]
        if None in times.values() or max(times.values()) > within_s:
            return [f"new calls were refused after {times} s, bound {within_s:g} s"]
        if detail["told_s"] is None or min(times.values()) > detail["told_s"] + at_once_s:
            return [f"who was told at {detail['told_s']} s refused new calls after {times} s"]
        return []

    return judge


def _written_down(detail: dict[str, Any]) -> list[str]:
    problems = []
    if detail["exit_code"] != EXIT_CODE or not detail["engine_ended"]:
        problems.append(f"its agent ended with {detail['exit_code']}, engine ended: {detail['engine_ended']}")
    for node, counts in detail["refusals"].items():
        if not any(what.startswith(_REFUSALS) and count for what, count in counts.items()):
            problems.append(f"the metrics of {node} say nothing of refused peers: {counts}")
        if not any(what.startswith("peer_refused[") for what in detail["logged"][node]):
            problems.append(f"the access log of {node} says nothing of refused peers")
    if not any(CUT in rows for rows in detail["logged"].values()):
        problems.append(f"no access log says that anything was cut off: {detail['logged']}")
    if sum(counts.get("peers_cut", 0) for counts in detail["refusals"].values()) < len(KINDS):
        problems.append(f"connections that were cut are not counted: {detail['refusals']}")
    return problems
