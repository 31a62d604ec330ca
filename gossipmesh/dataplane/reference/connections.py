"""Accepting: listening sockets, the connections they bring, and letting go of both.

Rules: a connection has a place of its listener's room or is closed; one connection's error ends that
connection and is counted; who has said nothing has no task yet (`silence.py`); a drained engine closes what
is idle, waits for the rest, and cuts what is left with a reset.
"""

import math
import socket
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import trio

from gossipmesh.dataplane.reference.rooms import Rooms
from gossipmesh.dataplane.reference.silence import Silence
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model.member import Address
from gossipmesh.net.accepting import SHED_AT_ONCE, accept_in_need, accept_on
from gossipmesh.net.byte_stream import ByteStream, reset_on_close
from gossipmesh.net.descriptors import DescriptorReserve
from gossipmesh.net.places import IDENTITY, NODE, Party, Place, Room, Stage, source_of

_ACCEPTS_PER_TURN: Final = 8
_TURNING_AWAY_COST: Final = 4  # of those: a flood that only costs others their places gets less of a turn
DRAIN_IDLE_S: Final = 0.5
DRAIN_SWEEP_S: Final = 0.1
_CUT_S: Final = 1.0
_MESH_SILENCE_S: Final = 5.0
_READINESS_SILENCE_S: Final = 2.0

Acceptor = Callable[["Connection", socket.socket], Awaitable[None]]


class Door(NamedTuple):
    """How one listener's connections are served."""

    room: Room
    acceptor: Acceptor
    greets: bool = False
    """Whether the other end may wait for our first byte: then it is served though it says nothing."""


class Connection:
    """One accepted connection, as its registry sees it."""

    __slots__ = (
        "_idle_since",
        "_peer",
        "_place",
        "_remote",
        "_silence",
        "_stream",
        "client",
        "door",
        "scope",
        "uid",
    )

    def __init__(self, client: socket.socket, peer: tuple[str, int], uid: int | None, door: Door) -> None:
        self.client = client
        self._idle_since: float | None = None
        self._peer = peer
        self._place: Place | None = None
        self._remote = ""  # made at first use: each request says it
        self._silence: Silence[Connection] | None = None
        self._stream: ByteStream | None = None
        self.door = door
        self.scope: trio.CancelScope | None = None
        """Of the task that serves it, once there is one."""
        self.uid = uid
        """Who holds the other end on this machine; None: nobody, or nobody was asked for."""

    @property
    def source(self) -> str:
        """Return the address of the other end."""
        return self._peer[0]

    @property
    def remote(self) -> str:
        """Return address and port of the other end."""
        if not self._remote:
            self._remote = str(Address(self._peer[0], self._peer[1]))
        return self._remote

    @property
    def full(self) -> bool:
        """Tell whether the other end is to be told that there is no place for it, and nothing else."""
        return self._place is not None and self._place.told_full

    def enter(self, room: Room, party: Party) -> bool:
        """Take a place in `room`; False when there is none."""
        self._place = room.admit((party,), self._end_if_quiet)
        return self._place is not None

    def prove(self, identity: str) -> None:
        """Say who the other end has proved to be; whether it may stay is then said by `full`."""
        if self._place is not None:
            self._place.prove(((IDENTITY, identity), (NODE, source_of(self.source)[1])))

    def wait(self, silence: Silence["Connection"]) -> None:
        """Say nothing yet; OSError when that cannot be watched."""
        silence.add(self)
        self._silence = silence
        self._idle_since = trio.current_time()

    def speak(self) -> trio.CancelScope:
        """Have spoken; return the scope of the task that goes on."""
        self._silence = self._idle_since = None
        self.scope = trio.CancelScope()
        return self.scope

    def begin_idle(self, stream: ByteStream | None) -> None:
        """Say that the connection waits for a request; a sweep may end it meanwhile."""
        self._stream = stream
        self._idle_since = trio.current_time()
        if self._place is not None:
            self._place.end()

    def end_idle(self) -> None:
        """Say that bytes of a request have come."""
        self._idle_since = None

    def begin_request(self) -> None:
        """Say that a request is there whole, or a tunnel: nobody else gets this place before it has ended."""
        if self._place is not None:
            self._place.begin()

    def carry(self, stream: ByteStream) -> None:
        """Say what carries the connection's bytes, so that `cut` can end them."""
        self._stream = stream

    def close_if_idle(self, idle_before: float) -> None:
        """End a connection that has waited since `idle_before`."""
        if self._idle_since is not None and self._idle_since < idle_before:
            self.end()

    def end(self) -> None:
        """End the connection."""
        if self._silence is not None:
            self._silence.end(self)
        elif self.scope is not None:
            self.scope.cancel()

    def cut(self) -> None:
        """End the connection with a reset: nobody must take what was sent for all there is."""
        if self._stream is not None:
            self._stream.abort()
        else:
            reset_on_close(self.client)
        self.end()

    def leave(self) -> None:
        """Give the place back, and let go of what served the connection.

        Its place knows the connection: a cycle, and full collections are months apart. What hangs on it, a
        TLS connection's buffers and keys among it, would stay.
        """
        if self._place is not None:
            self._place.leave()
        self._place = self._silence = self._stream = None

    def _end_if_quiet(self) -> bool:
        """End the connection for a newcomer's sake, unless its next request is arriving."""
        place = self._place
        idle = place is not None and place.stage is Stage.IDLE
        if idle and self._stream is not None and self._stream.is_stale():
            return False
        self.end()
        return True


class Connections:
    """Every accepted connection of the engine."""

    def __init__(
        self,
        counters: Counters,
        report: Callable[[BaseException], None],
        rooms: Rooms,
        reserve: DescriptorReserve,
        may_shake_hands: Callable[[Connection], bool],
    ) -> None:
        """`may_shake_hands` tells whether a handshake may begin at once; others do at a pace."""
        self._counters = counters
        self._report = report
        self._rooms = rooms
        self._reserve = reserve
        self._open: dict[Room, set[Connection]] = {}
        self._nursery: trio.Nursery | None = None
        self._silences: dict[Room, Silence[Connection]] = {
            rooms.mesh: Silence(
                *(_MESH_SILENCE_S, self._speaks, self._gone), shakes_hands=True, may_speak=may_shake_hands
            ),
            rooms.readiness: Silence(_READINESS_SILENCE_S, self._speaks, self._gone),
            # As long as any connection may idle: a sweep ends it.
            rooms.local: Silence(math.inf, self._speaks, self._gone),
        }
        self._emptied = trio.Event()

    def start(self, nursery: trio.Nursery) -> None:
        """Serve from now on; each connection that has spoken is a task of `nursery`."""
        self._nursery = nursery
        for silence in self._silences.values():
            nursery.start_soon(silence.run)

    @property
    def count(self) -> int:
        """Return how many are open."""
        return sum(len(connections) for connections in self._open.values())

    async def accept(self, sock: socket.socket, door: Door) -> None:
        """Accept on `sock` until cancelled."""

        def failed(error: OSError) -> None:
            self._counters.add("accept_errors")
            self._report(error)

        await accept_on(
            sock, lambda: self.accept_queued(sock, door), lambda: self._make_room(sock, door), failed
        )

    def accept_queued(self, sock: socket.socket, door: Door) -> int:
        """Accept what waits now, a turn's worth at most; return how many came.

        Raises:
            OSError: out of descriptors or memory, or `sock` is closed. State: what came before is served.
        """
        came_count, cost = 0, 0
        while cost < _ACCEPTS_PER_TURN:
            before = door.room.held_count
            try:
                client, peer = sock.accept()
            except BlockingIOError:
                break
            except ConnectionError:
                cost += 1
                continue  # it left before we looked
            came_count += 1
            self._admit(client, peer, door)
            cost += 1 if door.room.held_count > before else _TURNING_AWAY_COST
        if came_count and not door.greets:
            self._silences[door.room].look()  # most have spoken by now
        return came_count

    def _admit(self, client: socket.socket, peer: tuple[str, int], door: Door) -> None:
        try:
            party, uid = self._rooms.who(door.room, client, peer)
        except OSError:
            client.close()  # it has left
            return
        client.setblocking(False)
        connection = Connection(client, peer, uid, door)
        if not connection.enter(door.room, party):
            self._counters.add("connections_refused")
            client.close()
            return
        self._open.setdefault(door.room, set()).add(connection)
        self._counters.adjust("downstream_connections", 1)
        if door.greets:
            self._speaks(connection)
            return
        try:
            connection.wait(self._silences[door.room])
        except OSError:
            self._counters.add("connections_refused")
            self._gone(connection)

    def _make_room(self, sock: socket.socket, door: Door) -> None:
        """Be out of descriptors: end what matters least, and let in or turn away who waits at this door.

        Without the second a connection nobody can accept would keep the loop awake for nothing.
        """
        self._counters.add("accept_errors")
        self._counters.add("descriptors_short")
        shed_count = self._rooms.shed(SHED_AT_ONCE)
        if shed_count and door.room is not self._rooms.readiness:
            return
        came = accept_in_need(sock, self._reserve)
        if came is None:
            return
        client, peer = came
        if door.room is self._rooms.readiness:
            self._admit(client, peer, door)
        else:
            self._counters.add("connections_refused")
            client.close()
        self._reserve.refill()

    def _speaks(self, connection: Connection) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._serve, connection, connection.speak())

    async def _serve(self, connection: Connection, scope: trio.CancelScope) -> None:
        client = connection.client
        try:
            with scope:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await connection.door.acceptor(connection, client)
        except OSError:
            self._counters.add("connections_broken")
        except Exception as error:  # an engine outlives any one connection
            self._failed(error)
        except BaseExceptionGroup as group:
            errors, others = group.split(Exception)
            if errors is not None:
                self._failed(errors)
            if others is not None:
                raise others from None
        finally:
            self._gone(connection)

    def _gone(self, connection: Connection) -> None:
        connection.client.close()
        connection.leave()
        self._counters.adjust("downstream_connections", -1)
        there = self._open[connection.door.room]
        there.discard(connection)
        if not there:
            self._emptied.set()

    def _failed(self, error: Exception) -> None:
        """Count an error, and report what no broken connection explains."""
        if isinstance(error, ExceptionGroup) and error.split(OSError)[1] is None:
            self._counters.add("connections_broken")
            return
        self._counters.add("connection_errors")
        self._report(error)

    def sweep(self, idle_s: float, room: Room | None = None) -> None:
        """End what has waited for a request longer than `idle_s`, in one room or all.

        Cost: O(connections), once a second; a timer per request would cost more.
        """
        idle_before = trio.current_time() - idle_s
        for there in [self._open.get(room, set())] if room is not None else list(self._open.values()):
            for connection in list(there):
                connection.close_if_idle(idle_before)

    async def drain(self, room: Room, timeout_s: float) -> None:
        """Wait until nothing of `room` is open, ending what is idle; cut what is left after `timeout_s`."""
        with trio.move_on_after(timeout_s):
            await self._wait_empty(room)
        for connection in list(self._open.get(room, ())):
            self._counters.add("connections_cut")
            connection.cut()
        with trio.move_on_after(_CUT_S):
            await self._wait_empty(room)  # what was cut is written down on its way out

    async def _wait_empty(self, room: Room) -> None:
        while self._open.get(room):
            self.sweep(DRAIN_IDLE_S, room)
            self._emptied = trio.Event()
            with trio.move_on_after(DRAIN_SWEEP_S):
                await self._emptied.wait()
