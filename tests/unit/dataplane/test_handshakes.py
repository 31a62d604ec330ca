"""Handshakes under way: each source its share, all of them a bound, the oldest makes way."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from gossipmesh.dataplane.reference.connections import Connection, Door
from gossipmesh.dataplane.reference.handshakes import Handshakes
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.net.places import Room
from tests.unit.dataplane.engine_kit import get, until
from tests.unit.dataplane.test_rooms import client_hello, counted, crowded


class Begun:
    """Handshakes that go on until told otherwise."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.handshakes = Handshakes(self.counters, of_one_max=3, count_max=5)
        self.stack = ExitStack()
        self._ends: dict[Connection, ExitStack] = {}

    def begin(self, source: str) -> Connection:
        client = self.stack.enter_context(socket.socket())
        connection = Connection(client, (source, 1), None, Door(Room("mesh", str, places_max=9), never))
        connection.speak()
        self._ends[connection] = ExitStack()
        self._ends[connection].enter_context(self.handshakes.under_way(connection))
        return connection

    def end(self, connection: Connection) -> None:
        self._ends[connection].close()


async def never(_connection: Connection, _client: socket.socket) -> None:
    raise AssertionError("nobody is served here")


def ended(connections: list[Connection]) -> list[bool]:
    return [connection.scope is not None and connection.scope.cancel_called for connection in connections]


@pytest.fixture
def begun() -> Iterator[Begun]:
    made = Begun()
    with made.stack:
        yield made


async def test_a_source_at_its_share_loses_its_own_oldest(begun: Begun) -> None:
    other = begun.begin("10.0.0.2")
    own = [begun.begin("10.0.0.1") for _ in range(5)]
    assert ended(own) == [True, True, False, False, False]
    assert ended([other]) == [False]
    assert begun.handshakes.count == 4
    assert begun.counters._counts["handshakes_evicted"] == 2


async def test_when_there_are_too_many_whoever_has_most_loses_its_oldest(begun: Begun) -> None:
    most = [begun.begin("10.0.0.1") for _ in range(3)]
    others = [begun.begin(f"10.0.0.{number}") for number in (2, 3, 4)]
    assert ended(most) == [True, False, False]
    assert ended(others) == [False] * 3
    assert begun.handshakes.count == 5


async def test_what_has_ended_is_forgotten_however_it_did(begun: Begun) -> None:
    made = [begun.begin("10.0.0.1") for _ in range(4)]
    for connection in made:
        begun.end(connection)
    assert begun.handshakes.count == 0
    assert begun.handshakes._sources == {}
    assert ended([begun.begin("10.0.0.1") for _ in range(3)]) == [False] * 3


async def test_hellos_with_nothing_after_them_hold_no_more_than_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowded(tmp_path, monkeypatch, far="mesh") as (near, far, crowd):
        far.engine._rooms.resize(1_000)
        handshakes = far.engine._mesh._handshakes
        monkeypatch.setattr(handshakes, "_of_one_max", 4)
        await crowd.come(30, client_hello(far, f"{far.name}.node.mesh.test"))
        await until(lambda: counted(far, "handshakes_evicted") == 26)
        assert handshakes.count == 4
        assert (await get(near.at("proxy")))[0] == 200, "of the same source; the newest goes last"
        for sock in crowd.sockets:
            sock.close()
        await until(lambda: handshakes.count == 0)
        assert far.engine._rooms.mesh.held_count <= 1
        with trio.fail_after(5):
            assert (await get(near.at("proxy")))[0] == 200
