"""What makes two states different: fingerprints, and the invariants every story checks in each state.

A fingerprint leaves out what only numbers things (link counters, ping sequences, random draws) and the phases
of timers that no case depends on; ages are kept in steps of `AGE_STEP_NS`. Two states of one fingerprint
may differ in those, so the search is exhaustive up to them and no further.
"""

import hashlib
from collections.abc import Iterable
from itertools import permutations
from typing import Any, Final

from gossipmesh.gossip.inspection import Held, Inspection, inspect, members
from gossipmesh.gossip.membership.catalog import order_start, order_tuple
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus, Order
from gossipmesh.testing.explorer.mesh import Mesh, Violation

AGE_STEP_NS: Final = 250 * MILLISECOND_NS
AGE_STEPS_MAX: Final = 40
FINGERPRINT_BYTES: Final = 7
_TIMERS_OF_CASES: Final = (
    "case",
    "again",
    "held",
    "control",
    "control half",
    "engine",
    "policies",
)
_OUT: Final = (MemberStatus.DEAD, MemberStatus.UNATTENDED)


def age_step(now: int, at: int) -> int:
    """Return how long ago something was, in steps, bounded; -1 for never."""
    return -1 if at < 0 else min(AGE_STEPS_MAX, max(0, now - at) // AGE_STEP_NS)


def fingerprint(mesh: Mesh, story: Any, alike: Iterable[str]) -> bytes:
    """Return the state's name; hosts in `alike` play one part, so states that swap them are one."""
    free = list(alike)
    names = list(mesh.hosts)
    inside = {name: inspect(mesh.core(name)) for name in mesh.running}
    described = []
    for order in permutations(free):
        renamed = dict(zip(free, order, strict=True))
        table = {name: renamed.get(name, name) for name in names}
        described.append(repr(_describe(mesh, inside, story, table)).encode())
    return hashlib.blake2b(min(described), digest_size=FINGERPRINT_BYTES).digest()


def _describe(
    mesh: Mesh, inside: dict[str, Inspection], story: Any, table: dict[str, str]
) -> tuple[Any, ...]:
    ids = {node_id: table[name] for name, node_id in mesh.ids.items()}
    nodes = sorted((table[name], _describe_node(mesh, name, inside.get(name), ids)) for name in mesh.hosts)
    held = sorted(
        ((table[source], table[target]), [(parcel.kinds, parcel.content) for parcel in parcels])
        for (source, target), parcels in mesh.held.items()
    )
    cut = sorted((table[source], table[target]) for source, target in mesh.cut)
    return (nodes, held, cut, story)


def _describe_node(
    mesh: Mesh, name: str, inside: Inspection | None, ids: dict[bytes, str]
) -> tuple[Any, ...]:
    if inside is None:
        return ("down",)
    documents = mesh.factory.documents[name]
    floors = [(scope, documents.floor(scope)) for scope in documents.scopes()]
    timers = sorted(
        (timer.name, ids.get(timer.subject or b"", ""), (timer.at - inside.now) // AGE_STEP_NS)
        for timer in inside.timers
        if timer.name in _TIMERS_OF_CASES
    )
    known = sorted(
        (ids[member.node_id], _describe_member(member, inside.now, ids)) for member in inside.members
    )
    incarnation = mesh.core(name).incarnation
    judged = _describe_detector(inside, ids)
    return (mesh.hosts[name].run, incarnation, floors, list(inside.scopes_pending), timers, known, judged)


def _describe_member(member: Held, now: int, ids: dict[bytes, str]) -> tuple[Any, ...]:
    verdict = member.verdict
    against = None
    if verdict is not None:
        voters = sorted(ids[vote.voter] for vote in verdict.votes)
        against = (verdict.generation, verdict.epoch, verdict.status, voters)
    order = order_tuple(member.order)
    heard = age_step(now, member.heard_at)
    return (int(member.status), order, against, list(member.kinds), heard, not member.has_run)


def _describe_detector(inside: Inspection, ids: dict[bytes, str]) -> tuple[Any, ...]:
    now, judging = inside.now, inside.judging
    votes = sorted(
        (
            ids[held.target],
            ids[held.voter],
            held.vote is not None and held.vote.cause,
            age_step(now, held.arrived),
        )
        for held in judging.votes
    )
    cases = sorted(
        (
            ids[case.target],
            case.state,
            age_step(now, case.silent_since),
            age_step(now, case.opened),
            case.answers_in_a_row,
        )
        for case in judging.cases
    )
    return (votes, cases, list(judging.rounds), judging.view_is_whole)


class Watch:
    """Invariants over time, one per search path: what a node signed or was told never goes back."""

    def __init__(self) -> None:
        self._own: dict[str, tuple[int, Order]] = {}
        self._views: dict[tuple[str, int, str], Order] = {}
        self._floors: dict[str, tuple[int, bytes]] = {}
        self.signed_sets: set[tuple[str, int, bytes]] = set()

    def check(self, mesh: Mesh) -> None:
        """Raise `Violation` if anything went back, or something nobody signed is in force."""
        for name in mesh.running:
            self._check_orders(mesh, name)
            self._check_floor(mesh, name)
        for name, event in mesh.applied:
            if (event.scope, event.version, event.manifest_hash) not in self.signed_sets:
                raise Violation(f"{name} put a set in force that nobody signed")
        mesh.applied.clear()

    def _check_orders(self, mesh: Mesh, name: str) -> None:
        run, order = mesh.hosts[name].run, mesh.core(name).own_state.order
        before = self._own.get(name)
        if before is not None and order < before[1]:
            raise Violation(f"the order of {name} went back from {before[1]} to {order}")
        if before is not None and run != before[0] and order_start(order) <= order_start(before[1]):
            raise Violation(f"{name} started again within the incarnation {order_start(before[1])}")
        self._own[name] = (run, order)
        for member in members(mesh.core(name)):
            key = (name, run, member.name)
            held = self._views.get(key)
            if held is not None and member.order < held:
                raise Violation(f"{name} went back to an older state of {member.name}")
            self._views[key] = member.order

    def _check_floor(self, mesh: Mesh, name: str) -> None:
        floor = mesh.factory.documents[name].floor("mesh")
        if floor < self._floors.get(name, (0, b"")):
            raise Violation(f"the floor of {name} went back to version {floor[0]}")
        self._floors[name] = floor


def require_rest(mesh: Mesh, limit_ns: int = 40 * SECOND_NS) -> None:
    """Let everything arrive; everyone must be alive on everyone and all state sums equal within the limit."""
    mesh.release()
    rested = mesh.tick_until(lambda: mesh.whole and mesh.sums_equal, limit_ns, 500 * MILLISECOND_NS)
    if rested:
        return
    views = {
        name: sorted(f"{v.name} {v.status.label}" for v in mesh.core(name).members() if v.status in _OUT)
        for name in mesh.running
    }
    raise Violation(f"the mesh does not come to rest: {views}, state sums equal: {mesh.sums_equal}")
