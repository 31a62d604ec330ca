"""Machines whose clocks are off, all or one of them, the authority gone: real processes under libfaketime.

Civil time alone is shifted, OpenSSL's as well; intervals are true, for another clock measures them.
"""

from collections.abc import Iterator, Mapping

import pytest
import trio

from gossipmesh.model.instant import DAY_S, HOUR_S
from gossipmesh.net.clock import wall_seconds
from gossipmesh.testing.agent_log import read_agent_log
from gossipmesh.testing.layout import LONE_CART, LONE_WEB, MeshLayout, NodeLayout
from gossipmesh.testing.load import Target, ask_once
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.scraping import samples_of, scrape
from gossipmesh.testing.shifted_clocks import ShiftedClocks
from gossipmesh.testing.waiting import wait_until
from tests.e2e.closed_scenes import end
from tests.e2e.test_check import wait_failing

pytestmark = [pytest.mark.long, pytest.mark.programs("faketime")]

THREE = MeshLayout(
    (
        NodeLayout("node1", 1, (LONE_WEB,)),
        NodeLayout("node2", 2, (LONE_CART,)),
        NodeLayout("node3", 3, (LONE_CART,)),
    )
)
NAMES = tuple(node.name for node in THREE.nodes)
LEAVES_LAST_S = DAY_S
ALARMED_S = 60.0
CALLS = 20
OFF_BY_S_MAX = 120  # between two readings of one clock, on a busy machine
FAILURES = ("tls_client_failures", "tls_server_failures")
HANDSHAKES = ("tls_client_handshakes", "tls_server_handshakes")


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """Three nodes enrolled now, and no authority any more; later tests go on from the disks before them."""
    with Mesh(THREE) as mesh:
        trio.run(mesh.start)
        mesh.kill_authority()
        yield mesh


async def restart_all(mesh: Mesh, by_s: Mapping[str, int]) -> dict[str, int]:
    """Kill all agents and engines, start them with clocks off by so much, and wait until all serve.

    Returns how long each agent's log was then: before, whom somebody missed was dead, and rightly missed.
    """
    await end(mesh, NAMES)
    clocks = ShiftedClocks(mesh)
    for name in NAMES:
        clocks.set([name], by_s.get(name, 0))
        mesh.start_agent(name, clocks.program(name))
    await mesh.wait_ready()
    clocks.unlink_shared_memory()
    for name, node in mesh.nodes.items():
        wall_s = (await node.status())["clock"]["wall"]
        assert abs(wall_s - wall_seconds() - by_s.get(name, 0)) < OFF_BY_S_MAX, "the clock is not shifted"
    return {name: len(log_of(mesh, name)) for name in NAMES}


def log_of(mesh: Mesh, name: str) -> bytes:
    return mesh.keeper.log_path(f"{name}-agent").read_bytes()


async def served_by(mesh: Mesh, node: MeshNode, host: str) -> str:
    """Ask for a page at a node's proxy port, by a connection of its own; return who answered, or why not."""
    answer = await ask_once(Target(node.name, node.local_host, mesh.proxy_port, host))
    return answer.error or answer.served_by


async def events(mesh: Mesh, names: tuple[str, ...]) -> dict[tuple[str, str], float]:
    """Return what each engine counted under these names, by node and name."""
    counted = {}
    for node in mesh.nodes.values():
        for sample, labels, value in samples_of(await scrape(node.host)):
            if sample == "gossipmesh_engine_events_total" and labels["name"] in names and value:
                counted[node.name, labels["name"]] = value
    return counted


async def assert_traffic_flows(mesh: Mesh) -> None:
    """Everybody is answered by whom it asks, over new connections, and every handshake succeeds."""
    asked = {
        (name, host): {await served_by(mesh, mesh.nodes[name], host) for _ in range(CALLS)}
        for name, host in (("node1", "cart.shop"), ("node2", "web.shop"), ("node3", "web.shop"))
    }
    assert asked == {
        ("node1", "cart.shop"): {"node2", "node3"},
        ("node2", "web.shop"): {"node1"},
        ("node3", "web.shop"): {"node1"},
    }
    assert await events(mesh, FAILURES) == {}

    async def counted() -> str | None:
        made = await events(mesh, HANDSHAKES)
        return None if len(made) == len(NAMES) * len(HANDSHAKES) else f"handshakes {made}"

    # Each engine has called another and was called; it tells its agent what it counts every few seconds.
    await wait_until("handshakes both ways on every node", counted, ALARMED_S)
    assert await events(mesh, FAILURES) == {}


async def ends_of_leaves(mesh: Mesh) -> list[int]:
    """Return until when the authority's certificates are valid; 0 where there is none of the key shown."""
    return [row["not_after"] or 0 for node in mesh.nodes.values() for row in await node.ask("/v1/identity")]


def dead_since(mesh: Mesh, since: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Return whom anybody held dead or gone since the logs were so long."""
    told = [one for name in NAMES for one in read_agent_log(log_of(mesh, name)[since[name] :], name, 0.0)[0]]
    return [(one.observer, one.subject, one.status) for one in told if one.status in ("dead", "left")]


async def test_an_hour_back_changes_nothing(mesh: Mesh) -> None:
    await restart_all(mesh, dict.fromkeys(NAMES, -HOUR_S))
    await assert_traffic_flows(mesh)
    assert min(await ends_of_leaves(mesh)) > wall_seconds() - HOUR_S


async def test_one_an_hour_ahead_says_so_and_is_nobodys_loss(mesh: Mesh) -> None:
    """With two peers it cannot tell whose clock is off, and says that."""
    since = await restart_all(mesh, {"node3": HOUR_S})
    log = mesh.keeper.log_path("node3-agent")

    async def alarmed() -> str | None:
        return None if "s ahead of what 2 of its peers say" in log.read_text() else "its log does not say so"

    await wait_until("node3 is alarmed", alarmed, ALARMED_S)
    await wait_failing(mesh, "node3", {"clock"})
    await mesh.wait_statuses(dict.fromkeys(NAMES, "alive"))
    await assert_traffic_flows(mesh)
    assert dead_since(mesh, since) == []


@pytest.mark.parametrize("by_s", [HOUR_S, 3 * DAY_S, 29 * DAY_S], ids=["1h", "3d", "29d"])
async def test_a_mesh_goes_on_after(mesh: Mesh, by_s: int) -> None:
    """Beyond a day the authority's certificates have ended: what engines show proves nothing by itself."""
    since = await restart_all(mesh, dict.fromkeys(NAMES, by_s))
    ended = [not_after < wall_seconds() + by_s for not_after in await ends_of_leaves(mesh)]
    assert set(ended) == {by_s > LEAVES_LAST_S}
    await assert_traffic_flows(mesh)
    assert dead_since(mesh, since) == []
