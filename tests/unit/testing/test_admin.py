"""The kit's admin client: answers, refusals, and every way an agent can be silent."""

import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gossipmesh.testing.admin import AdminError, AgentSilent, ask


async def serve(path: Path, answer: bytes, received: list[bytes], task_status: Any) -> None:
    """Answer one connection on a Unix socket."""
    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()
    task_status.started()
    with listening:
        connection, _ = await listening.accept()
        with connection:
            received.append(await connection.recv(65536))
            await connection.send(answer)


async def exchange(path: Path, answer: bytes, received: list[bytes]) -> object:
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve(path, answer, received, task_status))
        return await ask(path, "/v1/members")


def answer(status: str, body: bytes, kind: str = "application/json") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_json_is_decoded_and_other_bytes_are_not(tmp_path: Path) -> None:
    received: list[bytes] = []
    assert await exchange(tmp_path / "a", answer("200 OK", b'[{"name": "node1"}]'), received) == [
        {"name": "node1"}
    ]
    assert received[0].startswith(b"GET /v1/members HTTP/1.1\r\n")
    raw = await exchange(tmp_path / "b", answer("200 OK", b"\x92", "application/octet-stream"), received)
    assert raw == b"\x92"


async def test_a_refusal_carries_status_code_and_sentence(tmp_path: Path) -> None:
    refusal = answer("409 Conflict", b'{"error": "version 1 is older", "code": "older"}')
    with pytest.RaisesGroup(pytest.RaisesExc(AdminError, match="version 1 is older")) as caught:
        await exchange(tmp_path / "a", refusal, [])
    error = caught.value.exceptions[0]
    assert isinstance(error, AdminError)
    assert (error.status, error.code) == (409, "older")


async def test_no_socket_and_a_connection_cut_short_are_silence(tmp_path: Path) -> None:
    with pytest.raises(AgentSilent):
        await ask(tmp_path / "none", "/v1/members")
    with pytest.RaisesGroup(AgentSilent):
        await exchange(tmp_path / "a", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[", [])


async def test_an_agent_killed_with_the_request_unread_is_silence(tmp_path: Path) -> None:
    """The kernel answers for it with a reset, which is another exception than a closed connection."""
    path = tmp_path / "a"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        async def kill() -> None:
            connection, _ = await trio.to_thread.run_sync(listening.accept)
            await trio.to_thread.run_sync(connection.recv, 1)
            connection.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            with pytest.raises(AgentSilent, match="reset"):
                await ask(path, "/v1/status")


async def test_an_agent_that_stands_still_is_silence(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A stopped process accepts by way of the kernel and never answers."""
    path = tmp_path / "a"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(AgentSilent, match="TooSlow"):
            await ask(path, "/v1/status", timeout_s=1.0)
