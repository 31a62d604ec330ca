"""The intermediate's key is stolen: what its certificates, and the carrier's, are worth to engines.

As a caller the thief shows leaves of names that are and that are not to every other node. As a server it sits
at the address of a node that was killed: first with that node's own keys, which shows that callers come and
believe, then with new keys. Nobody may believe those, and the node must be found dead.
"""

import signal
from collections import Counter
from typing import Any, Final

import trio

from gossipmesh.control.roots import Authority, load_authority
from gossipmesh.model.identity import node_spiffe_id, service_spiffe_id, workloads_spiffe_id
from gossipmesh.testing import layout
from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.false_server import FalseServer, Shown
from gossipmesh.testing.load import Client, NoAnswer, Outcome, Tally, Target
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.stolen_node_key import bundle_of, call_all, logged_of, refusals_of
from gossipmesh.testing.thief import REFUSED, Caller, Loot, forged, loot_of
from gossipmesh.testing.waiting import wait_until
from gossipmesh.traffic.compiler import server_name

STEAL_INTERMEDIATE: Final = "steal-intermediate"
CART: Final = "cart"
NOBODY: Final = "nobody"
CODES: Final = ("unlisted", "carried")
_CALLED_TIMEOUT_S: Final = 5.0
_PAUSE_S: Final = 0.1


async def steal_intermediate(mesh: Mesh, name: str, within_s: float) -> dict[str, Any]:
    """Forge certificates and show them; return what became of each.

    `called`: what calls met, by node and certificate. `own_keys` and `forged`: requests that the false server
    got (`believed`) and callers that left without one (`refused`), by certificate. `statuses`: how the other
    nodes held `name` while the false server had its keys, and at the end. `refusals` and `logged` are other
    nodes' counters and access logs; `engines_said`: how often their engines' own logs tell of the false one.
    """
    victim = mesh.nodes[name]
    others = [node for node in mesh.nodes.values() if node.name != name]
    authority, bundle = load_authority(mesh.directory / "authority"), bundle_of(victim)
    callers = {one.label: Caller(one, bundle) for one in _forged_callers(authority, name)}
    detail: dict[str, Any] = {"called": await call_all(callers, others)}
    await wait_until("every refusal is counted", lambda: _uncounted(others, len(callers)), within_s)
    detail["refused_callers"] = {node.name: await refusals_of(node) for node in others}
    server = FalseServer(victim.host, bundle, _own(victim))
    await victim.status()
    async with trio.open_nursery() as nursery:
        for what in ("agent", "engine", "workloads"):
            victim.signal(what, signal.SIGKILL)
        await nursery.start(server.run)
        for node in others:
            nursery.start_soon(_ask_on, mesh, node)
        await wait_until("the false server is believed", lambda: _no_request(server), within_s)
        names = [node.name for node in others]
        await mesh.wait_statuses({name: "unattended"}, on=names, timeout_s=within_s)
        detail["statuses"] = [await _held(others, name)]
        detail["own_keys"] = _take(server)
        server.show(_false(authority, name))
        await mesh.wait_statuses({name: "dead"}, on=names, timeout_s=within_s)
        detail["forged"] = _take(server)
        detail["statuses"].append(await _held(others, name))
        nursery.cancel_scope.cancel()
    detail["refusals"] = {node.name: await refusals_of(node) for node in others}
    detail["logged"] = {node.name: logged_of(node) for node in others}
    detail["engines_said"] = {
        node.name: (node.directory / "state" / "engine.log")
        .read_text(errors="replace")
        .count(f"{name} is nobody")
        for node in others
    }
    return detail


def _forged_callers(authority: Authority, name: str) -> list[Loot]:
    domain = authority.trust_domain
    names = [
        (name, service_spiffe_id(domain, f"{layout.NAMESPACE}/{CART}")),
        (name, node_spiffe_id(domain, name)),
        (name, workloads_spiffe_id(domain, name)),
        (NOBODY, node_spiffe_id(domain, NOBODY)),
        (NOBODY, service_spiffe_id(domain, f"{layout.NAMESPACE}/{NOBODY}")),
        (name, f"spiffe://{domain}/authority"),
    ]
    return [one for node, spiffe_id in names for one in forged(authority, node, spiffe_id)]


def _asked_by(name: str) -> dict[str, str]:
    """Return SPIFFE ID -> the name by which callers ask for it."""
    domain, cart = layout.TRUST_DOMAIN, f"{layout.NAMESPACE}/{CART}"
    return {
        service_spiffe_id(domain, cart): server_name(CART, cart, domain),
        node_spiffe_id(domain, name): f"{name}.node.{domain}",
    }


def _own(victim: MeshNode) -> list[Shown]:
    """Return what the victim itself shows: its current keys, by the authority's certificates."""
    names = _asked_by(victim.name)
    loot = [one for one in loot_of(victim.directory / "state" / "identity") if one.what == "current key"]
    return [Shown("its own keys", {names[one.spiffe_id]: one for one in loot if one.spiffe_id in names})]


def _false(authority: Authority, name: str) -> list[Shown]:
    found: dict[str, dict[str, Loot]] = {}
    for spiffe_id, asked_by in _asked_by(name).items():
        for one in forged(authority, name, spiffe_id):
            found.setdefault(one.what, {})[asked_by] = one
    return [Shown(what, by_name) for what, by_name in found.items()]


def _take(server: FalseServer) -> dict[str, dict[str, int]]:
    """Return what the false server has counted since it was last asked."""
    counts = {"believed": server.believed, "refused": server.refused}
    told = {
        how: {f"{name}: {what}": number for (what, name), number in count.items()}
        for how, count in counts.items()
    }
    server.believed, server.refused = Counter(), Counter()
    return told


async def _no_request(server: FalseServer) -> str | None:
    return None if server.believed else f"{server.refused} refused it"


async def _uncounted(others: list[MeshNode], number: int) -> str | None:
    counted = {node.name: sum((await refusals_of(node)).values()) for node in others}
    return None if min(counted.values()) >= number else f"{counted}, of {number} each"


async def _held(others: list[MeshNode], name: str) -> dict[str, str]:
    return {node.name: (await node.statuses()).get(name, "") for node in others}


async def _ask_on(mesh: Mesh, node: MeshNode) -> None:
    """Have a local application ask for the service over and over."""
    target = Target(node.name, node.local_host, mesh.proxy_port, f"{CART}.{layout.NAMESPACE}")
    client = Client(target)
    try:
        while True:
            with trio.move_on_after(_CALLED_TIMEOUT_S):
                try:
                    await client.get(Outcome(0.0, node.name, target.authority), Tally())
                except (NoAnswer, OSError):
                    pass  # what came of it is the false server's to count
            await trio.sleep(_PAUSE_S)
    finally:
        await client.close_idle()


def finally_a_forger_is_nobody(evidence: Evidence) -> list[str]:
    """No engine took a forged certificate, called or calling, and each refusal was written down."""
    problems = []
    for fault in _forgeries(evidence):
        problems += [f"{fault.node}: {problem}" for problem in _problems(fault.detail)]
    return problems


def _forgeries(evidence: Evidence) -> list[FaultFired]:
    return [fault for fault in evidence.faults if fault.kind == STEAL_INTERMEDIATE]


def _problems(detail: dict[str, Any]) -> list[str]:
    problems = [
        f"{node} {met} {key}"
        for node, row in detail["called"].items()
        for key, met in row.items()
        if met != REFUSED
    ]
    if not detail["own_keys"]["believed"]:
        problems.append("nobody came to the false server: this proves nothing")
    problems += [f"a caller believed {what}" for what in detail["forged"]["believed"]]
    for what in CODES:
        word = "carrier" if what == "carried" else "intermediate"
        if not any(f"{CART}." in who and word in who for who in detail["forged"]["refused"]):
            problems.append(f"no caller was shown a certificate of the {word}: {detail['forged']['refused']}")
    problems += [
        f"{node} held it {met} at the end" for node, met in detail["statuses"][-1].items() if met != "dead"
    ]
    return problems + _unwritten(detail)


def _unwritten(detail: dict[str, Any]) -> list[str]:
    """Tell where metrics or logs lack a rule by which callers, or the false server, were refused."""
    problems = []
    for node, counts in detail["refusals"].items():
        for code in CODES:
            if not counts.get(f"peers_refused_{code}"):
                problems.append(f"the metrics of {node} do not count {code}: {counts}")
            if not detail["logged"][node].get(f"peer_refused[{code}]"):
                problems.append(f"the access log of {node} does not say {code}: {detail['logged'][node]}")
    if not any(detail["engines_said"].values()):
        problems.append("no engine that calls says in its log who answers there")
    for code in CODES:
        what = f"peers_refused_{code}"
        before, after = (
            sum(counts.get(what, 0) for counts in detail[when].values())
            for when in ("refused_callers", "refusals")
        )
        if after <= before:
            problems.append(f"no engine that calls counts {code}: {before} before, {after} after")
    return problems
