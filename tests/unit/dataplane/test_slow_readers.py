"""Who pauses longer than the mesh waits for silent nodes loses nothing: downloads, uploads and tunnels."""

import socket
from pathlib import Path

import pytest
import trio

from gossipmesh.net import byte_stream, slow_readers
from tests.unit.dataplane.engine_kit import Peer, cart_pair, workload

SIZE = 16_000_000
_BACKOFF = 4  # byte of struct tcp_info


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything happen in a sixteenth of the time."""
    monkeypatch.setattr(byte_stream, "USER_TIMEOUT_MS", 600)
    monkeypatch.setattr(slow_readers, "USER_TIMEOUT_MS", 600)
    monkeypatch.setattr(slow_readers, "LOOK_S", 0.02)


async def _until_given_up(probes_count: int = 3) -> None:
    """Wait until a full other end was asked so often that the kernel would have given it up."""
    seen: set[socket.socket] = set()
    while True:
        await trio.sleep(0.01)
        for sock in list(byte_stream.MESH_SOCKETS):
            try:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
            except OSError:
                if sock in seen:
                    return
                continue
            if info[_BACKOFF]:
                seen.add(sock)
            if info[_BACKOFF] >= probes_count:
                return


async def test_a_download_may_be_paused(tmp_path: Path) -> None:
    async def send(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE + bytes(SIZE))

    async with workload(send) as cart, cart_pair(tmp_path, cart) as (near, _far):
        client = await Peer.connect(near.at("proxy"))
        async with client.stream:
            await client.send(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
            head = await client.head()
            await _until_given_up()
            assert len(await client.body(head)) == SIZE


async def test_a_workload_may_pause_an_upload(tmp_path: Path) -> None:
    async def take(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        head = await peer.head()
        await _until_given_up()
        assert len(await peer.body(head)) == SIZE
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with workload(take) as cart, cart_pair(tmp_path, cart) as (near, _far):
        client = await Peer.connect(near.at("proxy"))
        async with client.stream:
            head = b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: %d\r\n\r\n" % SIZE
            assert (await client.ask(head + bytes(SIZE)))[0] == 200
