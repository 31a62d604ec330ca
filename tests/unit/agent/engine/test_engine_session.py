"""One attachment: when an engine is probed, when it is ended, and when it is full."""

import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from gossipmesh.agent.engine.engine_session import EngineSession
from gossipmesh.agent.engine.engine_wanted import Wanted
from gossipmesh.dataplane.protocol import EngineEvent, Statistics
from gossipmesh.model.engine_features import UNREGISTERED
from gossipmesh.model.snapshot import CallersSection
from gossipmesh.traffic.sections import Snapshot, encode_section, make_snapshot
from tests.unit.agent.engine.engine_rig import GOOD, FakeProcess, Rig, runs, yes


class Quiet:
    """Is told of everything and says nothing."""

    def heard(self, _session: EngineSession, _event: EngineEvent) -> None:
        pass

    def answers(self, _session: EngineSession) -> None:
        pass

    def shows(self, _session: EngineSession) -> None:
        pass


def make_session(
    tmp_path: Path,
    probe: Callable[[], Awaitable[bool]] = yes,
    *,
    acked: str | None = "v",
    is_successor: bool = False,
    **client: Any,
) -> EngineSession:
    hello = SimpleNamespace(snapshot_version=acked, features=(), engine="fake")
    fake = cast(Any, SimpleNamespace(hello=hello, **client))
    process = cast(Any, FakeProcess(tmp_path / "engine.sock", 7))
    return EngineSession(fake, process, Wanted(), Quiet(), probe, is_successor=is_successor)


async def test_an_engine_that_speaks_is_probed_seldom_and_soon_when_it_falls_silent(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    """Its statistics say every two seconds that it runs; the handshake says the rest, and costs both ends."""
    probed: list[float] = []
    began = trio.current_time()

    async def probe() -> bool:
        probed.append(round(trio.current_time() - began, 1))
        return await yes()

    session = make_session(tmp_path, probe)
    nursery.start_soon(session.watch_health)
    for _ in range(11):
        await trio.sleep(2)
        session.hear(Statistics(2_000, (), {}, {}))
    await trio.sleep(7)
    assert probed == [0.0, 10.0, 20.0, 24.5, 26.5, 28.5]
    nursery.cancel_scope.cancel()


async def test_nobody_is_woken_to_look_for_a_first_snapshot(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    """A node that joins may be without one for long, with the whole machine starting beside it."""
    probed: list[float] = []

    async def probe() -> bool:
        probed.append(trio.current_time())
        return await yes()

    session = make_session(tmp_path, probe, acked=None, apply_snapshot=lambda _: yes())
    nursery.start_soon(session.watch_health)
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
    assert await session.offer(GOOD)
    await trio.testing.wait_all_tasks_blocked()
    assert len(probed) == 1
    nursery.cancel_scope.cancel()


async def test_a_successor_is_probed_once_it_is_in_office(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    """Until then the one before answers at the same port."""
    probed: list[float] = []

    async def probe() -> bool:
        probed.append(trio.current_time())
        return await yes()

    session = make_session(tmp_path, probe, is_successor=True)
    nursery.start_soon(session.watch_health)
    await trio.sleep(20)
    assert not probed
    session.take_office(answering=True)
    await trio.testing.wait_all_tasks_blocked()
    assert len(probed) == 1
    nursery.cancel_scope.cancel()


@asynccontextmanager
async def watched(tmp_path: Path, *, answers: bool) -> AsyncIterator[tuple[EngineSession, list[float]]]:
    """Watch an engine whose mesh port is silent; yield what is attached, and when it was asked."""
    asked: list[float] = []

    async def ping(timeout_s: float) -> bool:
        asked.append(trio.current_time())
        await trio.sleep(0.0 if answers else timeout_s)
        return answers

    async def silent() -> bool:
        await trio.sleep(1.0)
        return False

    session = make_session(tmp_path, silent, ping=ping)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.watch_health)
        yield session, asked
        nursery.cancel_scope.cancel()


def signals(session: EngineSession) -> list[signal.Signals]:
    signals: list[signal.Signals] = cast(Any, session.process).signals
    return signals


async def test_an_engine_that_answers_on_its_own_socket_is_never_ended(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Full, or with certificates that ran out: nobody outside gets an answer, and it serves what it has."""
    async with watched(tmp_path, answers=True) as (session, asked):
        await trio.sleep(120)
        assert not signals(session)
        assert len(asked) > 50
        assert not session.answering


async def test_an_engine_that_answers_nowhere_is_ended(tmp_path: Path, autojump_clock: object) -> None:
    async with watched(tmp_path, answers=False) as (session, asked):
        await trio.sleep(8)
        assert not signals(session), "four times may be a stall"
        await trio.sleep(5)
        assert signals(session)[0] == signal.SIGKILL
        assert len(asked) >= 5


async def test_an_engine_that_drains_is_not_probed_any_more(tmp_path: Path, autojump_clock: object) -> None:
    """It refuses other nodes, as it should."""
    async with watched(tmp_path, answers=False) as (session, asked):
        session.leave_office(trio.current_time() + 45)
        await trio.sleep(30)
        assert not signals(session)
        assert not asked


async def test_a_full_engine_is_seen_as_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = make_session(tmp_path)
    for gauges, full in (({"mesh_full": 1, "local_full": 0}, ("mesh",)), ({"mesh_full": 0}, ())):
        for _ in range(3):
            session.hear(Statistics(1_000, (), {}, gauges))
        assert session.full == full
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1, "told when it changes"


async def test_what_an_engine_cut_and_holds_is_added_up(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    for open_count in (3, 1):
        gauges = {"mesh_connections": open_count, "local_connections": 1}
        session.hear(Statistics(1_000, (), {"connections_cut": 2}, gauges))
    assert (session.cut_count, session.open_count) == (4, 2)


async def test_ping_asks_for_nothing_and_an_engine_that_is_silent_keeps_its_attachment(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """Handing over no listeners is what engines of every version ack."""
    rig = Rig(tmp_path, nursery)
    nursery.start_soon(rig.supervisor.run)
    rig.supervisor.want_listeners({})
    rig.supervisor.want_snapshot(GOOD)
    await rig.until(runs(GOOD))
    session = rig.supervisor._current
    assert session is not None
    assert await session.client.ping(5.0)
    assert not await session.client.ping(0.0)
    assert await session.client.ping(5.0)
    assert rig.supervisor.view().attached


async def test_what_an_engine_could_not_read_is_not_offered_to_it(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    """It keeps what it has until a snapshot is written for it: one that is not strict would drop the rest."""
    offered: list[str] = []

    async def apply_snapshot(snapshot: Snapshot) -> None:
        offered.append(snapshot.version)
        await trio.lowlevel.checkpoint()

    async def run(_: object) -> None:
        await trio.sleep_forever()

    session = make_session(tmp_path, acked="v", apply_snapshot=apply_snapshot, run=run)
    callers = CallersSection("spiffe://mesh.test/node/n1", (), "", (UNREGISTERED,))
    sections = {name: GOOD.sections[digest] for name, digest in GOOD.root.items()}
    beyond = make_snapshot({**sections, "callers": encode_section(callers)})
    nursery.start_soon(session.run)
    for snapshot in (beyond, GOOD):
        session._wanted.set_snapshot(snapshot)
        await trio.testing.wait_all_tasks_blocked()
    assert offered == [GOOD.version]
    nursery.cancel_scope.cancel()
