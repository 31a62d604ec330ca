"""One member as this node holds it: signed records, and what was observed locally.

The effective status is a maximum over the owner's state and the best verdict; nothing else is merged.
Paper: SWIM section 4.2. Deviation: see `catalog`.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import msgspec

from gossipmesh.gossip.base.settings import MemberView
from gossipmesh.gossip.sessions.links import Link
from gossipmesh.model.identity import SHORT_ID_BYTES, NodeId, node_name_of_spiffe_id
from gossipmesh.model.instant import MILLISECOND_NS, Instant
from gossipmesh.model.member import Address, MemberStatus, NodePhase, Order
from gossipmesh.model.records import (
    NodeCredential,
    NodeState,
    RecordKind,
    SignedRecord,
    Verdict,
)
from gossipmesh.model.service import ServiceEntry
from gossipmesh.wire.datagram import decode_record

_CREDENTIAL: Final = int(RecordKind.CREDENTIAL)
_STATE: Final = int(RecordKind.NODE_STATE)
_SERVICES: Final = int(RecordKind.SERVICE_SET)
_KEYS: Final = int(RecordKind.KEY_SET)
_KNOWN: Final = tuple(int(kind) for kind in RecordKind)
# So many records of a kind stay decoded, over all cores of a process. In a table of thousands only a few are
# asked for again and again; states are asked for most, for their addresses. Services are kept decoded.
_STATES_MAX: Final = 1_024
_OTHERS_MAX: Final = 256
_CREDENTIALS: Final = msgspec.msgpack.Decoder(NodeCredential)
_STATES: Final = msgspec.msgpack.Decoder(NodeState)


@lru_cache(_OTHERS_MAX)
def credential_of(message: bytes) -> NodeCredential:
    """Return the credential in a message that was verified when it came."""
    return _CREDENTIALS.decode(decode_record(message).body)


@lru_cache(_STATES_MAX)
def _state_of(message: bytes) -> NodeState:
    return _STATES.decode(decode_record(message).body)


class Messages:
    """A member's records by kind, encoded as they travel: all that is kept of them.

    Those that every member has stand in fields, for a table of ten thousand has no room for as many
    dictionaries; verdicts and unknown kinds come after them, in order of arrival.
    """

    __slots__ = ("_others", "credential", "keys", "services", "state")

    def __init__(self) -> None:
        self.credential: bytes | None = None
        self.state: bytes | None = None
        self.services: bytes | None = None
        self.keys: bytes | None = None
        self._others: dict[int, bytes] | None = None

    def get(self, kind: int) -> bytes | None:
        """Return the message of a kind; None when there is none."""
        if kind == _STATE:
            return self.state
        if kind == _CREDENTIAL:
            return self.credential
        if kind == _SERVICES:
            return self.services
        if kind == _KEYS:
            return self.keys
        return None if self._others is None else self._others.get(kind)

    def __getitem__(self, kind: int) -> bytes:
        message = self.get(kind)
        if message is None:
            raise KeyError(kind)
        return message

    def __setitem__(self, kind: int, message: bytes) -> None:
        message = bytes(memoryview(message))  # bytes that an encoder made keep the spare room it gave them
        if kind == _STATE:
            self.state = message
        elif kind == _CREDENTIAL:
            self.credential = message
        elif kind == _SERVICES:
            self.services = message
        elif kind == _KEYS:
            self.keys = message
        else:
            self._others = {**(self._others or {}), kind: message}

    def drop(self, kind: int) -> None:
        """Keep nothing of a kind."""
        if kind == _STATE:
            self.state = None
        elif kind == _CREDENTIAL:
            self.credential = None
        elif kind == _SERVICES:
            self.services = None
        elif kind == _KEYS:
            self.keys = None
        elif self._others is not None:
            others = {known: message for known, message in self._others.items() if known != kind}
            self._others = others or None

    def items(self) -> list[tuple[int, bytes]]:
        """Return (kind, message) pairs."""
        signed = (
            (_CREDENTIAL, self.credential),
            (_STATE, self.state),
            (_SERVICES, self.services),
            (_KEYS, self.keys),
        )
        held = [(kind, message) for kind, message in signed if message is not None]
        return held if self._others is None else [*held, *self._others.items()]

    def beside(self) -> dict[int, bytes] | None:
        """Return what there is beside credential, state and services, by kind; None for nothing."""
        keys = {} if self.keys is None else {_KEYS: self.keys}
        return {**keys, **(self._others or {})} or None

    def __iter__(self) -> Iterator[int]:
        return iter([kind for kind, _ in self.items()])

    def __len__(self) -> int:
        return len(self.items())

    def __contains__(self, kind: int) -> bool:
        return self.get(kind) is not None


class Records:
    """A member's records, decoded whenever one is asked for."""

    __slots__ = ("_messages",)

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def __getitem__(self, kind: int) -> SignedRecord:
        return decode_record(self._messages[kind])

    def __iter__(self) -> Iterator[int]:
        return iter(self._messages)

    def __contains__(self, kind: int) -> bool:
        return kind in self._messages

    def get(self, kind: int) -> SignedRecord | None:
        """Return the record of a kind, if there is one."""
        message = self._messages.get(kind)
        return None if message is None else decode_record(message)


class Member:
    """Mutable; owned by the catalog. `verdict` is kept while `state` does not beat it.

    `is_revoked`: its credential is a tombstone, so there is nothing else of it, and it is nobody's peer.

    Credential and state are decoded when they are asked for; those asked for lately are found again.
    `entries` are its services, decoded when they came, None before any did; `told` those last told to be in
    use, None for none.
    """

    __slots__ = (
        "address_index",
        "agreed_at",
        "announced_at",
        "answered_at",
        "beat",
        "beat_run",
        "carried_since",
        "changed_at",
        "counted_as",
        "datagram_at",
        "endpoints_retained",
        "ends",
        "entries",
        "heard_at",
        "is_revoked",
        "is_tcp_only",
        "lag_ms",
        "link",
        "messages",
        "name",
        "node_id",
        "place",
        "quarantine_until",
        "restarting_until",
        "run",
        "short_id",
        "shown_at",
        "signer",
        "status",
        "told",
        "told_at",
        "unequal_count",
        "unreachable",
        "verdict",
        "wall_offset_s",
    )

    def __init__(self, credential: NodeCredential, now: Instant) -> None:
        self.node_id: NodeId = credential.node_id
        self.short_id = short_id_of(credential.node_id)
        self.name = node_name_of_spiffe_id(credential.spiffe_id) or ""
        self.verdict: Verdict | None = None
        self.messages = Messages()
        self.entries: tuple[ServiceEntry, ...] | None = None
        self.told: tuple[ServiceEntry, ...] | None = None
        self.ends = credential.ends
        self.signer = b""
        self.place = -1
        self.counted_as = -1
        self.status = MemberStatus.ALIVE
        self.changed_at = now
        self.run = 0
        self.link: Link | None = None
        self.heard_at = -1
        self.told_at = -1
        self.announced_at = -1
        self.answered_at = -1
        self.agreed_at = -1
        self.wall_offset_s: int | None = None
        self.address_index = 0
        self.unequal_count = 0
        self.beat = 0
        self.beat_run = 0
        self.lag_ms = 0
        self.shown_at = -1
        self.restarting_until = -1
        self.unreachable = False
        self.datagram_at = -1
        self.carried_since = -1
        self.is_tcp_only = False
        self.is_revoked = credential.is_tombstone
        self.endpoints_retained = False
        self.quarantine_until: Instant | None = None

    @property
    def credential(self) -> NodeCredential:
        """Return its ticket into the group."""
        message = self.messages.credential
        assert message is not None
        return credential_of(message)

    @property
    def state(self) -> NodeState | None:
        """Return the newest state held; None before one is known."""
        message = self.messages.state
        return None if message is None else _state_of(message)

    @property
    def opaque(self) -> list[int]:
        """Return of which unknown kinds there are records."""
        return [kind for kind in self.messages if kind not in _KNOWN]

    @property
    def order(self) -> Order:
        """Return the order of the newest state held; zero when none is."""
        state = self.state
        return _NO_ORDER if state is None else state.order

    @property
    def address(self) -> Address | None:
        """Return where packets go; None before a state is known."""
        state = self.state
        if state is None:
            return None
        addresses = state.gossip_addresses
        return addresses[self.address_index % len(addresses)]

    def is_found_at(self, sender: Address) -> bool:
        """Tell whether it publishes the address a packet came from, which never names a zone."""
        state = self.state
        return state is not None and any(
            address.port == sender.port and address.host.partition("%")[0] == sender.host
            for address in state.gossip_addresses
        )

    def may_be_at(self, host: bytes) -> bool:
        """Tell whether its state may name this host: a look at the text, for walks over everybody."""
        return self.messages.state is not None and host in self.messages.state

    @property
    def told_lag_ns(self) -> int:
        """Return how late it says it acts: in its last packet, or in its state if that says more."""
        state = self.state
        published_ms = 0 if state is None else state.lag_ms
        return max(self.lag_ms, published_ms) * MILLISECOND_NS

    @property
    def serving(self) -> bool:
        """Tell whether its endpoints are in use: everything but dead and left."""
        return self.messages.state is not None and self.status < MemberStatus.DEAD

    def settle(self) -> MemberStatus:
        """Return the status that the records held amount to."""
        state = self.state
        if state is not None and state.phase == NodePhase.LEFT:
            return MemberStatus.LEFT
        return MemberStatus.ALIVE if self.verdict is None else MemberStatus(self.verdict.status)

    @property
    def verdict_message(self) -> bytes | None:
        """Return what is held against the member, encoded; None when nothing is."""
        return None if self.verdict is None else self.messages.get(RecordKind.VERDICT)

    def view(self, now: Instant) -> MemberView | None:
        """Return the member as the rest of the agent reads it; None before a state is known."""
        state = self.state
        if state is None:
            return None
        credential = self.credential
        return MemberView(
            name=self.name,
            node_id=self.node_id,
            spiffe_id=credential.spiffe_id,
            status=self.status,
            state=state,
            credential=credential,
            changed_at=self.changed_at,
            unreachable=self.unreachable,
            heard_age_ns=_age_ns(self.heard_at, now),
            answered_age_ns=_age_ns(self.answered_at, now),
            agreed_age_ns=_age_ns(self.agreed_at, now),
            wall_offset_s=self.wall_offset_s,
            lag_ms=state.lag_ms,
            quarantine_until=None if (self.quarantine_until or 0) <= now else self.quarantine_until,
            endpoints_retained=self.endpoints_retained,
            is_tcp_only=self.is_tcp_only,
            datagram_age_ns=_age_ns(self.datagram_at, now),
        )

    @property
    def records(self) -> Records:
        """Return the records as they were received."""
        return Records(self.messages)

    def record(self, kind: int) -> SignedRecord | None:
        """Return the record of a kind, as it was received."""
        return self.records.get(kind)


_NO_ORDER = Order(0, 0, 0)


def _age_ns(at: int, now: Instant) -> int | None:
    if at < 0:
        return None
    return now - at if at < now else 0


def short_id_of(node_id: bytes) -> int:
    """Return the u64 that stands for a node in packet headers."""
    return int.from_bytes(node_id[:SHORT_ID_BYTES], "big")
