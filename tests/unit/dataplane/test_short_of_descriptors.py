"""An engine process short of descriptors before a crowd: it lives, lets in who matters, and says little."""

import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from gossipmesh.dataplane.client import EngineClient
from gossipmesh.dataplane.protocol import EngineEvent, Statistics
from gossipmesh.model.member import Address
from gossipmesh.net.descriptors import DescriptorReserve
from gossipmesh.net.engine_probe import Trusted, probe_engine
from gossipmesh.traffic.compiler import DEFAULT_LIMITS, SnapshotCompiler
from gossipmesh.traffic.inputs import SnapshotInputs
from gossipmesh.trust.peer_identity import Dialled
from tests.unit.dataplane.certificates import TRUST_DOMAIN, shared_authority
from tests.unit.dataplane.engine_kit import Node, answering, bound, endpoint, get, local, until, workload

ENGINE = [sys.executable, "-m", "gossipmesh.dataplane.reference"]
DESCRIPTORS = 256
CROWD = 300


class ProcessNode(Node):
    """A node whose engine is a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.name = "only"
        self.authority = shared_authority()
        self.socket_path = directory / "engine.sock"
        self.log_path = directory / "access.log"
        self.stderr_path = directory / "stderr"
        self.sockets = {listener: bound() for listener in ("mesh", "proxy", "readiness")}
        self.inputs = SnapshotInputs(TRUST_DOMAIN, self.name, (), {}, (), (), DEFAULT_LIMITS)
        self.events: list[EngineEvent] = []
        self.compiler = SnapshotCompiler()
        with self.stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*ENGINE, "--socket", str(self.socket_path), "--access-log", str(self.log_path)],
                stderr=stderr,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)),
            )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for sock in self.sockets.values():
            sock.close()

    def leave_it_descriptors(self, count: int) -> None:
        """Let the process have so many more than it has now."""
        used = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (used + count, DESCRIPTORS))

    def counted(self, name: str) -> int:
        frames = [event for event in self.events if isinstance(event, Statistics)]
        return sum(frame.counters.get(name, 0) for frame in frames)


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[ProcessNode]:
    """Run a node in a process of its own that serves shop/cart and calls it."""
    node = ProcessNode(tmp_path)
    try:
        with trio.fail_after(60):
            while not node.socket_path.exists():  # noqa: ASYNC110  another process makes it
                await trio.sleep(0.02)
            async with workload(answering()) as cart, trio.open_nursery() as nursery:
                await node.attach(nursery)
                await node.identify()
                await node.client.give_listeners(node.sockets)
                await node.apply(local=(local(cart),), catalog=(endpoint(node),), wanted=("shop/cart",))
                yield node
                nursery.cancel_scope.cancel()
    finally:
        node.close()


@contextmanager
def crowd() -> Iterator[list[socket.socket]]:
    """Hold what is put into the list; this process may have as many descriptors as the system lets it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    held: list[socket.socket] = []
    try:
        yield held
    finally:
        for sock in held:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def come(held: list[socket.socket], address: Address, count: int) -> None:
    """Connect and say nothing; the engine gets a turn now and then."""
    for number in range(count):
        if number % 16 == 15:
            await trio.sleep(0.01)
        held.append(socket.create_connection((address.host, address.port), timeout=20))


async def lets_in_who_matters(node: ProcessNode) -> None:
    """Readiness, a probe and a new agent."""
    assert (await get(node.at("readiness")))[0] == 200
    pair = node.authority.identity(node.spiffe_id)
    trusted = Trusted.of_roots(TRUST_DOMAIN, node.authority.bundle_pem)
    name = f"{node.name}.node.{TRUST_DOMAIN}"
    assert await probe_engine([node.at("mesh")], name, Dialled(node.spiffe_id), pair, trusted, 5.0)
    async with await EngineClient.attach(node.socket_path, node_id=b"n" * 16, boot_id="other") as client:
        assert client.hello.pid == node.process.pid


def said_little(node: ProcessNode) -> bool:
    said = node.stderr_path.read_text()
    return "Traceback" not in said and said.count("\n") <= 12


async def test_six_hundred_silent_connections_and_256_descriptors(tmp_path: Path) -> None:
    async with serving(tmp_path) as node:
        with crowd() as held:
            await come(held, node.at("proxy"), CROWD)
            await come(held, node.at("mesh"), CROWD)
            for _ in range(20):
                assert (await get(node.at("proxy")))[0] == 200
            await lets_in_who_matters(node)
        assert node.process.poll() is None
        assert said_little(node), node.stderr_path.read_text()


@pytest.mark.parametrize("left", [0, 1, 4])
async def test_no_descriptor_left_at_all(tmp_path: Path, left: int) -> None:
    """Others of the process took them: logs, upstream connections, whatever it may be."""
    async with serving(tmp_path) as node:
        assert (await get(node.at("proxy")))[0] == 200
        await until(lambda: node.log_path.read_text().count("\n") == 2)  # it wants none for its log by then
        with crowd() as held:
            await come(held, node.at("proxy"), 8)
            node.leave_it_descriptors(left)
            await come(held, node.at("proxy"), 20)
            await come(held, node.at("mesh"), 20)
            assert (await get(node.at("readiness")))[0] == 200
            async with trio.open_nursery() as nursery:
                await node.attach(nursery)
                await until(lambda: node.counted("descriptors_short") > 0)
                nursery.cancel_scope.cancel()
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        assert (await get(node.at("proxy")))[0] == 200
        assert node.process.poll() is None
        assert said_little(node), node.stderr_path.read_text()


def test_a_reserve_gives_what_it_has_and_takes_it_back() -> None:
    reserve = DescriptorReserve(2)
    before = len(os.listdir("/proc/self/fd"))
    assert [reserve.give_up() for _ in range(3)] == [True, True, False]
    assert len(os.listdir("/proc/self/fd")) == before - 2
    assert reserve.refill()
    assert len(os.listdir("/proc/self/fd")) == before
    reserve.close()
    assert not reserve.give_up()


def test_a_reserve_that_cannot_be_whole_again_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = DescriptorReserve(1)
    assert reserve.give_up()

    def none_left(*_: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as short:
        short.setattr(os, "open", none_left)
        assert not reserve.refill()
    assert reserve.refill()
    reserve.close()
