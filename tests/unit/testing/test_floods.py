"""Floods do what they say, against a listener of this test: nothing else would know."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from gossipmesh.testing.flood_control import Flood
from gossipmesh.testing.processes import ProcessKeeper
from gossipmesh.testing.waiting import wait_until

NAME = b"GET / HTTP/1.1\r\nHost: n"
Answer = Callable[[trio.SocketStream], object]


async def flooded(
    tmp_path: Path, kind: str, *words: str, until: Callable[[Flood], str | None], answer: Answer
) -> dict[str, object]:
    """Run a flood against a server of `answer`, until something is seen; return its last word."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    keeper = ProcessKeeper(tmp_path)
    flood = Flood(keeper, kind, [f"127.0.0.1:{port}"], *words)

    async def seen() -> str | None:
        return until(flood)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, answer, listeners)
            flood.start(nursery)
            await flood.wait_firing()
            await wait_until("the flood did it", seen, 20.0)
            told = flood.stop()
            nursery.cancel_scope.cancel()
    finally:
        keeper.close()
    return told


async def test_idle_connections_are_held_from_the_address_they_should_come_from(tmp_path: Path) -> None:
    peers: set[str] = set()

    async def holds(stream: trio.SocketStream) -> None:
        peers.add(stream.socket.getpeername()[0])
        await trio.sleep_forever()

    words = ("--count", "40", "--from", "127.66.0.1", "--uid", str(os.geteuid()))
    until = lambda flood: None if flood.progress.get("open") == 40 else str(flood.progress)  # noqa: E731
    told = await flooded(tmp_path, "idle", *words, until=until, answer=holds)
    assert (told["opened"], told["closed"], peers) == (40, 0, {"127.66.0.1"})


@pytest.mark.parametrize("kind", ["half-hellos", "hellos"])
async def test_a_hello_is_sent_half_or_whole_and_nothing_after_it(tmp_path: Path, kind: str) -> None:
    said: list[bytes] = []

    async def holds(stream: trio.SocketStream) -> None:
        said.append(await stream.receive_some(65_536))
        await trio.sleep_forever()

    until = lambda flood: None if len(said) == 20 else str(flood.progress)  # noqa: E731
    told = await flooded(tmp_path, kind, "--count", "20", "--host", "n.node", until=until, answer=holds)
    assert (told["opened"], told["closed"]) == (20, 0)
    for hello in said:
        assert hello[:2] == b"\x16\x03"
        whole = 5 + int.from_bytes(hello[3:5], "big")
        assert len(hello) == (whole // 2 if kind == "half-hellos" else whole)


async def test_what_is_closed_is_opened_again(tmp_path: Path) -> None:
    async def closes(stream: trio.SocketStream) -> None:
        await stream.aclose()

    until = lambda flood: None if flood.progress.get("opened", 0) > 20 else str(flood.progress)  # noqa: E731
    told = await flooded(tmp_path, "idle", "--count", "10", until=until, answer=closes)
    assert isinstance(told["closed"], int)
    assert told["closed"] >= 10


async def test_names_are_all_different_and_answers_are_counted(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def refuses(stream: trio.SocketStream) -> None:
        asked.append((await stream.receive_some(65_536)).split(b"\r\n")[1])
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\n\r\n")
        await stream.receive_some(1)

    words = ("--count", "30", "--rate", "300")
    until = lambda flood: None if flood.progress.get("closed") == 30 else str(flood.progress)  # noqa: E731
    told = await flooded(tmp_path, "names", *words, until=until, answer=refuses)
    assert told["answers"] == {"HTTP/1.1 404 Not Found": 30}
    assert len(set(asked)) == 30


@pytest.mark.parametrize(("kind", "sent"), [("chunks", 6 * 500 + 5), ("answers", 0)])
async def test_requests_are_sent_whole_one_after_the_other(tmp_path: Path, kind: str, sent: int) -> None:
    bodies: list[int] = []

    async def answers(stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < sent:
            received += await stream.receive_some(65_536)
        bodies.append(len(received.partition(b"\r\n\r\n")[2]))
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nok")
        await stream.send_eof()

    until = lambda flood: None if flood.progress.get("sent", 0) >= 3 else str(flood.progress)  # noqa: E731
    words = ("--count", "500", "--host", "web.shop")
    told = await flooded(tmp_path, kind, *words, until=until, answer=answers)
    assert set(bodies) == {sent}
    assert isinstance(told["answers"], dict)
    assert list(told["answers"]) == ["HTTP/1.1 200 OK"]


async def test_a_unix_socket_is_flooded_too(tmp_path: Path) -> None:
    path = tmp_path / "s"
    keeper = ProcessKeeper(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        flood = Flood(keeper, "idle", [str(path)], "--count", "5")

        async def held() -> str | None:
            return None if flood.progress.get("open") == 5 else str(flood.progress)

        async with trio.open_nursery() as nursery:
            flood.start(nursery)
            await wait_until("five are open", held, 20.0)
            flood.stop()
    keeper.close()
