"""Silent connections wait together: who speaks is handed on in turns, who ends or waits too long is ended."""

import math
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from gossipmesh.dataplane.reference.silence import Silence
from tests.unit.dataplane.engine_kit import Peer, answering, cart_pair, until, workload

HELLO = b"\x16\x03\x01\x00\x20" + b"h" * 32


class Silent:
    """One end of a connection, and the client's end of it."""

    def __init__(self, listener: socket.socket) -> None:
        self.far = socket.create_connection(listener.getsockname())
        self.far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = listener.accept()[0]
        self.client.setblocking(False)


class Watched:
    """A `Silence`, and what it handed on and ended."""

    def __init__(self, silence_s: float, *, shakes_hands: bool = False) -> None:
        self.spoke: list[Silent] = []
        self.ended: list[Silent] = []
        self.silence: Silence[Silent] = Silence(
            silence_s, self.spoke.append, self._end, shakes_hands=shakes_hands
        )

    def _end(self, silent: Silent) -> None:
        silent.client.close()
        self.ended.append(silent)


@contextmanager
def connections(count: int) -> Iterator[list[Silent]]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=count))
        made = [Silent(listener) for _ in range(count)]
        for silent in made:
            stack.callback(silent.client.close)
            stack.callback(silent.far.close)
        yield made


@asynccontextmanager
async def watching(watched: Watched) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.silence.run)
        yield
        nursery.cancel_scope.cancel()


async def test_who_speaks_is_handed_on_and_who_says_nothing_has_no_task() -> None:
    watched = Watched(math.inf)
    with connections(50) as made:
        async with watching(watched):
            await trio.testing.wait_all_tasks_blocked()
            before = trio.lowlevel.current_statistics().tasks_living
            for silent in made:
                watched.silence.add(silent)
            made[7].far.send(b"G")
            await until(lambda: watched.spoke == [made[7]])
            assert trio.lowlevel.current_statistics().tasks_living == before
            assert len(watched.silence) == 49
            assert made[7].client.recv(10) == b"G", "it is left to whoever serves it"
        assert len(watched.silence) == 0
        assert len(watched.ended) == 49, "cancelled, it ends all"


@pytest.mark.parametrize(("shakes_hands", "most"), [(False, 8), (True, 1)])
async def test_a_crowd_that_speaks_at_once_is_handed_on_in_turns(shakes_hands: bool, most: int) -> None:
    """One look is one turn; a handshake takes many times what a request's head does."""
    watched = Watched(math.inf, shakes_hands=shakes_hands)
    with connections(40) as made:
        for silent in made:
            silent.far.send(HELLO)
            watched.silence.add(silent)
        for looks in range(1, 40 // most):
            watched.silence.look()
            assert len(watched.spoke) == looks * most
        async with watching(watched):
            await until(lambda: len(watched.spoke) == 40)
    assert set(watched.spoke) == set(made)


@pytest.mark.parametrize("cuts", [[1], [4], [5], [6], [36], [1, 2, 3, 4, 5, 6], list(range(1, 37))])
async def test_a_first_record_is_waited_for_whole(cuts: list[int]) -> None:
    watched = Watched(math.inf, shakes_hands=True)
    with connections(1) as (silent,):
        async with watching(watched):
            watched.silence.add(silent)
            for start, end in zip([0, *cuts], cuts, strict=False):
                silent.far.send(HELLO[start:end])
                watched.silence.look()
                watched.silence.look()
                assert watched.spoke == watched.ended == []
            silent.far.send(HELLO[cuts[-1] :])
            await until(lambda: watched.spoke == [silent])
            assert silent.client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
            assert silent.client.recv(100) == HELLO


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x00", HELLO[:5], HELLO[:-1]])
async def test_who_ends_before_a_whole_record_is_ended(said: bytes) -> None:
    watched = Watched(math.inf, shakes_hands=True)
    with connections(1) as (silent,):
        async with watching(watched):
            watched.silence.add(silent)
            if said:
                silent.far.send(said)
            watched.silence.look()
            silent.far.close()
            await until(lambda: watched.ended == [silent])
            assert watched.spoke == []


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\x40\x00", b"\x16\x03\x01\x00\x00", b"\0" * 5]
)
async def test_what_is_no_record_or_an_empty_one_is_handed_on(said: bytes) -> None:
    watched = Watched(math.inf, shakes_hands=True)
    with connections(1) as (silent,):
        async with watching(watched):
            watched.silence.add(silent)
            silent.far.send(said)
            await until(lambda: watched.spoke == [silent])


async def test_a_record_longer_than_any_hello_is_waited_for_so_far() -> None:
    watched = Watched(math.inf, shakes_hands=True)
    with connections(1) as (silent,):
        async with watching(watched):
            watched.silence.add(silent)
            silent.far.send(b"\x16\x03\x01\xff\xff" + b"x" * 4_095)
            watched.silence.look()
            assert watched.spoke == []
            silent.far.send(b"x")
            await until(lambda: watched.spoke == [silent])


def reset(silent: Silent) -> None:
    silent.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    silent.far.close()


async def test_who_resets_is_ended() -> None:
    watched = Watched(math.inf)
    with connections(2) as made:
        async with watching(watched):
            for silent in made:
                watched.silence.add(silent)
            reset(made[0])
            made[1].far.close()
            await until(lambda: set(watched.ended) == set(made))
            assert watched.spoke == []


async def test_who_is_silent_too_long_is_ended_the_oldest_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watched = Watched(5.0)
    with connections(2) as made:
        async with watching(watched):
            await trio.sleep(100)
            watched.silence.add(made[0])
            await trio.sleep(3)
            watched.silence.add(made[1])
            await trio.sleep(1.9)
            assert watched.ended == []
            await trio.sleep(0.2)
            assert watched.ended == [made[0]]
            await trio.sleep(3)
            assert watched.ended == made


async def test_who_has_its_share_is_let_in_at_a_pace(autojump_clock: trio.testing.MockClock) -> None:
    watched = Watched(5.0, shakes_hands=True)
    watched.silence._may_speak = lambda _: False
    with connections(6) as made:
        for silent in made:
            silent.far.send(HELLO)
            watched.silence.add(silent)
        for _ in made:
            watched.silence.look()
        assert watched.spoke == []
        async with watching(watched):
            await trio.sleep(0.001)
            assert watched.spoke == made[:1]
            await trio.sleep(0.02)
            assert watched.spoke == made[:2]
            reset(made[2])
            await trio.sleep(0.02)
            assert (watched.spoke, watched.ended) == ([*made[:2], made[3]], [made[2]])
            watched.silence._may_speak = lambda _: True
            await trio.sleep(0.021)
            assert watched.spoke == [*made[:2], *made[3:]], "one after the other when there is room"


async def test_who_is_held_back_too_long_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    watched = Watched(0.05, shakes_hands=True)
    watched.silence._may_speak = lambda _: False
    with connections(9) as made:
        for silent in made:
            silent.far.send(HELLO)
            watched.silence.add(silent)
        for _ in made:
            watched.silence.look()
        async with watching(watched):
            await trio.sleep(1)
        assert (watched.spoke, watched.ended) == (made[:3], made[3:])


async def test_what_is_ended_by_another_is_no_more_watched() -> None:
    watched = Watched(5.0)
    with connections(2) as made:
        async with watching(watched):
            for silent in made:
                watched.silence.add(silent)
            watched.silence.end(made[0])
            assert watched.ended == [made[0]]
            made[1].far.send(b"G")
            await until(lambda: watched.spoke == [made[1]])


@pytest.mark.parametrize("port", ["proxy", "mesh", "readiness"])
async def test_an_engine_has_no_task_for_who_says_nothing(tmp_path: Path, port: str) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        peers = [await Peer.connect(near.at(port)) for _ in range(20)]
        await until(lambda: near.engine._connections.count == 20)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living <= before
        for peer in peers:
            await peer.stream.aclose()
        await until(lambda: near.engine._connections.count == 0)
