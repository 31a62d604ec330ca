"""What a caller meets at a port: an answer, nobody, or silence."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from gossipmesh.model.member import Address
from gossipmesh.net.engine_probe import EngineAnswer
from gossipmesh.testing.knock import knock_mesh, knock_proxy

Handler = Callable[[trio.SocketStream], Awaitable[None]]


async def answer(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


async def hang_up(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.aclose()


@pytest.mark.parametrize(
    ("handler", "expected"), [(answer, EngineAnswer.ANSWERED), (hang_up, EngineAnswer.SILENT)]
)
async def test_any_status_is_an_answer_and_none_is_silence(handler: Handler, expected: EngineAnswer) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handler, [listener])
        address = Address(*listener.socket.getsockname())
        assert await knock_proxy(address, "cart.shop") is expected
        nursery.cancel_scope.cancel()


async def test_a_port_where_nobody_listens_refuses() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = Address(*listener.socket.getsockname())
    await listener.aclose()
    assert await knock_proxy(address, "cart.shop") is EngineAnswer.REFUSED


async def test_a_caller_without_an_identity_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no identity"):
        await knock_mesh(Address("127.0.0.1", 1), "node1", tmp_path / "none")
