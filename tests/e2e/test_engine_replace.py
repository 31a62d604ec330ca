"""One engine in another one's place under load: nobody is refused, nothing is cut, rights go at both."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gossipmesh.testing import layout
from gossipmesh.testing.load_control import Load
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.sessions import Lines
from gossipmesh.testing.waiting import wait_until

LIFE_S = 4.0
DOWNLOAD_S = 20.0


@pytest.fixture(scope="module")
def mesh() -> Any:
    """Five nodes with their services, all alive and passing."""
    with Mesh() as mesh:
        trio.run(mesh.start)
        yield mesh


async def check_rows(mesh: Mesh, name: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a node's check, by name."""
    told = json.loads((await mesh.gossipmesh("check", "-o", "json", node=name)).stdout)
    return {row["name"]: row for row in told}


async def replace(mesh: Mesh, name: str) -> dict[str, Any]:
    """Put another engine in a node's place; return what was answered, once the one before drains."""
    told: dict[str, Any] = json.loads(
        await mesh.must("engine", "replace", "--no-wait", "-o", "json", node=name)
    )
    return told


async def wait_ended(node: MeshNode, pid: int) -> dict[str, Any]:
    """Wait until an engine that was replaced has ended; return what it was like then."""
    ended: dict[str, Any] = {}

    async def has_ended() -> str | None:
        engine = (await node.status())["engine"]
        if engine["ended"] is not None and engine["ended"]["pid"] == pid:
            ended.update(engine["ended"])
        return None if ended else str(engine)

    await wait_until(f"the engine before of {node.name} has ended", has_ended, 60.0)
    return ended


async def replaced_under_load(mesh: Mesh, session_life_s: float) -> None:
    """Replace the engine of a node that calls and serves, and of one that serves, while everything runs."""
    load = Load(
        mesh,
        list(mesh.nodes),
        rate_per_s=40.0,
        kinds=("get", "post", "trickled-post", "stream", "tcp"),
        sessions=("tcp", "websocket", "stream"),
        session_life_s=session_life_s,
    )
    async with trio.open_nursery() as nursery:
        load.start(nursery)
        await go_on(load, 60)
        for name in ("node2", "node4"):
            node = mesh.nodes[name]
            replaced = await replace(mesh, name)
            rows = await check_rows(mesh, name)
            assert str(replaced["before_pid"]) in rows["engine before"]["detail"]
            assert str(replaced["pid"]) in rows["engine"]["detail"]
            ended = await wait_ended(node, replaced["before_pid"])
            assert ended["cut_count"] == 0, ended
            assert not mesh.keeper.is_running(replaced["before_pid"])
        await go_on(load, 60)
        summary = await load.stop()
        nursery.cancel_scope.cancel()
    assert summary["failed"] == 0, json.dumps(summary["failures"])
    assert not [end for end in load.session_ends if end["how"] != "asked"], load.session_ends


async def go_on(load: Load, count: int) -> None:
    """Wait until so many more requests are answered."""
    goal = load.answered + count

    async def answered() -> str | None:
        return None if load.answered >= goal else f"{load.answered} of {goal} answers"

    await wait_until("the load goes on", answered, 30.0)


async def test_no_request_pays_for_another_engine(mesh: Mesh) -> None:
    await replaced_under_load(mesh, LIFE_S)


@pytest.mark.long
async def test_no_long_download_pays_for_another_engine(mesh: Mesh) -> None:
    await replaced_under_load(mesh, DOWNLOAD_S)


@asynccontextmanager
async def tunnel(node: MeshNode, mesh: Mesh) -> AsyncIterator[Lines]:
    """Hold a TCP connection to db open, and see that it echoes."""
    async with await trio.open_tcp_stream(node.local_host, mesh.proxy_port) as stream:
        lines = Lines(stream)
        status, _ = await lines.connect("db.shop")
        assert status == 200
        await stream.send_all(b"hello\n")
        assert await lines.line()
        yield lines


async def is_cut(lines: Lines) -> bool:
    """Wait until a connection ends from the other side."""
    with trio.move_on_after(30.0):
        try:
            while await lines.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        return True
    return False


async def test_who_loses_a_right_while_an_engine_drains_loses_it_at_both(mesh: Mesh, tmp_path: Path) -> None:
    """Both engines of either node hold a connection each when the policy comes."""
    caller = mesh.nodes["node1"]
    replaced: dict[str, dict[str, Any]] = {}
    async with tunnel(caller, mesh) as before:
        for name in ("node4", "node5"):  # each that serves db
            replaced[name] = await replace(mesh, name)
        async with tunnel(caller, mesh) as after:
            for name, told in replaced.items():
                draining = (await mesh.nodes[name].status())["engine"]["draining"]
                assert draining is None or draining["pid"] == told["before_pid"]
            policy = tmp_path / "policy.yaml"
            layout.write_policy(policy, [deny_everybody("db")])
            pushed = await mesh.push(policy, "node1")
            assert pushed.code == 0, pushed.stderr
            assert await is_cut(before)
            assert await is_cut(after)
    cuts = 0
    for name, told in replaced.items():
        cuts += (await wait_ended(mesh.nodes[name], told["before_pid"]))["cut_count"]
    assert cuts == 0, "the rule ended it, long before the time was up"


def deny_everybody(service: str) -> dict[str, Any]:
    """Return a policy that lets nobody call a service."""
    return {
        "apiVersion": "gossipmesh.dev/v1",
        "kind": "AccessPolicy",
        "metadata": {"name": f"nobody-calls-{service}", "namespace": layout.NAMESPACE},
        "spec": {
            "targetRef": {"name": service},
            "action": "Allow",
            "rules": [{"from": [{"namespaces": ["nobody"]}]}],
        },
    }
