"""Engines in this process on real loopback sockets, with an agent's hand on each, and small workloads."""

import json
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from gossipmesh.dataplane.client import EngineClient, EngineGone
from gossipmesh.dataplane.protocol import EngineEvent, Statistics
from gossipmesh.dataplane.reference.engine import ReferenceEngine
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.identity import node_spiffe_id, service_spiffe_id
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.policy import Document
from gossipmesh.model.service import EndpointHealth
from gossipmesh.testing.builders import OneEndpoint, serving
from gossipmesh.traffic.compiler import DEFAULT_LIMITS, SnapshotCompiler
from gossipmesh.traffic.inputs import LocalService, PolicyInput, SnapshotInputs
from gossipmesh.traffic.sections import Snapshot
from tests.unit.dataplane.certificates import TRUST_DOMAIN, Authority, shared_authority

CART = service_spiffe_id(TRUST_DOMAIN, "shop/cart")
WEB = service_spiffe_id(TRUST_DOMAIN, "shop/web")


TEST_TIMEOUT_S = 20


def bound() -> socket.socket:
    """Return a listening socket on a free loopback port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    sock.setblocking(False)
    return sock


@contextmanager
def nobody_listening() -> Iterator[Address]:
    """Yield an address that refuses connections; held, or another server could be given its port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield address_of(sock)


def address_of(sock: socket.socket) -> Address:
    """Return where a socket is bound."""
    return Address(*sock.getsockname()[:2])


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; fail after five seconds."""
    with trio.fail_after(5):
        for _ in range(1_000):
            if condition():
                return
            await trio.sleep(0.005)
        raise trio.TooSlowError


class Node:
    """One engine, its sockets, and what its agent last told it."""

    def __init__(self, name: str, directory: Path, authority: Authority) -> None:
        self.name = name
        self.authority = authority
        self.socket_path = directory / f"{name}.sock"
        self.log_path = directory / f"{name}.log"
        self.engine = ReferenceEngine(self.socket_path, AccessLogSettings(self.log_path))
        self.sockets = {listener: bound() for listener in ("mesh", "proxy", "readiness")}
        self.inputs = SnapshotInputs(TRUST_DOMAIN, name, (), {}, (), (), DEFAULT_LIMITS)
        self.catalog: tuple[OneEndpoint, ...] = ()
        self.events: list[EngineEvent] = []
        self.client: EngineClient
        self.compiler = SnapshotCompiler()

    @property
    def spiffe_id(self) -> str:
        return node_spiffe_id(TRUST_DOMAIN, self.name)

    def at(self, listener: str) -> Address:
        return address_of(self.sockets[listener])

    def port(self, name: str, sock: socket.socket) -> None:
        self.sockets[name] = sock

    async def attach(self, nursery: trio.Nursery) -> EngineClient:
        client = await EngineClient.attach(self.socket_path, node_id=b"n" * 16, boot_id="boot")

        async def run() -> None:
            try:
                await client.run(self.events.append)
            except EngineGone:
                pass

        nursery.start_soon(run)
        self.client = client
        return client

    async def start(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self.engine.run)
        await self.attach(nursery)
        await self.identify()
        await self.client.give_listeners(self.sockets)

    async def identify(self, *spiffe_ids: str) -> None:
        names = (self.spiffe_id, CART, WEB, service_spiffe_id(TRUST_DOMAIN, "shop/db"), *spiffe_ids)
        pairs = [self.authority.identity(name) for name in dict.fromkeys(names)]
        await self.client.apply_identities(pairs, self.authority.bundle_pem)

    def compile(self, *, catalog: Sequence[OneEndpoint] | None = None, **changes: object) -> Snapshot:
        if catalog is not None:
            self.catalog = tuple(catalog)
            changes["serving"] = serving(catalog)
        self.inputs = msgspec.structs.replace(self.inputs, **changes)
        return self.compiler.compile(self.inputs)

    async def apply(self, *, catalog: Sequence[OneEndpoint] | None = None, **changes: object) -> Snapshot:
        snapshot = self.compile(catalog=catalog, **changes)
        await self.client.apply_snapshot(snapshot)
        return snapshot


def counted(node: Node, *beginnings: str) -> Counter[str]:
    """Return what an engine has counted so far under names that begin so, what it told its agent included."""
    every = Counter(node.engine._counters._counts)
    for event in node.events:
        if isinstance(event, Statistics):
            every.update(event.counters)
    return Counter({name: count for name, count in every.items() if name.startswith(beginnings)})


async def logged(node: Node, containing: str) -> dict[str, Any]:
    """Return the first line of an engine's access log whose details hold this."""

    def lines() -> list[dict[str, Any]]:
        node.engine._journal.write_down()
        found = [json.loads(line) for line in node.log_path.read_text().splitlines()]
        return [line for line in found if containing in (line["response_code_details"] or "")]

    await until(lambda: bool(lines()))
    return lines()[0]


def endpoint(
    node: Node,
    *,
    registration: str = "cart",
    service: str = "shop/cart",
    protocol: str = "http",
    **more: object,
) -> OneEndpoint:
    """Return a passing endpoint of `service` behind `node`."""
    plain = OneEndpoint(
        registration=registration,
        service=service,
        protocol=protocol,
        labels={},
        weight=100,
        health=EndpointHealth.PASSING,
        draining=False,
        node=node.name,
        address=node.at("mesh"),
        status=MemberStatus.ALIVE,
    )
    return msgspec.structs.replace(plain, **more)


def local(
    workload: Address, *, registration: str = "cart", service: str = "shop/cart", protocol: str = "http",
    uid: int | None = None, upstreams: tuple[tuple[str, Address], ...] = (),
) -> LocalService:  # fmt: skip
    """Return a workload of this node."""
    owner = os.geteuid() if uid is None else uid
    return LocalService(registration, service, protocol, workload, owner, upstreams)


def policies(*documents: Document) -> tuple[PolicyInput, ...]:
    """Return documents as they are in force."""
    return tuple(PolicyInput(document, 1) for document in documents)


@asynccontextmanager
async def nodes(directory: Path, *names: str) -> AsyncIterator[tuple[Node, ...]]:
    """Run one engine per name, each attached, with identities and listeners, without a snapshot."""
    made = tuple(Node(name, directory, shared_authority()) for name in names)
    try:
        with trio.fail_after(TEST_TIMEOUT_S):
            async with _running(made):
                yield made
    finally:
        for node in made:
            for sock in node.sockets.values():
                sock.close()


@asynccontextmanager
async def _running(made: tuple[Node, ...]) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for node in made:
            await node.start(nursery)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def cart_pair(directory: Path, workload: Address) -> AsyncIterator[tuple[Node, Node]]:
    """Run a caller's node and a node serving shop/cart from `workload`."""
    async with nodes(directory, "near", "far") as (near, far):
        await far.apply(local=(local(workload),), catalog=(endpoint(far),))
        await near.apply(catalog=(endpoint(far),), wanted=("shop/cart",))
        yield near, far


Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def workload(handler: Handler) -> AsyncIterator[Address]:
    """Serve raw connections with `handler`."""

    async def guarded(stream: trio.SocketStream) -> None:
        try:
            await handler(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the engine hung up, as some tests want

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, guarded, listeners)
        yield Address(*listeners[0].socket.getsockname()[:2])
        nursery.cancel_scope.cancel()


class Peer:
    """A client or server side of HTTP/1.1 that reads exactly one message at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""
        self.trailers: list[bytes] = []  # behind the body read last

    @classmethod
    async def connect(cls, address: Address) -> "Peer":
        return cls(await trio.open_tcp_stream(address.host, address.port))

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def head(self) -> bytes:
        """Return the next head; b"" at the end of the stream."""
        while b"\r\n\r\n" not in self.buffer:
            data = await self.stream.receive_some()
            if not data:
                return b""
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    async def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    async def lines_of_trailers(self) -> AsyncIterator[bytes]:
        """Yield lines up to the empty one."""
        while line := await self.line():
            yield line

    async def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError
            self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    async def rest(self) -> bytes:
        """Return everything until the end of the stream."""
        while data := await self.stream.receive_some():
            self.buffer += data
        data, self.buffer = self.buffer, b""
        return data

    async def body(self, head: bytes) -> bytes:
        """Return the body a head announces."""
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            parts = []
            while True:
                line = await self.line()
                if not int(line, 16):
                    self.trailers = [line async for line in self.lines_of_trailers()]
                    return b"".join(parts)
                parts.append((await self.exactly(int(line, 16) + 2))[:-2])
        if b"content-length: " in lowered:
            return await self.exactly(int(lowered.split(b"content-length: ")[1].split(b"\r\n")[0]))
        return b""

    async def ask(self, raw: bytes) -> tuple[int, bytes, bytes]:
        """Send a request; return (status, head, body) of its answer."""
        await self.send(raw)
        head = await self.head()
        if not head:
            return 0, b"", b""
        status = int(head.split(b" ")[1])
        return status, head, b"" if raw.startswith(b"HEAD ") else await self.body(head)


async def get(
    address: Address, host: str = "cart.shop", path: str = "/", extra: str = ""
) -> tuple[int, bytes, bytes]:
    """Ask once on a new connection."""
    peer = await Peer.connect(address)
    async with peer.stream:
        return await peer.ask(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode())


def answering(status: int = 200, body: bytes = b"hello", seen: list[bytes] | None = None) -> Handler:
    """Return a workload that answers every request alike and keeps what it saw (head and body)."""

    async def handle(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            content = await peer.body(head)
            if seen is not None:
                seen.append(head + content)
            extra = b"" if head.startswith(b"HEAD") else body
            await peer.send(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + extra)

    return handle


def waiting(name: str, started: list[str], release: trio.Event, *, says: bytes = b"done") -> Handler:
    """Return a workload that notes each request, and answers `says` once it may."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(says), says)

    async def handle(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            await peer.body(head)
            started.append(name)
            await release.wait()
            await peer.send(answer)

    return handle
