"""One local user that hangs on to all it may have of a service takes nothing from another."""

from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import trio

from gossipmesh.net.socket_owner import SocketOwners
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from tests.unit.dataplane.engine_kit import (
    Node,
    Peer,
    cart_pair,
    endpoint,
    get,
    local,
    until,
    workload,
)

SLOW = {
    "upload": b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 900000\r\n\r\n" + bytes(70_000),
    "tunnel": b"CONNECT db.shop:5432 HTTP/1.1\r\nHost: db.shop:5432\r\n\r\n",
}
OFTEN = 4


async def take(stream: trio.SocketStream) -> None:
    """Answer GET, wait with everything else."""
    peer = Peer(stream)
    while (await peer.head()).startswith(b"GET "):
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    while await stream.receive_some():
        pass


def asked(near: Node, kind: str) -> int:
    """Return how many requests are held or were refused."""
    upstream = near.engine._state.ground.upstreams.get("shop/cart" if kind == "upload" else "shop/db")
    return 0 if upstream is None else upstream.admission.requests_count + upstream.admission.overflows_count


@pytest.mark.parametrize("kind", SLOW)
async def test_another_users_requests_find_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    uid = 1_001
    monkeypatch.setattr(SocketOwners, "uid_of", lambda *_words: uid)
    few = msgspec.structs.replace(DEFAULT_LIMITS, upstream_requests=OFTEN, upstream_connections=OFTEN)
    async with workload(take) as cart, cart_pair(tmp_path, cart) as (near, far):
        db = {"registration": "db", "service": "shop/db", "protocol": "tcp"}
        catalog = (endpoint(far), endpoint(far, **db))
        await far.apply(local=(local(cart), local(cart, **db)), catalog=catalog)
        await near.apply(
            catalog=(endpoint(far), endpoint(far, **db)), wanted=("shop/cart", "shop/db"), limits=few
        )
        async with AsyncExitStack() as held:
            for number in range(OFTEN + 1):
                client = await Peer.connect(near.at("proxy"))
                await held.enter_async_context(client.stream)
                await client.send(SLOW[kind])
                await until(lambda number=number: asked(near, kind) == number + 1)
                if kind == "tunnel":
                    assert (await client.head())[9:12] == (b"200" if number < OFTEN else b"503")
            if kind == "upload":
                assert b"x-gossipmesh-flag: UO" in await client.head()
            uid = 1_002
            for _ in range(3):
                if kind == "tunnel":
                    client = await Peer.connect(near.at("proxy"))
                    await held.enter_async_context(client.stream)
                    await client.send(SLOW[kind])
                    assert (await client.head())[9:12] == b"200"
                else:
                    assert (await get(near.at("proxy")))[0] == 200
