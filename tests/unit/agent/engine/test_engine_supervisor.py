"""The supervisor between engines: which one serves, what follows a crash, and one in another one's place."""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from gossipmesh.agent.engine import engine_supervisor
from gossipmesh.agent.engine.engine_supervisor import EngineSupervisor
from gossipmesh.dataplane.client import EngineGone, EngineUnavailable
from gossipmesh.dataplane.protocol import Demand, Statistics
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address
from gossipmesh.net.streams import listen
from tests.unit.agent.engine.engine_rig import GOOD, OTHER, REFUSED, FakeDriver, FakeProcess, Rig, runs
from tests.unit.dataplane.certificates import Authority
from tests.unit.dataplane.engine_kit import until

OURS = Authority()
NODE = "spiffe://mesh.test/node/n1"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for a service nobody knows is held open: an engine has something to finish."""
    monkeypatch.setattr("gossipmesh.dataplane.reference.demands.WAIT_S", 60.0)


@pytest.fixture
def rig(tmp_path: Path, nursery: trio.Nursery) -> Iterator[Rig]:
    rig = Rig(tmp_path, nursery)
    yield rig
    rig.supervisor.close()


async def serving(rig: Rig) -> None:
    """Have an engine serve with everything an engine has."""
    rig.nursery.start_soon(rig.supervisor.run)
    rig.supervisor.want_identities([OURS.identity(NODE)], OURS.bundle_pem, b"")
    rig.supervisor.want_snapshot(GOOD)
    rig.supervisor.want_listeners({name: listen(Address("127.0.0.1", 0)) for name in ("mesh", "proxy")})
    await rig.until(lambda view: rig.supervisor.serving and bool(rig.supervisor.shown))


@asynccontextmanager
async def request_at(rig: Rig) -> AsyncIterator[None]:
    """Keep a request under way at the engine that serves; it is answered at the end, unless it was cut."""
    asked = len(rig.events)
    client = await trio.open_tcp_stream(*rig.driver.engines[-1].listener_sockets["proxy"].getsockname())
    await client.send_all(b"GET / HTTP/1.1\r\nhost: cart.shop\r\n\r\n")
    await until(lambda: any(isinstance(event, Demand) for event in rig.events[asked:]))
    yield
    rig.supervisor.tell_unknown("shop/cart")
    await client.aclose()


async def test_a_successor_that_refuses_what_is_wanted_gets_what_was_taken_last(rig: Rig) -> None:
    rig.nursery.start_soon(rig.supervisor.run)
    rig.supervisor.want_listeners({})
    rig.supervisor.want_snapshot(GOOD)
    await rig.until(runs(GOOD))
    rig.supervisor.want_snapshot(REFUSED)
    view = await rig.until(lambda view: view.refused_version == REFUSED.version)
    assert view.acked_version == GOOD.version
    rig.driver.last.kill()
    view = await rig.until(lambda view: view.starts_count == 2 and runs(GOOD)(view))
    assert view.refused_version == REFUSED.version


async def test_one_crash_waits_for_nothing_and_a_loop_of_them_ever_longer(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """The bound on an engine's absence is the time a process takes to start, whatever this machine's is."""
    started: list[float] = []
    began = trio.current_time()

    class Crashing:
        """An engine that ends as soon as it is attached to."""

        hello = SimpleNamespace(pid=7, snapshot_version=None, engine="crashing", features=())

        async def run(self, _: object) -> None:
            await trio.lowlevel.checkpoint()
            process.runs = False
            raise EngineGone("it crashed")

    async def attach(*_: object, **__: object) -> Crashing:
        await trio.lowlevel.checkpoint()
        if not started:
            raise EngineUnavailable("none runs yet")
        return Crashing()

    process = FakeProcess(tmp_path / "engine.sock", 7)

    class CrashingDriver(FakeDriver):
        """Starts engines that end."""

        def start(self, socket_path: Path) -> FakeProcess:
            started.append(round(trio.current_time() - began, 2))
            process.runs = True
            return process

    monkeypatch.setattr(engine_supervisor.EngineClient, "attach", attach)
    rig = Rig(tmp_path, nursery, CrashingDriver(tmp_path, nursery))
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
    rig.driver.last.kill()
    view = await rig.until(runs(GOOD))
    assert view.refused_version is None


async def test_an_engine_that_drains_is_not_asked_and_its_listeners_are_closed_here(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """The kernel would go on taking connections for a duplicate nobody accepts on."""
    sockets = {name: listen(Address("127.0.0.1", 0)) for name in ("mesh", "proxy", "readiness")}
    seen: list[list[str]] = []

    async def drain(_timeout_s: float, *, succeeded: bool) -> None:
        await trio.lowlevel.checkpoint()
        assert not succeeded
        seen.append(sorted(name for name, sock in sockets.items() if sock.fileno() >= 0))

    supervisor: EngineSupervisor = Rig(tmp_path, nursery).supervisor
    supervisor.want_listeners(sockets)
    current = SimpleNamespace(client=SimpleNamespace(drain=drain), leave_office=lambda _: None)
    supervisor._current = cast(Any, current)
    await supervisor.drain(1.0)
    assert seen == [[]], "all of them: what the engine closes later is refused at once"


async def test_another_engine_in_its_place(rig: Rig) -> None:
    """It serves before the one before is told to end, and then that one ends by itself."""
    await serving(rig)
    before = rig.driver.last
    replacement = await rig.supervisor.replace()
    after = rig.driver.last
    assert (replacement.before_pid, replacement.pid) == (before.pid, after.pid)
    assert before.socket_path != after.socket_path
    assert rig.supervisor.serving
    view = rig.supervisor.view()
    assert (view.pid, view.acked_version) == (after.pid, GOOD.version)
    assert sorted(rig.driver.engines[1].listener_sockets) == ["mesh", "proxy"]
    view = await rig.until(lambda view: view.ended is not None)
    assert view.ended is not None
    assert (view.ended.pid, view.ended.cut_count) == (before.pid, 0)
    assert not before.runs
    assert not before.signals, "nobody ended it"
    assert rig.changes == [True], "this node was served all the while"


async def test_both_are_seen_and_told_the_same_while_one_drains(rig: Rig) -> None:
    """Who has lost a right loses it at both."""
    await serving(rig)
    async with request_at(rig):
        await rig.supervisor.replace()
        view = rig.supervisor.view()
        assert view.draining is not None
        assert (view.draining.pid, view.pid) == (1, 2)
        rig.supervisor.want_snapshot(OTHER)
        await rig.until(
            lambda view: (
                runs(OTHER)(view)
                and view.draining is not None
                and view.draining.acked_version == OTHER.version
            )
        )
        with pytest.raises(OperatorError, match=r"still finishes what it has, for \d+ s at most"):
            await rig.supervisor.replace()
    view = await rig.until(lambda view: view.ended is not None)
    assert view.ended is not None
    assert view.ended.cut_count == 0
    assert (await rig.supervisor.replace()).before_pid == 2


async def test_what_is_cut_is_counted(tmp_path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(tmp_path, nursery, drain_timeout_s=0.3)
    await serving(rig)
    async with request_at(rig):
        await rig.supervisor.replace()
        view = await rig.until(lambda view: view.ended is not None)
        assert view.ended is not None
        assert (view.ended.pid, view.ended.cut_count) == (1, 1)
    rig.supervisor.close()


async def test_levels_are_those_of_the_engine_that_serves(rig: Rig) -> None:
    await serving(rig)
    before = rig.supervisor._current
    assert before is not None
    await rig.supervisor.replace()
    rig.events.clear()
    for session in (before, rig.supervisor._current):
        assert session is not None
        session.hear(Statistics(1_000, (), {"a": 1}, {"mesh_full": 0}))
    told = [event for event in rig.events if event.counters == {"a": 1}]
    assert [event.gauges for event in told] == [{}, {"mesh_full": 0}]


async def test_a_successor_that_does_not_come_to_serve_changes_nothing(rig: Rig) -> None:
    await serving(rig)
    rig.supervisor.want_snapshot(REFUSED)
    await rig.until(lambda view: view.refused_version == REFUSED.version)
    with pytest.raises(
        OperatorError, match="the one before goes on: of the new one, it refused the snapshot"
    ):
        await rig.supervisor.replace()
    assert rig.driver.last.signals == [signal.SIGKILL]
    assert sorted(rig.driver.engines[1].listener_sockets) == [], "it accepted nothing"
    rig.supervisor.want_snapshot(GOOD)
    await rig.until(lambda view: view.pid == 1 and view.refused_version is None)
    rig.driver.fails = True
    with pytest.raises(OperatorError, match="cannot start the engine"):
        await rig.supervisor.replace()
    assert (rig.supervisor.view().pid, rig.supervisor.view().draining) == (1, None)
    assert rig.supervisor.serving
    rig.driver.fails = False
    assert (await rig.supervisor.replace()).before_pid == 1


async def test_without_an_engine_that_serves_there_is_nothing_to_replace(rig: Rig) -> None:
    with pytest.raises(OperatorError, match="no engine serves"):
        await rig.supervisor.replace()
    rig.supervisor._stopping = True
    with pytest.raises(OperatorError, match="is leaving"):
        await rig.supervisor.replace()


async def test_a_crash_of_the_successor_starts_another_where_nobody_listens(rig: Rig) -> None:
    """The one before may drain still: its socket is its own."""
    await serving(rig)
    async with request_at(rig):
        await rig.supervisor.replace()
        second = rig.driver.last
        second.kill()
        view = await rig.until(lambda view: view.starts_count == 3 and runs(GOOD)(view))
        assert view.draining is not None
        assert rig.driver.last.socket_path == second.socket_path


async def test_an_agent_finds_both_engines_and_lets_the_one_that_drains_end(
    rig: Rig, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """The agent ended while its engine was being replaced; the next one takes both over."""
    async with AsyncExitStack() as stack, trio.open_nursery() as first:
        before = Rig(tmp_path, first, FakeDriver(tmp_path, nursery))
        await serving(before)
        await stack.enter_async_context(request_at(before))
        await before.supervisor.replace()
        await until(lambda: before.driver.engines[0].draining)
        first.cancel_scope.cancel()
    before.supervisor.close()
    rig.driver.started = before.driver.started
    nursery.start_soon(rig.supervisor.run)
    found = await rig.supervisor.wait_found()
    assert found is not None
    assert (found.snapshot_version, sorted(found.listeners)) == (GOOD.version, ["mesh", "proxy"])
    view = rig.supervisor.view()
    assert view.pid == 2
    assert view.draining is not None
    assert view.draining.pid == 1
    rig.supervisor.want_listeners(found.listeners)
    rig.supervisor.tell_unknown("shop/cart")
    await rig.until(lambda view: view.ended is not None)


async def test_an_engine_that_was_told_nothing_ends_beside_the_one_that_serves(
    rig: Rig, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """The agent ended before its successor served: of two, that one serves which has something to serve."""
    async with trio.open_nursery() as first:
        before = Rig(tmp_path, first, FakeDriver(tmp_path, nursery))
        await serving(before)
        before.driver.start(tmp_path / "engine-2.sock")
        first.cancel_scope.cancel()
    before.supervisor.close()
    rig.driver.started = before.driver.started
    nursery.start_soon(rig.supervisor.run)
    found = await rig.supervisor.wait_found()
    assert found is not None
    assert sorted(found.listeners) == ["mesh", "proxy"]
    rig.supervisor.want_listeners(found.listeners)
    view = await rig.until(lambda view: view.ended is not None)
    assert view.ended is not None
    assert (view.pid, view.ended.pid) == (1, 2)
