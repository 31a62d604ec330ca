"""Turns at the desk and at handshakes: counted, not timed."""

import threading
from pathlib import Path
from typing import Any, cast

import trio
import trio.lowlevel
import trio.testing

from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.control import desk as desk_module
from gossipmesh.control.desk import Desk
from gossipmesh.control.paced_stream import PacedStream, Turns
from gossipmesh.model.enrolment import Issued, IssuedSvid, RenewRequest
from gossipmesh.model.instant import WallSeconds
from gossipmesh.net.places import SOURCE
from tests.unit.enrolment_kit import running_authority

NOW = WallSeconds(1_800_000_000)
CROWD = (SOURCE, "10.0.0.1")
OTHER = (SOURCE, "10.0.0.2")


class Slow:
    """An issuer that takes as long as a test likes, and remembers whom it served."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.threads: set[int] = set()
        self.go_on = threading.Event()

    def use(self, _: Any) -> None:
        """An authority that does not change."""

    def renew(self, request: RenewRequest, _now: WallSeconds, _peer: str) -> Issued:
        self.go_on.wait()
        self.served.append(request.spiffe_id)
        self.threads.add(threading.get_ident())
        return Issued((IssuedSvid(request.spiffe_id, ""),), b"", ())


def renewal(node: str) -> RenewRequest:
    return RenewRequest(spiffe_id=node, requests=(), issued=NOW)


async def test_a_crowd_of_one_source_delays_nobody_else() -> None:
    """One node renews without end, its neighbour once, and another source once."""
    slow = Slow()
    desk = Desk(cast(Any, slow), lambda: NOW, lambda _: None, lambda: cast(Any, None))
    statuses: list[int] = []

    async def ask(source: tuple[str, str], node: str) -> None:
        statuses.append((await desk.decide(renewal(node), source, source[1]))[0])

    async with trio.open_nursery() as nursery:
        for _ in range(desk_module.WAITING_PER_SOURCE_MAX - 1):
            nursery.start_soon(ask, CROWD, "loud")
        await trio.testing.wait_all_tasks_blocked()
        for source, node in ((CROWD, "quiet"), (OTHER, "other"), (CROWD, "loud")):
            nursery.start_soon(ask, source, node)
            await trio.testing.wait_all_tasks_blocked()
        assert (statuses, desk.statistics.busy) == ([503], 1), "one beyond the limit is told at once"
        nursery.start_soon(desk.run)
        slow.go_on.set()
        while len(statuses) < desk_module.WAITING_PER_SOURCE_MAX + 2:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert {"other", "quiet"} <= set(slow.served[:4])
    assert threading.get_ident() not in slow.threads


async def test_who_left_is_not_decided_on() -> None:
    slow = Slow()
    slow.go_on.set()
    desk = Desk(cast(Any, slow), lambda: NOW, lambda _: None, lambda: cast(Any, None))
    with trio.move_on_after(0):
        await desk.decide(renewal("gone"), CROWD, "")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.run)
        await desk.decide(renewal("here"), CROWD, "")
        nursery.cancel_scope.cancel()
    assert slow.served == ["here"]


async def test_bursts_of_one_source_are_one_of_another() -> None:
    turns, order = Turns(), []

    async def burst(source: tuple[str, str]) -> None:
        await turns.wait(source)
        order.append(source)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(burst, CROWD)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(burst, OTHER)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(turns.run)
        while len(order) < 51:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert order.index(OTHER) <= 2


async def test_who_was_answered_does_not_wait_for_all_who_come() -> None:
    """A crowd that only ever began handshakes would end none."""
    turns, order = Turns(), []

    async def burst(name: str, is_answered: bool) -> None:
        await turns.wait(CROWD, is_answered=is_answered)
        order.append(name)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(burst, f"new{number}", False)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(2):
            nursery.start_soon(burst, f"answered{number}", True)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(turns.run)
        while len(order) < 52:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert {"answered0", "answered1"} <= set(order[:5])


async def test_who_waits_for_its_peer_holds_no_turn() -> None:
    """Two hundred that say nothing, or half of something: the next piece of another is read at once."""
    turns = Turns()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        for _ in range(200):
            _silent_end, silent = trio.testing.memory_stream_pair()
            nursery.start_soon(PacedStream(cast(Any, silent), turns, CROWD).receive_some)
        await trio.testing.wait_all_tasks_blocked()
        end, stream = trio.testing.memory_stream_pair()
        await end.send_all(b"hello")
        assert await PacedStream(cast(Any, stream), turns, CROWD).receive_some() == b"hello"
        nursery.cancel_scope.cancel()


async def test_the_log_names_time_peer_and_serial(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
        (_, deed) = running.ledger.log.deeds()
    assert (deed.what, deed.node, deed.peer, deed.time) == ("enrolled", "n1", "127.0.0.1", running.now())
    assert deed.serial == running.now()
