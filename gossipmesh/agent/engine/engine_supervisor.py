"""Keeps one engine serving this node, whichever process it is; replaces it in place when asked.

Ends at one attachment (`engine_session`) and at processes (`engine_process`); it knows no engine by name.
Rules:
1. A running engine is attached to, by protocol and peer uid, before one is started; pid files are never used.
2. The engine survives this agent; only `drain`, `stop`, a successor and being stuck end it.
3. Listening sockets are made once: this agent keeps a duplicate of each and hands them to the next engine.
4. A successor serves before the one before is told to end. Until that has ended both are attached to and are
   told the same: whoever has lost a right loses it at both.
5. An engine that ends is given the drain timeout, and what it cuts then is counted.
"""

import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio

from gossipmesh.agent.engine.engine_process import EngineDriver, EngineProcess
from gossipmesh.agent.engine.engine_session import EngineSession
from gossipmesh.agent.engine.engine_view import DrainingEngine, EngineView, Replacement, RunningEngine
from gossipmesh.agent.engine.engine_wanted import Wanted
from gossipmesh.agent.logs import fields
from gossipmesh.dataplane.client import EngineClient, EngineGone, EngineRefused, EngineUnavailable
from gossipmesh.dataplane.protocol import FEATURES, PINS_FEATURE, EngineEvent, Identity, Statistics
from gossipmesh.model.errors import OperatorError
from gossipmesh.traffic.sections import Snapshot

log = logging.getLogger("gossipmesh.agent.engine")

_START_TIMEOUT_S: Final = 15.0
_POLL_S: Final = 0.02
_STUCK_TIMEOUT_S: Final = 10.0
_END_TIMEOUT_S: Final = 5.0
_BACKOFF_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)  # before the first, second, ... start in a row
_SETTLED_S: Final = 30.0


class EngineSettings(msgspec.Struct, frozen=True):
    """Who attaches to an engine, and how long one that is replaced may finish what it has."""

    node_id: bytes
    boot_id: str
    drain_timeout_s: float


class EngineSupervisor:
    """The engine of this node, and the one before while it drains."""

    def __init__(
        self,
        settings: EngineSettings,
        driver: EngineDriver,
        *,
        on_event: Callable[[EngineEvent], None],
        on_change: Callable[[], None],
        on_shown: Callable[[], None],
        probe: Callable[[], Awaitable[bool]],
    ) -> None:
        """`on_change` follows each change of `serving`, `on_shown` each of `shown`.

        `probe` handshakes with this node's own mesh port as a peer would.
        """
        self._settings = settings
        self._driver = driver
        self._on_event = on_event
        self._on_change = on_change
        self._on_shown = on_shown
        self._probe = probe
        self._wanted = Wanted()
        self._nursery: trio.Nursery | None = None
        self._current: EngineSession | None = None
        self._leaving: EngineSession | None = None
        self._coming: EngineSession | None = None
        self._ended: DrainingEngine | None = None
        self._process: EngineProcess | None = None
        self._successor: EngineProcess | None = None
        self._was_serving = False
        self._starts_count = 0
        self._failures_count = 0
        self._stopping = False
        self._vacant = trio.Event()
        self._looked = trio.Event()
        self._found: RunningEngine | None = None

    # What others may know

    @property
    def serving(self) -> bool:
        """Tell whether the engine has acked a snapshot and its mesh port answers."""
        return self._current is not None and self._current.serves

    @property
    def shown(self) -> tuple[Identity, ...]:
        """Return the identities that the engine attached now has confirmed; none while there is none."""
        return () if self._current is None else self._current.shown

    @property
    def features(self) -> frozenset[str]:
        """Return what every engine attached now can execute; what this build's can when there is none."""
        told = [frozenset(session.client.hello.features) for session in self._sessions()]
        return frozenset.intersection(*told) if told else frozenset(FEATURES)

    @property
    def takes_pins(self) -> bool:
        """Tell whether the engine, or the one that will be started, judges by key sets."""
        return PINS_FEATURE in self.features

    def view(self) -> EngineView:
        """Return what is known of the engine now."""
        current, wanted = self._current, self._wanted.snapshot
        return EngineView(
            pid=None if self._process is None else self._process.pid,
            attached=current is not None,
            acked_version=None if current is None else current.acked,
            wanted_version=None if wanted is None else wanted.version,
            refused_version=None if current is None else current.refused[0],
            refused_reason="" if current is None else current.refused[1],
            answering=current is not None and current.answering,
            starts_count=self._starts_count,
            full=() if current is None else current.full,
            name="" if current is None else current.client.hello.engine,
            lacks=() if current is None else tuple(sorted({*FEATURES} - {*current.client.hello.features})),
            draining=None if self._leaving is None else _draining(self._leaving),
            ended=self._ended,
        )

    # What it is to do

    def want_snapshot(self, snapshot: Snapshot) -> None:
        """Have the engine serve `snapshot`."""
        self._wanted.set_snapshot(snapshot)

    def tell_unknown(self, service: str) -> None:
        """Have the engine answer at once what asks for a service nobody vouches for."""
        for session in self._sessions():
            session.tell_unknown(service)
        self._wanted.note()

    def want_identities(
        self, identities: Sequence[Identity], bundle_pem: bytes, carrier_root_pem: bytes
    ) -> None:
        """Have the engine use exactly these identities and roots, as far as it can."""
        self._wanted.set_identities(identities, bundle_pem, carrier_root_pem)

    def want_listeners(self, listeners: Mapping[str, socket.socket]) -> None:
        """Have the engine hold these, owned from now on by this; those no longer wanted are closed.

        The first call is what an engine's start waits for. An engine that drains is given none.
        """
        if not self._stopping:
            self._wanted.set_listeners(listeners)

    async def wait_found(self) -> RunningEngine | None:
        """Return the engine that ran before us, None when none did; `run` finds out."""
        await self._looked.wait()
        return self._found

    async def run(self) -> None:
        """Supervise until drained.

        Raises:
            OperatorError: an engine cannot even be started.
        """
        async with trio.open_nursery() as self._nursery:
            await self._adopt(self._nursery)
            self._looked.set()
            while not self._stopping:
                await self._wanted.given.wait()
                if self._current is None:
                    session = await self._find_or_start()
                    if session is None:
                        continue
                    self._current = session
                    self._nursery.start_soon(self._attend, session)
                self._vacant = trio.Event()
                await self._vacant.wait()

    async def replace(self) -> Replacement:
        """Start another engine, have it serve, and have the one before end once it has finished what is open.

        Returns when the successor serves; the one before drains meanwhile, up to the drain timeout.

        Raises:
            OperatorError: there is nothing to replace, or the successor does not come to serve. State: the
                engine before goes on.
        """
        before, nursery = self._require_replaceable()
        try:
            successor = await self._start_successor(nursery)
            if self._current is not before:
                successor.process.end(signal.SIGKILL)
                raise OperatorError(
                    "the engine that was to be replaced ended meanwhile, and another one was started; "
                    "see `gossipmesh check`"
                )
            self._succeed(before, successor, nursery)
        finally:
            self._successor = self._coming = None
        return Replacement(before.process.pid, successor.process.pid, self._settings.drain_timeout_s)

    async def drain(self, timeout_s: float) -> None:
        """Have the engine refuse other nodes, finish what is in flight and end; it is not started again.

        This node's applications are served meanwhile, by an engine that can, on descriptors of its own. Our
        duplicates are all closed first: once the engine closes one of its own, the kernel refuses at once,
        instead of going on to take connections that nobody serves.
        """
        self._stopping = True
        self._wanted.close_listeners()
        if self._current is not None:
            self._current.leave_office(trio.current_time() + timeout_s)
            await _have_drained(self._current, timeout_s, succeeded=False)
        if self._process is not None:
            await self._end(self._process)
        if self._leaving is not None:
            await self._leaving.ended.wait()

    def stop(self) -> None:
        """End the engine at once; it is not started again."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the engine this instant, with all that is in flight: it may speak for this node no more."""
        self._stopping = True
        self._signal(signal.SIGKILL)

    def reopen_log(self) -> None:
        """Have each engine that is attached open its access log anew; one that starts does so anyway."""
        for session in self._sessions():
            session.process.end(signal.SIGHUP)

    def close(self) -> None:
        """Close this agent's duplicates of the listeners."""
        self._wanted.close_listeners()

    async def hand_over(self, sockets: Mapping[str, socket.socket]) -> None:
        """Give running engines listeners at once; those they hold by these names are closed.

        Raises:
            OperatorError: one did not take them.
        """
        for session in self._sessions():
            pid = session.process.pid
            try:
                await session.client.give_listeners(sockets)
            except (EngineRefused, EngineGone) as error:
                raise OperatorError(
                    f"the engine (process {pid}) does not let go of its ports: {error}; "
                    f"end it with `kill {pid}` and start again"
                ) from None

    # What sessions tell (engine_session.Observer)

    def heard(self, session: EngineSession, event: EngineEvent) -> None:
        """Take an event; levels are those of the engine that serves."""
        if isinstance(event, Statistics) and session is not self._current:
            event = msgspec.structs.replace(event, gauges={})
        self._on_event(event)

    def answers(self, session: EngineSession) -> None:
        """Tell whether this node is served."""
        if self.serving != self._was_serving:
            self._was_serving = self.serving
            self._on_change()

    def shows(self, session: EngineSession) -> None:
        """Tell that the engine shows other identities."""
        if session is self._current:
            self._on_shown()

    # Finding and starting

    def _sessions(self) -> Iterator[EngineSession]:
        return (one for one in (self._current, self._leaving, self._coming) if one is not None)

    async def _adopt(self, nursery: trio.Nursery) -> None:
        """Attach to what runs; of two the one that does not drain serves, and the other one ends."""
        found: list[EngineSession] = []
        for path in self._driver.socket_paths():
            client = await self._attach(path)
            if client is not None:
                try:
                    process = self._driver.found(client.pid, path)
                except OSError:
                    continue  # it has just ended
                found.append(self._make_session(client, process))
        found.sort(key=_fitness)
        for session in found:
            nursery.start_soon(self._attend, session, True)
        if found and not found[0].client.hello.draining:
            self._current = found.pop(0)
            self._process = self._current.process
        if found:
            self._leaving = found[0]
        listeners: dict[str, socket.socket] = {}
        for session in self._sessions():
            await session.took.wait()
            listeners = {**session.taken, **listeners}
        if self._current is not None or self._leaving is not None:
            version = None if self._current is None else self._current.acked
            self._found = RunningEngine(version, listeners)
        if self._leaving is not None:
            nursery.start_soon(self._drain_out, self._leaving)

    async def _attach(self, path: Path) -> EngineClient | None:
        settings = self._settings
        try:
            return await EngineClient.attach(path, node_id=settings.node_id, boot_id=settings.boot_id)
        except EngineUnavailable:
            return None

    def _make_session(
        self, client: EngineClient, process: EngineProcess, *, is_successor: bool = False
    ) -> EngineSession:
        return EngineSession(client, process, self._wanted, self, self._probe, is_successor=is_successor)

    async def _attend(self, session: EngineSession, takes_listeners: bool = False) -> None:
        """Keep one attachment until it ends."""
        await session.run(takes_listeners=takes_listeners)
        if session is not self._current:
            return
        self._current = None
        self._vacant.set()
        if not self._stopping:
            log.warning("the engine is gone: %s", session.end_reason, extra=fields(pid=session.process.pid))
        settled = trio.current_time() - session.began_at > _SETTLED_S
        self._failures_count = 0 if settled else self._failures_count + 1
        self.answers(session)

    async def _find_or_start(self) -> EngineSession | None:
        """Attach to the engine again, or start its successor."""
        deadline = trio.current_time() + _STUCK_TIMEOUT_S
        process = self._process
        while process is not None and process.is_running():
            client = await self._attach(process.socket_path)
            if client is not None:
                return self._make_session(client, process)
            if self._stopping:
                return None
            if trio.current_time() > deadline:
                deadline += _STUCK_TIMEOUT_S  # who waits for a disk dies when the disk answers
                log.error("the engine does not answer and is ended", extra=fields(pid=process.pid))
                process.end(signal.SIGKILL)
            await trio.sleep(_POLL_S)
        # One crash is no loop, however young the engine was: its successor is started at once.
        await trio.sleep(_BACKOFF_S[min(max(0, self._failures_count - 1), len(_BACKOFF_S) - 1)])
        if self._stopping:
            return None
        process = self._process = self._driver.start(self._free_path())
        client = await self._wait_for_start(process)
        if client is None:
            self._failures_count += 1
            return None
        return self._make_session(client, process)

    def _free_path(self) -> Path:
        """Return where no engine of ours listens."""
        held = [session.process.socket_path for session in self._sessions()]
        if self._successor is not None:
            held.append(self._successor.socket_path)
        return next(path for path in self._driver.socket_paths() if path not in held)

    async def _wait_for_start(self, process: EngineProcess) -> EngineClient | None:
        """Return the attachment to an engine that was started; None: it did not start, and is ended."""
        self._starts_count += 1
        deadline = trio.current_time() + _START_TIMEOUT_S
        while process.is_running() and trio.current_time() < deadline:
            client = await self._attach(process.socket_path)
            if client is not None:
                log.info("engine started", extra=fields(pid=process.pid, engine=client.hello.engine))
                return client
            await trio.sleep(_POLL_S)
        process.end(signal.SIGKILL)
        log.error(
            "the engine did not start; see %s",
            self._driver.log_path,
            extra=fields(last=self._driver.last_words()),
        )
        return None

    # Replacing and ending

    def _require_replaceable(self) -> tuple[EngineSession, trio.Nursery]:
        """Return the engine that may be replaced now, and where its successor's session is to run.

        Raises:
            OperatorError: none may; the sentence says when one will. State unchanged.
        """
        if self._stopping:
            raise OperatorError("this node is leaving the mesh: its engine is not replaced any more")
        if self._successor is not None:
            raise OperatorError("the engine is being replaced already; see `gossipmesh check`")
        if self._leaving is not None:
            left_s = _draining(self._leaving).left_s
            raise OperatorError(
                f"the engine before (process {self._leaving.process.pid}) still finishes what it has, for "
                f"{left_s} s at most; ask again when it has ended"
            )
        if self._nursery is None or self._current is None or self._current.acked is None:
            raise OperatorError(
                "no engine serves that could be replaced: the agent starts one; see `gossipmesh check`"
            )
        return self._current, self._nursery

    async def _start_successor(self, nursery: trio.Nursery) -> EngineSession:
        """Start an engine and bring it to what is wanted, beside the one that serves.

        Raises:
            OperatorError: it does not come that far. State: it is ended, the one before goes on.
        """
        process = self._successor = self._driver.start(self._free_path())
        try:
            client = await self._wait_for_start(process)
            if client is None:
                raise OperatorError(
                    f"the engine was not replaced, the one before goes on: the new one did not start; see "
                    f"{self._driver.log_path}: {self._driver.last_words()}"
                )
            session = self._coming = self._make_session(client, process, is_successor=True)
            nursery.start_soon(self._attend, session)
            problem = await session.wait_ready(_START_TIMEOUT_S)
            if problem is not None:
                raise OperatorError(
                    f"the engine was not replaced, the one before goes on: of the new one, {problem}"
                )
        except BaseException:
            process.end(signal.SIGKILL)
            raise
        return session

    def _succeed(self, before: EngineSession, successor: EngineSession, nursery: trio.Nursery) -> None:
        """Have `successor` be this node's engine, and the one before end in time."""
        successor.take_office(answering=before.answering)
        self._current, self._leaving = successor, before
        self._process = successor.process
        told = fields(pid=successor.process.pid, before=before.process.pid)
        log.info("another engine serves; the one before finishes what it has", extra=told)
        nursery.start_soon(self._drain_out, before)
        self._on_shown()

    async def _drain_out(self, session: EngineSession) -> None:
        """Have an engine that has a successor finish what it has, and end."""
        timeout_s = self._settings.drain_timeout_s
        session.leave_office(trio.current_time() + timeout_s)
        await _have_drained(session, timeout_s, succeeded=True)
        await self._end(session.process)
        await session.ended.wait()
        self._leaving, self._ended = None, _draining(session)
        told = fields(pid=session.process.pid, cut=session.cut_count)
        log.info("the engine before has ended", extra=told)

    def _signal(self, number: signal.Signals) -> None:
        for session in self._sessions():
            session.process.end(number)
        for process in (self._process, self._successor):
            if process is not None:
                process.end(number)

    async def _end(self, process: EngineProcess) -> None:
        for _ in range(int(_END_TIMEOUT_S / _POLL_S)):
            if not process.is_running():
                return
            await trio.sleep(_POLL_S)
        process.end(signal.SIGKILL)


async def _have_drained(session: EngineSession, timeout_s: float, *, succeeded: bool) -> None:
    try:
        await session.client.drain(timeout_s, succeeded=succeeded)
    except EngineRefused as error:
        log.warning("the engine did not drain: %s", error)
    except EngineGone:
        pass  # it has drained and is exiting, or is ended by whoever waits


def _draining(session: EngineSession) -> DrainingEngine:
    until = session.drains_until
    return DrainingEngine(
        pid=session.process.pid,
        name=session.client.hello.engine,
        acked_version=session.acked,
        refused_version=session.refused[0],
        left_s=0 if until is None else max(0, round(until - trio.current_time())),
        open_count=session.open_count,
        cut_count=session.cut_count,
    )


def _fitness(session: EngineSession) -> tuple[bool, bool, bool, int]:
    """Order engines that were found running: who serves this node comes first, of two the one made last."""
    hello = session.client.hello
    made_ns = session.process.socket_path.stat().st_mtime_ns
    return hello.draining, hello.snapshot_version is None, not hello.listeners, -made_ns
