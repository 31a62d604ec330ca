"""The trace of a run: one line per event, kept as a running hash and, when asked, as text.

A line is made of tags and values that this module spells out itself, never of a `repr` or of the name of a
class, a field, an enum's member or a module: what is renamed or moved in the core leaves every digest as it
is. Nor is there prose in it, such as the sentence that explains a refusal. A new event, kind of entry or
status needs a tag here before a run may show it.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Final

from gossipmesh.gossip.base.effects import (
    ClockBelowRecords,
    ClockOff,
    DatagramsLost,
    EndpointsRetained,
    EnrolledAgain,
    Event,
    ForeignKeySet,
    IdentityCopied,
    Isolated,
    KeysChanged,
    MemberChanged,
    Opened,
    Persist,
    PersistKind,
    PolicyApplied,
    PolicyRefused,
    Revoked,
    ServicesChanged,
    TrustChanged,
    ViewRepaired,
    WayChanged,
)
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.member_keys import MemberKeys

LINES_AT_ONCE: Final = 256

STATUS_TAGS: Final[dict[MemberStatus | None, str]] = {
    None: "unknown",
    MemberStatus.ALIVE: "alive",
    MemberStatus.SUSPECT: "suspect",
    MemberStatus.UNATTENDED: "unattended",
    MemberStatus.DEAD: "dead",
    MemberStatus.LEFT: "left",
}
ENTRY_TAGS: Final[dict[PersistKind, str]] = {
    PersistKind.EPOCH: "epoch",
    PersistKind.MEMBER: "member",
    PersistKind.TRUST: "trust",
    PersistKind.FLOOR: "floor",
    PersistKind.POLICY_SET: "policy-set",
    PersistKind.OPENING: "opening",
    PersistKind.ROLL: "roll",
}


def _keys_tag(keys: MemberKeys | None) -> str:
    """Return what a trace says of what a member's keys are judged by."""
    if keys is None:
        return "gone"
    if keys.entries is None:
        held = "-"
    else:
        held = fingerprint(b"".join(e.path.encode() + b"\0" + b"".join(e.pins) for e in keys.entries))
    revoked = " revoked" if keys.is_revoked else ""
    return f"{keys.generation}.{keys.serial} {int(keys.has_key_sets)} {held}{revoked}"


EVENT_LINES: Final[dict[type, Callable[[Any], str]]] = {
    MemberChanged: lambda told: (
        f"member {told.name} {told.node_id.hex()} {STATUS_TAGS[told.previous]} {STATUS_TAGS[told.status]}"
    ),
    ServicesChanged: lambda told: f"services {told.node_id.hex()}",
    KeysChanged: lambda told: f"keys {told.node_id.hex()} {_keys_tag(told.keys)}",
    ForeignKeySet: lambda told: f"foreign-keys {told.epoch} {told.sequence} {' '.join(told.paths)}",
    TrustChanged: lambda told: f"trust {told.version}",
    PolicyApplied: lambda told: f"policy-applied {told.scope} {told.version} {told.manifest_hash.hex()}",
    PolicyRefused: lambda told: (
        f"policy-refused {told.scope} {told.version} {told.manifest_hash.hex()} {told.code}"
    ),
    IdentityCopied: lambda told: f"identity-copied {place(told.address)}",
    EnrolledAgain: lambda told: f"enrolled-again {told.generation}",
    Revoked: lambda told: f"revoked {told.generation}",
    ViewRepaired: lambda told: f"view-repaired {told.peers_count}",
    Isolated: lambda told: f"isolated {int(told.is_isolated)}",
    EndpointsRetained: lambda told: f"mass-death-held {told.gone_count}",
    WayChanged: lambda told: f"way {told.name} {told.node_id.hex()} {int(told.is_tcp_only)}",
    DatagramsLost: lambda told: f"datagrams-lost {int(told.is_so)}",
    Opened: lambda told: f"opened {told.how.replace(' ', '-')} {told.agreed_count} {told.needed_count}",
    ClockOff: lambda told: f"clock-off {told.by_s} {told.peers_count}",
    ClockBelowRecords: lambda told: f"clock-below-records {told.by_s}",
}


class Trace:
    """Hashes every line given to it; two runs with one seed must end with one digest.

    `sink` gets each line as text, for a person who compares two runs.
    """

    def __init__(self, sink: Callable[[str], None] | None = None) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self._waiting: list[str] = []
        self._sink = sink
        self.lines_count = 0

    def record(self, at_ns: int, line: str) -> None:
        """Add one line that happened at virtual time `at_ns`."""
        text = f"{at_ns} {line}\n"
        self._waiting.append(text)
        self.lines_count += 1
        if len(self._waiting) >= LINES_AT_ONCE:
            self._fold()
        if self._sink is not None:
            self._sink(text)

    def digest(self) -> str:
        """Return the hash over all lines so far, in hex."""
        self._fold()
        return self._digest.hexdigest()

    def _fold(self) -> None:
        self._digest.update("".join(self._waiting).encode())
        self._waiting.clear()


def event_line(event: Event) -> str:
    """Return what a trace says of an event that a core told.

    Raises:
        LookupError: the event has no line in `EVENT_LINES` yet. Our own fault. State unchanged.
    """
    told = EVENT_LINES.get(type(event))
    if told is None:
        raise LookupError(f"no trace line is known for {event!r}; add one to EVENT_LINES in {__name__}")
    return told(event)


def entry_line(entry: Persist) -> str:
    """Return what a trace says of an entry that a core wants on its disk."""
    kept = "-" if entry.value is None else fingerprint(entry.value)
    return f"{ENTRY_TAGS[entry.kind]} {entry.key.hex()} {kept} {'synced' if entry.durable else 'later'}"


def place(address: Address) -> str:
    """Return a transport address as trace lines have it."""
    return f"{address.host}:{address.port}"


def fingerprint(payload: bytes) -> str:
    """Return a short stable name for a payload, for trace lines."""
    return hashlib.blake2b(payload, digest_size=6).hexdigest()
