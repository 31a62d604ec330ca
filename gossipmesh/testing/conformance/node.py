"""An engine with an agent's hand on it: listeners, identities, snapshots, and the workloads behind it.

One engine serves as both ends: its own mesh port is where its endpoints are, unless a file says otherwise.
"""

import json
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from gossipmesh.testing.conformance import files, snapshots
from gossipmesh.testing.conformance.control import Control, Frame
from gossipmesh.testing.conformance.engine import Engine, running
from gossipmesh.testing.conformance.http import Handler, Peer
from gossipmesh.testing.conformance.identities import TRUST_DOMAIN, Authority
from gossipmesh.testing.conformance.outcome import Departed
from gossipmesh.testing.conformance.shapes import Shapes

HOST: Final = "127.0.0.1"
NODE: Final = f"spiffe://{TRUST_DOMAIN}/node/n1"
FIXED: Final = ("mesh", "proxy", "readiness")
AUTHORITY: Final = Authority()


def bound() -> socket.socket:
    """Return a listening socket on a free port of this host."""
    sock = socket.socket()
    sock.bind((HOST, 0))
    sock.listen(128)
    return sock


class Node:
    """One engine and all that stands around it in a run."""

    def __init__(self, engine: Engine, nursery: trio.Nursery) -> None:
        self.engine = engine
        self.nursery = nursery
        self.shapes = Shapes(files.read("schemas/frames.json"))
        self.control: Control
        self.sockets: dict[str, socket.socket] = {}
        self._bound: list[socket.socket] = []
        self.sections: snapshots.Sections = {}
        self.version = ""
        self.variables: dict[str, Any] = {"uid": os.geteuid(), "nobody": [HOST, 1]}

    async def attach(self, **more: Any) -> Control:
        """Attach as a new agent; return its connection."""
        self.control = await Control.connect(self.engine.socket, self.nursery, self.shapes)
        await self.control.hello(**more)
        return self.control

    def bind(self, names: Sequence[str]) -> dict[str, socket.socket]:
        """Make listening sockets; their addresses become variables of their names."""
        made = {name: bound() for name in names}
        self.sockets.update(made)
        self._bound += made.values()
        self.variables.update({name: list(sock.getsockname()[:2]) for name, sock in made.items()})
        return made

    async def give(self, sockets: Mapping[str, socket.socket]) -> Frame:
        """Hand listeners over; return the answer."""
        frame = {"type": "listeners", "request": 0, "names": list(sockets), "last": True}
        return await self.control.ask(frame, [sock.fileno() for sock in sockets.values()])

    async def identify(self, spiffe_ids: Sequence[str]) -> Frame:
        """Give the engine identities of this run's authority; return the answer."""
        pairs = [(name, AUTHORITY.svid(name)) for name in spiffe_ids]
        told = [
            {"spiffe_id": name, "chain_pem": one.chain_pem, "key_pem": one.key_pem} for name, one in pairs
        ]
        return await self.control.ask(
            {"type": "identities", "request": 0, "identities": told, "bundle_pem": AUTHORITY.bundle_pem}
        )

    async def offer(self, change: Mapping[str, Any]) -> Frame:
        """Change the sections as a step says, offer the whole; return the answer. Acked: it is in force."""
        sections = snapshots.changed(self.sections, change)
        told = {name: snapshots.encoded(self.filled(section)) for name, section in sections.items()}
        answer = await self.offer_encoded(told)
        if answer["type"] == "ack":
            self.sections = sections
        return answer

    async def offer_encoded(self, told: Mapping[str, bytes]) -> Frame:
        """Offer encoded sections by name; return the answer."""
        root = snapshots.root_of(told)
        offer = {"version": snapshots.version_of(root), "root": root, "sections": list(told.values())}
        answer = await self.control.ask({"type": "snapshot", "request": 0, **offer})
        if answer["type"] == "ack":
            if answer["version"] != offer["version"]:
                raise Departed(f"the snapshot in force is {answer['version']}, not the one acked")
            self.version = str(offer["version"])
        return answer

    async def serving(self, names: Sequence[str], base: str, change: Mapping[str, Any]) -> None:
        """Attach, give identities and listeners, and put a snapshot in force.

        Raises:
            Departed: the engine does not take them. State: as far as it came.
        """
        await self.attach()
        self.sections = files.read("snapshots.json")[base]
        for answer in (
            await self.identify(names),
            await self.give(self.bind(FIXED)),
            await self.offer(change),
        ):
            if answer["type"] != "ack":
                raise Departed(f"what every engine takes was refused: {answer}")

    def filled(self, value: Any) -> Any:
        """Return a value of a file with this run's addresses in it."""
        return snapshots.filled(value, self.variables)

    def at(self, name: str) -> tuple[str, int]:
        """Return an address by its name."""
        host, port = self.variables[name]
        return host, port

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the access log so far, whole ones.

        Raises:
            Departed: one is no JSON object. State unchanged.
        """
        if not self.engine.access_log.exists():
            return []
        *whole, _ = self.engine.access_log.read_bytes().split(b"\n")
        try:
            return [json.loads(line) for line in whole]
        except ValueError as error:
            raise Departed(f"a line of the access log is no JSON: {error}") from None

    def close(self) -> None:
        """Close what this side holds of the listeners."""
        for sock in self._bound:
            sock.close()


async def served(nursery: trio.Nursery, handler: Handler) -> list[Any]:
    """Serve connections with `handler` in `nursery`; return where."""

    async def one(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(Peer(stream))

    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    nursery.start_soon(trio.serve_listeners, one, [listener])
    return list(listener.socket.getsockname()[:2])


NAMES: Final = (
    NODE,
    f"spiffe://{TRUST_DOMAIN}/ns/shop/svc/cart",
    f"spiffe://{TRUST_DOMAIN}/ns/shop/svc/web",
    f"spiffe://{TRUST_DOMAIN}/ns/shop/svc/db",
)


@asynccontextmanager
async def node(command: Sequence[str], more: Sequence[str] = ()) -> AsyncIterator[Node]:
    """Run an engine, with nothing said to it yet."""
    async with running(command, more) as engine, beside(engine) as made:
        yield made


@asynccontextmanager
async def beside(engine: Engine) -> AsyncIterator[Node]:
    """Stand beside an engine that runs; whatever was said to it before is replaced by what is said now."""
    async with trio.open_nursery() as nursery:
        made = Node(engine, nursery)
        try:
            yield made
        finally:
            made.close()
            nursery.cancel_scope.cancel()
