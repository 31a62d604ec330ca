"""Faults: rules that judge packets, and counters for what is done to processes and disks.

A rule answers PASS (no opinion, ask the next), DELIVER (no later rule may drop it) or DROP.
Every fault counts how often it did something: one that never fired proves nothing.
"""

import random
from enum import Enum, StrEnum, auto

import msgspec


class Channel(StrEnum):
    """How a packet travels."""

    DATAGRAM = "datagram"
    STREAM = "stream"
    ENGINE = "engine"


class Packet(msgspec.Struct, frozen=True):
    """What a rule sees: the names of two hosts, the channel and the size."""

    source: str
    destination: str
    channel: Channel
    size_bytes: int


class Verdict(Enum):
    """What a rule says of a packet."""

    PASS = auto()
    DELIVER = auto()
    DROP = auto()


class Fault:
    """Something that goes wrong on purpose, and how often it did."""

    def __init__(self, name: str, *, may_idle: bool = False) -> None:
        self.name = name
        self.fired_count = 0
        self.may_idle = may_idle


class Rule(Fault):
    """A fault of the network. Only partitions judge anything but datagrams: streams repair loss."""

    def judge(self, packet: Packet, rng: random.Random) -> Verdict:
        """Return the verdict on one packet, counting it if it is not PASS."""
        raise NotImplementedError


class Loss(Rule):
    """Drops a share of the datagrams, each on its own."""

    def __init__(self, name: str, ratio: float, *, may_idle: bool = False) -> None:
        super().__init__(name, may_idle=may_idle)
        self.ratio = ratio

    def judge(self, packet: Packet, rng: random.Random) -> Verdict:
        """Draw for every datagram, so that switching another rule on moves no later draw."""
        if packet.channel is not Channel.DATAGRAM or rng.random() >= self.ratio:
            return Verdict.PASS
        self.fired_count += 1
        return Verdict.DROP


class Partition(Rule):
    """Cuts all links from `left` to `right`, and back unless `one_way`."""

    def __init__(
        self, name: str, left: frozenset[str], right: frozenset[str], *, one_way: bool = False
    ) -> None:
        super().__init__(name)
        self.left = left
        self.right = right
        self.one_way = one_way

    def separates(self, source: str, destination: str) -> bool:
        """Tell whether nothing passes from `source` to `destination`."""
        if source in self.left and destination in self.right:
            return True
        return not self.one_way and source in self.right and destination in self.left

    def judge(self, packet: Packet, rng: random.Random) -> Verdict:
        """Drop what crosses."""
        if not self.separates(packet.source, packet.destination):
            return Verdict.PASS
        self.fired_count += 1
        return Verdict.DROP


class Spare(Rule):
    """Delivers everything between the named hosts whatever later rules say."""

    def __init__(self, name: str, hosts: frozenset[str]) -> None:
        super().__init__(name)
        self.hosts = hosts

    def judge(self, packet: Packet, rng: random.Random) -> Verdict:
        """Deliver inside the circle."""
        if packet.source not in self.hosts or packet.destination not in self.hosts:
            return Verdict.PASS
        self.fired_count += 1
        return Verdict.DELIVER


class FaultBook:
    """All faults of a run in the order they were named."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}

    def add(self, fault: Fault) -> None:
        """Enter a fault under its name; names are unique in a run."""
        assert fault.name not in self._faults, fault.name
        self._faults[fault.name] = fault

    def fire(self, name: str) -> None:
        """Count one firing of a fault of processes or disks, entering it when it is new."""
        fault = self._faults.get(name)
        if fault is None:
            fault = self._faults[name] = Fault(name)
        fault.fired_count += 1

    def expect(self, name: str) -> None:
        """Enter a fault that this run must fire."""
        if name not in self._faults:
            self._faults[name] = Fault(name)

    def idle(self) -> list[str]:
        """Return the names of faults that never fired and had to."""
        return [f.name for f in self._faults.values() if f.fired_count == 0 and not f.may_idle]

    def counts(self) -> dict[str, int]:
        """Return name -> firings, in the order named."""
        return {fault.name: fault.fired_count for fault in self._faults.values()}
