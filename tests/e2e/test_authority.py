"""The authority with real processes: an intermediate turned, an authority moved, a node revoked."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from gossipmesh.testing import layout
from gossipmesh.testing.load_control import Load
from gossipmesh.testing.mesh import GOSSIPMESH, Mesh
from gossipmesh.testing.waiting import wait_until

MOVED_PORT = 18_443


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """Three nodes; where the authority moves to is in their configuration, by name."""
    config = {"authorities": [f"localhost:{MOVED_PORT}"]}
    with Mesh(layout.one_endpoint(), config=config) as mesh:
        trio.run(mesh.start)
        yield mesh


def directory(mesh: Mesh) -> tuple[str, str]:
    return "--dir", str(mesh.directory / "authority")


async def deeds(mesh: Mesh, *words: str) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(
        await mesh.must("authority", "log", *directory(mesh), *words, "--json")
    )
    return told


async def wait_trust(mesh: Mesh, version: int) -> None:
    async def everywhere() -> str | None:
        versions = {name: (await node.status())["trust"]["version"] for name, node in mesh.nodes.items()}
        return None if set(versions.values()) == {version} else str(versions)

    await wait_until(f"Trust version {version} everywhere", everywhere, 30.0)


async def register(mesh: Mesh, name: str) -> None:
    """Have a node serve one more service: it asks for a certificate at once."""
    mesh.write_service(name, layout.LONE_WEB)
    mesh.start_workload(name, layout.LONE_WEB)


async def test_an_intermediate_turns_and_no_request_notices(mesh: Mesh) -> None:
    """Named, used, dropped at once: what the old one issued is good by the nodes' own key sets."""
    load = Load(mesh, ["node1"], rate_per_s=20.0, hosts=("web.shop", "cart.shop"))

    async def goes_on() -> str | None:
        return None if load.answered >= before + 40 else f"{load.answered} answers"

    rotate = ("authority", "rotate", "intermediate", *directory(mesh))
    async with trio.open_nursery() as nursery:
        load.start(nursery)
        for version, words in ((2, ()), (2, ()), (3, ("--force",))):
            before = load.answered
            told = await mesh.must(*rotate, *words, node="node1")
            assert told
            await wait_trust(mesh, version)
            await wait_until("members say so", lambda version=version: _silent(mesh, version), 30.0)
            await wait_until("the load goes on", goes_on, 30.0)
        summary = await load.stop()
        nursery.cancel_scope.cancel()
    assert summary["failed"] == 0, (summary["failures"], load.refusals())
    steps = [deed["what"].partition(": ")[2] for deed in await deeds(mesh) if "rotate" in deed["what"]]
    assert steps == ["name", "use", "drop"]


async def _silent(mesh: Mesh, version: int) -> str | None:
    """Return who does not say, as node1 holds it, that it has a version of Trust."""
    rows = await mesh.nodes["node1"].ask("/v1/members")
    silent = [row["name"] for row in rows if f"holds-trust-{version}" not in row["features"]]
    return ", ".join(silent) or None


async def test_nodes_renew_at_an_authority_that_moved(mesh: Mesh) -> None:
    """Its old address is dead; the server below the new intermediate is found by name, at another port."""
    mesh.kill_authority()
    words = [*GOSSIPMESH, "authority", "serve", *directory(mesh), "--bind", f"127.0.0.1:{MOVED_PORT}"]
    mesh.authority = mesh.keeper.start("authority-moved", words)
    await register(mesh, "node3")

    async def renewed() -> str | None:
        told = [deed for deed in await deeds(mesh, "--node", "node3") if deed["what"] == "renewed"]
        return None if any("svc/web" in deed["detail"] for deed in told) else f"{len(told)} renewals"

    await wait_until("node3 has renewed at the new place", renewed, 40.0)


async def test_a_revoked_node_is_gone_everywhere_and_renews_nothing(mesh: Mesh) -> None:
    engine = (await mesh.nodes["node3"].status())["engine"]["pid"]
    told = await mesh.must("authority", "revoke", "node3", *directory(mesh), node="node1")
    assert "handed to the agent" in told

    async def gone() -> str | None:
        left = {name: sorted(await mesh.nodes[name].statuses()) for name in ("node1", "node2")}
        return None if all("node3" not in names for names in left.values()) else str(left)

    await wait_until("nobody lists node3", gone, 10.0)
    await mesh.wait_ended("node3")

    async def engine_ended() -> str | None:
        return None if not mesh.keeper.is_running(engine) else "it runs"

    await wait_until("its engine ended", engine_ended, 20.0)
    agent = mesh.nodes["node3"].agent
    assert agent is not None
    assert agent.poll() == 77
    last = (await deeds(mesh, "--node", "node3"))[-1]
    assert last["what"] == "revoked"
