"""What the gossip core asks of its shell (effects), and what it tells (events).

Effects are performed in order, and none waits for the disk. Writes go to it in their order as well. Epochs,
Trust and floors are fsynced before anyone hears of them, and before the core believes them: it asks for
`Persist(durable=True)` with a ticket and goes on when `persisted(ticket)` comes back as an input. If a write
fails, that input never comes: the shell ends, and nobody has heard of what is not on disk.
Deviation: SWIM has no disk; incarnations that survive a restart need one write before each start.
"""

from enum import StrEnum
from typing import NewType

import msgspec

from gossipmesh.model.identity import NodeId
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.model.service import EndpointsDelta

StreamId = NewType("StreamId", int)
"""Chosen by the core for streams it opens (even) and by the shell for those it accepted (odd)."""


class SendDatagram(msgspec.Struct, frozen=True):
    """Send one UDP payload of at most `limits.DATAGRAM_BYTES_MAX` bytes."""

    destination: Address
    payload: bytes


class OpenStream(msgspec.Struct, frozen=True):
    """Connect by TCP; answer with `stream_opened` or `stream_closed`."""

    stream: StreamId
    destination: Address


class SendStream(msgspec.Struct, frozen=True):
    """Queue bytes on a stream; the shell closes a stream whose queue is over its limit."""

    stream: StreamId
    payload: bytes


class CloseStream(msgspec.Struct, frozen=True):
    """Flush what was queued, then close; `stream_closed` is not called for it."""

    stream: StreamId


class ProbeEngine(msgspec.Struct, frozen=True):
    """Handshake by mTLS with a node's mesh port and check its node SVID; answer `engine_probed`."""

    probe: int
    addresses: tuple[Address, ...]
    spiffe_id: str


class PersistKind(StrEnum):
    """What kinds of entry the core keeps on disk; `key` is unique within a kind."""

    EPOCH = "epoch"  # key b"": our own epoch, msgpack int
    MEMBER = "member"  # key node_id: msgpack of everything the core wants back
    TRUST = "trust"  # key version: the envelope's bytes
    FLOOR = "floor"  # key scope: msgpack [version, hash]
    POLICY_SET = "policy_set"  # key scope: manifest envelope and bodies, the set in force
    OPENING = "opening"  # key b"": a `model.opening.KeptOpening`
    ROLL = "roll"  # key SHA-256: a piece of the roll that Trust names
    ALARM = "alarm"  # the shell's own, key its name: a `trust.alarms.DocumentAlarm`


class Persist(msgspec.Struct, frozen=True):
    """Keep `value` under (kind, key); None removes it, and of one key the last counts.

    `durable`: fsync it, and all before it. `ticket`: answer with `persisted` then; 0: nobody waits.
    """

    kind: PersistKind
    key: bytes
    value: bytes | None
    durable: bool
    ticket: int = 0


class MemberChanged(msgspec.Struct, frozen=True):
    """A member's status, addresses or phase changed; read the rest from `GossipNode.members()`.

    `endpoints`: what that changes of its endpoints, None for nothing.
    """

    node_id: NodeId
    name: str
    status: MemberStatus
    previous: MemberStatus | None
    endpoints: EndpointsDelta | None = None


class ServicesChanged(msgspec.Struct, frozen=True):
    """The services of one member changed, or went with it; `endpoints`: what was not told of that yet."""

    node_id: NodeId
    endpoints: EndpointsDelta | None = None


class KeysChanged(msgspec.Struct, frozen=True):
    """What a member's TLS keys are judged by is other than it was; None: it is a member no more.

    Told of members that have a key set or say that they publish any, and of the revoked; of others the
    `MemberChanged` of their first state and of their end is all that there is to tell.
    """

    node_id: NodeId
    name: str
    keys: MemberKeys | None


class ForeignKeySet(msgspec.Struct, frozen=True):
    """Somebody signed a key set of this node with this node's own key, of TLS keys that it does not know.

    Its Ed25519 key is stolen, or its state folder is an old copy: it must be enrolled again. `paths` are
    those of the identities that were claimed. May be told more than once.
    """

    epoch: int
    sequence: int
    paths: tuple[str, ...]


class TrustChanged(msgspec.Struct, frozen=True):
    """A newer Trust document is in force."""

    version: int


class PolicyApplied(msgspec.Struct, frozen=True):
    """A scope's newer set is in force; read it from `GossipNode.policy(scope)`."""

    scope: str
    version: int
    manifest_hash: bytes


class PolicyRefused(msgspec.Struct, frozen=True):
    """A set was offered and refused; the previous one stays. `code` is stable, `reason` a sentence."""

    scope: str
    version: int
    manifest_hash: bytes
    code: str
    reason: str


class IdentityCopied(msgspec.Struct, frozen=True):
    """Another agent runs under our very keys, and it is that one which goes on, at `address`: ours must end.

    May be told more than once.
    """

    address: Address


class EnrolledAgain(msgspec.Struct, frozen=True):
    """The authority gave our name to another agent: whoever told us, its credential is a later one than ours.

    Nobody takes what we sign any more. May be told more than once.
    """

    generation: int


class Revoked(msgspec.Struct, frozen=True):
    """The authority, or Trust, took our name out of the mesh: every generation up to this one.

    Nobody takes what we sign any more. May be told more than once.
    """

    generation: int


class ViewRepaired(msgspec.Struct, frozen=True):
    """A comparison with one peer ended in equal sums; `peers_count` distinct peers so far this start."""

    peers_count: int


class EndpointsRetained(msgspec.Struct, frozen=True):
    """So many members went within a minute that their endpoints are kept; loud, for the operator."""

    gone_count: int


class WayChanged(msgspec.Struct, frozen=True):
    """Datagrams do not pass between a member and this node, and streams prove it alive; or they do again."""

    node_id: NodeId
    name: str
    is_tcp_only: bool


class DatagramsLost(msgspec.Struct, frozen=True):
    """No datagram of anybody comes here, while streams do: this node's own UDP is dropped; or no more."""

    is_so: bool


class Opened(msgspec.Struct, frozen=True):
    """This node answers calls from now on; `how` is a `model.opening.HowOpened`.

    So many members had named what it runs, of so many that were to.
    """

    how: str
    agreed_count: int
    needed_count: int


class Isolated(msgspec.Struct, frozen=True):
    """This node hears nobody and nobody answers it (or it hears somebody again): its own network is cut.

    Every other member is `unreachable` meanwhile, without an event for each, nor a delta of its endpoints.
    """

    is_isolated: bool


class ClockOff(msgspec.Struct, frozen=True):
    """This node's clock is `by_s` behind the median of so many peers' (less than 0: ahead); 0: no more.

    While there are three or more of them nobody is forgotten on its word.
    """

    by_s: int
    peers_count: int


class ClockBelowRecords(msgspec.Struct, frozen=True):
    """This node's clock is `by_s` behind the newest date that was signed, which counts instead; 0: no more.

    That date stands in a credential that was verified.
    """

    by_s: int


Event = (
    MemberChanged
    | Isolated
    | EndpointsRetained
    | ServicesChanged
    | KeysChanged
    | ForeignKeySet
    | TrustChanged
    | PolicyApplied
    | PolicyRefused
    | IdentityCopied
    | EnrolledAgain
    | Revoked
    | ViewRepaired
    | WayChanged
    | DatagramsLost
    | Opened
    | ClockOff
    | ClockBelowRecords
)


class Notify(msgspec.Struct, frozen=True):
    """Tell the rest of the agent what happened."""

    event: Event


Effect = SendDatagram | OpenStream | SendStream | CloseStream | ProbeEngine | Persist | Notify
