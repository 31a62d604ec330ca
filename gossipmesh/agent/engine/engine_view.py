"""What the rest of the agent may know of its engines, as values."""

import socket

import msgspec


class DrainingEngine(msgspec.Struct, frozen=True):
    """An engine that has a successor and finishes what it has, for `left_s` seconds more at most.

    `open_count`: connections it holds still; `cut_count`: those it had to end.
    """

    pid: int
    name: str
    acked_version: str | None
    refused_version: str | None
    left_s: int
    open_count: int
    cut_count: int


class EngineView(msgspec.Struct, frozen=True):
    """What is known of the engine; versions are None before the first."""

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
    name: str = ""
    """What it calls itself, with its version."""
    lacks: tuple[str, ...] = ()
    """What an engine of this build can and it cannot, sorted."""
    draining: DrainingEngine | None = None
    """The one before, while it finishes what it has."""
    ended: DrainingEngine | None = None
    """The one that was replaced last, as it was when it ended."""


class RunningEngine(msgspec.Struct, frozen=True):
    """An engine found running: the snapshot it serves, and duplicates of its listeners."""

    snapshot_version: str | None
    listeners: dict[str, socket.socket]


class Replacement(msgspec.Struct, frozen=True):
    """One engine in another one's place; the one before has `drain_timeout_s` to finish what it has."""

    before_pid: int
    pid: int
    drain_timeout_s: float
