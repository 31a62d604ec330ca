"""The control socket before clients that mean it no good, and how often what goes wrong is told."""

import logging
import os
import socket
from pathlib import Path

import pytest
import trio

from gossipmesh.dataplane.client import EngineClient, EngineRefused
from gossipmesh.dataplane.protocol import AgentHello, Listeners, encode_frame
from gossipmesh.dataplane.reference import control
from gossipmesh.dataplane.reference.reports import Reports
from gossipmesh.model import limits
from tests.unit.dataplane.engine_kit import Node, get, nodes, until
from tests.unit.dataplane.test_control import taken_names


async def halves(node: Node, count: int, say: bytes = b"") -> list[socket.socket]:
    """Return connections that never say a whole hello."""
    made = []
    for _ in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        while True:
            try:
                sock.connect(os.fspath(node.socket_path))
                break
            except BlockingIOError:  # its queue is full: the engine, in this thread, gets a turn
                await trio.sleep(0.001)
        sock.sendall(say)
        made.append(sock)
    return made


@pytest.mark.parametrize("say", [b"", b"\0\0\0", b"\0\0\1\0\x81"])
async def test_clients_that_never_say_hello_keep_no_agent_out(tmp_path: Path, say: bytes) -> None:
    async with nodes(tmp_path, "near") as (near,):
        silent: list[socket.socket] = []
        for _ in range(5):
            silent += await halves(near, 6, say)
            await trio.sleep(0.01)
        async with await EngineClient.attach(near.socket_path, node_id=b"n" * 16, boot_id="new") as client:
            assert client.hello.engine == control.ENGINE_NAME
        assert near.engine._control._room.held_count <= limits.CONTROL_PLACES_MAX
        for sock in silent:
            sock.close()


async def test_the_agent_attached_is_not_evicted_for_who_never_says_hello(tmp_path: Path) -> None:
    async with nodes(tmp_path, "near") as (near,):
        silent: list[socket.socket] = []
        for _ in range(10):
            silent += await halves(near, 4)
            await trio.sleep(0.005)
        assert await near.client.ping(5.0)
        for sock in silent:
            sock.close()


async def test_frames_without_end_leave_turns_to_traffic(tmp_path: Path) -> None:
    """An agent gone mad: whatever it asks, the engine answers others meanwhile."""
    async with nodes(tmp_path, "near", "mad") as (near, _mad):
        await near.apply()
        frames = b"".join(encode_frame(Listeners(number, ())) for number in range(5_000))
        (sock,) = await halves(near, 1)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        async with stream, trio.open_nursery() as nursery:

            async def flood() -> None:
                try:
                    await stream.send_all(encode_frame(AgentHello(b"n" * 16, "mad")))
                    while True:
                        await stream.send_all(frames)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass

            nursery.start_soon(flood)
            for _ in range(5):
                assert (await get(near.at("readiness")))[0] == 200
            nursery.cancel_scope.cancel()


async def test_who_asks_and_never_reads_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWERS_MAX", 50)
    async with nodes(tmp_path, "near") as (near,):
        await near.client.aclose()
        (sock,) = await halves(near, 1, encode_frame(AgentHello(b"n" * 16, "deaf")))
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        async with stream:
            let_go = False
            while not let_go:
                try:
                    await stream.send_all(encode_frame(Listeners(1, ())))
                except trio.BrokenResourceError:
                    let_go = True
        await until(lambda: near.engine._control.attached is None)


async def test_listeners_that_cannot_be_duplicated_are_refused_and_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(tmp_path, "near") as (near,):
        before = len(os.listdir("/proc/self/fd"))
        own, made = os.dup, []

        def dup(descriptor: int) -> int:
            if len(made) >= 2:
                raise OSError(24, "Too many open files")
            made.append(own(descriptor))
            return made[-1]

        with monkeypatch.context() as short:
            short.setattr(os, "dup", dup)
            with pytest.raises(EngineRefused, match="Too many open files"):
                await near.client.take_listeners()
        assert len(os.listdir("/proc/self/fd")) == before
        assert await taken_names(near) == {"mesh", "proxy", "readiness"}


async def test_errors_of_connections_are_told_a_few_times_and_counted_beyond(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    reports = Reports()
    for _ in range(500):
        reports.report(ValueError("a bug"))
        reports.report(OSError(24, "Too many open files"))
    assert len(caplog.records) == limits.REPORTS_PER_INTERVAL_MAX
    with_traceback = [record for record in caplog.records if record.exc_info]
    assert all("a bug" in record.getMessage() for record in with_traceback)
    await trio.sleep(11)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        reports.report(ValueError("a bug"))
    assert f"{1_000 - limits.REPORTS_PER_INTERVAL_MAX} more errors" in caplog.records[0].getMessage()
