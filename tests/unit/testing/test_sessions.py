"""Long-lived sessions and unusual requests against the real workload: each end is told for what it was."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from gossipmesh.testing import sessions
from gossipmesh.testing.load import Client, Outcome, Tally, Target
from gossipmesh.testing.sessions import Ended, Session, SessionTarget, keep_open
from tests.unit.free_port import free_port


@pytest.fixture
def port() -> Iterator[int]:
    """A workload called web on node n1."""
    found = free_port()
    words = ["--name", "web", "--version", "v1", "--node", "n1", "--http", f"127.0.0.1:{found}"]
    arguments = [sys.executable, "-m", "gossipmesh.testing.workload", *words]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield found
        process.kill()


def target(kind: str, port: int) -> SessionTarget:
    return SessionTarget.parse(f"{kind}:n1,127.0.0.1:{port},web.shop")


def test_a_target_is_what_it_says_and_an_unknown_kind_is_refused() -> None:
    text = "websocket:n1,127.0.0.1:80,web.shop"
    assert str(SessionTarget.parse(text)) == text
    assert str(Target.parse("slow-post:n1,127.0.0.1:80,web.shop/a")) == "slow-post:n1,127.0.0.1:80,web.shop/a"
    with pytest.raises(ValueError, match="websocket, tcp, stream"):
        SessionTarget.parse("gopher:n1,127.0.0.1:80,web.shop")


@pytest.mark.parametrize("kind", ["websocket", "stream"])
async def test_a_session_exchanges_and_knows_who_serves_it(port: int, kind: str) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        session = Session(target(kind, port), stream, 1.0)
        assert await session.open() == "n1"
        assert await session.exchange()


async def test_a_stream_comes_to_its_natural_end(port: int) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        session = Session(target("stream", port), stream, 0.5)
        await session.open()
        assert [await session.exchange() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("kind", ["get", "post", "trickled-post", "chunks"])
async def test_every_kind_of_request_is_answered_whole(port: int, kind: str) -> None:
    outcome = Outcome(0.0, "n1", "web.shop", kind=kind)
    client, tally = Client(Target("n1", "127.0.0.1", port, "web.shop", kind=kind)), Tally()
    await client.get(outcome, tally)
    await client.close_idle()
    assert (outcome.status, outcome.served_by, outcome.error) == (200, "n1", "")


async def ends_of(answer: Callable[[trio.SocketStream], Any], kind: str = "websocket") -> dict[str, Any]:
    """Return how the first session with a server that answers by `answer` ended."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    ends: list[dict[str, Any]] = []
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            def report(end: dict[str, Any]) -> None:
                ends.append(end)
                nursery.cancel_scope.cancel()

            nursery.start_soon(trio.serve_listeners, answer, [listener])
            nursery.start_soon(keep_open, target(kind, listener.socket.getsockname()[1]), 0.0, report)
    return ends[0]


ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nX-Node: n7\r\n\r\n"


async def test_a_session_that_is_closed_was_told() -> None:
    async def closes(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(ACCEPTED)
        await stream.receive_some(65_536)
        await stream.aclose()

    end = await ends_of(closes)
    assert (end["how"], end["served_by"], end["exchanges"]) == ("told", "n7", 0)


async def test_a_session_nobody_answers_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SILENCE_S", 0.2)

    async def silent(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(ACCEPTED)
        await trio.sleep_forever()

    assert (await ends_of(silent))["how"] == "silent"


@pytest.mark.parametrize("kind", ["websocket", "tcp", "stream"])
async def test_a_session_that_cannot_be_opened_was_refused(kind: str) -> None:
    async def refuses(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 503 Service Unavailable\r\nx-gossipmesh-flag: UH\r\n\r\n")

    end = await ends_of(refuses, kind)
    assert end["how"] == "refused"
    assert end["detail"].startswith("status 503")


async def test_a_tunnel_that_answers_lines_knows_who_serves_it() -> None:
    async def answers(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        await stream.receive_some(65_536)
        await stream.send_all(b'{"service": "db", "version": "v1", "node": "n9"}\n')
        await stream.aclose()

    end = await ends_of(answers, "tcp")
    assert (end["how"], end["served_by"]) == ("told", "n9")


async def test_an_answer_that_is_no_head_or_has_no_end_ends_the_session() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"SSH-2.0\r\n\r\n")
    with pytest.raises(Ended, match="no answer"):
        await sessions.Lines(ours).head()
    await theirs.send_all(b"x" * (sessions.HEAD_BYTES_MAX + 2))
    with pytest.raises(Ended, match="without end"):
        await sessions.Lines(ours).line()
