"""Leaving: announced, drained, and no request pays for it."""

import signal

import trio

from gossipmesh.testing.load_control import Load
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.waiting import wait_until


async def leaves_without_a_failure(mesh: Mesh, name: str, others: list[str], sigterm: bool) -> None:
    load = Load(mesh, ["node1", "node2"], rate_per_s=40.0)

    async def served_for_a_while() -> str | None:
        return None if load.answered >= before + 60 else f"{load.answered} answers"

    async with trio.open_nursery() as nursery:
        load.start(nursery)
        before = 0
        await wait_until("the load runs", served_for_a_while, 30.0)
        if sigterm:
            assert mesh.nodes[name].signal("agent", signal.SIGTERM)
        else:
            assert await mesh.must("leave", node=name) == "This node has left the mesh.\n"
        await mesh.wait_statuses({name: "left"}, on=others)
        await mesh.wait_ended(name)
        before = load.answered
        await wait_until("the load goes on", served_for_a_while, 30.0)
        summary = await load.stop()
        nursery.cancel_scope.cancel()
    assert summary["failed"] == 0, (summary["failures"], load.refusals())
    engine = mesh.nodes[name].engine_pid
    assert engine is not None
    assert not mesh.keeper.is_running(engine)


async def test_leave_and_sigterm_drain_the_node_and_stop_its_engine(mesh: Mesh) -> None:
    """`left`, not dead: the others are told, and nobody has to find out."""
    for node in mesh.nodes.values():
        await node.status()
    await leaves_without_a_failure(mesh, "node3", ["node1", "node2", "node4", "node5"], sigterm=False)
    await leaves_without_a_failure(mesh, "node5", ["node1", "node2", "node4"], sigterm=True)
