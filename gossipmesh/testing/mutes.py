"""A node most of whose packets are lost on their way out, so that it is declared dead again and again.

How often each other node declared it, and whether all held the same once the outage was over: by what every
agent said when it was asked, and by its log.
"""

from collections.abc import Iterator
from typing import Final

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing import layout
from gossipmesh.testing.evidence import Evidence, StatusSeen
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.namespaces import NamespaceNetwork

MUTE: Final = "mute"
UNMUTE: Final = "unmute"
DEAD: Final = "dead"
_TABLE: Final = "gossipmesh_mute"


def mute(mesh: Mesh, name: str, percent: int) -> None:
    """Drop so much of what a node sends, and all that its engine answers: what comes to it passes."""
    sent = f"ip saddr {mesh.nodes[name].host}"
    answers = f"{sent} tcp sport {layout.MESH_PORT}"
    _network(mesh).drop(_TABLE, [answers, f"{sent} numgen random mod 100 < {percent}"])


def unmute(mesh: Mesh) -> int:
    """Drop no more; return how many packets were dropped."""
    return _network(mesh).let_pass(_TABLE)


def _network(mesh: Mesh) -> NamespaceNetwork:
    if not isinstance(mesh.network, NamespaceNetwork):
        raise OperatorError('to mute a node needs `network = "namespaces"` in the scenario')
    return mesh.network


async def views_differ(mesh: Mesh) -> str | None:
    """Return how what one node holds differs from what another does; None when all hold the same."""
    first: tuple[str, dict[str, str], object] | None = None
    for node in mesh.nodes.values():
        statuses, sums = await node.statuses(), (await node.status())["state_sums"]
        if first is None:
            first = (node.name, statuses, sums)
        elif (statuses, sums) != first[1:]:
            return f"{first[0]} holds {first[1]} with {first[2]}, {node.name} {statuses} with {sums}"
    return None


def eventually_dead_as_often(evidence: Evidence, times_min: int) -> list[str]:
    """Each other node declared each victim dead so often, within one outage, by its own log."""
    problems = []
    for victim in evidence.victims:
        for observer in evidence.nodes:
            told = [row for row in evidence.declared if (row.observer, row.subject) == (observer, victim)]
            count = sum(row.status == DEAD for row in told)
            if observer != victim and count < times_min:
                problems.append(f"{observer} declared {victim} dead {count} times, of at least {times_min}")
    return problems


def eventually_views_stay_equal(evidence: Evidence, within_s: float, differ_s_max: float) -> list[str]:
    """From `within_s` after the outage on no two nodes hold a member differently for longer than that."""
    healed_s = max((f.detail["healed_s"] for f in evidence.faults if f.kind == MUTE), default=None)
    if healed_s is None:
        return ["no outage has ended"]
    return [
        f"from {begin_s:.1f} to {end_s:.1f} s: {held}"
        for begin_s, end_s, held in _differences(evidence.statuses)
        if end_s - max(begin_s, healed_s + within_s) > differ_s_max
    ]


def _differences(seen: list[StatusSeen]) -> Iterator[tuple[float, float, str]]:
    """Yield (begin, end, who held what) of each while in which a member was held differently by two nodes."""
    if not seen:
        return
    last_s = max(item.at_s for item in seen)
    for subject in sorted({item.subject for item in seen}):
        held: dict[str, str] = {}
        begin_s: float | None = None
        text = ""
        for item in sorted((item for item in seen if item.subject == subject), key=lambda item: item.at_s):
            held[item.observer] = item.status
            differ = len(set(held.values())) > 1
            if differ and begin_s is None:
                begin_s = item.at_s
            if differ:
                text = f"{subject} was {dict(sorted(held.items()))}"
            elif begin_s is not None:
                yield begin_s, item.at_s, text
                begin_s = None
        if begin_s is not None:
            yield begin_s, last_s, text
