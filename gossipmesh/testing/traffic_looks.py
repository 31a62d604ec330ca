"""Whether traffic flows in a whole mesh: every node asks for every service, over connections of its own."""

from collections.abc import Iterable

from gossipmesh.testing.load import Target, ask_once
from gossipmesh.testing.mesh import Mesh

HOSTS = ("cart.shop", "web.shop")


async def unanswered(mesh: Mesh, names: Iterable[str], hosts: Iterable[str] = HOSTS) -> str | None:
    """Ask once at each node's proxy port for each host; return who was not answered, None when all were."""
    for name in names:
        for host in hosts:
            target = Target(name, mesh.nodes[name].local_host, mesh.proxy_port, host)
            answer = await ask_once(target)
            if answer.error:
                return f"{name} asks for {host}: {answer.error}"
    return None
