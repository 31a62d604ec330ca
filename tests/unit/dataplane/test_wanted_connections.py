"""Who finds no idle connection takes the first there is, and new ones are made for no more than wait."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from gossipmesh.dataplane.reference import dialing
from gossipmesh.dataplane.reference.dialing import DialFailed
from gossipmesh.dataplane.reference.pool import Wants
from gossipmesh.traffic import endings
from tests.unit.dataplane.engine_kit import Node, Peer, answering, cart_pair, get, until, workload
from tests.unit.dataplane.test_pool import KEY, OTHER

GET = b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"
PLACE = ("web", KEY)


class Dials:
    """Handshakes of the caller's engine: held until they are let go, counted, refused when told so."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.going_on = trio.Event()
        self.going_on.set()
        self.error: Exception | None = None
        self._real: Callable[..., Awaitable[Any]] = dialing.open_tls
        patch.setattr(dialing, "open_tls", self._open)

    async def _open(self, *words: Any, **more: Any) -> Any:
        self.count += 1
        await self.going_on.wait()
        if self.error is not None:
            raise self.error
        return await self._real(*words, **more)

    def hold(self) -> None:
        self.going_on = trio.Event()


@pytest.fixture
def dials(monkeypatch: pytest.MonkeyPatch) -> Dials:
    return Dials(monkeypatch)


def waiting_at(node: Node) -> int:
    """Return how many requests of `node` wait for a connection."""
    upstreams = node.engine._state.upstreams.values()
    return sum(len(waiting) for one in upstreams for waiting in one.pool.wants._waiting.values())


async def test_a_connection_given_back_serves_who_waits_for_a_handshake(tmp_path: Path, dials: Dials) -> None:
    answering_now, asked = trio.Event(), [b""]

    async def answer(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            asked.append(head.split()[1])
            if b"/slow" in head:
                await answering_now.wait()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with workload(answer) as address, cart_pair(tmp_path, address) as (near, _):
        answers: list[str] = []

        async def ask(path: str) -> None:
            assert (await get(near.at("proxy"), path=path))[0] == 200
            answers.append(path)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "/slow")
            await until(lambda: asked[-1] == b"/slow")
            dials.hold()
            nursery.start_soon(ask, "/first")
            await until(lambda: dials.count == 2)
            answering_now.set()
            await until(lambda: sorted(answers) == ["/first", "/slow"])
            assert not dials.going_on.is_set()
            # The handshake that goes on is enough for the next who waits.
            answering_now = trio.Event()
            nursery.start_soon(ask, "/slow")
            await until(lambda: asked[-1] == b"/slow")
            nursery.start_soon(ask, "/next")
            await until(lambda: waiting_at(near) == 1)
            assert (dials.count, len(answers)) == (2, 2)
            dials.going_on.set()
            await until(lambda: answers[2:] == ["/next"])
            answering_now.set()


async def test_a_handshake_that_fails_is_told_to_who_waits_although_another_began_it(
    tmp_path: Path, dials: Dials
) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _):
        dials.hold()
        gone = await Peer.connect(near.at("proxy"))
        await gone.send(GET)
        await until(lambda: dials.count == 1)
        await gone.stream.aclose()
        await until(lambda: waiting_at(near) == 0)
        dials.error = ConnectionRefusedError("nobody listens")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                status, head, _body = await get(near.at("proxy"))
                assert (status, b"UF" in head) == (503, True)

            await until(lambda: waiting_at(near) == 1)
            dials.going_on.set()
        dials.error = None
        assert (await get(near.at("proxy")))[0] == 200


async def test_an_error_nobody_thought_of_ends_one_request_and_is_reported(
    tmp_path: Path, dials: Dials
) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _):
        dials.error = ZeroDivisionError("a fault of ours")
        assert (await get(near.at("proxy")))[0] == 0
        dials.error = None
        assert (await get(near.at("proxy")))[0] == 200


def test_as_many_are_made_as_wait_and_who_came_first_is_served_first() -> None:
    wants = Wants()
    first, second = wants.add(PLACE), wants.add(PLACE)
    elsewhere = wants.add(("web", OTHER))
    assert [wants.begin_dial(PLACE) for _ in range(3)] == [True, True, False]
    assert not wants.is_spare(PLACE)
    assert wants.oldest(PLACE) is first
    assert wants.is_spare(PLACE)
    assert not wants.begin_dial(PLACE)
    wants.end_dial(PLACE)
    wants.give_up(second)
    wants.give_up(second)
    assert wants.oldest(PLACE) is None
    assert wants.is_spare(PLACE)
    wants.end_dial(PLACE)
    assert not wants.is_spare(PLACE)
    assert wants.oldest(("web", OTHER)) is elsewhere


async def test_what_was_handed_over_is_not_lost_to_a_cancellation() -> None:
    wants = Wants()
    want = wants.add(PLACE)
    error = DialFailed(endings.CONNECT_REFUSED, "nobody listens")
    want.fail(error)
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(DialFailed):
            await want.wait()
