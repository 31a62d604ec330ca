"""Two of five machines end at once: their endpoints are kept, loudly, until the operator lets them go."""

import json
import signal

from gossipmesh.testing.mesh import Mesh
from tests.e2e.json_lines import json_lines


async def held(mesh: Mesh, node: str) -> set[str]:
    """Return the members whose endpoints a node keeps although they are gone."""
    rows = json.loads(await mesh.must("members", "-o", "json", node=node))
    return {row["name"] for row in rows if row["endpoints_retained"]}


async def test_endpoints_of_many_dead_are_kept_until_the_operator_lets_them_go(mesh: Mesh) -> None:
    *survivors, one, other = mesh.nodes
    victims = {one, other}
    for name in victims:
        await mesh.nodes[name].status()  # learns the pids
    for name in victims:
        for what in ("engine", "agent"):
            assert mesh.nodes[name].signal(what, signal.SIGKILL)
    await mesh.wait_statuses(dict.fromkeys(victims, "dead"), on=survivors)
    reader, beside, _ = survivors
    assert await held(mesh, reader) == victims
    told = json_lines(mesh.keeper.log_path(f"{reader}-agent"))
    assert [line["members"] for line in told if line["level"] == "error" and "members" in line] == [2]
    checked = await mesh.gossipmesh("check", node=reader)
    assert checked.code == 1
    assert "FAIL  mass death: the endpoints of 2 members" in checked.stdout

    assert await mesh.must("release", node=reader) == "Let go: the endpoints of 2 members.\n"
    assert await held(mesh, reader) == set()
    assert await held(mesh, beside) == victims, "each node is told for itself"
    assert await mesh.must("release", node=reader) == "No endpoints were kept.\n"
