"""The agent's end of the engine protocol.

Responsible for one attachment: requests and their answers, events, descriptors. Ends at meaning: what
to send and when is the agent's. `run` reads; every other method waits for what `run` delivers.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import trio

from gossipmesh.dataplane.frame_socket import FrameSocket, peer_may_hold_keys, peer_pid
from gossipmesh.dataplane.protocol import (
    REQUESTS_FEATURE,
    Ack,
    AgentFrame,
    AgentHello,
    Demand,
    Denial,
    Drain,
    Ejection,
    EngineEvent,
    EngineFrame,
    EngineHello,
    IdentitiesSupply,
    Identity,
    Listeners,
    Nack,
    Need,
    SectionsSupply,
    SnapshotOffer,
    Statistics,
    TakeListeners,
    UnknownService,
    decode_engine_frame_untrusted,
    encode_frame,
)
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.traffic.sections import Snapshot

HELLO_TIMEOUT_S: Final = 2.0
REQUEST_TIMEOUT_S: Final = 10.0
_FEATURES: Final = (REQUESTS_FEATURE,)
_SECTIONS_PER_FRAME_BYTES: Final = limits.ENGINE_FRAME_BYTES_MAX // 2


class EngineUnavailable(Exception):
    """No engine answers at the socket, or not one that may be given keys. State unchanged."""


class EngineGone(Exception):
    """The attachment ended: the engine went, or another agent attached. State: closed."""


class EngineRefused(Exception):
    """The engine refused a request and goes on as before. State unchanged."""


class SnapshotRefused(EngineRefused):
    """The engine refused a snapshot; the one before keeps serving. State unchanged."""


class _Waiter:
    """One request's answers; the engine sends at most a few frames per request."""

    def __init__(self) -> None:
        self._frames: list[EngineFrame] = []
        self._arrived = trio.Event()

    def deliver(self, frame: EngineFrame) -> None:
        self._frames.append(frame)
        self._arrived.set()

    async def next(self) -> EngineFrame:
        while not self._frames:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self._frames.pop(0)


class EngineClient:
    """One attachment to one engine. Made by `attach`; ends with `aclose` or when `run` raises."""

    def __init__(self, frames: FrameSocket, hello: EngineHello) -> None:
        self.hello = hello
        self.pid = peer_pid(frames.socket)
        """Who listens there, as the kernel says: what an engine says of itself may be another namespace's."""
        self._frames = frames
        self._waiters: dict[int, _Waiter] = {}
        self._received: dict[str, socket.socket] = {}
        self._request = 0
        self._held: frozenset[bytes] = frozenset()
        self._snapshot_lock = trio.Lock()
        self._gone = trio.Event()

    @classmethod
    async def attach(cls, path: str | Path, *, node_id: bytes, boot_id: str) -> Self:
        """Connect to the engine listening at `path` and exchange hellos.

        Raises:
            EngineUnavailable: nobody answers within HELLO_TIMEOUT_S, the other end runs as another
                user, or the two share no protocol version. State unchanged.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        frames = FrameSocket(sock)
        try:
            with trio.fail_after(HELLO_TIMEOUT_S):
                sock.connect(os.fspath(path))
                if not peer_may_hold_keys(sock):
                    raise EngineUnavailable(f"the process at {path} runs as another user; no keys for it")
                await frames.send(encode_frame(AgentHello(node_id, boot_id, features=_FEATURES)))
                body = await frames.receive_untrusted()
                hello = None if body is None else decode_engine_frame_untrusted(body)
        except BaseException as error:
            frames.close()
            if isinstance(error, OSError | MalformedInput | trio.TooSlowError):
                raise EngineUnavailable(f"no engine answers at {path}: {error or 'timed out'}") from error
            raise
        if not isinstance(hello, EngineHello):
            frames.close()
            detail = hello.error if isinstance(hello, Nack) else "no hello"
            raise EngineUnavailable(f"the engine at {path} refused: {detail}")
        return cls(frames, hello)

    async def run(self, on_event: Callable[[EngineEvent], None]) -> None:
        """Read until the attachment ends; events go to `on_event` in order, answers to who asked.

        Raises:
            EngineGone: the stream ended or is unreadable. State: closed.
        """
        try:
            while True:
                body = await self._frames.receive_untrusted()
                if body is None:
                    raise EngineGone("the engine closed the connection")
                self._dispatch_untrusted(body, on_event)
        except MalformedInput as error:
            raise EngineGone(f"unreadable frame from the engine: {error}") from error
        except trio.ClosedResourceError:
            raise EngineGone("closed") from None
        finally:
            self._close()

    def _dispatch_untrusted(self, body: bytes, on_event: Callable[[EngineEvent], None]) -> None:
        frame = decode_engine_frame_untrusted(body)
        if frame is None:
            return
        if isinstance(frame, Statistics | Demand | Ejection | Denial):
            on_event(frame)
            return
        if isinstance(frame, Listeners):
            sockets = self._frames.claim_sockets_untrusted(len(frame.names))
            for name, sock in zip(frame.names, sockets, strict=True):
                self._forget(name)
                self._received[name] = sock
        if isinstance(frame, Ack | Nack | Need | Listeners):
            waiter = self._waiters.get(frame.request)
            if waiter is not None:
                waiter.deliver(frame)

    def _forget(self, name: str) -> None:
        old = self._received.pop(name, None)
        if old is not None:
            old.close()

    async def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Have the engine serve `snapshot`; only sections it lacks are sent.

        Raises:
            SnapshotRefused: the engine nacked; the old snapshot keeps serving. State unchanged.
            EngineGone: the attachment ended first. State unknown; attach and look at `hello`.
        """
        async with self._snapshot_lock:
            wanted = [digest for digest in dict.fromkeys(snapshot.root.values()) if digest not in self._held]
            batches = _batches([snapshot.sections[digest] for digest in wanted])
            # The first offer to an engine of unknown content carries nothing: it answers what it lacks.
            ride_along = tuple(batches[0]) if self._held and len(batches) == 1 else ()
            with self._requesting() as (request, waiter):
                await self._send(SnapshotOffer(request, snapshot.version, dict(snapshot.root), ride_along))
                answer = await self._next(waiter)
                if isinstance(answer, Need):
                    missing = [snapshot.sections[h] for h in answer.hashes if h in snapshot.sections]
                    parts = _batches(missing)
                    for index, part in enumerate(parts):
                        await self._send(SectionsSupply(request, tuple(part), index == len(parts) - 1))
                    answer = await self._next(waiter)
            if isinstance(answer, Nack):
                raise SnapshotRefused(answer.error)
            self._held = frozenset(snapshot.root.values())

    async def apply_identities(
        self, identities: Sequence[Identity], bundle_pem: bytes, carrier_root_pem: bytes = b""
    ) -> None:
        """Replace the engine's identities and roots; connections that are open go on.

        Carrier leaves and their CA are for an engine that says PINS_FEATURE only.

        Raises:
            EngineRefused: a chain, key or bundle does not load; the old ones stay. State unchanged.
            EngineGone: the attachment ended first. State unknown.
        """
        with self._requesting() as (request, waiter):
            await self._send(IdentitiesSupply(request, tuple(identities), bundle_pem, carrier_root_pem))
            self._expect_ack(await self._next(waiter))

    async def give_listeners(self, sockets: Mapping[str, socket.socket]) -> None:
        """Hand over duplicates of listening sockets, by name; the caller keeps its own.

        Raises:
            EngineRefused: a descriptor is no listening TCP socket. State: none of that frame is taken.
            EngineGone: the attachment ended first. State unknown.
        """
        names = sorted(sockets)
        step = limits.ENGINE_DESCRIPTORS_PER_FRAME_MAX
        for start in range(0, len(names), step):
            part = names[start : start + step]
            descriptors = [sockets[name].fileno() for name in part]
            with self._requesting() as (request, waiter):
                await self._send(Listeners(request, tuple(part)), descriptors)
                self._expect_ack(await self._next(waiter))

    async def ping(self, timeout_s: float) -> bool:
        """Tell whether the engine answers within `timeout_s`, whatever its ports do; the attachment goes on.

        Asked by handing over no listeners: every engine acks that and changes nothing.

        Raises:
            EngineGone: the attachment ended first. State: closed.
        """
        with self._requesting() as (request, waiter), trio.move_on_after(timeout_s):
            await self._send(Listeners(request, ()))
            await self._next(waiter)
            return True
        return False

    async def take_listeners(self) -> dict[str, socket.socket]:
        """Return duplicates of every listening socket the engine holds, by name; the caller owns them.

        Raises:
            EngineRefused: it has no descriptors for duplicates just now. State unchanged.
            EngineGone: the attachment ended first. State unknown.
        """
        taken: dict[str, socket.socket] = {}
        with self._requesting() as (request, waiter):
            await self._send(TakeListeners(request))
            while True:
                answer = await self._next(waiter)
                if not isinstance(answer, Listeners):
                    self._expect_ack(answer)
                    return taken
                for name in answer.names:
                    sock = self._received.pop(name, None)
                    if sock is not None:
                        taken[name] = sock
                if answer.last:
                    return taken

    async def unknown_service(self, service: str) -> None:
        """Say that nobody knows a service the engine asked for; an engine of 0.1 skips it.

        Raises:
            EngineGone: the attachment ended first. State unchanged.
        """
        await self._send(UnknownService(service))

    async def drain(self, timeout_s: float, *, succeeded: bool = False) -> None:
        """Have the engine stop accepting, finish what is in flight and exit; return when it has finished.

        `succeeded`: another engine accepts on the same sockets. An older engine goes on accepting on some of
        them for a while, and serves what it takes.

        Raises:
            EngineGone: the attachment ended first. State unknown.
        """
        with self._requesting() as (request, waiter):
            await self._send(Drain(request, int(timeout_s * 1000), succeeded))
            self._expect_ack(await self._next(waiter, timeout_s + REQUEST_TIMEOUT_S))

    async def aclose(self) -> None:
        """Detach. The engine keeps serving."""
        self._close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._gone.set()
        self._frames.close()
        for name in list(self._received):
            self._forget(name)
        for waiter in self._waiters.values():
            waiter.deliver(Nack(0, None, "gone"))

    def _requesting(self) -> "_Request":
        self._request += 1
        return _Request(self._waiters, self._request)

    async def _send(self, frame: AgentFrame, descriptors: Sequence[int] = ()) -> None:
        try:
            await self._frames.send(encode_frame(frame), descriptors)
        except (OSError, trio.ClosedResourceError) as error:
            raise EngineGone(f"the engine is gone: {error}") from error
        except ValueError as error:
            raise SnapshotRefused(str(error)) from error

    async def _next(self, waiter: _Waiter, timeout_s: float = REQUEST_TIMEOUT_S) -> EngineFrame:
        if self._gone.is_set():
            raise EngineGone("the attachment has ended")
        with trio.move_on_after(timeout_s) as scope:
            frame = await waiter.next()
        if scope.cancelled_caught:
            self._close()
            raise EngineGone(f"the engine did not answer within {timeout_s:g} s")
        if self._gone.is_set():
            raise EngineGone("the attachment has ended")
        return frame

    def _expect_ack(self, frame: EngineFrame) -> None:
        if not isinstance(frame, Ack):
            raise EngineRefused(frame.error if isinstance(frame, Nack) else f"answered {frame}")


class _Request:
    """Keeps a waiter registered while its request runs."""

    def __init__(self, waiters: dict[int, _Waiter], request: int) -> None:
        self._waiters = waiters
        self._request = request

    def __enter__(self) -> tuple[int, _Waiter]:
        waiter = self._waiters[self._request] = _Waiter()
        return self._request, waiter

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._waiters[self._request]


def _batches(sections: Sequence[bytes]) -> list[list[bytes]]:
    """Split sections into frames' worth; always at least one, maybe empty, batch."""
    batches: list[list[bytes]] = [[]]
    size = 0
    for section in sections:
        if batches[-1] and size + len(section) > _SECTIONS_PER_FRAME_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(section)
        size += len(section) + 16
    return batches
