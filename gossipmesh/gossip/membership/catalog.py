"""The members and what they signed: merging is a maximum, so every order of arrival ends alike.

Rules:
1. Verify before storing or forwarding; compare orders before verifying, so that echoes cost nothing.
2. Status: (order, rank) of the owner's state or of a verdict against its incarnation, whichever is
   greater; a verdict stands until a state of higher order comes; `left` is final for its incarnation.
3. State sums count credentials, states, service sets, key sets, unknown kinds and standing verdicts of
   members whose credential has not ended. Retired kinds are refused.
4. Records of equal order and different content are settled by hash, so even a liar's views converge.
Paper: SWIM section 4.2. Deviation: one total order instead of SWIM's override table (see model.member).
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import msgpack
import msgspec

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.budgets import KeyedBudgets
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.gossip.membership.credentials import CredentialJudge, rank_of_credential
from gossipmesh.gossip.membership.eligible import Eligible
from gossipmesh.gossip.membership.endpoints import Telling, shared_entries
from gossipmesh.gossip.membership.key_sets import (
    keys_are_allowed,
    publishes_keys,
    services_are_allowed,
    tell_keys,
)
from gossipmesh.gossip.membership.member import Member, short_id_of
from gossipmesh.gossip.membership.soundness import (
    lasting,
    lasting_order_untrusted,
    require_keys_allowed_untrusted,
    require_order_untrusted,
    require_services_allowed_untrusted,
    state_is_sound,
)
from gossipmesh.gossip.membership.standing import Standing
from gossipmesh.gossip.membership.state_sums import Item, Rank, StateSums, SumLedger
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus, Order
from gossipmesh.model.records import (
    RETIRED_KINDS,
    KeySet,
    NodeCredential,
    NodeState,
    RecordKind,
    ServiceSet,
    SignedRecord,
    Verdict,
)
from gossipmesh.trust.records import as_signed, open_opaque_untrusted, open_owned_untrusted
from gossipmesh.wire.codec import decode_untrusted, encode
from gossipmesh.wire.datagram import encode_message, peek_order_untrusted

MEMBER_BYTES_MAX = 4 * limits.RECORD_BYTES_MAX
_RATES_MAX = 1_024  # a flood stays among the names used last; what is forgotten begins with a full burst
# Read once: a member of an enum costs 0.2 us each time in Python 3.11.
_CREDENTIAL, _NODE_STATE, _SERVICE_SET, _VERDICT, _KEY_SET = map(int, RecordKind)


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


class Change(msgspec.Struct, frozen=True):
    """A record was merged; `fresh_incarnation`: it is the first of its kind since its owner started."""

    member: Member
    kind: int
    message: bytes
    status_before: MemberStatus | None
    fresh_incarnation: bool
    record: SignedRecord | None = None
    held: bool = False
    verdict: Verdict | None = None


@kept.part("catalog")
class Catalog:
    """All members with a living credential, ourselves among them, and the revoked, in order of arrival."""

    member_class: ClassVar[type[Member]] = Member
    verdict_kind: ClassVar[int] = _VERDICT

    def __init__(self, ctx: Context, own_id: bytes) -> None:
        self._ctx = ctx
        self.own_id = own_id
        self.ending: int | None = None  # see `take_ending`; asked at the end of each step
        self.isolated_since = -1  # when somebody was heard last, while nobody is (failure.isolation)
        self.ledger = SumLedger(ctx.group_tag)
        self.sums = StateSums(self.ledger)
        self._members: dict[bytes, Member] = {}
        self._by_short: dict[int, Member] = {}
        self.standing = Standing(own_id)
        self.telling = Telling(ctx, own_id)
        self.eligible = Eligible(self.standing, own_id)
        self.revoked: list[Member] = []  # whose streams end with this step; see `take_revoked`
        self._revoked_count = 0
        self._signers: dict[bytes, bytes] = {}
        self._rates = KeyedBudgets(
            limits.RECORDS_PER_OWNER_PER_S, limits.RECORDS_PER_OWNER_BURST, keys_max=_RATES_MAX
        )
        self.credentials = CredentialJudge(ctx)

    def __len__(self) -> int:
        return len(self._members) - self._revoked_count

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def get(self, node_id: bytes) -> Member | None:
        """Return a member by id."""
        return self._members.get(node_id)

    def by_short(self, short_id: int) -> Member | None:
        """Return a member by the id in packet headers."""
        return self._by_short.get(short_id)

    @property
    def own_node_id(self) -> NodeId:
        """Return our id."""
        return NodeId(self.own_id)

    @property
    def serving_count(self) -> int:
        """Return how many members are neither dead nor left, ourselves included, at least 1."""
        return max(1, self.standing.serving_count)

    @property
    def reachable(self) -> list[Member]:
        """Return whom packets go to, without ourselves."""
        return self.standing.reachable

    def recently_dead(self, since: int) -> list[Member]:
        """Return who died after `since`, the last first."""
        return self.standing.recently_dead(since)

    def merge_untrusted(self, record: SignedRecord, checks: Checks) -> Change | None:
        """Merge one record from outside; None when it says nothing new.

        Raises:
            MalformedInput: unreadable, unsigned, not allowed, or `checks` are used up. Remote's fault.
                State unchanged.
        """
        kind = record.kind
        if kind == _CREDENTIAL:
            return self._merge_credential(record, checks)
        member, order = self.subject_untrusted(record)
        if kind == _VERDICT:
            raise Untrusted("a verdict, which is not merged before it was judged")
        if order.generation != member.credential.generation:
            raise Untrusted("a record of another generation than its owner's credential")
        if kind == _NODE_STATE:
            return self._merge_state(member, record, order, checks)
        if kind == _SERVICE_SET:
            return self._merge_services(member, record, order, checks)
        if kind == _KEY_SET:
            return self._merge_keys(member, record, order, checks)
        return self._merge_opaque(member, record, order, checks)

    def subject_untrusted(self, record: SignedRecord) -> tuple[Member, Order]:
        """Return whom a record is about, and of what order it says it is; nothing is verified yet.

        Raises:
            MalformedInput: unreadable, of an order nobody could outbid, of a retired kind, or about somebody
                unknown (`UnknownOwner`). Remote's fault. State unchanged.
        """
        node_id, generation, epoch, sequence = peek_order_untrusted(record.body)
        require_order_untrusted(record.kind, epoch, sequence, self._ctx.latest_s)
        member = self._members.get(node_id)
        if member is None:
            raise UnknownOwner(node_id)
        if member.is_revoked:
            raise Untrusted("a record of a node that is revoked")
        if record.kind in RETIRED_KINDS:
            raise Untrusted("a record of a retired kind")
        return member, Order(generation, epoch, sequence)

    def _open(self, record: SignedRecord, owner: Member, checks: Checks) -> object:
        key = self._allow(record, owner, checks)
        value = open_owned_untrusted(record, self._ctx.trust_domain, key, self._ctx.verifier)
        self._rates.take_key((owner.node_id, record.kind), self._ctx.now)
        return value

    def _allow(self, record: SignedRecord, owner: Member, checks: Checks) -> bytes:
        """Count a check, unless the owner is over its rate; return the key. What verifies is counted after:
        nobody else can use up what an owner may say."""
        self._rates.require_untrusted((owner.node_id, record.kind), self._ctx.now)
        checks.spend_untrusted()
        self._ctx.statistics.signature_checks += 1
        return owner.credential.signing_key

    def verify_owned_untrusted(self, record: SignedRecord, owner: Member, checks: Checks) -> object:
        """Verify that `owner` signed a record, of whatever kind, and return what it says; merges nothing.

        Of a kind that this build does not know nothing is returned.

        Raises:
            MalformedInput: it did not. Remote's fault. State unchanged.
        """
        if record.kind in tuple(RecordKind):
            return self._open(record, owner, checks)
        self._open_opaque(record, owner, checks)
        return None

    def _open_opaque(self, record: SignedRecord, owner: Member, checks: Checks) -> None:
        key = self._allow(record, owner, checks)
        open_opaque_untrusted(record, self._ctx.trust_domain, key, self._ctx.verifier)
        self._rates.take_key((owner.node_id, record.kind), self._ctx.now)

    def _stale(self) -> None:
        self._ctx.statistics.records_stale += 1

    def open_credential_untrusted(
        self, record: SignedRecord, checks: Checks, *, is_kept: bool = False
    ) -> NodeCredential:
        """Verify a credential and that it holds now; merges nothing.

        `is_kept`: it held when we took it, and stands on our disk: whether it has ended is asked later, when
        peers have told what time it is.

        Raises:
            MalformedInput: not signed by the authority, not valid now, revoked by Trust, or of unusable
                fields. Remote's fault. State unchanged.
        """
        checks.spend_untrusted()
        self._ctx.statistics.signature_checks += 1
        return self.credentials.open_untrusted(record, is_kept=is_kept)

    def restore_untrusted(self, record: SignedRecord, checks: Checks) -> Change | None:
        """Merge one record that we kept; None when it says nothing new.

        Raises:
            MalformedInput: as for one from outside. State unchanged.
        """
        if record.kind == _CREDENTIAL:
            return self._merge_credential(record, checks, is_kept=True)
        return self.merge_untrusted(record, checks)

    def _merge_credential(
        self, record: SignedRecord, checks: Checks, *, is_kept: bool = False
    ) -> Change | None:
        offered = decode_untrusted(record.body, NodeCredential, bytes_max=limits.RECORD_BYTES_MAX)
        member = self._members.get(offered.node_id)
        if member is not None and not self.credentials.supersedes(record.key_id, member.signer):
            held = member.records[RecordKind.CREDENTIAL]
            rank = self._credential_rank(member.credential, held)
            if held.body == record.body or self._credential_rank(offered, record) <= rank:
                self._stale()
                return None
        credential = self.open_credential_untrusted(record, checks, is_kept=is_kept)
        return self.install_credential(credential, record)

    def _credential_rank(self, credential: NodeCredential, record: SignedRecord) -> tuple[Any, ...]:
        """Return where a credential stands, settled as the ledger settles records of one order."""
        digest = self.ledger.digest(bytes((record.kind,)) + record.body)
        return (*rank_of_credential(credential)[:3], digest)

    def install_credential(self, credential: NodeCredential, record: SignedRecord) -> Change:
        """Take a verified credential, newer than any held of this node; a tombstone ends its member at once.

        Raises:
            Untrusted: the table is full, or another member has the same short id. State unchanged.
        """
        member = self._members.get(credential.node_id)
        fresh = member is None
        if member is None:
            member = self._enter(credential)
        published, before = publishes_keys(member), None
        if credential.is_tombstone:
            before = self._end(member)
        elif not fresh and _is_of_others(credential, member.credential):
            self._forget_records(member)
            if credential.generation <= member.credential.generation:
                self.revoked.append(member)  # of a thief's keys until now
        elif not fresh and credential.service_patterns != member.credential.service_patterns:
            self.drop_disallowed(member, credential)
        if not fresh and member.credential.exchange_key != credential.exchange_key:
            member.link = None
        self._ctx.civil.signed(credential.not_before)
        self._revoked_count += credential.is_tombstone - member.is_revoked
        member.is_revoked = credential.is_tombstone
        member.ends = credential.ends
        member.signer = self._signers.setdefault(record.key_id, record.key_id)
        self.ending = credential.ends if self.ending is None else min(self.ending, credential.ends)
        self._store(member, record, rank_of_credential(credential))
        self._ctx.statistics.members = len(self)
        self._persist(member)
        if credential.is_tombstone:
            self.revoked.append(member)
            self._tell_end(member, before)
        else:
            self.standing.note(member)
            self.note_eligible(member)
        if published or credential.is_tombstone:
            tell_keys(self._ctx, member)
        return Change(member, record.kind, member.messages[record.kind], member.status, fresh)

    def resign(self, member: Member, record: SignedRecord) -> None:
        """Keep a credential under another signature: what it says stays, and so do the state sums."""
        member.signer = self._signers.setdefault(record.key_id, record.key_id)
        member.messages[record.kind] = encode_message(record)
        self._persist(member)

    def drop_disallowed(self, member: Member, credential: NodeCredential) -> None:
        """Let go what a member signed and this credential of its does not allow."""
        if not services_are_allowed(member, credential):
            self._drop(member, _SERVICE_SET)
            member.entries = None
            self.telling.services(member)
        if not keys_are_allowed(member, credential):
            self._drop(member, _KEY_SET)

    def _merge_state(
        self, member: Member, record: SignedRecord, order: Order, checks: Checks
    ) -> Change | None:
        held = self.ledger.get(record.kind, member.node_id)
        if held is not None and order_tuple(order) < held.rank[:3] and order_start(order) == held.rank[:2]:
            order = lasting_order_untrusted(record, order)
        if self._overtaken(member, record, order):
            return None
        state = self._open(record, member, checks)
        if not isinstance(state, NodeState) or not state_is_sound(state, member.name):
            raise Untrusted("a NodeState that contradicts its credential or its limits")
        return self.install_state(member, state, record)

    def install_state(self, member: Member, state: NodeState, record: SignedRecord) -> Change:
        """Take a verified state, newer than the one held."""
        old = member.state
        before = None if old is None else member.status
        fresh = old is None or order_start(state.order) > order_start(old.order)
        moved = old is None or (old.gossip_addresses, old.mesh_addresses, old.phase) != (
            state.gossip_addresses,
            state.mesh_addresses,
            state.phase,
        )
        published = publishes_keys(member)
        if state.run_id and state.run_id != member.run and fresh:
            member.run = state.run_id
            member.link = None
        member.address_index = 0 if moved else member.address_index
        self._store(member, record, rank_of(lasting(state)))
        if member.verdict is not None and member.verdict.order <= lasting(state):
            self._drop_verdict(member)
        member.restarting_until = self._ctx.now + state.restarting_s * SECOND_NS if state.restarting_s else -1
        self._settled(member, before, moved)
        self._persist(member)
        if publishes_keys(member) is not published:
            tell_keys(self._ctx, member)
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
        held = self.ledger.get(record.kind, member.node_id)
        fresh = held is None or held.rank[:2] < order_start(services.order)
        self._store(member, record, rank_of(services.order))
        member.entries = shared_entries(services.entries)
        self._persist(member)
        self.telling.services(member)
        return Change(member, record.kind, member.messages[record.kind], member.status, fresh)

    def _merge_keys(
        self, member: Member, record: SignedRecord, order: Order, checks: Checks
    ) -> Change | None:
        if self._overtaken(member, record, order):
            return None
        keys = self._open(record, member, checks)
        if not isinstance(keys, KeySet):
            raise Untrusted("a record of another kind than it says")
        require_keys_allowed_untrusted(keys, member.name, member.credential)
        return self.install_keys(member, keys, record)

    def install_keys(self, member: Member, keys: KeySet, record: SignedRecord) -> Change:
        """Take a verified key set, newer than the one held."""
        held = self.ledger.get(record.kind, member.node_id)
        fresh = held is None or held.rank[:2] < order_start(keys.order)
        self._store(member, record, rank_of(keys.order))
        self._persist(member)
        tell_keys(self._ctx, member)
        return Change(member, record.kind, member.messages[record.kind], member.status, fresh)

    def _merge_opaque(
        self, member: Member, record: SignedRecord, order: Order, checks: Checks
    ) -> Change | None:
        if self._overtaken(member, record, order):
            return None
        kinds = sorted({*member.opaque, record.kind})[: limits.UNKNOWN_KINDS_PER_MEMBER_MAX]
        if record.kind not in kinds:
            raise Untrusted("more unknown record kinds than one member may have")
        self._open_opaque(record, member, checks)
        # The lowest are kept, so that all hold the same ones in whatever order they come.
        for kind in [kind for kind in member.opaque if kind not in kinds]:
            self._drop(member, kind)
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

    def holds_later(self, member: Member, record: SignedRecord, order: Order) -> bool:
        """Tell whether a record of this order, merged now, would be overtaken by the one that is held."""
        held = self.ledger.get(record.kind, member.node_id)
        digest = self.ledger.digest(bytes((record.kind,)) + record.body)
        return held is not None and (*order_tuple(order), digest) < tuple(held.rank)

    def install_verdict(self, member: Member, verdict: Verdict, record: SignedRecord) -> Change:
        """Take a verdict that holds against the member's incarnation."""
        before = None if member.state is None else member.status
        member.verdict = verdict
        member.messages[record.kind] = encode_message(record)
        rank = Rank(*order_tuple(verdict.order), bytes((verdict.status,)))
        content = bytes((record.kind,)) + encode(
            [verdict.node_id, order_tuple(verdict.order), verdict.status]
        )
        digest = int.from_bytes(self.ledger.digest(content), "big")
        self.ledger.put(record.kind, member.node_id, Item(rank, digest))
        self._settled(member, before, False)
        self._persist(member)
        message = member.messages[record.kind]
        return Change(member, record.kind, message, before, False, record, False, verdict)

    def take_revoked(self) -> list[Member]:
        """Return whose tombstone came since the last call, or whose keys turned out to be a thief's."""
        revoked, self.revoked = self.revoked, []
        return revoked

    def take_ending(self) -> int | None:
        """Return when the first of the credentials ends that came since the last call; None: none came."""
        ending, self.ending = self.ending, None
        return ending

    def note_eligible(self, member: Member | None = None) -> None:
        """Note whether a member may be a monitor now, or (None) that Trust changed."""
        trust = self._ctx.documents.trust
        joins = member is not None and (member.place >= 0 or member.node_id == self.own_id)
        node_id = None if member is None else member.node_id
        self.eligible.note(0 if trust is None else trust.version, node_id, joins)

    def _drop_verdict(self, member: Member) -> None:
        member.verdict = member.quarantine_until = None
        self._drop(member, _VERDICT)

    def _drop(self, member: Member, kind: int) -> None:
        member.messages.drop(kind)
        self.ledger.put(kind, member.node_id, None)

    def _store(self, member: Member, record: SignedRecord, rank: Rank) -> None:
        digest = self.ledger.digest(bytes((record.kind,)) + record.body)
        self.ledger.put(
            record.kind, member.node_id, Item(rank._replace(tie=digest), int.from_bytes(digest, "big"))
        )
        member.messages[record.kind] = encode_message(as_signed(record))
        self._ctx.statistics.records_merged += 1

    def _settled(self, member: Member, before: MemberStatus | None, moved: bool) -> None:
        member.status = member.settle()
        if member.status is not before or moved:
            if member.status is not before:
                member.changed_at = self._ctx.now
            self.standing.note(member)
            self.note_eligible(member)
            self.telling.member(member, member.status, before)
            was_serving = before is not None and before < MemberStatus.DEAD
            if RecordKind.SERVICE_SET in member.messages and (was_serving != member.serving or moved):
                self.telling.services(member)

    def _forget_records(self, member: Member) -> None:
        for kind in member.messages:
            if kind != RecordKind.CREDENTIAL:
                self._drop(member, kind)
        member.verdict = member.quarantine_until = member.link = member.entries = None
        member.run = 0
        member.status = MemberStatus.ALIVE

    def _enter(self, credential: NodeCredential) -> Member:
        """Make room for a member, or for the tombstone of one; those are counted apart."""
        count = self._revoked_count if credential.is_tombstone else len(self)
        if short_id_of(credential.node_id) in self._by_short:
            raise Untrusted("the short id of this member is another's")
        if count >= limits.MEMBERS_MAX:
            raise Untrusted("no room for another member")
        member = self.member_class(credential, self._ctx.now)
        member.is_revoked = False  # until it is counted
        self._members[credential.node_id] = member
        self._by_short[member.short_id] = member
        return member

    def _end(self, member: Member) -> MemberStatus | None:
        """Let go all that a member signed; return its status, None before a state was known."""
        before = None if member.state is None else member.status
        self._forget_records(member)
        self.standing.drop(member)
        self.note_eligible(member)
        return before

    def _tell_end(self, member: Member, before: MemberStatus | None) -> None:
        """Tell that a member is one no more, if anybody was told that it was."""
        if before is not None:
            self.telling.member(member, MemberStatus.DEAD, before)
        if before is not None or member.told is not None:
            self.telling.services(member)

    def forget(self, member: Member) -> None:
        """Drop a member whose credential no longer holds, and everything it signed."""
        published = publishes_keys(member) or member.is_revoked
        before = self._end(member)
        self._revoked_count -= member.is_revoked
        self._drop(member, _CREDENTIAL)
        del self._members[member.node_id]
        del self._by_short[member.short_id]
        self._ctx.statistics.members = len(self)
        self._ctx.persist(PersistKind.MEMBER, member.node_id, None)
        self._tell_end(member, before)
        if published:
            tell_keys(self._ctx, member, is_gone=True)

    def _persist(self, member: Member) -> None:
        value = pack_records(message for _, message in member.messages.items())
        self._ctx.persist(PersistKind.MEMBER, member.node_id, value)


class UnknownOwner(Untrusted):
    """A record whose owner is not known here; it may be asked for."""

    def __init__(self, node_id: bytes) -> None:
        super().__init__("a record of an unknown owner")
        self.node_id = node_id


def _is_of_others(credential: NodeCredential, held: NodeCredential) -> bool:
    """Tell whether a credential is another enrolment's, or of another's keys: what those signed goes."""
    return (credential.generation, credential.signing_key) != (held.generation, held.signing_key)


def pack_records(messages: Iterable[bytes]) -> bytes:
    """Return a member's records as they rest on disk, from the messages they travelled in."""
    # A message is the two bytes of [RECORD, ...] and the record, already encoded.
    records = [message[2:] for message in messages]
    return bytes(msgpack.Packer().pack_array_header(len(records)) + b"".join(records))


def order_tuple(order: Order) -> tuple[int, int, int]:
    """Return an order as plain numbers."""
    return (order.generation, order.epoch, order.sequence)


def order_start(order: Order) -> tuple[int, int]:
    """Return what SWIM calls incarnation."""
    return (order.generation, order.epoch)


def rank_of(order: Order) -> Rank:
    """Return an order as a ledger rank without a tie-break."""
    return Rank(order.generation, order.epoch, order.sequence, b"")
