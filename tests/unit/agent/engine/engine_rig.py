"""Engines that run in this process, started by a driver that a supervisor takes for the real one."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import trio

from gossipmesh.agent.engine.engine_supervisor import EngineSettings, EngineSupervisor
from gossipmesh.agent.engine.engine_view import EngineView
from gossipmesh.dataplane.reference.engine import ReferenceEngine
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.errors import OperatorError
from gossipmesh.traffic.compiler import DEFAULT_LIMITS, SnapshotCompiler
from gossipmesh.traffic.inputs import SnapshotInputs
from gossipmesh.traffic.sections import Snapshot, make_snapshot

GOOD = SnapshotCompiler().compile(SnapshotInputs("mesh.test", "n1", (), {}, (), (), DEFAULT_LIMITS))
OTHER = SnapshotCompiler().compile(SnapshotInputs("mesh.test", "n2", (), {}, (), (), DEFAULT_LIMITS))
REFUSED = make_snapshot(
    {**{name: GOOD.sections[digest] for name, digest in GOOD.root.items()}, "limits": b"\x01"}
)


class FakeProcess:
    """An engine that is a task of this process."""

    def __init__(self, socket_path: Path, number: int) -> None:
        self.pid = number
        self.socket_path = socket_path
        self.scope = trio.CancelScope()
        self.runs = True
        self.signals: list[signal.Signals] = []

    def is_running(self) -> bool:
        return self.runs

    def end(self, number: signal.Signals) -> None:
        if self.runs:
            self.signals.append(number)
            if number == signal.SIGKILL:
                self.kill()

    def kill(self) -> None:
        self.scope.cancel()

    def close(self) -> None:
        pass

    async def run(self, engine: ReferenceEngine) -> None:
        try:
            with self.scope:
                await engine.run()
        finally:
            self.runs = False


class FakeDriver:
    """Starts engines as tasks; numbers stand for processes."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self.nursery = nursery
        self.started: list[FakeProcess] = []
        self.engines: list[ReferenceEngine] = []
        self.fails = False
        self.log_path = folder / "engine.log"

    def socket_paths(self) -> list[Path]:
        return [self.folder / "engine.sock", self.folder / "engine-2.sock"]

    def start(self, socket_path: Path) -> FakeProcess:
        if self.fails:
            raise OperatorError("cannot start the engine")
        process = FakeProcess(socket_path, len(self.started) + 1)
        engine = ReferenceEngine(socket_path, AccessLogSettings(self.folder / f"access-{process.pid}"))
        self.started.append(process)
        self.engines.append(engine)
        self.nursery.start_soon(process.run, engine)
        return process

    def found(self, pid: int, socket_path: Path) -> FakeProcess:
        assert pid == os.getpid()
        return next(one for one in self.started if one.socket_path == socket_path and one.runs)

    def last_words(self) -> str:
        return "the last words"

    @property
    def last(self) -> FakeProcess:
        return self.started[-1]


class Rig:
    """A supervisor whose engines run in this process."""

    def __init__(
        self,
        folder: Path,
        nursery: trio.Nursery,
        driver: FakeDriver | None = None,
        *,
        drain_timeout_s: float = 30.0,
    ) -> None:
        self.nursery = nursery
        self.driver = driver or FakeDriver(folder, nursery)
        self.changes: list[bool] = []
        self.events: list[Any] = []
        self.supervisor = EngineSupervisor(
            EngineSettings(b"n" * 16, "b", drain_timeout_s),
            cast(Any, self.driver),
            on_event=self.events.append,
            on_change=lambda: self.changes.append(self.supervisor.serving),
            on_shown=lambda: None,
            probe=yes,
        )

    async def until(self, condition: Callable[[EngineView], bool]) -> EngineView:
        for _ in range(1_000):
            view = self.supervisor.view()
            if condition(view):
                return view
            await trio.sleep(0.01)
        raise AssertionError(f"did not come about; last seen: {self.supervisor.view()}")


async def yes() -> bool:
    await trio.lowlevel.checkpoint()
    return True


def runs(snapshot: Snapshot) -> Callable[[EngineView], bool]:
    return lambda view: view.acked_version == snapshot.version
