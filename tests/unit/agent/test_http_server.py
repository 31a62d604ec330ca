"""The agent's own HTTP server against clients that mean it no good."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from gossipmesh.agent import http_server
from gossipmesh.agent.admin import AdminApi
from gossipmesh.agent.http_server import Handler, HttpServer, Request, Response, json_response
from gossipmesh.model.member import Address
from gossipmesh.net.streams import listen


async def answer(request: Request) -> Response:
    return json_response(request.path)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[HttpServer, tuple[str, int]]]:
    listener = listen(Address("127.0.0.1", 0))
    server = HttpServer(trio.SocketListener(trio.socket.from_stdlib_socket(listener)), handler)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        yield server, listener.getsockname()
        nursery.cancel_scope.cancel()


async def talk(where: tuple[str, int], data: bytes) -> bytes:
    with trio.fail_after(10):
        async with await trio.open_tcp_stream(*where) as stream:
            await stream.send_all(data)
            received = b""
            while chunk := await stream.receive_some():
                received += chunk
    return received


async def test_connections_beyond_the_limit_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 2)
    async with serving(answer) as (server, where):
        idle = [await trio.open_tcp_stream(*where) for _ in range(2)]
        with trio.fail_after(10):
            async with await trio.open_tcp_stream(*where) as extra:
                try:
                    assert await extra.receive_some(1) == b""
                except trio.BrokenResourceError:
                    pass
        assert server.turned_away_count == 1
        for stream in idle:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert b"200" in await talk(where, b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    "header",
    [
        "Host: mesh.example.com",
        "Host: [",
        "Host: localhost\r\nOrigin: http://evil.example",
        "Host: localhost\r\nOrigin: http://[",
        "Host: localhost\r\nOrigin: null",
    ],
)
async def test_a_web_page_elsewhere_learns_nothing(header: str, caplog: pytest.LogCaptureFixture) -> None:
    async def end() -> None:
        raise AssertionError("nobody asked for it")

    class Parts:
        """Nothing is read of it."""

    admin = AdminApi(Parts(), leave=end, restart=end)  # type: ignore[arg-type]
    async with serving(admin.handle_remote) as (_, where):
        request = f"GET /v1/status HTTP/1.1\r\n{header}\r\nConnection: close\r\n\r\n"
        assert (await talk(where, request.encode())).startswith(b"HTTP/1.1 403 ")
    assert not caplog.records
