"""A node's name enrolled again: elsewhere while its agent runs, timed, or at its place once taken out."""

import shutil
from typing import Any, Final

import trio

from gossipmesh.net.files import PARENT_MODE, make_folder
from gossipmesh.testing import departures, knock, layout
from gossipmesh.testing.layout import NodeLayout
from gossipmesh.testing.mesh import GOSSIPMESH, Mesh, MeshNode

_ELSEWHERE: Final = (
    100  # added to a node's number: another address, in another namespace where there are some
)
_SAID_LENGTH_MAX: Final = 500


async def enrol_again(mesh: Mesh, name: str, within_s: float) -> dict[str, Any]:
    """Give a node's name to a new agent elsewhere; return what became of the old one.

    `agent_ended_after_s` and `engine_ended_after_s` count from the start of the new agent's process, before
    it has redeemed its token; None when not `within_s`. `before` and `after` are what another node and a
    local application met at the old engine. The new one is in `mesh.nodes` then.
    """
    old = mesh.nodes[name]
    asker = next(node for node in mesh.nodes.values() if node.name != name)
    before = await knock.knock_at(mesh, old, asker)
    engine = (await old.status())["engine"]["pid"]
    new = await _prepare(mesh, old)
    started_s = trio.current_time()
    words = [*GOSSIPMESH, "agent", "--config", str(new.config_path)]
    new.agent = mesh.keeper.start(f"{name}-again-agent", [*mesh.network.prefix(new.layout.number), *words])
    ended = await departures.watch_ends(
        {"agent": old.pids("agent")[0], "engine": engine}, started_s, within_s
    )
    mesh.nodes[name] = new
    log = mesh.keeper.log_path(f"{name}-agent").read_text(errors="replace").strip()
    return {
        "exit_code": None if old.agent is None else old.agent.poll(),
        "agent_ended_after_s": ended["agent"],
        "engine_ended_after_s": ended["engine"],
        "before": before,
        "after": await knock.knock_at(mesh, old, asker),
        "readiness_open": await _accepts(old.host, layout.READINESS_PORT),
        "mesh_port_open": await _accepts(old.host, layout.MESH_PORT),
        "said": log.splitlines()[-1][-_SAID_LENGTH_MAX:],
    }


async def enrol_anew(mesh: Mesh, node: MeshNode, within_s: float) -> None:
    """Enrol a node that was taken out, as the sentence of its agent says; return when all see it alive."""
    shutil.rmtree(node.directory / "state" / "identity")
    token = node.directory / "token-anew"
    await mesh.create_token(node.name, token)
    others = [other for other in mesh.nodes.values() if other.name != node.name]
    seeds = [f"{other.host}:{layout.GOSSIP_PORT}" for other in others[:2]]
    config = layout.agent_config(node.local_host, node.directory, token, seeds)
    layout.write_document(node.config_path, config)
    mesh.start_agent(node.name)
    everybody = dict.fromkeys(mesh.nodes, "alive")
    await mesh.wait_statuses(everybody, timeout_s=within_s)


async def _prepare(mesh: Mesh, old: MeshNode) -> MeshNode:
    """Make the files of a node of the same name, with a token of its own, on another address."""
    place = NodeLayout(old.name, old.layout.number + _ELSEWHERE, ())
    mesh.network.attach(place.number, mesh.keeper)
    host = mesh.network.host(place.number)
    new = MeshNode(place, host, mesh.directory / f"{old.name}-again", mesh.keeper)
    make_folder(new.services_directory, PARENT_MODE)
    token = new.directory / "token"
    others = [other for other in mesh.nodes.values() if other.name != old.name]
    seeds = [f"{other.host}:{layout.GOSSIP_PORT}" for other in others[:2]]
    layout.write_document(new.config_path, layout.agent_config(host, new.directory, token, seeds, {}))
    await mesh.create_token(old.name, token)
    return new


async def _accepts(host: str, port: int) -> bool:
    """Tell whether anybody takes connections there."""
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError:
        return False
    await stream.aclose()
    return True
