"""What members write of one another, read from their logs: nobody is asked while it is measured.

A `Sighting` is one line: who saw whom in which status, and when. Our agents and kinship's stamp their
lines themselves; Serf writes whole seconds, so its lines are stamped as they arrive (`Stamper`).
"""

import json
import os
import re
import selectors
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

from gossipmesh.net.clock import wall_ns

ALIVE: Final = "alive"
DEAD: Final = "dead"
STARTED: Final = "started"

_MEMBER_IS: Final = re.compile(r"member is (\w+)$")
_SERF_EVENT: Final = re.compile(r"^(\d+\.\d+) .*\bserf: EventMember(Join|Failed|Leave|Reap): (\S+) ")
_SERF_STARTED: Final = re.compile(r"^(\d+\.\d+) .*Serf agent running")
_SERF_STATUS: Final = {"Join": ALIVE, "Failed": DEAD, "Leave": "left", "Reap": "reaped"}


@dataclass(frozen=True)
class Sighting:
    """At `at_s` (wall) the member `observer` came to hold `subject` in `status`; STARTED has no subject."""

    at_s: float
    observer: str
    subject: str
    status: str


LineReader = Callable[[str, str], Sighting | None]


def read_agent_line(observer: str, line: str) -> Sighting | None:
    """Read one JSON line of a gossipmesh agent."""
    told = _json_object(line)
    message, stamp = told.get("message"), told.get("time")
    if not isinstance(message, str) or not isinstance(stamp, str):
        return None
    at_s = datetime.fromisoformat(stamp).timestamp()
    if message == "started":
        return Sighting(at_s, observer, "", STARTED)
    found = _MEMBER_IS.match(message)
    subject = told.get("member")
    return (
        None if found is None or not isinstance(subject, str) else Sighting(at_s, observer, subject, found[1])
    )


def read_serf_line(observer: str, line: str) -> Sighting | None:
    """Read one line of `serf agent`, stamped by a `Stamper`."""
    if (started := _SERF_STARTED.match(line)) is not None:
        return Sighting(float(started[1]), observer, "", STARTED)
    found = _SERF_EVENT.match(line)
    return None if found is None else Sighting(float(found[1]), observer, found[3], _SERF_STATUS[found[2]])


def read_kinship_line(observer: str, line: str) -> Sighting | None:
    """Read one JSON line of `kinship_node.py`."""
    told = _json_object(line)
    at_s, subject, status = told.get("at_s"), told.get("member"), told.get("status")
    if not isinstance(at_s, float) or not isinstance(status, str):
        return None
    return Sighting(at_s, observer, str(subject or ""), status)


def _json_object(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


class Tail:
    """The whole lines a growing file gained since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def lines(self) -> list[str]:
        """Return what is new; a line without its end waits for it."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in whole]


class Book:
    """All sightings so far, and what each observer holds now."""

    def __init__(self) -> None:
        self.sightings: list[Sighting] = []
        self._views: dict[str, dict[str, Sighting]] = {}

    def add(self, sighting: Sighting) -> None:
        """Enter one; an observer that starts again has forgotten what it held."""
        self.sightings.append(sighting)
        if sighting.status == STARTED:
            self._views[sighting.observer] = {}
        else:
            self._views.setdefault(sighting.observer, {})[sighting.subject] = sighting

    def started(self, observer: str) -> bool:
        """Tell whether this observer has said that it runs."""
        return observer in self._views

    def missing(self, status: str, observers: Iterable[str], subjects: Sequence[str], since_s: float) -> int:
        """Count the pairs (observer, other) that do not stand in `status` by a sighting after `since_s`."""
        return sum(
            not self._holds(observer, subject, status, since_s)
            for observer in observers
            for subject in subjects
            if subject != observer
        )

    def _holds(self, observer: str, subject: str, status: str, since_s: float) -> bool:
        held = self._views.get(observer, {}).get(subject)
        return held is not None and held.status == status and held.at_s >= since_s

    def times(self, status: str, observers: Iterable[str], subject: str, since_s: float) -> list[float]:
        """Return, ascending, when each observer first saw `subject` in `status` after `since_s`."""
        first: dict[str, float] = {}
        wanted = set(observers)
        for seen in self.sightings:
            matches = (seen.subject, seen.status) == (subject, status) and seen.at_s >= since_s
            if matches and seen.observer in wanted:
                first.setdefault(seen.observer, seen.at_s)
        return sorted(first.values())

    def deaths(self, since_s: float, *, but: str, by: Iterable[str]) -> list[str]:
        """Return who, other than `but`, was declared dead since, as sentences, by any of `by`."""
        observers = set(by)
        return [
            f"{seen.observer} held {seen.subject} {seen.status}"
            for seen in self.sightings
            if seen.status in (DEAD, "unattended")
            and seen.subject != but
            and seen.at_s >= since_s
            and seen.observer in observers
        ]


class Stamper:
    """Copies pipes to files in a thread of its own, each line behind the wall time it arrived at."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._waiting: list[tuple[IO[bytes], Path]] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="stamper", daemon=True)
        self._thread.start()

    def add(self, pipe: IO[bytes], path: Path) -> None:
        """Copy `pipe` to the end of `path` from now on."""
        with self._lock:
            self._waiting.append((pipe, path))
        os.write(self._wake_write, b"+")

    def close(self) -> None:
        """End the thread; the pipes are their owners' to close."""
        os.write(self._wake_write, b".")
        self._thread.join(5.0)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        rests: dict[int, bytes] = {}
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    if b"." in os.read(self._wake_read, 64):
                        return
                    self._take_waiting()
                    continue
                data = os.read(key.fd, 65_536)
                if not data:
                    self._selector.unregister(key.fileobj)
                    continue
                stamp = f"{wall_ns() / 1e9:.6f} ".encode()
                *whole, rests[key.fd] = (rests.get(key.fd, b"") + data).split(b"\n")
                with key.data.open("ab") as file:
                    file.write(b"".join(stamp + line + b"\n" for line in whole))

    def _take_waiting(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, []
        for pipe, path in taken:
            self._selector.register(pipe.fileno(), selectors.EVENT_READ, path)
