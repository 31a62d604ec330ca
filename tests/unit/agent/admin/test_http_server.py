"""The agent's own HTTP server against clients that mean it no good."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from gossipmesh.agent.admin import http_server
from gossipmesh.agent.admin.admin_api import AdminApi
from gossipmesh.agent.admin.http_server import (
    Handler,
    HttpServer,
    Request,
    Response,
    json_response,
    json_rows_response,
)
from gossipmesh.model.member import Address
from gossipmesh.net.streams import listen


async def answer(request: Request) -> Response:
    return json_response(request.path)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[HttpServer, tuple[str, int]]]:
    listener = listen(Address("127.0.0.1", 0))
    server = HttpServer(listener, handler)
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


REQUEST = b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("say", [b"", b"GET /", b"GET /x HTTP/1.1\r\nHost: localhost\r\n"])
async def test_clients_that_ask_nothing_make_way_for_who_asks(
    monkeypatch: pytest.MonkeyPatch, say: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 8)
    async with serving(answer) as (server, where):
        idle = [await trio.open_tcp_stream(*where) for _ in range(100)]
        for stream in idle[90:]:
            await stream.send_all(say)
        for _ in range(3):
            assert b"200" in await talk(where, REQUEST)
        assert server.counts["http_evicted_unfinished"] >= 96
        for stream in idle:
            await stream.aclose()
    assert len(caplog.records) <= 8, "told at 1, 2, 4, 8, ..."


async def test_a_client_that_asked_once_goes_after_those_that_never_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 8)
    async with serving(answer) as (_server, where):
        kept = await trio.open_tcp_stream(*where)
        async with kept:
            ask = REQUEST.replace(b"Connection: close\r\n", b"")
            for _ in range(3):
                await kept.send_all(ask)
                assert b"200" in await kept.receive_some()
                idle = [await trio.open_tcp_stream(*where) for _ in range(20)]
                assert b"200" in await talk(where, REQUEST)
                for stream in idle:
                    await stream.aclose()


async def test_answers_under_way_fill_one_users_share_and_are_not_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 4)
    go = trio.Event()

    async def slow(request: Request) -> Response:
        await go.wait()
        return json_response(request.path)

    async with serving(slow) as (server, where), trio.open_nursery() as nursery:
        answers: list[bytes] = []

        async def ask() -> None:
            answers.append(await talk(where, REQUEST))

        for _ in range(2):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with await trio.open_tcp_stream(*where) as extra:
            with trio.fail_after(10):
                try:
                    assert await extra.receive_some(1) == b""
                except trio.BrokenResourceError:
                    pass
        assert server.counts == {"http_refused_share": 1}
        go.set()
        with trio.fail_after(10):
            while len(answers) < 2:
                await trio.lowlevel.checkpoint()
        assert all(b"200" in one for one in answers)


async def test_a_machine_without_netlink_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError(93, "no netlink")

    monkeypatch.setattr(http_server, "SocketOwners", broken)
    async with serving(answer) as (_server, where):
        assert b"200" in await talk(where, REQUEST)


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


@pytest.mark.parametrize("count", [0, 1, 25, 60])
async def test_a_long_list_is_sent_piece_by_piece_and_is_json(count: int) -> None:
    rows = [{"name": f"n{number}"} for number in range(count)]

    async def listing(request: Request) -> Response:
        if request.path == "/around":
            return json_rows_response(iter(rows), {"scopes": []}, "members")
        return json_rows_response(iter(rows))

    async with serving(listing) as (_, where):
        for path, expected in (("/rows", rows), ("/around", {"scopes": [], "members": rows})):
            head, _, body = (await talk(where, request_of(path, "1.1"))).partition(b"\r\n\r\n")
            assert b"Transfer-Encoding: chunked" in head
            assert json.loads(b"".join(chunks(body))) == expected
            _, _, body = (await talk(where, request_of(path, "1.0"))).partition(b"\r\n\r\n")
            assert json.loads(body) == expected


async def test_a_list_that_fails_on_its_way_is_cut_and_the_server_goes_on() -> None:
    def rows() -> Iterator[int]:
        yield from range(40)
        raise ValueError("a row that cannot be made")

    async def listing(request: Request) -> Response:
        return json_rows_response(rows())

    async with serving(listing) as (_, where):
        for _ in range(2):
            answer = await talk(where, request_of("/rows", "1.1"))
            assert answer.startswith(b"HTTP/1.1 200")
            assert not answer.endswith(b"0\r\n\r\n")


def request_of(path: str, version: str) -> bytes:
    return f"GET {path} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def chunks(body: bytes) -> Iterator[bytes]:
    """Yield the content of a chunked body."""
    while body:
        size, _, rest = body.partition(b"\r\n")
        yield rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
