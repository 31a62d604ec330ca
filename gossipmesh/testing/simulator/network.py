"""Links between hosts: delay, jitter, loss, duplication, reordering, and streams over them.

Datagrams may be lost, doubled and overtaken. A stream is reliable and ordered: loss costs it a
retransmission, a cut ends it after a while, and its bytes arrive in pieces of any size.
"""

import random
from typing import Final

import msgspec

from gossipmesh.gossip.base.effects import StreamId
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.testing.simulator.faults import DATAGRAM, DROP, PASS, Channel, Fault, FaultBook, Rule

BANDWIDTH_FAULT: Final = "bandwidth"
QUEUE_NS_MAX: Final = 200 * MILLISECOND_NS  # what a small router's buffer holds of the wire's time


class LinkSettings(msgspec.Struct, frozen=True):
    """How packets between two hosts travel when no rule objects."""

    delay_ns: int = MILLISECOND_NS
    jitter_ns: int = 2 * MILLISECOND_NS
    duplicate_ratio: float = 0.0
    reorder_ratio: float = 0.0
    reorder_delay_ns: int = 60 * MILLISECOND_NS
    retransmit_ns: int = 200 * MILLISECOND_NS
    connect_timeout_ns: int = 3 * SECOND_NS
    stream_timeout_ns: int = 4 * SECOND_NS


class End:
    """One end of a connection, in one run of one host's agent."""

    __slots__ = ("arrival_ns", "host", "is_open", "run", "stream")

    def __init__(self, host: str, run: int, stream: StreamId) -> None:
        self.host = host
        self.run = run
        self.stream = stream
        self.is_open = True
        self.arrival_ns = 0


class Connection:
    """A stream between the host that opened it and the one that accepted it.

    `waiting` is what the opener sent before it knew that it is connected; `hosts` are the addresses it leads
    between; once one of them is gone, `is_lost`: nothing passes any more.
    """

    __slots__ = ("accepted", "hosts", "is_lost", "opened", "waiting")

    def __init__(self, opened: End, hosts: tuple[str, str]) -> None:
        self.opened = opened
        self.hosts = hosts
        self.is_lost = False
        self.accepted: End | None = None
        self.waiting: list[bytes] = []

    def other(self, end: End) -> End | None:
        """Return the far end, None before it was accepted."""
        return self.accepted if end is self.opened else self.opened


class Network:
    """Judges packets by the rules in order and says when each copy arrives."""

    def __init__(self, settings: LinkSettings, rng: random.Random, book: FaultBook) -> None:
        self.settings = settings
        self.links: dict[tuple[str, str], LinkSettings] = {}
        self.rules: list[Rule] = []
        self._rng = rng
        self._book = book
        self._bandwidth: dict[str, int] = {}
        self._wire_free_ns: dict[str, int] = {}
        self._duplicates = Fault("duplicate", may_idle=settings.duplicate_ratio == 0)
        self._reorders = Fault("reorder", may_idle=settings.reorder_ratio == 0)
        book.add(self._duplicates)
        book.add(self._reorders)

    def reseed(self, name: str) -> None:
        """Draw anew from here on."""
        self._rng.seed(name)

    def add_rule(self, rule: Rule) -> None:
        """Put a rule behind those already there."""
        self._book.add(rule)
        self.rules.append(rule)

    def remove_rule(self, rule: Rule) -> None:
        """Take a rule out; what it counted stays in the book."""
        self.rules.remove(rule)

    def link(self, source: str, destination: str) -> LinkSettings:
        """Return the settings of one direction of one link."""
        return self.links.get((source, destination), self.settings)

    def limit_bandwidth(self, source: str, bytes_per_s: int) -> None:
        """Let a host send so much and no more: a short queue, then loss."""
        self._book.expect(BANDWIDTH_FAULT)
        self._bandwidth[source] = bytes_per_s

    def datagram_delays(self, source: str, destination: str, size_bytes: int, now_ns: int) -> list[int]:
        """Return the delay in ns of each copy of a datagram that arrives; empty when it is lost."""
        queued_ns = 0
        if source in self._bandwidth:
            waited_ns = self._queue(source, size_bytes, now_ns)
            if waited_ns is None:
                return []
            queued_ns = waited_ns
        if self._is_dropped(source, destination, DATAGRAM):
            return []
        link = self.settings if not self.links else self.link(source, destination)
        delays = [queued_ns + self._delay(link)]
        if link.duplicate_ratio and self._rng.random() < link.duplicate_ratio:
            self._duplicates.fired_count += 1
            delays.append(self._delay(link))
        if link.reorder_ratio and self._rng.random() < link.reorder_ratio:
            self._reorders.fired_count += 1
            delays[0] += self._rng.randrange(link.reorder_delay_ns)
        return delays

    def stream_delay(self, source: str, destination: str, channel: Channel = Channel.STREAM) -> int | None:
        """Return the delay in ns of a segment, None when the link is cut."""
        if self.is_cut(source, destination, channel):
            return None
        link = self.link(source, destination)
        losses = max((rule.segment_losses(source, self._rng) for rule in self.rules), default=0)
        return self._delay(link) + ((1 << losses) - 1) * link.retransmit_ns

    def is_cut(self, source: str, destination: str, channel: Channel) -> bool:
        """Tell whether a partition keeps everything from passing in this direction, counting it."""
        return self._is_dropped(source, destination, channel)

    def pieces(self, payload: bytes) -> list[bytes]:
        """Return `payload` cut at random places, as TCP may deliver it."""
        if len(payload) < 2 or self._rng.random() < 0.5:
            return [payload]
        cut = self._rng.randrange(1, len(payload))
        return [payload[:cut], payload[cut:]]

    def _queue(self, source: str, size_bytes: int, now_ns: int) -> int | None:
        """Return how long a datagram waits for the wire; None when the queue is full."""
        free_ns = max(now_ns, self._wire_free_ns.get(source, 0))
        if free_ns - now_ns > QUEUE_NS_MAX:
            self._book.fire(BANDWIDTH_FAULT)
            return None
        self._wire_free_ns[source] = free_ns + size_bytes * SECOND_NS // self._bandwidth[source]
        if free_ns > now_ns:
            self._book.fire(BANDWIDTH_FAULT)
        return self._wire_free_ns[source] - now_ns

    def _is_dropped(self, source: str, destination: str, channel: Channel) -> bool:
        for rule in self.rules:
            verdict = rule.judge(source, destination, channel, self._rng)
            if verdict is not PASS:
                return verdict is DROP
        return False

    def _delay(self, link: LinkSettings) -> int:
        return link.delay_ns + int(self._rng.random() * link.jitter_ns)
