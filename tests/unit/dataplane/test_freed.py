"""What served a connection is freed when it ends, not at a full collection, which comes once in months."""

import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from gossipmesh.model.member import Address
from tests.unit.dataplane.engine_kit import Peer, answering, cart_pair, get, until, workload

COUNT = 20
OURS = (
    "TlsStream",
    "PlainStream",
    "SSLObject",
    "_NamedObject",
    "MemoryBIO",
    "Connection",
    "Place",
    "Downstream",
)


async def silent(where: Address) -> None:
    peer = await Peer.connect(where)
    await trio.testing.wait_all_tasks_blocked()
    await peer.stream.aclose()


async def garbage(where: Address) -> None:
    peer = await Peer.connect(where)
    await peer.send(b"\x16\x03\x01\x00\x05hello")
    await peer.rest()
    await peer.stream.aclose()


async def request(where: Address) -> None:
    assert (await get(where))[0] == 200


def alive() -> Counter[str]:
    kinds = Counter(type(thing).__name__ for thing in gc.get_objects())
    return Counter({name: kinds[name] for name in OURS})


@pytest.mark.parametrize(
    ("port", "what"), [("mesh", silent), ("mesh", garbage), ("proxy", silent), ("proxy", request)]
)
async def test_nothing_of_a_connection_outlives_it(
    tmp_path: Path, port: str, what: Callable[[Address], Awaitable[None]]
) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, far):
        where = (far if port == "mesh" else near).at(port)
        await what(where)  # what is made once
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(COUNT):
                await what(where)
            await until(lambda: all((alive() - before)[name] < COUNT // 4 for name in OURS))
        finally:
            gc.enable()
