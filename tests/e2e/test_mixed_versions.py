"""The release before and this build in one mesh, either way round, and the way from the one to the other."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gossipmesh.testing import key_turns, layout
from gossipmesh.testing.load_control import Load
from gossipmesh.testing.mesh import GOSSIPMESH, Mesh
from gossipmesh.testing.mixed_versions import check_row, replace_agent, write_mesh_policy
from gossipmesh.testing.older import older_program
from gossipmesh.testing.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.history]

OLD = ("node1", "node3", "node5")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What stands for `gossipmesh` of the release before."""
    return older_program(tmp_path_factory.mktemp("older"))


@asynccontextmanager
async def load_on(mesh: Mesh, *kinds: str) -> AsyncIterator[Load]:
    """Load from every node while the block runs; none of it may fail."""
    load = Load(mesh, list(mesh.nodes), rate_per_s=40.0, kinds=("get", *kinds))
    async with trio.open_nursery() as nursery:
        load.start(nursery)
        await go_on(load)
        yield load
        await go_on(load)
        summary = await load.stop()
        nursery.cancel_scope.cancel()
    assert summary["failed"] == 0, json.dumps(summary["failures"])


async def go_on(load: Load, count: int = 60) -> None:
    """Wait until so many more requests are answered."""
    goal = load.answered + count

    async def answered() -> str | None:
        return None if load.answered >= goal else f"{load.answered} of {goal} answers"

    await wait_until("the load goes on", answered, 30.0)


async def replace_engine(mesh: Mesh, name: str) -> None:
    """Put an engine of the agent's build in the place of the older one that it kept."""
    before = (await mesh.nodes[name].status())["engine"]["pid"]
    replaced = json.loads(await mesh.must("engine", "replace", "-o", "json", node=name))
    assert (replaced["before_pid"], replaced["cut"]) == (before, 0)
    assert not mesh.keeper.is_running(before)
    await mesh.wait_ready()


async def test_nodes_of_both_under_an_authority_of_this_build(older: list[str], tmp_path: Path) -> None:
    """They call each other, keys turn, what older ones do not know is refused by name; then all upgrade."""
    with Mesh() as mesh:
        await mesh.start(dict.fromkeys(OLD, older))
        async with load_on(mesh, "tcp", "post"):
            await mesh.wait_sums_equal()
            await key_turns.turn(mesh, "node4")
            await mesh.wait_sums_equal()
            policy = write_mesh_policy(tmp_path)
            pushed = await mesh.push(policy, "node2")
            assert pushed.code == 1
            for name in OLD:
                assert f"{name} (mesh-policy)" in pushed.stderr
            words = ["authority", "revoke", "node5", "--offline", "--dir", str(mesh.directory / "authority")]
            revoked = await mesh.gossipmesh(*words, node="node2")
            assert revoked.code == 1
            assert "node1, node3, node5; upgrade or revoke those first" in revoked.stderr
            canary = tmp_path / "canary.yaml"
            layout.write_policy(canary, layout.canary(50, 50))
            pushed = await mesh.push(canary, "node2", "--wait")
            assert pushed.code == 0, pushed.stderr
            for name in OLD:
                await replace_agent(mesh, name)
                row = await check_row(mesh, name, "keys")
                assert "the engine is of an older build" in row["detail"]
        for name in OLD:
            async with load_on(mesh, "tcp", "post"):
                await replace_engine(mesh, name)
        async with load_on(mesh, "tcp", "post"):
            for name in OLD:
                row = await check_row(mesh, name, "keys")
                assert "older build" not in row["detail"]
            await key_turns.turn(mesh, "node1")
            pushed = await mesh.push(policy, "node2", "--wait")
            assert pushed.code == 0, pushed.stderr
            await mesh.wait_sums_equal()


async def test_nodes_of_this_build_under_an_authority_of_before(older: list[str]) -> None:
    """They join and call; their keys wait for the authority's upgrade, which the same folder serves."""
    with Mesh(authority_program=older) as mesh:
        await mesh.start({"node1": older})
        async with load_on(mesh, "tcp"):
            await mesh.wait_sums_equal()
            await mesh.must("keys", "turn", node="node4")

            async def waits() -> str | None:
                told = await mesh.nodes["node4"].ask("/v1/keys")
                return None if "before 0.3" in told["waits_for"] else str(told)

            await wait_until("the turn waits for the authority's upgrade", waits, 10.0)
            await replace_agent(mesh, "node1")
            mesh.kill_authority()
            mesh.authority_program = GOSSIPMESH
            await mesh.start_authority()
            await key_turns.turn(mesh, "node4")
            await mesh.wait_sums_equal()


def main() -> None:
    """Run one of the tests outside pytest: `python -m tests.e2e.test_mixed_versions WHICH FOLDER`."""
    folder = Path(sys.argv[2])
    program = older_program(folder / "older")
    if sys.argv[1] == "1":
        trio.run(test_nodes_of_both_under_an_authority_of_this_build, program, folder)
    else:
        trio.run(test_nodes_of_this_build_under_an_authority_of_before, program)


if __name__ == "__main__":
    main()
