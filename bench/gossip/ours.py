"""Our group: real agents with their engines, enrolled beforehand by an authority in this process.

Enrolment is no gossip, and forty starts of the command line would be measured for nothing: so tokens
are made and redeemed here, by the product's own functions, and the authority is gone before any agent
starts, as it may be.
"""

from pathlib import Path
from typing import Final

import msgspec
import trio

from bench.gossip.field import Field
from bench.gossip.group import Group
from bench.gossip.observe import read_agent_line
from gossipmesh import __version__
from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.roots import Plan, create_authority
from gossipmesh.control.server import AuthorityServer
from gossipmesh.control.tokens import TokenOrder
from gossipmesh.model.member import Address
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.net.secret_files import make_private_directory, write_file
from gossipmesh.testing import layout
from gossipmesh.testing.mesh import Mesh, MeshNode
from gossipmesh.testing.waiting import wait_until

TOKEN_TTL_S: Final = 600


class OurGroup(Group):
    """N agents of this checkout."""

    name = "gossipmesh"
    read_line = staticmethod(read_agent_line)
    batch_count = 5  # a whole agent and its engine are a second of CPU each
    returns_by_itself = True

    def __init__(self, field: Field, directory: Path) -> None:
        super().__init__(field, directory)
        nodes = tuple(layout.NodeLayout(name, field.number(name), ()) for name in self.names)
        mesh_directory = directory / "mesh"
        mesh_directory.mkdir()
        self.mesh = Mesh(layout.MeshLayout(nodes), network=field.network, directory=mesh_directory)
        self.keeper = self.mesh.keeper

    @property
    def version(self) -> str:
        """Return our version."""
        return f"gossipmesh {__version__}"

    async def prepare(self) -> None:
        """Write configurations and enrol every node."""
        for node in self.mesh.nodes.values():
            node.services_directory.mkdir(parents=True)
            seed = f"{self.field.host(self.names[0])}:{layout.GOSSIP_PORT}"
            seeds = [] if node.name == self.names[0] else [seed]
            config = layout.agent_config(node.host, node.directory, node.directory / "token", seeds)
            layout.write_document(node.config_path, config)
        await enrol_all(list(self.mesh.nodes.values()), self.directory / "authority")

    def launch(self, name: str) -> None:
        """Start the agent, which starts its engine."""
        self.mesh.start_agent(name)

    async def settle(self, name: str) -> None:
        """Learn the engine's pid, so that the whole node can be killed."""
        node = self.mesh.nodes[name]
        previous, node.engine_pid = node.engine_pid, None

        async def engine_runs() -> str | None:
            status = await node.status()
            runs = status["engine"]["pid"] not in (None, previous)
            return None if runs else f"{name} has no engine yet"

        await wait_until(f"the engine of {name} starts", engine_runs, 60.0)

    def pids(self, name: str) -> list[int]:
        """Return agent and engine."""
        return self.mesh.nodes[name].pids("agent") + self.mesh.nodes[name].pids("engine")

    def log_path(self, name: str) -> Path:
        """Return what the agent writes."""
        return self.keeper.log_path(f"{name}-agent")


async def enrol_all(nodes: list[MeshNode], directory: Path) -> None:
    """Make an authority, redeem a token for each node, and let the authority go."""
    authority = create_authority(Plan(layout.TRUST_DOMAIN, directory, dev=True), wall_seconds(), random_bytes)
    issuer = Issuer(authority, Ledger(directory), random_bytes)
    server = AuthorityServer(authority, clock=wall_seconds, entropy=random_bytes, report=lambda line: None)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(server.run, Address("127.0.0.1", 0))
        for node in nodes:
            order = TokenOrder(address, node.name, (f"{layout.NAMESPACE}/*",), TOKEN_TTL_S)
            token_file = node.directory / "token"
            write_file(
                token_file, msgspec.json.encode(issuer.create_token(order, wall_seconds())), mode=0o600
            )
            state = node.directory / "state"
            make_private_directory(state)
            await enrol(state / "identity", token_file)
        nursery.cancel_scope.cancel()
