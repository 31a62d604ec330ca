"""A policy signer's key is stolen, the scope is shut, and one command undoes it: the step, its judge.

The thief has a node as well, the victim's: what no agent publishes it puts on its disk, and gossip carries
it.
"""

import signal
from pathlib import Path
from typing import Any, Final

import trio

from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model.documents import first_version_of
from gossipmesh.net.secret_files import write_secret
from gossipmesh.testing import layout
from gossipmesh.testing.admin import AdminError
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh
from gossipmesh.trust.keys import SigningKey
from gossipmesh.trust.manifest import BaseSet, SignedSet, build_manifest, sign_set
from gossipmesh.trust.pem import signing_key_from_pem_untrusted
from gossipmesh.wire.codec import encode

STEAL_SIGNER: Final = "steal-signer"
NEXT: Final = first_version_of(1)
_FAR_AHEAD: Final = 2**53
_EXPECTED: Final = {
    "far_ahead": "generation",
    "shut": True,
    "all_run_it": True,
    "pushed_again": 0,
    "signed_after": "signature",
    "named_after": 1,
}


async def steal_signer(mesh: Mesh, thief: str, within_s: float) -> dict[str, Any]:
    """Use the policy signer's key as its thief would, and undo it; return what each was answered.

    `shut`: with the last version of the generation in force nothing more can be pushed. `undone_s`: from the
    start of `authority rotate signer` until every node runs the set signed anew.
    """
    first, second = [name for name in mesh.nodes if name != thief][:2]
    canary = mesh.directory / "canary.yaml"
    layout.write_policy(canary, layout.canary(90, 10))
    await _must_push(mesh, canary, first)
    copied = mesh.directory / "stolen.key"
    write_secret(copied, mesh.signer_key.read_bytes())
    key = signing_key_from_pem_untrusted(copied.read_bytes())
    detail: dict[str, Any] = {"far_ahead": await _refusal(mesh, second, _stolen(key, _FAR_AHEAD))}
    await _plant(mesh, thief, _stolen(key, NEXT - 1))
    detail["planted_s"] = round(await mesh.wait_policy(NEXT - 1, timeout_s=within_s), 3)
    shut = await mesh.push(canary, first, "--wait")
    detail["shut"] = shut.code == 1 and "generation" in shut.stderr

    started_s = trio.current_time()
    words = ("authority", "rotate", "signer", "policy", "--dir", str(mesh.directory / "authority"))
    told = await mesh.must(*words, "-f", str(canary), node=second)
    detail["all_run_it"] = f"all {len(mesh.nodes)} members run it" in told
    await mesh.wait_policy(NEXT + 1, timeout_s=within_s)
    detail["undone_s"] = round(trio.current_time() - started_s, 3)

    layout.write_policy(canary, layout.canary(50, 50))
    detail["pushed_again"] = (await mesh.push(canary, first, "--wait")).code
    await mesh.wait_policy(NEXT + 2, timeout_s=within_s)
    detail["signed_after"] = await _refusal(mesh, first, _stolen(key, NEXT + 3))
    named = await mesh.push(canary, first, "--accept-signer", key.public.hex(), key=copied)
    detail["named_after"] = named.code
    await _plant(mesh, thief, _stolen(key, NEXT - 1))
    await mesh.wait_policy(NEXT + 2, timeout_s=within_s)
    return detail


def _stolen(key: SigningKey, version: int) -> SignedSet:
    """Return an empty set, which opens everything, of a version of the thief's choice."""
    base = BaseSet(version - 1, b"", {}, {})
    manifest = build_manifest(base, {}, trust_domain=layout.TRUST_DOMAIN, scope="mesh", created=1)
    return sign_set(manifest, {}, [key])


async def _must_push(mesh: Mesh, path: Path, node: str) -> None:
    await mesh.must("policy", "push", "-f", str(path), "--signer", str(mesh.signer_key), "--wait", node=node)


async def _refusal(mesh: Mesh, node: str, signed: SignedSet) -> str:
    """Offer a set to a node and return the code it is refused with; empty when it is taken."""
    try:
        await mesh.nodes[node].ask("/v1/policy/offer", method="POST", body=signed.policy_set.to_bytes())
    except AdminError as error:
        return error.code
    return ""


async def _plant(mesh: Mesh, thief: str, signed: SignedSet) -> None:
    """Have the thief's agent find a set in force on its own disk."""
    node = mesh.nodes[thief]
    node.signal("agent", signal.SIGTERM)
    await mesh.wait_ended(thief)
    store = StateStore(node.directory / "state")
    floor = encode([signed.manifest.version, signed.manifest_hash])
    store.put_all(
        [
            (PersistKind.POLICY_SET, b"mesh", signed.policy_set.to_bytes()),
            (PersistKind.FLOOR, b"mesh", floor),
        ],
        durable=True,
    )
    store.close()
    mesh.start_agent(thief)


def finally_the_theft_is_undone(evidence: Evidence, undone_s: float) -> list[str]:
    """What the thief signed shut the scope before the command and counted no more after it, in time."""
    problems = []
    for fault in (fault for fault in evidence.faults if fault.kind == STEAL_SIGNER):
        problems += [
            f"{part} was {fault.detail[part]!r}, not {expected!r}"
            for part, expected in _EXPECTED.items()
            if fault.detail[part] != expected
        ]
        if fault.detail["undone_s"] > undone_s:
            problems.append(f"undone after {fault.detail['undone_s']} s, bound {undone_s:g}")
    return problems
