"""A group under measurement: N processes of one kind on the field, killed, silenced and revived alike."""

import abc
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from bench.gossip.field import Field
from bench.gossip.observe import ALIVE, STARTED, Book, LineReader, Tail
from gossipmesh.net.clock import wall_ns
from gossipmesh.testing.processes import ProcessKeeper
from gossipmesh.testing.waiting import wait_until

START_TIMEOUT_S: Final = 60.0
LOOK_INTERVAL_S: Final = 0.25  # times come from the lines' own stamps, so looking seldom costs no precision


def wall_s() -> float:
    """Return civil time, the clock of every stamp here."""
    return wall_ns() / 1e9


class Group(abc.ABC):
    """What a measurement needs of a group; a subclass says how a node is started.

    `start` leaves all nodes running and none joined: the field is shut. Nodes join n1, the seed, by
    trying again about every second.
    """

    name: str
    read_line: LineReader
    batch_count = 20  # nodes started at once
    returns_by_itself = False  # whether a member held dead comes back within seconds of being heard again

    def __init__(self, field: Field, directory: Path) -> None:
        self.field = field
        self.names = field.names
        self.directory = directory
        self.keeper = ProcessKeeper(directory)
        self.book = Book()
        self._tails: dict[str, Tail] = {}

    @property
    @abc.abstractmethod
    def version(self) -> str:
        """Return what is measured, and its version."""

    @abc.abstractmethod
    def launch(self, name: str) -> None:
        """Start the processes of a node."""

    @abc.abstractmethod
    def pids(self, name: str) -> list[int]:
        """Return the processes of a node, the one that gossips first."""

    @abc.abstractmethod
    def log_path(self, name: str) -> Path:
        """Return the file this node's lines end up in."""

    async def prepare(self) -> None:
        """Do what must be done once before any node starts."""
        return

    async def settle(self, name: str) -> None:
        """Learn what is needed of a node that has just started."""
        return

    def close(self) -> None:
        """End every process of the group."""
        self.keeper.close()

    def look(self) -> None:
        """Read what the nodes wrote since the last look."""
        for name in self.names:
            tail = self._tails.setdefault(name, Tail(self.log_path(name)))
            for line in tail.lines():
                sighting = self.read_line(name, line)
                if sighting is not None:
                    self.book.add(sighting)

    async def start(self) -> None:
        """Start every node, a few at a time, on a field that is shut."""
        await self.prepare()
        self.field.shut()
        for first in range(0, len(self.names), self.batch_count):
            batch = self.names[first : first + self.batch_count]
            for name in batch:
                self.launch(name)
            for name in batch:
                await self._wait_started(name, 0.0)
                await self.settle(name)

    async def kill(self, name: str) -> float:
        """Kill everything that runs on a node; return when."""
        at_s = wall_s()
        self.send(name, signal.SIGKILL)
        return at_s

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to every process of a node."""
        for pid in self.pids(name):
            self.keeper.signal(pid, number)

    async def revive(self, name: str) -> float:
        """Start a killed node again and wait until the others see it; return how long that took."""
        began_s = wall_s()
        self.launch(name)
        await self._wait_started(name, began_s)
        await self.settle(name)
        await self.wait_seen(ALIVE, name, began_s, START_TIMEOUT_S)
        return wall_s() - began_s

    async def _wait_started(self, name: str, since_s: float) -> None:
        async def started() -> str | None:
            self.look()
            runs = any(
                seen.observer == name and seen.status == STARTED and seen.at_s >= since_s
                for seen in self.book.sightings
            )
            return None if runs else f"{self.log_path(name)}: {last_line(self.log_path(name))}"

        await wait_until(f"{self.name}: {name} starts", started, START_TIMEOUT_S, LOOK_INTERVAL_S)

    async def wait_seen(
        self, status: str, subject: str, since_s: float, timeout_s: float, by: Sequence[str] = ()
    ) -> None:
        """Wait until every other node (or each of `by`) has come to hold `subject` in `status` since."""
        others = by or self.others(subject)

        async def seen() -> str | None:
            self.look()
            missing = self.book.missing(status, others, [subject], since_s)
            return f"{missing} of {len(others)} do not see {subject} {status}" if missing else None

        await wait_until(f"{self.name}: {subject} is {status} everywhere", seen, timeout_s, LOOK_INTERVAL_S)

    async def wait_all_seen(self, since_s: float, timeout_s: float) -> float:
        """Wait until all see all; return when the last of them came to."""

        async def seen() -> str | None:
            self.look()
            missing = self.book.missing(ALIVE, self.names, self.names, 0.0)
            return f"{missing} pairs do not see each other" if missing else None

        await wait_until(f"{self.name}: all see all", seen, timeout_s, LOOK_INTERVAL_S)
        times = [seen.at_s for seen in self.book.sightings if seen.status == ALIVE and seen.at_s >= since_s]
        return max(times, default=since_s)

    def others(self, subject: str) -> list[str]:
        """Return all names but one."""
        return [name for name in self.names if name != subject]

    def run(self, label: str, name: str, words: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start a command on a node of the field."""
        return self.keeper.start(label, [*self.field.prefix(name), *words])


async def rest(seconds: float) -> None:
    """Let a group run undisturbed: there is no event to wait for."""
    await trio.sleep(seconds)


def last_line(path: Path) -> str:
    """Return the last line of a log, for a sentence that says what went wrong."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return "no such file"
    return lines[-1] if lines else "it wrote nothing"
