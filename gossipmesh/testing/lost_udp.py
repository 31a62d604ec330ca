"""Nodes whose UDP is dropped while their TCP passes: the faults, what is told of it, how soon news arrives.

Times of news count from its publication: when the agent that it was given to runs it, or offers it.
"""

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import trio

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing import layout
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.namespaces import NamespaceNetwork
from gossipmesh.testing.waiting import wait_until

LOSE_UDP: Final = "lose-udp"
NEWS: Final = "news"
TCP_ONLY: Final = "TCP only"
KINDS: Final = ("policy", "service", "own_service")
_LOOK_S: Final = 0.02
_GIVEN_S_MAX: Final = 20.0  # a push command and a check of health come before the publication
_SERVICE: Final = "cart"
_Has = Callable[[MeshNode], Awaitable[bool]]


def lose(mesh: Mesh, name: str, percent: int) -> None:
    """Drop so much of the gossip datagrams that a node sends and gets, and nothing else."""
    host = mesh.nodes[name].host
    some = "" if percent >= 100 else f" numgen random mod 100 < {percent}"
    port = f"udp dport {layout.GOSSIP_PORT}"
    _network(mesh).drop(_table(mesh, name), [f"ip {way} {host} {port}{some}" for way in ("saddr", "daddr")])


def let_pass(mesh: Mesh, name: str) -> int:
    """Drop no more at a node; return how many datagrams were dropped."""
    return _network(mesh).let_pass(_table(mesh, name))


def _network(mesh: Mesh) -> NamespaceNetwork:
    if not isinstance(mesh.network, NamespaceNetwork):
        raise OperatorError('to drop UDP needs `network = "namespaces"` in the scenario')
    return mesh.network


def _table(mesh: Mesh, name: str) -> str:
    return f"gossipmesh_udp_{mesh.nodes[name].layout.number}"


# What is told


async def not_told(mesh: Mesh, victim: str) -> str | None:
    """Return who does not say yet that the victim is reached by TCP only; None when all do, itself too."""
    others = [node for node in mesh.nodes.values() if node.name != victim]
    for node in others:
        rows = {row["name"]: row for row in await node.ask("/v1/members")}
        if rows[victim]["reachability"] != TCP_ONLY:
            return f"members on {node.name}: {victim} is {rows[victim]['reachability']}"
        if not any(
            row["name"] == TCP_ONLY and victim in row["evidence"]["members"]
            for row in await _all_checks(node)
        ):
            return f"check --all on {node.name} does not name {victim}"
        if not any(
            row["name"] == "datagrams" and victim in row["evidence"]["members"] for row in await _checks(node)
        ):
            return f"check on {node.name} does not name {victim}"
    told = [row for row in await _checks(mesh.nodes[victim]) if row["name"] == "datagrams"]
    if not told or told[0]["mark"] != "FAIL" or TCP_ONLY not in told[0]["detail"]:
        return f"check on {victim} says {told}"
    for node in mesh.nodes.values():
        log = mesh.keeper.log_path(f"{node.name}-agent").read_text(errors="replace")
        if f"reached by {TCP_ONLY}" not in log:
            return f"the log of {node.name} says nothing"
    return None


async def still_told(mesh: Mesh) -> str | None:
    """Return who still says that somebody is reached by TCP only; None when nobody does."""
    for node in mesh.nodes.values():
        rows = await node.ask("/v1/members")
        named = [row["name"] for row in rows if row["reachability"] == TCP_ONLY]
        if named:
            return f"members on {node.name}: {named}"
    return None


async def _checks(node: MeshNode) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = await node.ask("/v1/check")
    return rows


async def _all_checks(node: MeshNode) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await node.ask("/v1/check/all"))["checks"]
    return rows


# How soon news arrives


async def spread_news(
    mesh: Mesh, rng: random.Random, victim: str, turn: str, within_s: float
) -> dict[str, Any]:
    """Publish a policy and a service elsewhere, and a service of the victim's own; return when all had each.

    In seconds from the publication to the last node that had it, None: not `within_s`.
    """
    elsewhere = [name for name in mesh.nodes if name != victim]
    publisher, owner = rng.choice(elsewhere), rng.choice(elsewhere)
    weight = rng.randint(1, 99)
    path = mesh.directory / f"news-{turn}.yaml"
    layout.write_policy(path, layout.canary(100 - weight, weight))
    before = await _version(mesh.nodes[publisher])

    async def runs(node: MeshNode) -> bool:
        return await _version(node) > before

    async def push() -> None:
        result = await mesh.push(path, publisher)
        if result.code != 0:
            raise OperatorError(f"the push at {publisher} failed: {result.stderr.strip()[-500:]}")

    found: dict[str, float | None] = {
        "policy": await spread(mesh, publisher, push, runs, within_s),
        "service": await _publish(mesh, owner, f"{turn}-there", within_s),
        "own_service": await _publish(mesh, victim, f"{turn}-here", within_s),
    }
    return {"turn": turn, "publisher": publisher, "owner": owner, **found}


async def _publish(mesh: Mesh, owner: str, turn: str, within_s: float) -> float | None:
    node = mesh.nodes[owner]
    document = layout.service_file(layout.LONE_CART, node.host)
    document["metadata"] |= {"registration": "news", "labels": {"turn": turn}}
    write = partial(layout.write_document, node.services_directory / "news.yaml", document)

    async def offers(observer: MeshNode) -> bool:
        rows = await observer.ask(f"/v1/endpoints?service={layout.NAMESPACE}/{_SERVICE}")
        return any(row["node"] == owner and row["labels"].get("turn") == turn for row in rows)

    async def given() -> None:
        write()

    return await spread(mesh, owner, given, offers, within_s)


async def spread(
    mesh: Mesh, first: str, give: Callable[[], Awaitable[None]], has: _Has, within_s: float
) -> float | None:
    """Give news to one node and return how long after it has it all do; None: not `within_s`."""
    seen_s: dict[str, float] = {}

    bound_s = _GIVEN_S_MAX + within_s

    async def watch(node: MeshNode) -> None:
        async def lacks() -> str | None:
            return None if await has(node) else f"{node.name} has none"

        await wait_until("the news is here", lacks, 2 * bound_s, interval_s=_LOOK_S)
        seen_s[node.name] = trio.current_time()

    with trio.move_on_after(bound_s):
        async with trio.open_nursery() as nursery:
            for node in mesh.nodes.values():
                nursery.start_soon(watch, node)
            await give()
    if len(seen_s) < len(mesh.nodes):
        return None
    took_s = round(max(seen_s.values()) - seen_s[first], 3)
    return took_s if took_s <= within_s else None


async def _version(node: MeshNode) -> int:
    rows = (await node.ask("/v1/policy/status"))["scopes"]
    return max((row["version"] for row in rows), default=0)


def eventually_news_arrives(evidence: Evidence, within_s: float, turns_min: int) -> list[str]:
    """Each policy, service and service of the victim's own was everywhere `within_s` of its publication."""
    problems = []
    if len(evidence.news) < turns_min:
        problems.append(f"news was spread {len(evidence.news)} times, of at least {turns_min}")
    for row in evidence.news:
        for kind in KINDS:
            if row[kind] is None or row[kind] > within_s:
                problems.append(f"{row['turn']}: {kind} after {row[kind]} s, bound {within_s:g} s")
    return problems
