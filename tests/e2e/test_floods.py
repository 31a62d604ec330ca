"""One party takes all it can; everybody else is served, by the same processes, in turns as short as ever."""

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from bench.good_clients import Clients
from bench.under_attack import CASES, FEW_DESCRIPTORS, LAYOUT, POOR, processes, run_round
from gossipmesh.model import limits
from gossipmesh.net.byte_stream import RECEIVE_BYTES
from gossipmesh.testing.mesh import GOSSIPMESH, Mesh
from gossipmesh.testing.scraping import scrape

pytestmark = pytest.mark.namespace  # a flood by another user needs root
SECONDS = 1.0
QUIET_S = 0.2  # nothing is compared with it here
# A turn ends before the piece that would be one too many: what one read brings, or one request.
TURN_BYTES_MAX = (
    limits.TURN_BYTES_MAX + limits.TURN_CALL_BYTES + max(RECEIVE_BYTES, limits.TURN_REQUEST_BYTES)
)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """A caller, a callee, and a node that has few descriptors."""
    with Mesh(LAYOUT) as mesh:
        poor = ["sh", "-c", f'ulimit -n {FEW_DESCRIPTORS}; exec "$@"', "sh", *GOSSIPMESH]
        trio.run(mesh.start, {POOR: poor})
        yield mesh


async def longest_turns(mesh: Mesh) -> dict[str, int]:
    """Return, by node, the most any task of its engine has worked off before others ran."""
    turns = {}
    for name, node in mesh.nodes.items():
        lines = (await scrape(node.host)).decode().splitlines()
        turns[name] = next(
            int(float(line.rpartition(" ")[2])) for line in lines if '"turn_bytes_max"' in line
        )
    return turns


@pytest.mark.parametrize("name", sorted(CASES))
async def test_a_flood_costs_nobody_else_a_request(mesh: Mesh, name: str) -> None:
    case = CASES[name]
    before = await processes(mesh)
    clients = Clients(mesh, f"test-{name}", case.clients)
    async with trio.open_nursery() as nursery:
        await clients.start(nursery)
        seen = await run_round(mesh, case, SECONDS, nursery, QUIET_S)
        outcomes = await clients.stop()
        nursery.cancel_scope.cancel()
    after = await processes(mesh)
    failures: list[Any] = [row for rows in outcomes.values() for row in rows if row["error"]]
    assert failures == []
    assert all(rows for rows in outcomes.values())
    assert all(told.get("opened") for told in seen["floods"])
    assert {what: one["pid"] for what, one in after.items()} == {
        what: one["pid"] for what, one in before.items()
    }
    assert max((await longest_turns(mesh)).values()) <= TURN_BYTES_MAX
