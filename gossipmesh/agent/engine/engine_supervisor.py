"""Keeps one engine attached, alive and current; ends at the engine protocol's client.

Rules:
1. A running engine is attached to, by protocol and peer uid, before one is started; pid files are never used.
2. The engine survives this agent; only `drain`, `stop` and being stuck end it.
3. Listening sockets are made once: this agent keeps a duplicate of each and hands them to the next engine.
4. What an engine must have (identities, snapshot, listeners) is state here, and pushed when it differs.
5. A snapshot an engine refused is not offered to it again, but to its successor; one that has nothing to
   serve yet and refuses what is wanted gets what an engine last took.
"""

import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import trio

from gossipmesh.agent.engine.engine_process import end_engine, is_running, log_tail, spawn_engine
from gossipmesh.agent.logs import fields
from gossipmesh.dataplane.client import (
    EngineClient,
    EngineGone,
    EngineRefused,
    EngineUnavailable,
    SnapshotRefused,
)
from gossipmesh.dataplane.protocol import FEATURES, PINS_FEATURE, EngineEvent, Identity, Statistics
from gossipmesh.model import limits
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.errors import OperatorError
from gossipmesh.traffic.sections import Snapshot

log = logging.getLogger("gossipmesh.agent.engine")

_START_TIMEOUT_S: Final = 15.0
_POLL_S: Final = 0.02
_STUCK_TIMEOUT_S: Final = 10.0
_STUCK_PINGS: Final = 5  # of up to a second each, each after a probe of as much: some 10 s
_PING_TIMEOUT_S: Final = 1.0
_TAKES_MAX: Final = 10
_TAKE_AGAIN_S: Final = 0.5
_END_TIMEOUT_S: Final = 5.0
_BACKOFF_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)  # before the first, second, ... start in a row
_SETTLED_S: Final = 30.0
_PROBE_INTERVAL_S: Final = 10.0
_PROBE_INTERVAL_SILENT_S: Final = 2.0
_SPEAKS_S: Final = 2.5  # its statistics come every second, or every two when nothing moved
_PROBE_RETRY_S: Final = 0.1
_PROBE_FALL: Final = 2
_ROOMS: Final = ("local", "mesh")


class EngineSettings(msgspec.Struct, frozen=True):
    """Where an engine is reached and what it writes."""

    socket_path: Path
    log_path: Path
    access_log: AccessLogSettings
    node_id: bytes
    boot_id: str


class EngineView(msgspec.Struct, frozen=True):
    """What the rest of the agent may know of the engine; versions are None before the first."""

    pid: int | None
    attached: bool
    acked_version: str | None
    wanted_version: str | None
    refused_version: str | None
    refused_reason: str
    answering: bool
    starts_count: int
    full: tuple[str, ...] = ()
    """Which kinds of its ports have no place left, as it last said: `local`, `mesh`."""


class RunningEngine(msgspec.Struct, frozen=True):
    """An engine found running: the snapshot it serves, and duplicates of its listeners."""

    snapshot_version: str | None
    listeners: dict[str, socket.socket]


class _Identities(NamedTuple):
    """What an engine is to show, and whom it is to believe."""

    identities: tuple[Identity, ...]
    bundle_pem: bytes
    carrier_root_pem: bytes


def _certified_only(wanted: _Identities) -> _Identities:
    """Return what an engine takes that knows the authority's certificates alone."""
    certified = (one for one in wanted.identities if one.chain_pem)
    plain = tuple(Identity(one.spiffe_id, one.chain_pem, one.key_pem) for one in certified)
    return _Identities(plain, wanted.bundle_pem, b"")


class EngineSupervisor:
    """One engine, whichever process it is just now."""

    def __init__(
        self,
        settings: EngineSettings,
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
        self._on_event = on_event
        self._on_change = on_change
        self._on_shown = on_shown
        self._probe = probe
        self._client: EngineClient | None = None
        self._pid: int | None = None
        self._acked: str | None = None
        self._acked_first = trio.Event()
        self._answering = False
        self._full: tuple[str, ...] = ()
        self._heard_at = 0.0
        self._rest_until = 0.0
        self._resting = trio.CancelScope()
        self._was_serving = False
        self._refused: tuple[str | None, str] = (None, "")
        self._starts_count = 0
        self._failures_count = 0
        self._stopping = False
        self._changed = trio.Event()
        self._given = trio.Event()
        self._snapshot: Snapshot | None = None
        self._unknown: list[str] = []
        self._taken_last: Snapshot | None = None
        self._identities: _Identities | None = None
        self._shown: tuple[Identity, ...] = ()
        self._listeners: dict[str, socket.socket] = {}
        self._taken: dict[str, socket.socket] = {}
        self._looked = trio.Event()
        self._found: RunningEngine | None = None

    @property
    def serving(self) -> bool:
        """Tell whether the engine has acked a snapshot and its mesh port answers."""
        return self._client is not None and self._acked is not None and self._answering

    @property
    def shown(self) -> tuple[Identity, ...]:
        """Return the identities that the engine attached now has confirmed; none while there is none."""
        return self._shown

    @property
    def takes_pins(self) -> bool:
        """Tell whether the engine, or the one that will be started, judges by key sets."""
        return PINS_FEATURE in (FEATURES if self._client is None else self._client.hello.features)

    def view(self) -> EngineView:
        """Return what is known of the engine now."""
        return EngineView(
            pid=self._pid,
            attached=self._client is not None,
            acked_version=self._acked,
            wanted_version=None if self._snapshot is None else self._snapshot.version,
            refused_version=self._refused[0],
            refused_reason=self._refused[1],
            answering=self._answering,
            starts_count=self._starts_count,
            full=self._full,
        )

    def want_snapshot(self, snapshot: Snapshot) -> None:
        """Have the engine serve `snapshot`."""
        self._snapshot = snapshot
        self._changed.set()

    def tell_unknown(self, service: str) -> None:
        """Have the engine answer at once what asks for a service nobody vouches for."""
        if len(self._unknown) < limits.DEMANDS_WAITING_MAX:
            self._unknown.append(service)
            self._changed.set()

    def want_identities(
        self, identities: Sequence[Identity], bundle_pem: bytes, carrier_root_pem: bytes
    ) -> None:
        """Have the engine use exactly these identities and roots, as far as it can."""
        self._identities = _Identities(tuple(identities), bundle_pem, carrier_root_pem)
        self._changed.set()

    def want_listeners(self, listeners: Mapping[str, socket.socket]) -> None:
        """Have the engine hold these, owned from now on by this; those no longer wanted are closed.

        The first call is what an engine's start waits for. An engine that drains is given none.
        """
        if self._stopping:
            return
        for name, sock in self._listeners.items():
            if listeners.get(name) is not sock:
                sock.close()
        self._listeners = dict(listeners)
        self._changed.set()
        self._given.set()

    async def wait_found(self) -> RunningEngine | None:
        """Return the engine that ran before us, None when none did; `run` finds out."""
        await self._looked.wait()
        return self._found

    async def run(self) -> None:
        """Supervise until drained.

        Raises:
            OperatorError: an engine cannot even be started.
        """
        client = await self._attach()
        if client is not None:
            await self._run_session(client, self._take_over)
        self._looked.set()
        while not self._stopping:
            await self._given.wait()
            client = await self._find_or_start()
            if client is not None:
                await self._run_session(client)

    async def drain(self, timeout_s: float) -> None:
        """Have the engine refuse other nodes, finish what is in flight and end; it is not started again.

        This node's applications are served meanwhile, by an engine that can, on descriptors of its own. Our
        duplicates are all closed first: once the engine closes one of its own, the kernel refuses at once,
        instead of going on to take connections that nobody serves.
        """
        self._stopping = True
        client, pid = self._client, self._pid
        if client is not None:
            for name in list(self._listeners):
                self._listeners.pop(name).close()
            try:
                await client.drain(timeout_s)
            except EngineRefused as error:
                log.warning("the engine did not drain: %s", error)
            except EngineGone:
                pass  # it has drained and is exiting, or is ended below
        if pid is not None:
            await self._end(pid)

    def stop(self) -> None:
        """End the engine at once; it is not started again."""
        self._stopping = True
        if self._pid is not None:
            end_engine(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the engine this instant, with all that is in flight: it may speak for this node no more."""
        self._stopping = True
        if self._pid is not None:
            end_engine(self._pid, signal.SIGKILL)

    def reopen_log(self) -> None:
        """Have the engine that is attached open its access log anew; one that starts does so anyway."""
        if self._client is not None and self._pid is not None:
            end_engine(self._pid, signal.SIGHUP)

    def close(self) -> None:
        """Close this agent's duplicates of the listeners."""
        for sock in self._listeners.values():
            sock.close()
        self._listeners = {}

    async def hand_over(self, sockets: Mapping[str, socket.socket]) -> None:
        """Give a running engine listeners at once; those it holds by these names are closed.

        Raises:
            OperatorError: it did not take them.
        """
        if self._client is None:
            return
        try:
            await self._client.give_listeners(sockets)
        except (EngineRefused, EngineGone) as error:
            raise OperatorError(
                f"the engine (process {self._pid}) does not let go of its ports: {error}; "
                f"end it with `kill {self._pid}` and start again"
            ) from None

    async def _take_over(self, client: EngineClient) -> None:
        """Take duplicates of a running engine's listeners, and wait until it is said what is wanted."""
        for _ in range(_TAKES_MAX):
            try:
                self._taken = await client.take_listeners()
                break
            except EngineRefused as error:  # it is short of descriptors, and ends what it can
                log.warning("the engine: %s", error)
                await trio.sleep(_TAKE_AGAIN_S)
        self._found = RunningEngine(client.hello.snapshot_version, dict(self._taken))
        self._looked.set()
        await self._given.wait()

    async def _attach(self) -> EngineClient | None:
        settings = self._settings
        try:
            return await EngineClient.attach(
                settings.socket_path, node_id=settings.node_id, boot_id=settings.boot_id
            )
        except EngineUnavailable:
            return None

    async def _find_or_start(self) -> EngineClient | None:
        """Attach to the engine again, or start its successor."""
        deadline = trio.current_time() + _STUCK_TIMEOUT_S
        while self._pid is not None and is_running(self._pid):
            client = await self._attach()
            if client is not None or self._stopping:
                return client
            if trio.current_time() > deadline:
                deadline += _STUCK_TIMEOUT_S  # who waits for a disk dies when the disk answers
                log.error("the engine does not answer and is ended", extra=fields(pid=self._pid))
                end_engine(self._pid, signal.SIGKILL)
            await trio.sleep(_POLL_S)
        # One crash is no loop, however young the engine was: its successor is started at once.
        await trio.sleep(_BACKOFF_S[min(max(0, self._failures_count - 1), len(_BACKOFF_S) - 1)])
        if self._stopping:
            return None
        return await self._start()

    async def _start(self) -> EngineClient | None:
        settings = self._settings
        self._pid = spawn_engine(settings.socket_path, settings.access_log, settings.log_path)
        self._starts_count += 1
        deadline = trio.current_time() + _START_TIMEOUT_S
        while is_running(self._pid) and trio.current_time() < deadline:
            client = await self._attach()
            if client is not None:
                log.info("engine started", extra=fields(pid=self._pid, engine=client.hello.engine))
                return client
            await trio.sleep(_POLL_S)
        self._failures_count += 1
        end_engine(self._pid, signal.SIGKILL)
        log.error(
            "the engine did not start; see %s",
            settings.log_path,
            extra=fields(last=log_tail(settings.log_path)),
        )
        return None

    async def _run_session(
        self, client: EngineClient, first: Callable[[EngineClient], Awaitable[None]] | None = None
    ) -> None:
        """Keep one attachment until it ends."""
        started = self._heard_at = trio.current_time()
        self._client, self._pid, self._acked = client, client.hello.pid, client.hello.snapshot_version
        self._refused = (None, "")
        self._acked_first = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.run, self._heard)
                if first is not None:
                    await first(client)
                nursery.start_soon(self._watch_health)
                await self._push(client)
        except* EngineGone as gone:
            reason = str(gone.exceptions[0])
            if not self._stopping:
                log.warning("the engine is gone: %s", reason, extra=fields(pid=client.hello.pid))
        finally:
            self._client, self._acked, self._answering, self._full = None, None, False, ()
            self._shown = ()
        # Not when this agent ends: the engine serves on, and nobody must be told otherwise.
        self._tell()
        settled = trio.current_time() - started > _SETTLED_S
        self._failures_count = 0 if settled else self._failures_count + 1

    async def _push(self, client: EngineClient) -> None:
        """Bring the engine to what is wanted, again and again: identities, snapshot, listeners."""
        identities: object = None
        given = self._taken
        self._taken = {}
        while True:
            self._changed = trio.Event()
            if self._identities is not None and identities is not self._identities:
                identities = self._identities
                await self._push_identities(client, self._identities)
            if self._snapshot is not None and self._snapshot.version != self._acked:
                await self._push_snapshot(client, self._snapshot)
            new = {
                name: sock
                for name, sock in self._listeners.items()
                if given.get(name, sock) is not sock or name not in given
            }
            if new:
                try:
                    await client.give_listeners(new)
                except EngineRefused as error:
                    log.error("the engine refused listeners: %s", error)
                given |= new
            unknown, self._unknown = self._unknown, []
            for service in unknown:
                await client.unknown_service(service)
            if not self._changed.is_set():
                await self._changed.wait()

    async def _push_identities(self, client: EngineClient, wanted: _Identities) -> None:
        given = wanted if self.takes_pins else _certified_only(wanted)
        if not given.identities:
            return  # nobody to be yet
        try:
            await client.apply_identities(*given)
        except EngineRefused as error:
            log.error("the engine refused the node's identities: %s", error)
        else:
            self._shown = given.identities
            self._on_shown()

    async def _push_snapshot(self, client: EngineClient, snapshot: Snapshot) -> None:
        if snapshot.version == self._refused[0]:
            return
        if await self._offer(client, snapshot):
            self._refused = (None, "")
        elif self._acked is None and self._taken_last is not None:
            await self._offer(client, self._taken_last)

    async def _offer(self, client: EngineClient, snapshot: Snapshot) -> bool:
        """Offer a snapshot; tell whether the engine took it, and remember which."""
        try:
            await client.apply_snapshot(snapshot)
        except SnapshotRefused as error:
            if snapshot is self._snapshot:
                self._refused = (snapshot.version, str(error))
            log.error("the engine refused a snapshot: %s", error, extra=fields(version=snapshot.version))
            return False
        self._acked, self._taken_last = snapshot.version, snapshot
        self._acked_first.set()
        return True

    async def _watch_health(self) -> None:
        """Probe the mesh port as a peer would; one failure may be a stall of ours.

        Only an engine that does not answer on its own socket, `_STUCK_PINGS` times in a row, is ended: its
        connection closes with it and a successor is started. One that is full, or whose certificates ran
        out, answers there. Pings are counted, not seconds, so that a pause of this agent does not count
        against the engine.
        """
        if self._acked is None:
            await self._acked_first.wait()
        failed_count = stuck_count = 0
        while True:
            answered = await self._probe()
            if self._stopping:
                return  # it refuses other nodes by now, as it should
            failed_count = 0 if answered else failed_count + 1
            if answered or failed_count >= _PROBE_FALL:
                self._answering = answered
                self._tell()
            stuck_count = 0 if answered or await self._responds() else stuck_count + 1
            if stuck_count >= _STUCK_PINGS and self._pid is not None:
                log.error("the engine does not answer and is ended", extra=fields(pid=self._pid))
                end_engine(self._pid, signal.SIGKILL)
            if answered:
                await self._rest()
            else:
                await trio.sleep(_PROBE_RETRY_S)

    async def _responds(self) -> bool:
        """Tell whether the engine answers on its own socket."""
        return self._client is None or await self._client.ping(_PING_TIMEOUT_S)

    async def _rest(self) -> None:
        """Wait until the next probe: a while, for a handshake costs both ends; less when it falls silent."""
        now = trio.current_time()
        self._rest_until = now + _PROBE_INTERVAL_S
        silent_at = max(self._heard_at + _SPEAKS_S, now + _PROBE_INTERVAL_SILENT_S)
        with trio.CancelScope(deadline=min(self._rest_until, silent_at)) as self._resting:
            await trio.sleep_forever()

    def _heard(self, event: EngineEvent) -> None:
        self._heard_at = trio.current_time()
        self._resting.deadline = min(self._rest_until, self._heard_at + _SPEAKS_S)
        if isinstance(event, Statistics):
            self._note_full(event.gauges)
        self._on_event(event)

    def _note_full(self, gauges: Mapping[str, int]) -> None:
        full = tuple(room for room in _ROOMS if gauges.get(f"{room}_full"))
        if full != self._full:
            self._full = full
            if full:
                log.warning("the engine has no place left for more connections", extra=fields(full=full))
            else:
                log.info("the engine has places for connections again")

    def _tell(self) -> None:
        if self.serving != self._was_serving:
            self._was_serving = self.serving
            self._on_change()

    async def _end(self, pid: int) -> None:
        for _ in range(int(_END_TIMEOUT_S / _POLL_S)):
            if not is_running(pid):
                return
            await trio.sleep(_POLL_S)
        end_engine(pid, signal.SIGKILL)
