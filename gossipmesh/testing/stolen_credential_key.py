"""The credential key is stolen: what its thief gets done before the command, and after, with real processes.

The thief hands three things to an agent: a node of its own, a higher generation of one node with keys of its
own, and a tombstone for another. Before, all three are taken, and the agents of the two nodes end. A further
node is killed and is away while the key is replaced by the command, under load between those that are left.
After, every agent refuses all three; who was taken out or away is started again from its disk.
"""

import base64
import json
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import trio

from gossipmesh.control.ledger import Ledger
from gossipmesh.control.roots import Authority, load_authority
from gossipmesh.model.identity import node_id_of, node_spiffe_id
from gossipmesh.model.records import NodeCredential, RecordKind, SignedRecord
from gossipmesh.testing.admin import AdminError
from gossipmesh.testing.departures import watch_ends
from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.load_control import Load
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.stolen_node_key import refusals_of
from gossipmesh.testing.waiting import wait_until
from gossipmesh.trust.keys import ExchangeKey, SigningKey
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.codec import decode_untrusted, encode

STEAL_CREDENTIAL_KEY: Final = "steal-credential-key"
NODE: Final = "a node of its own"
OVER: Final = "a higher generation"
OUT: Final = "a tombstone"
TAKEN: Final = "taken"
ENDED_WITH: Final = {OVER: 78, OUT: 77}
ANSWERS_MIN: Final = 80
_RATE_PER_S: Final = 40.0
_THIEF: Final = "thief"
_RECORD_BYTES_MAX: Final = 32_768


async def steal_credential_key(mesh: Mesh, name: str, within_s: float) -> dict[str, Any]:
    """Use the authority's credential key, replace it by the command, use it again; return what was met.

    `before` and `after` say of each thing the thief signed what agents answered, by node; `ended` with which
    code the agents ended that were taken out. `roll_s`: when everybody left had the roll, from the command's
    start; `back_s`: how long it took until all nodes held all alive, from the start of the others, which met
    one another first. `answered` and `failed` are requests between those left, from before the command to
    after the roll; `refused_peers` their engines' own counts of that time.
    """
    out = mesh.nodes[name]
    over, away, *left = [node for node in mesh.nodes.values() if node.name != name][::-1]
    authority = load_authority(mesh.directory / "authority")
    await out.status()
    for one in (over, away):
        await one.status()
    pids = {OVER: over.pids("agent")[0], OUT: out.pids("agent")[0]}
    forged = _forged(authority, over.name, out.name)
    detail: dict[str, Any] = {"before": {left[0].name: await _hand(left[0], forged)}}
    ended = await watch_ends(pids, trio.current_time(), within_s)
    agents = {OVER: over.agent, OUT: out.agent}
    detail["ended"] = {
        what: None if agent is None or ended[what] is None else agent.wait() for what, agent in agents.items()
    }
    for what in ("agent", "engine"):
        away.signal(what, signal.SIGKILL)
    detail |= await _replace_key(mesh, left, within_s)
    detail["after"] = {node.name: await _hand(node, forged) for node in left}
    started_s = trio.current_time()
    await _start_apart(mesh, [out, over, away], left, within_s)
    await mesh.wait_statuses(dict.fromkeys(mesh.nodes, "alive"), timeout_s=within_s)
    await wait_until("everybody has the roll", lambda: _lacking(list(mesh.nodes.values())), within_s)
    detail["back_s"] = round(trio.current_time() - started_s, 3)
    return detail


async def _start_apart(
    mesh: Mesh, back: Sequence[MeshNode], left: Sequence[MeshNode], within_s: float
) -> None:
    """Start nodes while the others' agents stand still: each shows the rest what the thief signed."""
    for node in left:
        node.signal("agent", signal.SIGSTOP)
    try:
        for node in back:
            mesh.start_agent(node.name)
        for node in back:
            await wait_until(f"{node.name} is started", partial(_silent, node), within_s)
    finally:
        for node in left:
            node.signal("agent", signal.SIGCONT)


async def _silent(node: MeshNode) -> str | None:
    """Return nothing once a node's agent answers."""
    return None if await node.status() else node.name


async def _replace_key(mesh: Mesh, left: Sequence[MeshNode], within_s: float) -> dict[str, Any]:
    """Replace the key by the command, under load between the nodes that are left."""
    load = Load(mesh, [node.name for node in left], rate_per_s=_RATE_PER_S)
    gone = {node.name: "dead" for node in mesh.nodes.values() if node not in left}

    async def answered(count: int) -> str | None:
        return None if load.answered >= count else f"{load.answered} answers"

    async def settled() -> str | None:
        held = {node.name: await node.statuses() for node in left}
        there = {at: [one for one in gone if statuses.get(one) == "alive"] for at, statuses in held.items()}
        return str(there) if any(there.values()) else None

    await wait_until("those taken out are gone", settled, within_s)
    async with trio.open_nursery() as nursery:
        load.start(nursery)
        await wait_until("the load goes", lambda: answered(ANSWERS_MIN), within_s)
        before = {node.name: await refusals_of(node) for node in left}
        failed, started_s = load.failed, trio.current_time()
        words = ("authority", "rotate", "credential", "--stolen", "--dir", str(mesh.directory / "authority"))
        said = await mesh.must(*words, node=left[0].name)
        command_s = round(trio.current_time() - started_s, 3)
        await wait_until("those left have the roll", lambda: _lacking(left), within_s)
        roll_s = round(trio.current_time() - started_s, 3)
        so_far = load.answered
        await wait_until("the load goes on", lambda: answered(so_far + ANSWERS_MIN), within_s)
        summary = await load.stop()
        nursery.cancel_scope.cancel()
    after = {node.name: await refusals_of(node) for node in left}
    return {
        "said": said.strip().splitlines()[-1],
        "command_s": command_s,
        "roll_s": roll_s,
        "answered": load.answered,
        "failed": summary["failed"] - failed,
        "refused_peers": {name: _more(before[name], after[name]) for name in after},
    }


async def _lacking(nodes: Sequence[MeshNode]) -> str | None:
    """Return who has not got the roll that the authority's Trust names."""
    lacking = []
    for node in nodes:
        told, rows = (await node.status())["trust"], await node.ask("/v1/members")
        own = [row for row in rows if row["self"]]
        if not told["roll"] or not own or own[0]["lacks_roll"]:
            lacking.append(node.name)
    return ", ".join(lacking) or None


def _forged(authority: Authority, over: str, out: str) -> dict[str, SignedRecord]:
    ledger, key = Ledger(authority.directory), authority.credential_key
    keys = {"signing_key": SigningKey(b"\x07" * 32).public, "exchange_key": ExchangeKey(b"\x08" * 32).public}
    nothing = {"signing_key": b"", "exchange_key": b"", "spki_hashes": (), "service_patterns": ()}
    spiffe_id = node_spiffe_id(authority.trust_domain, _THIEF)
    itself = {"node_id": node_id_of(spiffe_id), "spiffe_id": spiffe_id}
    made = {
        NODE: _changed(ledger, over, 0, {**itself, **keys}),
        OVER: _changed(ledger, over, 1, keys),
        OUT: _changed(ledger, out, 1, nothing),
    }
    return {
        what: sign_record(authority.trust_domain, RecordKind.CREDENTIAL, credential, key)
        for what, credential in made.items()
    }


def _changed(ledger: Ledger, name: str, further: int, changes: Mapping[str, Any]) -> NodeCredential:
    """Return the credential of a node as the authority signed it, some generations on, with changes."""
    known = ledger.enrolment(name)
    assert known is not None, name
    record = decode_untrusted(known.credential, SignedRecord, bytes_max=_RECORD_BYTES_MAX)
    held = decode_untrusted(record.body, NodeCredential, bytes_max=_RECORD_BYTES_MAX)
    return msgspec.structs.replace(held, generation=held.generation + further, **changes)


async def _hand(node: MeshNode, records: Mapping[str, SignedRecord]) -> dict[str, str]:
    """Return what an agent answers to each record: taken, or the code of its refusal."""
    met: dict[str, str] = {}
    for what, record in records.items():
        body = json.dumps({"record": base64.b64encode(encode(record)).decode()}).encode()
        try:
            await node.ask("/v1/credentials", method="POST", body=body)
        except AdminError as error:
            met[what] = error.code
        else:
            met[what] = TAKEN
    return met


def _more(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {what: count - before.get(what, 0) for what, count in after.items() if count > before.get(what, 0)}


def finally_a_stolen_credential_key_is_undone(evidence: Evidence, back_within_s: float) -> list[str]:
    """All that the thief signed was taken before and refused after; nobody noticed; all came back in time."""
    faults = [fault for fault in evidence.faults if fault.kind == STEAL_CREDENTIAL_KEY]
    if not faults:
        return ["the key was never stolen: this proves nothing"]
    return [problem for fault in faults for problem in _problems(fault, back_within_s)]


def _problems(fault: FaultFired, back_within_s: float) -> list[str]:
    detail = fault.detail
    problems = [
        f"before, {node} answered {met} to {what}: this proves nothing"
        for node, row in detail["before"].items()
        for what, met in row.items()
        if met != TAKEN
    ]
    problems += [
        f"after, {node} answered {met} to {what}"
        for node, row in detail["after"].items()
        for what, met in row.items()
        if met != "credential"
    ]
    if detail["ended"] != ENDED_WITH:
        problems.append(f"the agents whose names were taken ended with {detail['ended']}, not {ENDED_WITH}")
    if detail["failed"] or detail["answered"] < 2 * ANSWERS_MIN:
        problems.append(f"{detail['failed']} requests failed of {detail['answered']} and more")
    problems += [f"{node} refused peers: {met}" for node, met in detail["refused_peers"].items() if met]
    if detail["back_s"] > back_within_s:
        problems.append(f"all were back after {detail['back_s']} s, bound {back_within_s:g} s")
    return problems
