"""The engine's end of the engine protocol: one agent at a time, over a Unix socket.

Ends at effects: a snapshot, identities and listeners are handed to the engine, which keeps serving
whatever happens here. Spec: docs/ENGINE.md.
"""

import os
import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import trio

from gossipmesh.dataplane.frame_socket import FrameSocket, peer_may_hold_keys
from gossipmesh.dataplane.protocol import (
    FEATURES,
    Ack,
    AgentFrame,
    AgentHello,
    Drain,
    EngineFrame,
    EngineHello,
    IdentitiesSupply,
    Listeners,
    Nack,
    Need,
    SectionsSupply,
    SnapshotOffer,
    TakeListeners,
    UnknownService,
    decode_agent_frame_untrusted,
    encode_frame,
)
from gossipmesh.dataplane.reference.identities import Identities, IdentitiesRefused
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.net.descriptors import DescriptorReserve
from gossipmesh.net.places import Place, Room
from gossipmesh.traffic.sections import Snapshot, assemble, missing_sections, section_hash
from gossipmesh.wire import versions

HELLO_TIMEOUT_S: Final = 2.0
OUTGOING_FRAMES_MAX: Final = 1_024
ANSWERS_MAX: Final = 2 * OUTGOING_FRAMES_MAX
ENGINE_NAME: Final = "reference/1"


class Engine(Protocol):
    """What the control socket asks of the engine."""

    @property
    def snapshot(self) -> Snapshot | None:
        """Return the snapshot in force."""
        ...

    @property
    def listener_sockets(self) -> dict[str, socket.socket]:
        """Return the listening sockets held, by name."""
        ...

    def attend(self, *, attached: bool) -> None:
        """Take note of whether an agent is attached."""
        ...

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Serve it, or raise MalformedInput and change nothing."""
        ...

    def apply_identities(self, identities: Identities) -> None:
        """Use them from now on."""
        ...

    def give_listeners(self, sockets: dict[str, socket.socket]) -> None:
        """Take sockets over."""
        ...

    def service_unknown(self, service: str) -> None:
        """Answer at once what asks for this service: the agent knows nothing of it."""
        ...

    def start_drain(self, timeout_s: float, drained: trio.Event, *, succeeded: bool = False) -> None:
        """Begin to drain; set `drained` when done, then exit. `succeeded`: the sockets have another owner."""
        ...

    @property
    def draining(self) -> bool:
        """Tell whether that has begun."""
        ...


class Attachment:
    """One agent's connection: a queue out, frames in."""

    def __init__(self, frames: FrameSocket, counters: Counters) -> None:
        self.frames = frames
        self.scope = trio.CancelScope()
        self._counters = counters
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._wake = trio.Event()
        self.flushed = trio.Event()
        self.features: tuple[str, ...] = ()

    @property
    def backlog(self) -> int:
        """Return how many frames wait to be sent."""
        return len(self._outgoing)

    def end(self) -> bool:
        """End the attachment, for another one's sake; it always can be."""
        self.scope.cancel()
        return True

    def send(self, frame: EngineFrame, descriptors: Sequence[int] = ()) -> None:
        """Queue an answer; the descriptors are closed once sent. Who asks and never reads is let go."""
        if len(self._outgoing) >= ANSWERS_MAX:
            self._counters.add("control_overflows")
            self.scope.cancel()
        self._outgoing.append((encode_frame(frame), list(descriptors)))
        if self.flushed.is_set():
            self.flushed = trio.Event()
        self._wake.set()

    def emit(self, frame: EngineFrame) -> None:
        """Queue an event, or count it as dropped when the agent does not keep up."""
        if len(self._outgoing) >= OUTGOING_FRAMES_MAX:
            self._counters.add("events_dropped")
            return
        self.send(frame)

    async def write(self) -> None:
        """Send what is queued until cancelled or the agent is gone."""
        try:
            while True:
                while self._outgoing:
                    data, descriptors = self._outgoing.popleft()
                    try:
                        await self.frames.send(data, descriptors)
                    finally:
                        for descriptor in descriptors:
                            os.close(descriptor)
                self.flushed.set()
                await self._wake.wait()
                self._wake = trio.Event()
        except OSError:
            self.scope.cancel()
        finally:
            while self._outgoing:
                for descriptor in self._outgoing.popleft()[1]:
                    os.close(descriptor)


class ControlServer:
    """Listens for agents; a new one replaces the one before."""

    def __init__(self, path: Path, engine: Engine, counters: Counters, reserve: DescriptorReserve) -> None:
        self._path = path
        self._engine = engine
        self._counters = counters
        self._reserve = reserve
        self._room = Room("control", counters.add, places_max=limits.CONTROL_PLACES_MAX)
        self._attached: Attachment | None = None
        self._socket = bind_control_socket(path)
        self._inode = os.stat(path).st_ino

    @property
    def attached(self) -> Attachment | None:
        """Return the agent attached now, None when there is none."""
        return self._attached

    async def run(self) -> None:
        """Serve agents until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    await trio.lowlevel.wait_readable(self._socket.fileno())
                    try:
                        client, _ = self._socket.accept()
                    except BlockingIOError:
                        continue
                    except OSError:
                        self._counters.add("accept_errors")
                        # An agent comes before any connection: it gets a descriptor kept for it.
                        if not self._reserve.give_up():
                            await trio.sleep(HELLO_TIMEOUT_S / 10)
                        continue
                    nursery.start_soon(self._serve, client)
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening and remove the socket's file, if it is still ours."""
        self._socket.close()
        try:
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        except OSError:
            pass  # gone already, or another engine's

    async def _serve(self, client: socket.socket) -> None:
        frames = FrameSocket(client)
        attachment = Attachment(frames, self._counters)
        place: Place | None = None
        try:
            if not peer_may_hold_keys(client):
                self._counters.add("control_refusals")
                return
            place = self._room.admit((), attachment.end)
            if place is None:
                return
            with attachment.scope:
                if await self._hello(attachment):
                    place.begin()
                    await self._attend(attachment)
        except (OSError, MalformedInput):
            self._counters.add("control_broken")
        finally:
            frames.close()
            if place is not None:
                place.leave()

    async def _hello(self, attachment: Attachment) -> bool:
        """Exchange hellos; False when this is no agent we can talk to."""
        try:
            with trio.fail_after(HELLO_TIMEOUT_S):
                body = await attachment.frames.receive_untrusted()
                hello = None if body is None else decode_agent_frame_untrusted(body)
                if not isinstance(hello, AgentHello):
                    return False
                attachment.features = hello.features
                version = versions.ENGINE_PROTOCOL
                if not hello.protocol_min <= version <= hello.protocol_max:
                    refusal = Nack(0, None, f"protocol {version} is spoken here")
                    await attachment.frames.send(encode_frame(refusal))
                    return False
                await attachment.frames.send(encode_frame(self._own_hello(version)))
        except trio.TooSlowError:
            return False
        return True

    def _own_hello(self, version: int) -> EngineHello:
        return EngineHello(
            engine=ENGINE_NAME,
            protocol=version,
            features=FEATURES,
            snapshot_version=self._version,
            listeners=tuple(sorted(self._engine.listener_sockets)),
            pid=os.getpid(),
            draining=self._engine.draining,
        )

    async def _attend(self, attachment: Attachment) -> None:
        if self._attached is not None:
            self._attached.scope.cancel()
        self._attached = attachment
        self._engine.attend(attached=True)
        self._counters.add("attachments")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attachment.write)
                await self._read(attachment, nursery)
                nursery.cancel_scope.cancel()
        except* (OSError, MalformedInput):
            self._counters.add("control_broken")
        finally:
            if self._attached is attachment:
                self._attached = None
                self._engine.attend(attached=False)

    async def _read(self, attachment: Attachment, nursery: trio.Nursery) -> None:
        while True:
            frame = await self._next_untrusted(attachment)
            if frame is None:
                return
            if isinstance(frame, SnapshotOffer):
                await self._snapshot_untrusted(attachment, frame)
            elif isinstance(frame, IdentitiesSupply):
                self._identities(attachment, frame)
            elif isinstance(frame, Listeners):
                self._take_untrusted(attachment, frame)
            elif isinstance(frame, TakeListeners):
                self._give(attachment, frame)
            elif isinstance(frame, UnknownService):
                self._engine.service_unknown(frame.service)
            elif isinstance(frame, Drain):
                nursery.start_soon(self._drain, attachment, frame)

    async def _next_untrusted(self, attachment: Attachment) -> AgentFrame | None:
        """Return the next frame of a known type, None at the end.

        Raises:
            MalformedInput: unreadable. Remote's fault. State: close the attachment, keep serving.
        """
        while True:
            body = await attachment.frames.receive_untrusted()
            if body is None:
                return None
            frame = decode_agent_frame_untrusted(body)
            if frame is not None:
                return frame

    @property
    def _version(self) -> str | None:
        snapshot = self._engine.snapshot
        return None if snapshot is None else snapshot.version

    async def _snapshot_untrusted(self, attachment: Attachment, offer: SnapshotOffer) -> None:
        """Take a snapshot, asking for what is lacking; any fault is answered with `nack`.

        Raises:
            MalformedInput: the conversation itself broke. Remote's fault. State unchanged.
        """
        known = {} if self._engine.snapshot is None else self._engine.snapshot.sections
        new = {section_hash(section): section for section in offer.sections}
        try:
            if len(offer.root) > limits.SNAPSHOT_SECTIONS_MAX:
                raise MalformedInput(f"{len(offer.root)} sections")
            missing = missing_sections(offer.root, {**known, **new})
            if missing:
                attachment.send(Need(offer.request, tuple(missing)))
                new.update(await self._supplied_untrusted(attachment, offer.request))
            snapshot = assemble(offer.root, known, new)
            if snapshot.version != offer.version:
                raise MalformedInput(
                    f"the root's version is {snapshot.version[:12]}, not {offer.version[:64]}"
                )
            self._engine.apply_snapshot(snapshot)
        except MalformedInput as error:
            self._counters.add("snapshots_refused")
            attachment.send(Nack(offer.request, self._version, str(error)[:1000]))
            return
        self._counters.add("snapshots_applied")
        attachment.send(Ack(offer.request, self._version))

    async def _supplied_untrusted(self, attachment: Attachment, request: int) -> dict[bytes, bytes]:
        sections: dict[bytes, bytes] = {}
        size = 0
        while True:
            frame = await self._next_untrusted(attachment)
            if not isinstance(frame, SectionsSupply) or frame.request != request:
                raise MalformedInput("sections were asked for and something else came")
            for section in frame.sections:
                size += len(section)
                sections[section_hash(section)] = section
            if size > limits.SNAPSHOT_BYTES_MAX:
                raise MalformedInput("a snapshot too large")
            if frame.last:
                return sections

    def _identities(self, attachment: Attachment, supply: IdentitiesSupply) -> None:
        try:
            identities = Identities(supply.identities, supply.bundle_pem, supply.carrier_root_pem)
            self._engine.apply_identities(identities)
        except IdentitiesRefused as error:
            attachment.send(Nack(supply.request, self._version, str(error)[:1000]))
            return
        attachment.send(Ack(supply.request, self._version))

    def _take_untrusted(self, attachment: Attachment, frame: Listeners) -> None:
        try:
            if len(set(frame.names)) != len(frame.names):
                raise MalformedInput("a listener named twice")
            sockets = attachment.frames.claim_sockets_untrusted(len(frame.names))
        except MalformedInput as error:
            attachment.send(Nack(frame.request, self._version, str(error)))
            return
        self._engine.give_listeners(dict(zip(frame.names, sockets, strict=True)))
        attachment.send(Ack(frame.request, self._version))

    def _give(self, attachment: Attachment, frame: TakeListeners) -> None:
        held = sorted(self._engine.listener_sockets.items())
        step = limits.ENGINE_DESCRIPTORS_PER_FRAME_MAX
        parts = [held[start : start + step] for start in range(0, len(held), step)] or [[]]
        try:
            descriptors = _duplicates([sock for _, sock in held])
        except OSError as error:
            self._counters.add("descriptors_short")
            attachment.send(Nack(frame.request, self._version, f"no duplicates of listeners: {error}"))
            return
        for index, part in enumerate(parts):
            names = tuple(name for name, _ in part)
            own, descriptors = descriptors[: len(part)], descriptors[len(part) :]
            attachment.send(Listeners(frame.request, names, index == len(parts) - 1), own)

    async def _drain(self, attachment: Attachment, frame: Drain) -> None:
        drained = trio.Event()
        self._engine.start_drain(frame.timeout_ms / 1000, drained, succeeded=frame.succeeded)
        await drained.wait()
        attachment.send(Ack(frame.request, self._version))


def _duplicates(sockets: Sequence[socket.socket]) -> list[int]:
    """Return a descriptor more for each socket.

    Raises:
        OSError: there are not enough. State: none is made.
    """
    made: list[int] = []
    try:
        for sock in sockets:
            made.append(os.dup(sock.fileno()))
    except OSError:
        for descriptor in made:
            os.close(descriptor)
        raise
    return made


def bind_control_socket(path: Path) -> socket.socket:
    """Listen at `path`, mode 0600; a socket nobody answers at is replaced.

    Raises:
        OperatorError: another engine answers there, or the path cannot be used. State unchanged.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        _remove_stale(path)
        sock.bind(os.fspath(path))
        sock.listen(8)
    except OSError as error:
        sock.close()
        raise OperatorError(f"The engine cannot listen at {path}: {error.strerror or error}.") from None
    except OperatorError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as trial:
        try:
            trial.connect(os.fspath(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            raise OperatorError(f"The engine cannot use {path}: {error.strerror or error}.") from None
    raise OperatorError(f"Another engine answers at {path}. Stop it, or choose another --socket.")
