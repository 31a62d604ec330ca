"""Faults: rules that judge packets, and counters for what is done to processes and disks.

A rule answers PASS (no opinion, ask the next), DELIVER (no later rule may drop it) or DROP.
Every fault counts how often it did something: one that never fired proves nothing.
"""

import abc
import random
from enum import Enum, StrEnum, auto
from typing import Final

SEGMENT_LOSSES_MAX: Final = 6  # what TCP bears before a stream stands still for longer than anyone waits


class Channel(StrEnum):
    """How a packet travels."""

    DATAGRAM = "datagram"
    STREAM = "stream"
    ENGINE = "engine"


class Verdict(Enum):
    """What a rule says of a packet."""

    PASS = auto()
    DELIVER = auto()
    DROP = auto()


# Read once: a member read through its enum costs 0.2 us in Python 3.11, and every packet needs several.
DATAGRAM: Final = Channel.DATAGRAM
PASS: Final = Verdict.PASS
DROP: Final = Verdict.DROP


class Fault:
    """Something that goes wrong on purpose, and how often it did."""

    def __init__(self, name: str, *, may_idle: bool = False) -> None:
        self.name = name
        self.fired_count = 0
        self.may_idle = may_idle


class Rule(Fault, abc.ABC):
    """A fault of the network. Only cuts judge anything but datagrams: streams repair loss."""

    is_cut = False

    @abc.abstractmethod
    def judge(self, source: str, destination: str, channel: Channel, rng: random.Random) -> Verdict:
        """Return the verdict on one packet between two hosts by name, counting it if it is not PASS."""

    def separates(self, source: str, destination: str) -> bool:
        """Tell whether nothing at all passes from `source` to `destination` just now."""
        return False

    def concerns(self, host: str) -> bool:
        """Tell whether a host may suffer from it."""
        return True

    def segment_losses(self, source: str, rng: random.Random) -> int:
        """Return how often a segment of a stream from `source` is lost before it gets through."""
        return 0


class Loss(Rule):
    """Drops a share of the datagrams, each on its own."""

    def __init__(self, name: str, ratio: float, *, may_idle: bool = False) -> None:
        super().__init__(name, may_idle=may_idle)
        self.ratio = ratio

    def judge(self, source: str, destination: str, channel: Channel, rng: random.Random) -> Verdict:
        """Draw for every datagram, so that switching another rule on moves no later draw."""
        if channel is not DATAGRAM or rng.random() >= self.ratio:
            return PASS
        self.fired_count += 1
        return DROP

    def segment_losses(self, source: str, rng: random.Random) -> int:
        """Lose a segment once at most: a second loss in a row changes nothing but the delay."""
        return 1 if self.ratio > 0 and rng.random() < self.ratio else 0


class EgressLoss(Rule):
    """Drops a share of what some hosts send; their streams crawl, for segments are lost as well."""

    def __init__(self, name: str, ratio: float, sources: frozenset[str]) -> None:
        super().__init__(name)
        self.ratio = ratio
        self.sources = sources

    def judge(self, source: str, destination: str, channel: Channel, rng: random.Random) -> Verdict:
        """Drop by the ratio what comes from those hosts."""
        if source not in self.sources or channel is not DATAGRAM or rng.random() >= self.ratio:
            return PASS
        self.fired_count += 1
        return DROP

    def concerns(self, host: str) -> bool:
        """Tell whether a host is one of the senders."""
        return host in self.sources

    def segment_losses(self, source: str, rng: random.Random) -> int:
        """Lose a segment again and again, as the ratio has it."""
        count = 0
        while source in self.sources and count < SEGMENT_LOSSES_MAX and rng.random() < self.ratio:
            count += 1
        return count


class DatagramLoss(Rule):
    """Drops a share of the datagrams that some hosts send, or get, or both; their streams pass."""

    def __init__(
        self, name: str, ratio: float, hosts: frozenset[str], *, inward: bool = True, outward: bool = True
    ) -> None:
        super().__init__(name)
        self.ratio = ratio
        self.hosts = hosts
        self.inward = inward
        self.outward = outward

    def judge(self, source: str, destination: str, channel: Channel, rng: random.Random) -> Verdict:
        """Drop by the ratio what passes one of those hosts."""
        if channel is not DATAGRAM or not self._passes(source, destination):
            return PASS
        if self.ratio < 1 and rng.random() >= self.ratio:
            return PASS
        self.fired_count += 1
        return DROP

    def _passes(self, source: str, destination: str) -> bool:
        return (self.outward and source in self.hosts) or (self.inward and destination in self.hosts)

    def concerns(self, host: str) -> bool:
        """Tell whether a host is one of them."""
        return host in self.hosts


class Deafness(Rule):
    """Cuts all that some hosts would receive while `is_on`: a one-way link, flip-flopping when switched."""

    is_cut = True

    def __init__(self, name: str, hosts: frozenset[str]) -> None:
        super().__init__(name)
        self.hosts = hosts
        self.is_on = True

    def concerns(self, host: str) -> bool:
        """Tell whether a host is one of the deaf."""
        return host in self.hosts

    def separates(self, source: str, destination: str) -> bool:
        """Tell whether nothing passes to a deaf host."""
        return self.is_on and destination in self.hosts

    def judge(self, source: str, destination: str, channel: Channel, rng: random.Random) -> Verdict:
        """Drop what goes to a deaf host."""
        if not self.separates(source, destination):
            return PASS
        self.fired_count += 1
        return DROP


class AgentDeafness(Rule):
    """Cuts all that comes to one host's agent; its engine is reached, and what it sends arrives."""

    is_cut = True

    def __init__(self, name: str, host: str) -> None:
        super().__init__(name)
        self.host = host

    def concerns(self, host: str) -> bool:
        """Tell whether a host is the one."""
        return host == self.host

    def judge(self, source: str, destination: str, channel: Channel, rng: random.Random) -> Verdict:
        """Drop what goes to the agent."""
        if destination != self.host or channel is Channel.ENGINE:
            return PASS
        self.fired_count += 1
        return DROP


class Blackout(Rule):
    """Cuts everything between any two hosts while it stands."""

    is_cut = True

    def separates(self, source: str, destination: str) -> bool:
        """Nothing passes."""
        return True

    def judge(self, source: str, destination: str, channel: Channel, rng: random.Random) -> Verdict:
        """Drop."""
        self.fired_count += 1
        return DROP


class Partition(Rule):
    """Cuts all links from `left` to `right`, and back unless `one_way`."""

    is_cut = True

    def __init__(
        self, name: str, left: frozenset[str], right: frozenset[str], *, one_way: bool = False
    ) -> None:
        super().__init__(name)
        self.left = left
        self.right = right
        self.one_way = one_way

    def concerns(self, host: str) -> bool:
        """Tell whether a host stands on a side."""
        return host in self.left or host in self.right

    def separates(self, source: str, destination: str) -> bool:
        """Tell whether nothing passes from `source` to `destination`."""
        if source in self.left and destination in self.right:
            return True
        return not self.one_way and source in self.right and destination in self.left

    def judge(self, source: str, destination: str, channel: Channel, rng: random.Random) -> Verdict:
        """Drop what crosses."""
        if not self.separates(source, destination):
            return PASS
        self.fired_count += 1
        return DROP


class Spare(Rule):
    """Delivers everything between the named hosts whatever later rules say."""

    def __init__(self, name: str, hosts: frozenset[str]) -> None:
        super().__init__(name)
        self.hosts = hosts

    def judge(self, source: str, destination: str, channel: Channel, rng: random.Random) -> Verdict:
        """Deliver inside the circle."""
        if source not in self.hosts or destination not in self.hosts:
            return PASS
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
