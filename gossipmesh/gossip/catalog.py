"""The members and what they signed: merging is a maximum, so every order of arrival ends alike.

Rules:
1. Verify before storing or forwarding; compare orders before verifying, so that echoes cost nothing.
2. Status: (order, rank) of the owner's state or of a claim against an order, whichever is greater;
   a claim stands until a state of higher order comes; `left` is final for its incarnation.
3. Roots count credentials, states, service sets, unknown kinds and standing unattended/dead claims of
   members whose credential has not ended. Suspicion comes and goes and is not counted.
4. Records of equal order and different content are settled by hash, so even a liar's views converge.
Paper: SWIM section 4.2. Deviation: one total order instead of SWIM's override table (see model.member).
"""

import ipaddress
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgpack

from gossipmesh.gossip.context import Context
from gossipmesh.gossip.effects import MemberChanged, PersistKind, ServicesChanged
from gossipmesh.gossip.member import Member, short_id_of
from gossipmesh.gossip.roots import Item, Rank, RootLedger
from gossipmesh.gossip.standing import Standing
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.identity import is_label, is_service_name, pattern_allows
from gossipmesh.model.member import Address, MemberStatus, NodePhase, Order
from gossipmesh.model.records import (
    Claim,
    NodeCredential,
    NodeState,
    PolicyStatus,
    RecordKind,
    ServiceSet,
    SignedRecord,
)
from gossipmesh.model.service import EndpointHealth
from gossipmesh.trust.records import open_credential_untrusted, open_opaque_untrusted, open_owned_untrusted
from gossipmesh.wire.codec import decode_untrusted, encode
from gossipmesh.wire.datagram import encode_message, peek_order_untrusted

_MEMBER_BYTES_MAX = 4 * limits.RECORD_BYTES_MAX


class Checks:
    """How many signature checks one input may still cost."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def spend_untrusted(self) -> None:
        """Take one.

        Raises:
            MalformedInput: none is left. Remote's fault. State unchanged.
        """
        if self.left <= 0:
            raise MalformedInput("more signature checks than one input may cost")
        self.left -= 1


class Change(NamedTuple):
    """A record was merged; `fresh_incarnation`: its owner started anew or was not known."""

    member: Member
    kind: int
    message: bytes
    status_before: MemberStatus | None
    fresh_incarnation: bool
    claim: Claim | None = None
    record: SignedRecord | None = None
    held: bool = False


class Catalog:
    """All members with a living credential, ourselves among them, in order of arrival."""

    def __init__(self, ctx: Context, own_id: bytes) -> None:
        self._ctx = ctx
        self.own_id = own_id
        self.ends_at: Callable[[int], None] = lambda ends: None
        self.contradicted: Callable[[Member], bool] = lambda member: False
        self.ledger = RootLedger(ctx.group_tag)
        self._members: dict[bytes, Member] = {}
        self._by_short: dict[int, Member] = {}
        self._standing = Standing(own_id)
        self._keys_version = -1
        self._keys: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def get(self, node_id: bytes) -> Member | None:
        """Return a member by id."""
        return self._members.get(node_id)

    def by_short(self, short_id: int) -> Member | None:
        """Return a member by the id in packet headers."""
        return self._by_short.get(short_id)

    @property
    def serving_count(self) -> int:
        """Return how many members are neither dead nor left, ourselves included, at least 1."""
        return max(1, self._standing.serving_count)

    @property
    def reachable(self) -> list[Member]:
        """Return whom packets go to: the alive and the suspect, without ourselves."""
        return self._standing.reachable

    def recently_dead(self, since: int) -> list[Member]:
        """Return who died after `since`, the last first."""
        return self._standing.recently_dead(since)

    def merge_untrusted(self, record: SignedRecord, checks: Checks) -> Change | None:
        """Merge one record from outside; None when it says nothing new.

        Raises:
            MalformedInput: unreadable, unsigned, not allowed, or `checks` are used up. Remote's fault.
                State unchanged.
        """
        if record.kind == RecordKind.CREDENTIAL:
            return self._merge_credential(record, checks)
        node_id, generation, epoch, sequence = peek_order_untrusted(record.body)
        member = self._members.get(node_id)
        if member is None:
            raise UnknownOwner(node_id)
        order = Order(generation, epoch, sequence)
        if record.kind == RecordKind.CLAIM:
            return self._merge_claim(member, record, order, checks)
        if generation != member.credential.generation:
            raise Untrusted("a record of another generation than its owner's credential")
        if record.kind == RecordKind.NODE_STATE:
            return self._merge_state(member, record, order, checks)
        if record.kind == RecordKind.SERVICE_SET:
            return self._merge_services(member, record, order, checks)
        return self._merge_opaque(member, record, order, checks)

    def merge_held(self, member: Member, claim: Claim, record: SignedRecord) -> Change | None:
        """Apply a verified claim that was held back; None when it was overtaken meanwhile."""
        if self._claim_is_stale(member, claim):
            return None
        return self._apply_claim(member, claim, record)

    def _open(self, record: SignedRecord, owner: Member, checks: Checks) -> object:
        checks.spend_untrusted()
        self._ctx.statistics.signature_checks += 1
        key = owner.credential.signing_key
        return open_owned_untrusted(record, self._ctx.trust_domain, key, self._ctx.verifier)

    def verify_owned_untrusted(self, record: SignedRecord, owner: Member, checks: Checks) -> None:
        """Verify that `owner` signed a record; merges nothing.

        Raises:
            MalformedInput: it did not. Remote's fault. State unchanged.
        """
        self._open(record, owner, checks)

    def _stale(self) -> None:
        self._ctx.statistics.records_stale += 1

    def credential_keys(self) -> dict[bytes, bytes]:
        """Return the authority's document keys; rebuilt when Trust changes."""
        trust = self._ctx.documents.trust
        version = 0 if trust is None else trust.version
        if version != self._keys_version:
            self._keys = self._ctx.documents.credential_keys
            self._keys_version = version
        return self._keys

    def open_credential_untrusted(self, record: SignedRecord, checks: Checks) -> NodeCredential:
        """Verify a credential and that it holds now; merges nothing.

        Raises:
            MalformedInput: not signed by the authority, not valid now, or of unusable fields.
                Remote's fault. State unchanged.
        """
        checks.spend_untrusted()
        self._ctx.statistics.signature_checks += 1
        credential = open_credential_untrusted(
            record, self._ctx.trust_domain, self.credential_keys(), self._ctx.verifier
        )
        if not credential.not_before <= self._ctx.wall_s < credential.ends:
            raise Untrusted("a credential that does not hold now")
        return credential

    def _merge_credential(self, record: SignedRecord, checks: Checks) -> Change | None:
        offered = decode_untrusted(record.body, NodeCredential, bytes_max=limits.RECORD_BYTES_MAX)
        member = self._members.get(offered.node_id)
        if member is not None:
            held = member.records[RecordKind.CREDENTIAL]
            if held.body == record.body or _credential_rank(offered, record) <= _credential_rank(
                member.credential, held
            ):
                self._stale()
                return None
        credential = self.open_credential_untrusted(record, checks)
        return self.install_credential(credential, record)

    def install_credential(self, credential: NodeCredential, record: SignedRecord) -> Change:
        """Take a verified credential, newer than any held of this node.

        Raises:
            Untrusted: the table is full, or another member has the same short id. State unchanged.
        """
        member = self._members.get(credential.node_id)
        fresh = member is None
        if member is None:
            other = self._by_short.get(short_id_of(credential.node_id))
            if other is not None or len(self._members) >= limits.MEMBERS_MAX:
                raise Untrusted("no room for another member, or its short id is taken")
            member = Member(credential, self._ctx.now)
            self._members[credential.node_id] = member
            self._by_short[member.short_id] = member
            self._ctx.statistics.members = len(self._members)
        elif credential.generation > member.credential.generation:
            self._forget_records(member)
        if member.credential.exchange_key != credential.exchange_key:
            member.link = None
        member.credential = credential
        self.ends_at(credential.ends)
        self._store(member, record, Rank(credential.generation, 0, credential.serial, b""))
        self._persist(member)
        self._standing.note(member)
        return Change(member, record.kind, member.messages[record.kind], member.status, fresh)

    def _merge_state(
        self, member: Member, record: SignedRecord, order: Order, checks: Checks
    ) -> Change | None:
        if self._overtaken(member, record, order):
            return None
        old = member.state
        if (
            old is not None
            and old.phase == NodePhase.LEFT
            and (old.generation, old.epoch) == order_start(order)
        ):
            self._stale()
            return None
        state = self._open(record, member, checks)
        if not isinstance(state, NodeState) or not _state_is_sound(state, member):
            raise Untrusted("a NodeState that contradicts its credential or its limits")
        return self.install_state(member, state, record)

    def install_state(self, member: Member, state: NodeState, record: SignedRecord) -> Change:
        """Take a verified state, newer than the one held."""
        before = None if member.state is None else member.status
        fresh = member.state is None or order_start(state.order) > order_start(member.state.order)
        moved = member.state is None or (
            member.state.gossip_addresses,
            member.state.mesh_addresses,
            member.state.phase,
        ) != (state.gossip_addresses, state.mesh_addresses, state.phase)
        member.state = state
        if state.run_id and state.run_id != member.run and fresh:
            member.run = state.run_id
            member.link = None
        member.address_index = 0 if moved else member.address_index
        self._store(member, record, rank_of(state.order))
        if member.claim is not None and member.claim.order < state.order:
            self._drop_claim(member)
        if member.held is not None and member.held.order < state.order:
            member.held = None
        self._settled(member, before, moved)
        return Change(member, record.kind, member.messages[record.kind], before, fresh)

    def _merge_services(
        self, member: Member, record: SignedRecord, order: Order, checks: Checks
    ) -> Change | None:
        if self._overtaken(member, record, order):
            return None
        services = self._open(record, member, checks)
        if not isinstance(services, ServiceSet):
            raise Untrusted("a record of another kind than it says")
        require_services_allowed_untrusted(services, member.credential)
        return self.install_services(member, services, record)

    def install_services(self, member: Member, services: ServiceSet, record: SignedRecord) -> Change:
        """Take a verified service set, newer than the one held."""
        member.services = services
        self._store(member, record, rank_of(services.order))
        self._persist(member)
        self._ctx.notify(ServicesChanged(member.node_id))
        return Change(member, record.kind, member.messages[record.kind], member.status, False)

    def _merge_opaque(
        self, member: Member, record: SignedRecord, order: Order, checks: Checks
    ) -> Change | None:
        if self._overtaken(member, record, order):
            return None
        if record.kind not in member.opaque and len(member.opaque) >= limits.UNKNOWN_KINDS_PER_MEMBER_MAX:
            raise Untrusted("more unknown record kinds than one member may have")
        checks.spend_untrusted()
        self._ctx.statistics.signature_checks += 1
        open_opaque_untrusted(
            record, self._ctx.trust_domain, member.credential.signing_key, self._ctx.verifier
        )
        member.opaque[record.kind] = order
        self._store(member, record, rank_of(order))
        self._persist(member)
        return Change(member, record.kind, member.messages[record.kind], member.status, False)

    def _overtaken(self, member: Member, record: SignedRecord, order: Order) -> bool:
        held = self.ledger.get(record.kind, member.node_id)
        if held is None:
            return False
        offered = order_tuple(order)
        if offered > held.rank[:3]:
            return False
        if offered == held.rank[:3]:
            digest = self.ledger.digest(bytes((record.kind,)) + record.body)
            if digest > held.rank.tie:
                return False
        self._stale()
        return True

    def open_claim_untrusted(self, record: SignedRecord, checks: Checks) -> Claim:
        """Verify a claim; merges nothing.

        Raises:
            MalformedInput: unreadable, or not signed by the member it names. Remote's fault.
                State unchanged.
        """
        offered = decode_untrusted(record.body, Claim, bytes_max=limits.RECORD_BYTES_MAX)
        accuser = self._members.get(offered.accuser)
        if accuser is None:
            raise UnknownOwner(offered.accuser)
        if offered.status not in (MemberStatus.SUSPECT, MemberStatus.UNATTENDED, MemberStatus.DEAD):
            raise Untrusted("a claim of a status nobody may claim")
        self._open(record, accuser, checks)
        return offered

    def _merge_claim(
        self, member: Member, record: SignedRecord, order: Order, checks: Checks
    ) -> Change | None:
        offered = decode_untrusted(record.body, Claim, bytes_max=limits.RECORD_BYTES_MAX)
        own = member.node_id == self.own_id
        if order > member.order:
            # Nobody may be condemned in advance: a claim waits until what its subject signed is here.
            raise UnknownOwner(member.node_id)
        stale = not own and self._claim_is_stale(member, offered)
        if stale and not self._claim_confirms(member, offered):
            self._stale()
            return None
        claim = self.open_claim_untrusted(record, checks)
        if own or self._claim_confirms(member, claim):
            # A refutation or a confirmation is the caller's; neither changes what is held.
            return Change(member, record.kind, encode_message(record), member.status, False, claim, record)
        if claim.status >= MemberStatus.UNATTENDED and self.contradicted(member):
            member.held = claim
            self._ctx.statistics.claims_held += 1
            return Change(
                member, record.kind, encode_message(record), member.status, False, claim, record, True
            )
        return self._apply_claim(member, claim, record)

    def _claim_confirms(self, member: Member, claim: Claim) -> bool:
        held = member.claim
        return (
            held is not None
            and held.status == MemberStatus.SUSPECT == claim.status
            and held.order == claim.order
            and held.accuser != claim.accuser
        )

    def _claim_is_stale(self, member: Member, claim: Claim) -> bool:
        if claim.order < member.order or (member.state is not None and member.state.phase == NodePhase.LEFT):
            return True
        held = member.claim
        return held is not None and (claim.order, claim.status) <= (held.order, held.status)

    def _apply_claim(self, member: Member, claim: Claim, record: SignedRecord) -> Change:
        before = None if member.state is None else member.status
        member.claim = claim
        member.records[record.kind] = record
        member.messages[record.kind] = encode_message(record)
        counted = claim.status >= MemberStatus.UNATTENDED
        rank = Rank(*order_tuple(claim.order), bytes((claim.status,)))
        content = bytes((record.kind,)) + encode([claim.node_id, order_tuple(claim.order), claim.status])
        digest = int.from_bytes(self.ledger.digest(content), "big")
        self.ledger.put(record.kind, member.node_id, Item(rank, digest) if counted else None)
        self._settled(member, before, False)
        return Change(member, record.kind, member.messages[record.kind], before, False, claim, record)

    def _drop_claim(self, member: Member) -> None:
        member.claim = None
        member.records.pop(RecordKind.CLAIM, None)
        member.messages.pop(RecordKind.CLAIM, None)
        self.ledger.put(RecordKind.CLAIM, member.node_id, None)

    def _store(self, member: Member, record: SignedRecord, rank: Rank) -> None:
        digest = self.ledger.digest(bytes((record.kind,)) + record.body)
        self.ledger.put(
            record.kind, member.node_id, Item(rank._replace(tie=digest), int.from_bytes(digest, "big"))
        )
        member.records[record.kind] = record
        member.messages[record.kind] = encode_message(record)
        self._ctx.statistics.records_merged += 1

    def _settled(self, member: Member, before: MemberStatus | None, moved: bool) -> None:
        member.status = member.settle()
        if member.status is not before or moved:
            if member.status is not before:
                member.changed_at = self._ctx.now
            self._standing.note(member)
            self._ctx.notify(MemberChanged(member.node_id, member.name, member.status, before))
            was_serving = before is not None and before < MemberStatus.DEAD
            if member.services is not None and (was_serving != member.serving or moved):
                self._ctx.notify(ServicesChanged(member.node_id))
        if member.status is not MemberStatus.SUSPECT:
            self._persist(member)

    def _forget_records(self, member: Member) -> None:
        for kind in list(member.records):
            if kind != RecordKind.CREDENTIAL:
                del member.records[kind]
                member.messages.pop(kind, None)
                self.ledger.put(kind, member.node_id, None)
        member.state = member.services = member.claim = member.held = member.link = None
        member.opaque.clear()
        member.run = 0
        member.status = MemberStatus.ALIVE

    def forget(self, member: Member) -> None:
        """Drop a member whose credential no longer holds, and everything it signed."""
        before = member.status
        had_state = member.state is not None
        self._forget_records(member)
        self.ledger.put(RecordKind.CREDENTIAL, member.node_id, None)
        del self._members[member.node_id]
        del self._by_short[member.short_id]
        self._standing.drop(member)
        self._ctx.statistics.members = len(self._members)
        self._ctx.persist(PersistKind.MEMBER, member.node_id, None)
        if had_state:
            self._ctx.notify(MemberChanged(member.node_id, member.name, MemberStatus.DEAD, before))
            self._ctx.notify(ServicesChanged(member.node_id))

    def _persist(self, member: Member) -> None:
        # A message is the two bytes of [RECORD, ...] and the record, already encoded.
        records = [
            message[2:]
            for kind, message in member.messages.items()
            if kind != RecordKind.CLAIM or member.status >= MemberStatus.UNATTENDED
        ]
        value = msgpack.Packer().pack_array_header(len(records)) + b"".join(records)
        self._ctx.persist(PersistKind.MEMBER, member.node_id, value)


class UnknownOwner(Untrusted):
    """A record whose owner or accuser is not known here; it may be asked for."""

    def __init__(self, node_id: bytes) -> None:
        super().__init__("a record of an unknown owner")
        self.node_id = node_id


def order_tuple(order: Order) -> tuple[int, int, int]:
    """Return an order as plain numbers."""
    return (order.generation, order.epoch, order.sequence)


def order_start(order: Order) -> tuple[int, int]:
    """Return what SWIM calls incarnation."""
    return (order.generation, order.epoch)


def rank_of(order: Order) -> Rank:
    """Return an order as a ledger rank without a tie-break."""
    return Rank(order.generation, order.epoch, order.sequence, b"")


def decode_restored_untrusted(value: bytes) -> tuple[SignedRecord, ...]:
    """Read back one `Persist(MEMBER)` value.

    Raises:
        MalformedInput: the file was damaged. State unchanged.
    """
    return decode_untrusted(value, tuple[SignedRecord, ...], bytes_max=16 * _MEMBER_BYTES_MAX)


def _credential_rank(credential: NodeCredential, record: SignedRecord) -> tuple[int, int, bytes]:
    return (credential.generation, credential.serial, record.body)


def _state_is_sound(state: NodeState, member: Member) -> bool:
    """Tell whether a verified state keeps to its credential's name and to limits."""
    bounded = (
        1 <= len(state.gossip_addresses) <= limits.ADDRESSES_PER_NODE_MAX
        and 1 <= len(state.mesh_addresses) <= limits.ADDRESSES_PER_NODE_MAX
        and all(_is_address(address) for address in (*state.gossip_addresses, *state.mesh_addresses))
        and len(state.policies) <= limits.SCOPES_MAX
        and all(_is_status_sound(status) for status in state.policies)
        and len(state.build) <= 64
        and len(state.features) <= 64
        and all(len(feature) <= 64 for feature in state.features)
        and 0 <= state.run_id < 2**63
    )
    return bounded and state.name == member.name and state.phase in tuple(NodePhase)


def _is_address(address: Address) -> bool:
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return False
    return 1 <= address.port <= 65_535


def _is_status_sound(status: PolicyStatus) -> bool:
    hashes = (status.manifest_hash, status.refused_hash)
    return (
        len(status.scope) <= limits.SCOPE_BYTES_MAX
        and len(status.refused_reason) <= 256
        and all(len(item) <= 32 for item in hashes)
    )


def require_services_allowed_untrusted(services: ServiceSet, credential: NodeCredential) -> None:
    """Refuse a service set that its owner's credential does not allow.

    Raises:
        Untrusted: a service outside the patterns, or beyond limits. Remote's fault. State unchanged.
    """
    if len(services.entries) > limits.SERVICES_PER_NODE_MAX:
        raise Untrusted("more services than one node may have")
    names = [entry.registration for entry in services.entries]
    if names != sorted(dict.fromkeys(names)):
        raise Untrusted("service entries out of order or twice")
    for entry in services.entries:
        if not is_service_name(entry.service) or not is_label(entry.registration):
            raise Untrusted(f"{entry.service[:80]!r} is no service, or its registration no label")
        if not any(pattern_allows(pattern, entry.service) for pattern in credential.service_patterns):
            raise Untrusted(f"the service {entry.service[:80]!r}, which its node may not serve")
        if len(entry.labels) > limits.LABELS_PER_SERVICE_MAX or not 1 <= entry.weight <= 65_535:
            raise Untrusted("a service entry beyond limits")
        if any(len(text.encode()) > limits.LABEL_BYTES_MAX for pair in entry.labels for text in pair):
            raise Untrusted("a service label beyond limits")
        if entry.health not in tuple(EndpointHealth) or len(entry.protocol) > 16:
            raise Untrusted("a service entry of unknown health or protocol")
