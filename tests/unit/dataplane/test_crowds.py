"""A crowd that came, was evicted or left leaves no object behind, and no room for one: twice over."""

import gc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.dataplane.engine_kit import Node, get, until
from tests.unit.dataplane.test_rooms import Crowd, client_hello, crowded

COUNT = 60
PLACES = 40  # of which the crowd may have half
OURS = ("Connection", "Place", "TlsStream", "PlainStream", "_NamedObject", "MemoryBIO", "Task")


def silence(_node: Node) -> bytes:
    return b""


def half_a_hello(node: Node) -> bytes:
    return client_hello(node)[:100]


def a_hello(node: Node) -> bytes:
    return client_hello(node, f"{node.name}.node.mesh.test")


def half_a_head(_node: Node) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: cart.shop\r\n"


def alive() -> Counter[str]:
    kinds = Counter(type(thing).__name__ for thing in gc.get_objects())
    return Counter({name: kinds[name] for name in OURS})


@pytest.mark.parametrize(
    ("port", "say"),
    [
        ("proxy", silence),
        ("proxy", half_a_head),
        ("mesh", silence),
        ("mesh", half_a_hello),
        ("mesh", a_hello),
    ],
)
async def test_nothing_of_a_crowd_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str, say: Callable[[Node], bytes]
) -> None:
    near_or_far = {"near": port} if port == "proxy" else {"far": port}
    async with crowded(tmp_path, monkeypatch, **near_or_far) as (near, far, crowd):
        node = near if port == "proxy" else far
        node.engine._rooms.resize(2 * PLACES)
        room, said = node.engine._rooms.of(port), say(node)

        async def come_and_go() -> None:
            await crowd.come(COUNT, said)
            await until(lambda: room.held_count >= PLACES // 2)
            leave(crowd)
            await until(lambda: node.engine._connections.count <= 1)  # a node's own may be kept

        await come_and_go()  # what is made once
        assert (await get(near.at("proxy")))[0] == 200
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(2):
                await come_and_go()
            assert (await get(near.at("proxy")))[0] == 200
            await until(lambda: all((alive() - before)[name] <= 4 for name in OURS))
        finally:
            gc.enable()
        assert all(len(silent) == 0 for silent in node.engine._connections._silences.values())


def leave(crowd: Crowd) -> None:
    crowd.close()
    crowd.sockets.clear()
    crowd.ports.clear()
