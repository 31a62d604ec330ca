"""An authority in this process, on a real loopback port, for tests of both sides of enrolment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.roots import Authority, Plan, create_authority
from gossipmesh.control.server import AuthorityServer
from gossipmesh.control.tokens import TokenOrder
from gossipmesh.model.enrolment import JoinToken
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.member import Address
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.net.secret_files import write_file

LOOPBACK = Address("127.0.0.1", 0)


class RunningAuthority:
    """An authority, its server, and its clock, which stands where it was made until a test moves it."""

    def __init__(self, directory: Path, trust_domain: str = "mesh.test") -> None:
        self._made_at = wall_seconds()
        self.moved_s = 0
        plan = Plan(trust_domain, directory, dev=True)
        self.authority: Authority = create_authority(plan, self.now(), random_bytes)
        self.ledger = Ledger(directory)
        self.issuer = Issuer(self.authority, self.ledger, random_bytes)
        self.log: list[str] = []
        self.server = AuthorityServer(
            self.authority, clock=self.now, entropy=random_bytes, report=self.log.append
        )
        self.address = LOOPBACK

    def now(self) -> WallSeconds:
        """Return the authority's time."""
        return WallSeconds(self._made_at + self.moved_s)

    def token(self, path: Path, node: str = "n1", services: tuple[str, ...] = (), ttl_s: int = 600) -> Path:
        """Write a token file that leads here, and return its path."""
        return self.write_token(path, self.issuer.create_token(self.order(node, services, ttl_s), self.now()))

    def order(self, node: str, services: tuple[str, ...], ttl_s: int = 600) -> TokenOrder:
        """Return the order for a token that leads here."""
        return TokenOrder(self.address, node, services, ttl_s)

    @staticmethod
    def write_token(path: Path, token: JoinToken, **changes: Any) -> Path:
        """Write `token`, with some fields changed, as a token file."""
        write_file(path, msgspec.json.encode(msgspec.structs.replace(token, **changes)), mode=0o600)
        return path


@asynccontextmanager
async def running_authority(
    directory: Path, trust_domain: str = "mesh.test"
) -> AsyncIterator[RunningAuthority]:
    """Make an authority in `directory` and serve it for the length of the block."""
    running = RunningAuthority(directory, trust_domain)
    async with trio.open_nursery() as nursery:
        running.address = await nursery.start(running.server.run, LOOPBACK)
        yield running
        nursery.cancel_scope.cancel()
