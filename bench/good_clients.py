"""Clients that do nothing wrong, at a constant rate, and remember how long each of their requests took."""

import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import trio

from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.roots import load_authority
from gossipmesh.control.tokens import TokenOrder
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.testing.admin import AdminError, AgentSilent
from gossipmesh.testing.load_control import Load
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.scraping import scrape
from gossipmesh.testing.sessions import now_s

RATE_PER_S: Final = 100.0
ASK_RATE_PER_S: Final = 15.0
WARM_UP_S: Final = 1.5
ANSWER_TIMEOUT_S: Final = 15.0
TOKEN_TTL_S: Final = 3_600
CALLER: Final = "caller"
TOLD: Final = (OSError, AgentSilent, AdminError, OperatorError, trio.BrokenResourceError, trio.TooSlowError)


class Asking(Protocol):
    """Something that can be asked over and over, each time on a connection of its own."""

    async def once(self) -> bytes:
        """Ask once; return what came."""
        ...


class Members:
    """`gossipmesh members`: the agent's own socket."""

    def __init__(self, mesh: Mesh) -> None:
        self._node = mesh.nodes[CALLER]

    async def once(self) -> bytes:
        """Ask for the members."""
        return json.dumps(await self._node.ask("/v1/members", timeout_s=ANSWER_TIMEOUT_S)).encode()


class Scrapes:
    """Prometheus's scrape."""

    def __init__(self, mesh: Mesh) -> None:
        self._host = mesh.nodes[CALLER].host

    async def once(self) -> bytes:
        """Read /metrics."""
        return await scrape(self._host)


class Enrolments:
    """Machines that join: each redeems a token of its own."""

    def __init__(self, mesh: Mesh) -> None:
        directory = mesh.directory / "authority"
        self._address = Address.parse(mesh.authority_address)
        self._issuer = Issuer(load_authority(directory), Ledger(directory), random_bytes)
        self._place = Path(tempfile.mkdtemp(prefix="enrolments", dir=mesh.directory))
        self._number = 0

    async def once(self) -> bytes:
        """Enrol one more node."""
        self._number += 1
        name = f"{self._place.name.replace('_', '').lower()}-{self._number}"
        token = self._issuer.create_token(TokenOrder(self._address, name, (), TOKEN_TTL_S), wall_seconds())
        path = self._place / f"{name}.token"
        path.write_bytes(msgspec.json.encode(token))
        path.chmod(0o600)
        return (await enrol(self._place / name, path)).bundle_pem


CLIENTS: Final[dict[str, Callable[[Mesh], Asking]]] = {
    "members": Members,
    "scrapes": Scrapes,
    "enrolments": Enrolments,
}
LOADS: Final = {
    "requests": (CALLER, "web.shop"),
    "requests-of-poor": ("poor", "web.shop"),
    "requests-to-poor": (CALLER, "db.shop"),
}
"""Good requests: where they enter, and what they ask for."""


class Clients:
    """The good clients of one case."""

    def __init__(self, mesh: Mesh, case: str, names: Sequence[str]) -> None:
        self._mesh = mesh
        self._names = names
        self._loads = {
            name: Load(
                *(mesh, [LOADS[name][0]]),
                rate_per_s=RATE_PER_S,
                timeout_s=ANSWER_TIMEOUT_S,
                hosts=[LOADS[name][1]],
                records=True,
                name=f"{case}-{name}",
            )
            for name in names
            if name in LOADS
        }
        self._asked: dict[str, list[dict[str, Any]]] = {name: [] for name in names if name in CLIENTS}
        self._stopping = trio.Event()
        self._ended: list[trio.Event] = []

    async def start(self, nursery: trio.Nursery) -> None:
        """Start all of them and let them run for a moment."""
        for load in self._loads.values():
            load.start(nursery)
        for name, rows in self._asked.items():
            self._ended.append(trio.Event())
            nursery.start_soon(self._ask, CLIENTS[name](self._mesh), rows, self._ended[-1])
        await trio.sleep(WARM_UP_S)

    async def _ask(self, client: Asking, rows: list[dict[str, Any]], ended: trio.Event) -> None:
        """Ask at a constant rate, whatever becomes of earlier ones; return when all are answered."""
        async with trio.open_nursery() as asking:
            next_s = trio.current_time()
            while not self._stopping.is_set():
                asking.start_soon(timed, client.once, rows)
                next_s += 1.0 / ASK_RATE_PER_S
                await trio.sleep_until(next_s)
        ended.set()

    async def stop(self) -> dict[str, list[dict[str, Any]]]:
        """Stop all; return client -> its requests: `at_s` (monotonic), `latency_ms`, `error`."""
        self._stopping.set()
        for event in self._ended:
            await event.wait()
        told = dict(self._asked)
        for name, load in self._loads.items():
            await load.stop()
            told[name] = [
                {"at_s": row.at_s, "latency_ms": row.latency_ms, "error": row.error or row.failed * "failed"}
                for row in load.outcomes()
            ]
        return told


async def timed(ask: Callable[[], Awaitable[bytes]], rows: list[dict[str, Any]]) -> None:
    """Ask once and write down how long it took and what went wrong."""
    row: dict[str, Any] = {"at_s": now_s(), "error": ""}
    try:
        with trio.fail_after(ANSWER_TIMEOUT_S):
            await ask()
    except TOLD as error:
        row["error"] = f"{type(error).__name__}: {error}"
    row["latency_ms"] = round((now_s() - row["at_s"]) * 1000, 2)
    rows.append(row)
