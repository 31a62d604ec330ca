"""The supervisor between engines: what it pushes, and what it falls back to."""

import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from gossipmesh.agent.engine import engine_supervisor
from gossipmesh.agent.engine.engine_supervisor import EngineSettings, EngineSupervisor, EngineView
from gossipmesh.dataplane.client import EngineGone, EngineUnavailable
from gossipmesh.dataplane.protocol import Statistics
from gossipmesh.dataplane.reference.engine import ReferenceEngine
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.member import Address
from gossipmesh.net.streams import listen
from gossipmesh.traffic.compiler import DEFAULT_LIMITS, SnapshotCompiler
from gossipmesh.traffic.inputs import SnapshotInputs
from gossipmesh.traffic.sections import Snapshot, make_snapshot

GOOD = SnapshotCompiler().compile(SnapshotInputs("mesh.test", "n1", (), {}, (), (), DEFAULT_LIMITS))
REFUSED = make_snapshot(
    {**{name: GOOD.sections[digest] for name, digest in GOOD.root.items()}, "limits": b"\x01"}
)


class Rig:
    """A supervisor whose engines run in this process, one after another."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.settings = EngineSettings(
            folder / "e.sock", folder / "log", AccessLogSettings(folder / "access"), b"n" * 16, "b"
        )
        self.nursery = nursery
        self.alive: trio.CancelScope | None = None
        self.supervisor = EngineSupervisor(
            self.settings, on_event=lambda _: None, on_change=lambda: None, on_shown=lambda: None, probe=_yes
        )

    def spawn(self, socket_path: Path, access_log: AccessLogSettings, _log: Path) -> int:
        self.alive = trio.CancelScope()
        self.nursery.start_soon(self._run, ReferenceEngine(socket_path, access_log), self.alive)
        return os.getpid()

    async def _run(self, engine: ReferenceEngine, scope: trio.CancelScope) -> None:
        with scope:
            await engine.run()

    def kill(self) -> None:
        assert self.alive is not None
        self.alive.cancel()
        self.alive = None

    async def until(self, condition: Callable[[EngineView], bool]) -> EngineView:
        for _ in range(1_000):
            view = self.supervisor.view()
            if condition(view):
                return view
            await trio.sleep(0.01)
        raise AssertionError(f"did not come about; last seen: {self.supervisor.view()}")


async def _yes() -> bool:
    await trio.lowlevel.checkpoint()
    return True


@pytest.fixture
def rig(tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Rig:
    rig = Rig(tmp_path, nursery)
    monkeypatch.setattr(engine_supervisor, "spawn_engine", rig.spawn)
    monkeypatch.setattr(engine_supervisor, "is_running", lambda _pid: rig.alive is not None)
    monkeypatch.setattr(engine_supervisor, "end_engine", lambda _pid, _number: None)
    return rig


def runs(snapshot: Snapshot) -> Callable[[EngineView], bool]:
    return lambda view: view.acked_version == snapshot.version


async def test_a_successor_that_refuses_what_is_wanted_gets_what_was_taken_last(rig: Rig) -> None:
    rig.nursery.start_soon(rig.supervisor.run)
    rig.supervisor.want_listeners({})
    rig.supervisor.want_snapshot(GOOD)
    await rig.until(runs(GOOD))
    rig.supervisor.want_snapshot(REFUSED)
    view = await rig.until(lambda view: view.refused_version == REFUSED.version)
    assert view.acked_version == GOOD.version
    rig.kill()
    view = await rig.until(lambda view: view.starts_count == 2 and runs(GOOD)(view))
    assert view.refused_version == REFUSED.version


async def test_an_engine_that_speaks_is_probed_seldom_and_soon_when_it_falls_silent(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    """Its statistics say every two seconds that it runs; the handshake says the rest, and costs both ends."""
    probed: list[float] = []
    began = trio.current_time()

    async def probe() -> bool:
        probed.append(round(trio.current_time() - began, 1))
        return await _yes()

    supervisor = EngineSupervisor(
        Rig(tmp_path, nursery).settings,
        on_event=lambda _: None,
        on_change=lambda: None,
        on_shown=lambda: None,
        probe=probe,
    )
    supervisor._acked, supervisor._heard_at = "v", trio.current_time()
    nursery.start_soon(supervisor._watch_health)
    for _ in range(11):
        await trio.sleep(2)
        supervisor._heard(Statistics(2_000, (), {}, {}))
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
        return await _yes()

    supervisor = EngineSupervisor(
        Rig(tmp_path, nursery).settings,
        on_event=lambda _: None,
        on_change=lambda: None,
        on_shown=lambda: None,
        probe=probe,
    )
    nursery.start_soon(supervisor._watch_health)
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
    client = SimpleNamespace(apply_snapshot=lambda _: _yes())
    assert await supervisor._offer(cast(Any, client), GOOD)
    await trio.testing.wait_all_tasks_blocked()
    assert len(probed) == 1
    nursery.cancel_scope.cancel()


async def test_one_crash_waits_for_nothing_and_a_loop_of_them_ever_longer(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """The bound on an engine's absence is the time a process takes to start, whatever this machine's is."""
    started: list[float] = []
    began = trio.current_time()

    class Crashing:
        """An engine that ends as soon as it is attached to."""

        hello = SimpleNamespace(pid=7, snapshot_version=None, engine="crashing")

        async def run(self, _: object) -> None:
            await trio.lowlevel.checkpoint()
            raise EngineGone("it crashed")

    async def attach(*_: object, **__: object) -> Crashing:
        await trio.lowlevel.checkpoint()
        if not started:
            raise EngineUnavailable("none runs yet")
        return Crashing()

    def spawn(*_: object) -> int:
        started.append(round(trio.current_time() - began, 2))
        return 7

    looked: list[int] = []

    def is_running(_pid: int) -> bool:
        # Alive when it is attached to, gone when its successor is due.
        looked.append(len(started))
        return looked.count(len(started)) == 1

    monkeypatch.setattr(engine_supervisor, "spawn_engine", spawn)
    monkeypatch.setattr(engine_supervisor, "is_running", is_running)
    monkeypatch.setattr(engine_supervisor, "end_engine", lambda _pid, _number: None)
    monkeypatch.setattr(engine_supervisor.EngineClient, "attach", attach)
    rig = Rig(tmp_path, nursery)
    rig.supervisor.want_listeners({})
    nursery.start_soon(rig.supervisor.run)
    await trio.sleep(20)
    assert started == [0.0, 0.0, 0.5, 1.5, 3.5, 8.5, 18.5]
    nursery.cancel_scope.cancel()


async def test_what_one_engine_refused_is_offered_to_the_next(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one may be another build."""
    rig.nursery.start_soon(rig.supervisor.run)
    rig.supervisor.want_listeners({})
    with monkeypatch.context() as older:
        older.setattr("gossipmesh.traffic.sections.limits.SECTION_BYTES_MAX", 1)
        rig.supervisor.want_snapshot(GOOD)
        view = await rig.until(lambda view: view.refused_version == GOOD.version)
        assert view.acked_version is None
    rig.kill()
    view = await rig.until(runs(GOOD))
    assert view.refused_version is None


@asynccontextmanager
async def watched(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, *, answers: bool
) -> AsyncIterator[tuple[list[int], list[float]]]:
    """Watch an engine whose mesh port is silent; yield what was ended, and when it was asked."""
    ended: list[int] = []
    asked: list[float] = []

    async def ping(timeout_s: float) -> bool:
        asked.append(trio.current_time())
        await trio.sleep(0.0 if answers else timeout_s)
        return answers

    async def silent() -> bool:
        await trio.sleep(1.0)
        return False

    monkeypatch.setattr(engine_supervisor, "end_engine", lambda pid, _number: ended.append(pid))
    monkeypatch.setattr(rig.supervisor, "_probe", silent)
    supervisor = rig.supervisor
    supervisor._client = cast(Any, SimpleNamespace(ping=ping, hello=SimpleNamespace(features=())))
    supervisor._acked, supervisor._pid = "v", 7
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor._watch_health)
        yield ended, asked
        nursery.cancel_scope.cancel()


async def test_an_engine_that_answers_on_its_own_socket_is_never_ended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """Full, or with certificates that ran out: nobody outside gets an answer, and it serves what it has."""
    async with watched(rig, monkeypatch, answers=True) as (ended, asked):
        await trio.sleep(120)
        assert not ended
        assert len(asked) > 50
        assert not rig.supervisor.view().answering


async def test_an_engine_that_answers_nowhere_is_ended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    async with watched(rig, monkeypatch, answers=False) as (ended, asked):
        await trio.sleep(8)
        assert not ended, "four times may be a stall"
        await trio.sleep(5)
        assert ended
        assert len(asked) >= 5


async def test_an_engine_that_drains_is_not_asked_and_its_listeners_are_closed_here(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would go on taking connections for a duplicate nobody accepts on."""
    drained = trio.Event()
    sockets = {name: listen(Address("127.0.0.1", 0)) for name in ("mesh", "proxy", "readiness")}
    seen: list[list[str]] = []

    async def drain(_timeout_s: float) -> None:
        seen.append(sorted(name for name, sock in sockets.items() if sock.fileno() >= 0))
        await drained.wait()

    supervisor = Rig(rig.settings.socket_path.parent, rig.nursery).supervisor
    supervisor.want_listeners(sockets)
    supervisor._client = cast(Any, SimpleNamespace(drain=drain))
    drained.set()
    await supervisor.drain(1.0)
    supervisor.close()
    assert seen == [[]], "all of them: what the engine closes later is refused at once"


async def test_a_full_engine_is_seen_as_full(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for gauges, full in (({"mesh_full": 1, "local_full": 0}, ("mesh",)), ({"mesh_full": 0}, ())):
        for _ in range(3):
            rig.supervisor._heard(Statistics(1_000, (), {}, gauges))
        assert rig.supervisor.view().full == full
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1, "told when it changes"


async def test_ping_asks_for_nothing_and_an_engine_that_is_silent_keeps_its_attachment(rig: Rig) -> None:
    """Handing over no listeners is what engines of every version ack."""
    rig.nursery.start_soon(rig.supervisor.run)
    rig.supervisor.want_listeners({})
    rig.supervisor.want_snapshot(GOOD)
    await rig.until(runs(GOOD))
    client = rig.supervisor._client
    assert client is not None
    assert await client.ping(5.0)
    assert not await client.ping(0.0)
    assert await client.ping(5.0)
    assert rig.supervisor.view().attached
