"""Streams between hosts, as TCP gives them to the shells.

What is sent arrives whole and in order, in pieces of any size, until one end closes, its process
dies (a reset at once), its machine dies or the link is cut (silence, and an end after a timeout).
"""

from collections.abc import Callable
from typing import Any, Protocol

from gossipmesh.gossip.base.effects import CloseStream, OpenStream, SendStream
from gossipmesh.model import limits
from gossipmesh.model.member import Address
from gossipmesh.testing.simulator.faults import Channel
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.network import Connection, End, Network
from gossipmesh.testing.simulator.trace import Trace, fingerprint, place


class Ground(Protocol):
    """What streams need of the world they run in: its hosts, links, trace and clock."""

    now_ns: int
    hosts: dict[str, Host]
    network: Network
    trace: Trace

    def push(self, at_ns: int, function: Callable[..., None], *arguments: Any) -> None: ...
    def host_at(self, address: Address) -> Host | None: ...
    def arrive(self, host: Host, run: int, step: Callable[..., Any]) -> None: ...


class Streams:
    """Performs the stream effects of every host."""

    def __init__(self, world: Ground) -> None:
        self._world = world

    def open(self, host: Host, effect: OpenStream) -> None:
        """Connect: accepted, refused, or a timeout."""
        world = self._world
        destination = place(effect.destination)
        world.trace.record(world.now_ns, f"open {host.name} {effect.stream} {destination}")
        end = End(host.name, host.run, effect.stream)
        connection = Connection(end, (host.address.host, effect.destination.host))
        host.connections[effect.stream] = (connection, end)
        target = world.host_at(effect.destination)
        link = world.network.settings
        if target is None or not host.has_address:
            self._end_later(end, world.now_ns + link.connect_timeout_ns)
            return
        there = world.network.stream_delay(host.name, target.name)
        back = world.network.stream_delay(target.name, host.name)
        if there is None or back is None or not target.is_up:
            self._end_later(end, world.now_ns + link.connect_timeout_ns)
            return
        world.push(world.now_ns + there, self._arrive, connection, target, back)

    def send(self, host: Host, effect: SendStream) -> None:
        """Deliver bytes to the other end, in order and in pieces."""
        world, size_bytes = self._world, len(effect.payload)
        world.trace.record(world.now_ns, f"write {host.name} {effect.stream} {size_bytes}")
        known = host.connections.get(effect.stream)
        if known is None:
            return
        connection, end = known
        if connection.accepted is None:
            connection.waiting.append(effect.payload)
            return
        self._send_bytes(connection, end, effect.payload)

    def _send_bytes(self, connection: Connection, end: End, payload: bytes) -> None:
        far = connection.other(end)
        if far is None or not far.is_open or connection.is_lost:
            self._break(connection)
            return
        world = self._world
        for piece in world.network.pieces(payload):
            at_ns = self._arrival(end, far)
            if at_ns is None:
                self._break(connection)
                return
            world.push(at_ns, self._deliver, end, far, piece)

    def close(self, host: Host, effect: CloseStream) -> None:
        """End this side at once and the other after what was sent."""
        self._world.trace.record(self._world.now_ns, f"close {host.name} {effect.stream}")
        known = host.connections.pop(effect.stream, None)
        if known is None:
            return
        connection, end = known
        end.is_open = False
        far = connection.other(end)
        if far is not None and far.is_open:
            at_ns = None if connection.is_lost else self._arrival(end, far)
            if at_ns is None:
                at_ns = self._world.now_ns + self._world.network.settings.stream_timeout_ns
            self._end_later(far, at_ns)

    def forget(self, host: Host, *, is_silent: bool) -> None:
        """Drop all streams of a dead process; its machine, if it lives, resets them."""
        for connection, end in host.connections.values():
            end.is_open = False
            far = connection.other(end)
            if far is None or not far.is_open or is_silent:
                continue
            at_ns = self._arrival(end, far)
            if at_ns is not None:
                self._end_later(far, at_ns)

    def lose_address(self, host: Host, text: str) -> None:
        """Let nothing pass any more by the connections that one of a host's addresses was an end of."""
        for connection, _ in list(host.connections.values()):
            if text in connection.hosts and not connection.is_lost:
                connection.is_lost = True
                self._break(connection)

    def _arrive(self, connection: Connection, target: Host, back_ns: int) -> None:
        world = self._world
        opened = connection.opened
        opener = world.hosts[opened.host]
        if not opened.is_open or opener.run != opened.run or connection.is_lost:
            return
        accepted_count = sum(1 for _, end in target.connections.values() if end.stream % 2)
        if target.core is None or accepted_count >= limits.STREAMS_ACCEPTED_MAX:
            world.trace.record(world.now_ns, f"refused {opened.host} {target.name}")
            self._end_later(opened, world.now_ns + back_ns)
            return
        end = End(target.name, target.run, target.next_accepted_stream())
        connection.accepted = end
        target.connections[end.stream] = (connection, end)
        world.trace.record(world.now_ns, f"accepted {opened.host} {target.name} {end.stream}")
        end.arrival_ns = opened.arrival_ns = world.now_ns
        world.push(world.now_ns + back_ns, self._established, opened)
        opened.arrival_ns = world.now_ns + back_ns
        peer = opener.address
        world.arrive(target, target.run, lambda core, now: core.stream_accepted(end.stream, peer, now))
        waiting, connection.waiting = connection.waiting, []
        for payload in waiting:
            self._send_bytes(connection, opened, payload)

    def _established(self, end: End) -> None:
        if end.is_open:
            host = self._world.hosts[end.host]
            self._world.arrive(host, end.run, lambda core, now: core.stream_opened(end.stream, now))

    def _deliver(self, source: End, end: End, piece: bytes) -> None:
        if not end.is_open:
            return
        world = self._world
        host = world.hosts[end.host]
        world.trace.record(world.now_ns, f"stream {source.host} {end.host} {len(piece)} {fingerprint(piece)}")
        world.arrive(
            host, end.run, self._if_open(end, lambda core, now: core.receive_stream(end.stream, piece, now))
        )

    def _arrival(self, source: End, far: End) -> int | None:
        """Return when the next segment arrives, never before an earlier one; None when cut."""
        delay_ns = self._world.network.stream_delay(source.host, far.host, Channel.STREAM)
        if delay_ns is None:
            return None
        far.arrival_ns = max(far.arrival_ns, self._world.now_ns + delay_ns)
        return far.arrival_ns

    def _break(self, connection: Connection) -> None:
        at_ns = self._world.now_ns + self._world.network.settings.stream_timeout_ns
        for end in (connection.opened, connection.accepted):
            if end is not None and end.is_open:
                self._end_later(end, at_ns)

    def _end_later(self, end: End, at_ns: int) -> None:
        self._world.push(at_ns, self._ended, end)

    def _ended(self, end: End) -> None:
        if not end.is_open:
            return
        world = self._world
        host = world.hosts[end.host]
        if host.run != end.run:
            return
        world.trace.record(world.now_ns, f"ended {end.host} {end.stream}")

        def step(core: Any, now: Any) -> Any:
            if not end.is_open:
                return []
            end.is_open = False
            host.connections.pop(end.stream, None)
            return core.stream_closed(end.stream, now)

        world.arrive(host, end.run, step)

    @staticmethod
    def _if_open(end: End, step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda core, now: step(core, now) if end.is_open else []
