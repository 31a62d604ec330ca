"""Spreads signed documents: announcements by datagram, bodies by stream, one floor for everyone.

Ends where `trust.documents` verifies. Rules:
1. A floor is on disk before its set is in force, and before anyone hears of it; so is Trust. Until then what
   we run, tell and answer is what we had, and what comes meanwhile is judged as if it were there already.
2. A refusal is remembered for its announcer only, unless the set itself is at fault: whoever spoils
   the bytes in between must not be able to keep the genuine set out.
3. What is validly signed and above our floor is taken, whatever it was announced as (without a floor, only
   after seconds: it may wind us back). So a member that announces versions nobody has keeps no genuine one
   out. What does not come soon is asked of others, lower ones too, and who spun a fetch out and failed is
   not listened to for a while.
4. What we run and what we last refused stands in our own NodeState, so any member can answer for all.
Paper: TUF section 5 for versions and floors. Deviation: pairs (version, hash); see `trust.documents`.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import PersistKind, PolicyApplied, PolicyRefused, TrustChanged
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.base.writes import Continuations
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.dissemination.generations import NewerGenerations, begun_generations
from gossipmesh.gossip.dissemination.queue import POLICY_KIND, TRUST_KIND
from gossipmesh.gossip.membership.facts import StateOutdated
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.gossip.membership.state_sums import Item, Rank, StateSums, SumLedger
from gossipmesh.gossip.sessions.streams import Streams
from gossipmesh.model import limits
from gossipmesh.model.documents import TrustDocument, generation_of
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.records import PolicyStatus
from gossipmesh.trust.documents import (
    NO_FLOOR,
    AcceptedSet,
    Floor,
    PolicyRefusal,
    PolicySet,
    TrustedDocuments,
    decode_policy_set_untrusted,
)
from gossipmesh.trust.envelope import decode_envelopes_untrusted
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import PolicyAnnouncement, TrustAnnouncement, encode_message
from gossipmesh.wire.frames import DocumentsSummary
from gossipmesh.wire.versions import TRUST_FIELDS

_ITEM_TRUST: Final = 1
_ITEM_SCOPE: Final = 2
_INTRINSIC: Final = ("features", "unsupported", "trust-domain")
_BENIGN: Final = ("older", "same", "generation")
_PUBLISH_WAIT_NS: Final = 500 * MILLISECOND_NS
_ANNOUNCERS_MAX: Final = 4
_ASKED_AT_ONCE: Final = 2
_STUCK_NS: Final = 5 * SECOND_NS
_SLOW_NS: Final = SECOND_NS
_LONG_NS: Final = 2 * SECOND_NS
_SLOW_FORGOTTEN_NS: Final = 10 * SECOND_NS
_SLOW_REMEMBERED_MAX: Final = 256
_HURRY_NS: Final = 60 * MILLISECOND_NS  # a fetch is four round trips of a LAN; a lost segment 200 ms and more
_PEERS_ASKED: Final = 3  # after damage the highest set that is validly signed at three peers counts
_DOUBT_NS: Final = 5 * SECOND_NS
_ANNOUNCEMENTS_MAX: Final = 8  # 8 of at most 112 bytes fit a packet; more scopes are left to repair

Announced = tuple[str, int, bytes]


@kept.value("pending fetch")
class _Pending:
    """A set being fetched: who is asked for it, for what and when, who else announced it, and since when."""

    __slots__ = ("announced", "announcers", "asked", "since")

    def __init__(self, announced: Announced, announcer: bytes, since: Instant) -> None:
        self.announced = announced
        self.announcers = [announcer]
        self.asked: dict[bytes, tuple[Announced, Instant]] = {}
        self.since = since


@kept.value("floor doubt")
class _Doubt:
    """What peers say they run, while our own floors are unknown."""

    __slots__ = ("heard",)

    def __init__(self) -> None:
        self.heard: list[tuple[Member, PolicyAnnouncement]] = []


@kept.part("spreading")
class PolicySpreading:
    """Announces, fetches, applies and refuses policy sets and Trust."""

    def __init__(
        self, ctx: Context, sums: StateSums, courier: Courier, own: OwnRecords, streams: Streams
    ) -> None:
        self._ctx = ctx
        self._sums = sums
        self._courier = courier
        self._own = own
        self._streams = streams
        self._refused: dict[tuple[bytes, str, int, bytes], None] = {}
        self._shown: dict[str, tuple[int, bytes, str]] = {}
        self._pending: dict[str, _Pending] = {}
        self._trust_asked: dict[bytes, Instant] = {}
        self._slow: dict[bytes, Instant] = {}
        self._doubt: _Doubt | None = None
        self._floors_ahead: dict[str, Floor] = {}  # of the newest set of a scope that is being written
        self._trust_ahead: list[tuple[int, bytes]] = []  # versions being written, and their envelopes
        self._newer = NewerGenerations()
        self.trust_origin = b""  # who brought the Trust in force, empty: it was given to us
        self.has_new_trust = False  # since `take_trust_change`; asked at the end of each step
        self._recount()

    def _recount(self) -> None:
        """Sum the documents anew. Cost: O(scopes), at each change of a document.

        A build that does not say that it counts what is signed counts as those before it did.
        """
        documents = self._ctx.documents
        before = b""
        if documents.trust is not None:
            before = hashlib.sha256(documents.trust_envelope(documents.trust.version)).digest()
        self._sums.documents_before = self._sum_with(before)
        counts_signed = TRUST_FIELDS in self._own.state.features
        self._sums.documents = self._sum_with(documents.trust_sha256 if counts_signed else before)

    def _sum_with(self, trust_hash: bytes) -> bytes:
        """Return the sum of Trust under this hash, and of the sets in force."""
        ledger = SumLedger(self._ctx.group_tag)
        documents = self._ctx.documents
        items: list[tuple[int, bytes, bytes]] = []
        if documents.trust is not None:
            items.append((_ITEM_TRUST, b"", encode([_ITEM_TRUST, documents.trust.version, trust_hash])))
        for scope in documents.scopes():
            held = documents.in_force(scope)
            if held is not None:
                content = encode([_ITEM_SCOPE, scope, held.version, held.manifest_hash])
                items.append((_ITEM_SCOPE, scope.encode(), content))
        for kind, subject, content in items:
            digest = ledger.digest(content)
            ledger.put(kind, subject, Item(Rank(0, 0, 0, digest), int.from_bytes(digest, "big")))
        return ledger.state_sum

    def summary(self) -> DocumentsSummary:
        """Return what we hold, as a stream comparison carries it."""
        documents = self._ctx.documents
        held = [documents.in_force(scope) for scope in documents.scopes()]
        scopes = tuple((h.scope, h.version, h.manifest_hash) for h in held if h is not None)
        return DocumentsSummary(self._trust_version(), scopes[: limits.SCOPES_MAX])

    def _trust_version(self) -> int:
        trust = self._ctx.documents.trust
        return 0 if trust is None else trust.version

    def consider(self, member: Member, summary: DocumentsSummary) -> None:
        """Fetch whatever a peer holds that is newer."""
        self.receive_trust(member, TrustAnnouncement(summary.trust_version))
        for scope, version, manifest_hash in summary.scopes:
            self.receive_policy(member, PolicyAnnouncement(scope, version, manifest_hash))

    def announce_to(self, member: Member) -> None:
        """Tell a peer whose documents differ what we hold, at most once a second.

        It fetches what it lacks, and tells us likewise: one packet each way instead of a stream.
        """
        if member.announced_at >= 0 and self._ctx.now - member.announced_at < SECOND_NS:
            return
        member.announced_at = self._ctx.now
        summary = self.summary()
        announcements = [PolicyAnnouncement(*held) for held in summary.scopes[:_ANNOUNCEMENTS_MAX]]
        messages = [encode_message(announcement) for announcement in announcements]
        self._courier.send(member, [encode_message(TrustAnnouncement(summary.trust_version)), *messages])

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"policies": self._restate, "doubt": self._settle_doubt, "hurry": self._hurry}

    def policy_statuses(self) -> tuple[PolicyStatus, ...]:
        """Return what we run and what we last refused, sorted by scope."""
        documents = self._ctx.documents
        statuses: list[PolicyStatus] = []
        for scope in sorted(dict.fromkeys([*documents.scopes(), *self._shown])):
            held = documents.in_force(scope)
            version, manifest_hash = (0, b"") if held is None else held.floor
            statuses.append(
                PolicyStatus(scope, version, manifest_hash, *self._shown.get(scope, (0, b"", "")))
            )
        return tuple(statuses[: limits.SCOPES_MAX])

    def continuations(self) -> Continuations:
        """Return what goes on here after a durable write, by its kind."""
        return {"policy": self._policy_written, "trust": self._trust_written}

    def offer(self, policy_set: PolicySet) -> None:
        """Verify a set given to this node, and write it; it is applied and announced once it is on disk.

        Raises:
            PolicyRefusal: State unchanged, except that the refusal will be published.
        """
        if len(self._ctx.writes) >= limits.SETS_BEING_WRITTEN_MAX:
            self._ctx.dropped("policy set while the disk waits")
            reason = (
                f"{limits.SETS_BEING_WRITTEN_MAX} writes wait for the disk of this node; offer it another"
            )
            raise PolicyRefusal("busy", reason, "", 0, b"")
        try:
            accepted = self._check_untrusted(policy_set)
            self._ctx.documents.require_no_jump(accepted)
            self._write(accepted, b"")
        except PolicyRefusal as refusal:
            self._refuse(refusal, b"")
            raise

    def _check_untrusted(self, policy_set: PolicySet) -> AcceptedSet:
        """Verify a set, as if what is being written were in force."""
        accepted = self._ctx.documents.check_untrusted(policy_set)
        if self._trust_ahead:
            self._documents_ahead().check_untrusted(policy_set)
        ahead = self._floors_ahead.get(accepted.scope, NO_FLOOR)
        if accepted.floor <= ahead:
            code = "same" if accepted.floor == ahead else "older"
            reason = f"version {accepted.version} is not above {ahead[0]}, which is being put in force"
            raise PolicyRefusal(code, reason, accepted.scope, accepted.version, accepted.manifest_hash)
        return accepted

    def _write(self, accepted: AcceptedSet, origin_id: bytes) -> None:
        """Put a set and its floor on disk; `_policy_written` goes on."""
        scope, version, manifest_hash = accepted.scope, accepted.version, accepted.manifest_hash
        data = accepted.raw.to_bytes()
        self._floors_ahead[scope] = accepted.floor
        self._ctx.persist(PersistKind.POLICY_SET, scope.encode(), data)
        self._ctx.persist_durably(
            PersistKind.FLOOR,
            scope.encode(),
            encode([version, manifest_hash]),
            ("policy", (scope, version, manifest_hash, data, origin_id)),
        )

    def _policy_written(self, subject: tuple[str, int, bytes, bytes, bytes]) -> Iterator[StateOutdated]:
        """Apply a set whose floor is on disk; it is read again, for between steps only its bytes are kept.

        Nothing can be against it that was not before it was written: writes end in the order they began.
        """
        scope, version, manifest_hash, data, origin_id = subject
        if self._floors_ahead.get(scope) == (version, manifest_hash):
            del self._floors_ahead[scope]
        accepted = self._ctx.documents.check_untrusted(decode_policy_set_untrusted(data))
        yield self._apply(accepted, origin_id)
        if origin_id:
            self.go_on(scope)

    def _apply(self, accepted: AcceptedSet, origin_id: bytes) -> StateOutdated:
        scope, version, manifest_hash = accepted.scope, accepted.version, accepted.manifest_hash
        self._ctx.documents.adopt(accepted)
        self._ctx.statistics.applied_policies += 1
        shown = self._shown.get(scope)
        if shown is not None and (
            (shown[0], shown[1]) <= (version, manifest_hash)
            or generation_of(shown[0]) != generation_of(version)
        ):
            del self._shown[scope]
        self._recount()
        self._ctx.notify(PolicyApplied(scope, version, manifest_hash))
        message = encode_message(PolicyAnnouncement(scope, version, manifest_hash))
        self._courier.enqueue((POLICY_KIND, scope.encode(), b""), message)
        self._courier.push([message], origin_id)
        return self._restate()

    def _restate(self) -> StateOutdated:
        """Take what we run and refuse into our state, which is to be signed anew."""
        self._ctx.timers.cancel(("policies", None))
        self._own.policies = self.policy_statuses()
        return StateOutdated()

    def _refuse(self, refusal: PolicyRefusal, announcer: bytes) -> None:
        table = self._ctx.statistics.refused_policies
        table[refusal.code] = table.get(refusal.code, 0) + 1
        if refusal.code in _BENIGN and announcer:
            return
        scope, version, manifest_hash = refusal.scope, refusal.version, refusal.manifest_hash
        self._remember(b"" if refusal.code in _INTRINSIC else announcer, (scope, version, manifest_hash))
        self._ctx.notify(PolicyRefused(scope, version, manifest_hash, refusal.code, refusal.reason))
        if scope and (scope in self._shown or len(self._shown) < limits.SCOPES_MAX // 4):
            self._shown[scope] = (version, manifest_hash, f"{refusal.code}: {refusal.reason}"[:160])
            if not self._ctx.timers.pending(("policies", None)):
                self._ctx.timers.set(("policies", None), self._ctx.now + _PUBLISH_WAIT_NS)

    def _remember(self, announcer: bytes, announced: Announced) -> None:
        self._refused[(announcer, *announced)] = None
        if len(self._refused) > limits.REFUSED_POLICIES_REMEMBERED_MAX:
            del self._refused[next(iter(self._refused))]

    def doubt_floors(self) -> None:
        """Fetch nothing before three peers have said what they run: our own floors may be too low."""
        self._doubt = _Doubt()

    def _consult(self, member: Member, announcement: PolicyAnnouncement) -> None:
        """Note what a peer runs; settle once enough have spoken, or nobody else does for a while."""
        doubt = self._doubt
        assert doubt is not None
        if len(doubt.heard) < limits.SCOPES_MAX * _PEERS_ASKED:
            doubt.heard.append((member, announcement))
        if len({bytes(peer.node_id) for peer, _ in doubt.heard}) >= _PEERS_ASKED:
            self._settle_doubt()
        elif not self._ctx.timers.pending(("doubt", None)):
            self._ctx.timers.set(("doubt", None), self._ctx.now + _DOUBT_NS)

    def _settle_doubt(self) -> None:
        doubt, self._doubt = self._doubt, None
        self._ctx.timers.cancel(("doubt", None))
        heard = [] if doubt is None else doubt.heard
        is_current = self._ctx.documents.is_current
        best = {
            a.scope: max(
                (is_current(b.scope, b.version), b.version, b.manifest_hash)
                for _, b in heard
                if b.scope == a.scope
            )[1:]
            for _, a in heard
        }
        for member, announcement in heard:
            if (announcement.version, announcement.manifest_hash) == best[announcement.scope]:
                self.receive_policy(member, announcement)

    def receive_policy(self, member: Member, announcement: PolicyAnnouncement) -> None:
        """Fetch an announced set, if it is above our floor and was not refused before."""
        if self._doubt is not None:
            self._consult(member, announcement)
        elif not self._is_slow(member.node_id):
            self._consider(
                bytes(member.node_id), (announcement.scope, announcement.version, announcement.manifest_hash)
            )

    def _consider(self, announcer: bytes, announced: Announced) -> None:
        scope, offered = announced[0], announced[1:]
        documents = self._ctx.documents
        if not documents.is_current(scope, offered[0]):
            self._ask_generation(announcer, announced)
            return
        held = documents.in_force(scope)
        ahead = self._floors_ahead.get(scope, NO_FLOOR)
        floor = max(documents.floor(scope), ahead)
        if offered < floor or offered == ahead or (held is not None and held.floor == offered):
            return
        if self._was_refused(announcer, announced):
            return
        pending = self._pending.get(scope)
        stuck = pending is not None and self._ctx.now - pending.since >= _STUCK_NS
        if (
            pending is not None
            and pending.announced[1:] >= offered
            and not (stuck and pending.announced != announced)
        ):
            known = [*pending.announcers, *pending.asked]
            if pending.announced == announced and len(known) < _ANNOUNCERS_MAX and announcer not in known:
                pending.announcers.append(announcer)
            return
        if pending is None and len(self._pending) >= limits.SCOPES_MAX:
            return
        fresh = _Pending(announced, announcer, self._ctx.now)
        self._pending[scope] = fresh
        if pending is not None and offered > pending.announced[1:]:
            fresh.since, fresh.asked = pending.since, pending.asked
        else:
            self._fetch_next(scope)

    def _was_refused(self, announcer: bytes, announced: Announced) -> bool:
        return (b"", *announced) in self._refused or (announcer, *announced) in self._refused

    def _ask_generation(self, announcer: bytes, announced: Announced) -> None:
        """Ask who announces a set of a later generation for the Trust that names it; note what it told."""
        scope, version, _ = announced
        documents = self._ctx.documents
        is_later = generation_of(version) > documents.generation(scope) and documents.has_signer(scope)
        if not is_later or self._was_refused(announcer, announced):
            return
        self._newer.keep(announced, announcer)
        if self._ask_trust(announcer):
            self._remember(announcer, announced)  # asked once: it has that Trust, or it invents generations

    def _fetch_next(self, scope: str) -> None:
        """Ask one announcer more; forget the set when nobody is left to ask or answering."""
        pending = self._pending[scope]
        for announcer in [one for one in pending.announcers if one not in pending.asked]:
            pending.announcers.remove(announcer)
            if self._streams.fetch(announcer, scope):
                pending.asked[announcer] = (pending.announced, self._ctx.now)
                break
        if not pending.asked:
            del self._pending[scope]
        elif len(pending.asked) < _ASKED_AT_ONCE:
            self._ctx.timers.set(("hurry", scope), self._ctx.now + _HURRY_NS)

    def _hurry(self, scope: str) -> None:
        """Ask a second announcer for what the first has not begun to send: a lost segment costs it long."""
        if scope in self._pending and scope not in self._floors_ahead:
            self._fetch_next(scope)

    def arriving(self, scope: str) -> None:
        """Note that a piece of a long set is here: nobody else is asked meanwhile, unless it takes long."""
        pending = self._pending.get(scope)
        if pending is not None and len(pending.asked) < _ASKED_AT_ONCE:
            due = max(self._ctx.now, pending.since + _LONG_NS)
            self._ctx.timers.set(("hurry", scope), due)

    def fetched_policy(self, member_id: bytes, scope: str, data: bytes | None) -> None:
        """Take the answer to a fetch, None if the stream failed; then, or once written, ask others."""
        pending = self._pending.get(scope)
        if pending is None:
            return
        announced, asked_at = pending.asked.pop(member_id, (pending.announced, self._ctx.now))
        if data is None:
            self._note_failure(member_id, asked_at)
        else:
            is_late = self._ctx.now - pending.since >= _STUCK_NS
            self._take(member_id, announced, data, is_late=is_late)
        if scope not in self._floors_ahead:
            self.go_on(scope)

    def go_on(self, scope: str) -> None:
        """Ask others for a set that is still wanted after a fetch."""
        pending = self._pending.get(scope)
        if pending is None:
            return
        held = self._ctx.documents.in_force(scope)
        settled = held is not None and held.floor >= pending.announced[1:]
        if settled:
            self._ctx.timers.cancel(("hurry", scope))
            del self._pending[scope]
        else:
            self._fetch_next(scope)

    def _take(self, member_id: bytes, announced: Announced, data: bytes, *, is_late: bool) -> None:
        documents = self._ctx.documents
        try:
            accepted = self._check_untrusted(decode_policy_set_untrusted(data))
            is_less = (accepted.version, accepted.manifest_hash) < announced[1:]
            if is_less and not is_late and not documents.has_begun(announced[0]):
                raise PolicyRefusal("older", "a set older than was announced", *announced)
            if is_less:
                self._remember(member_id, announced)  # it has not got what it announced
            self._write(accepted, member_id)
        except PolicyRefusal as refusal:
            self._remember(member_id, announced)
            self._refuse(refusal, member_id)
        except MalformedInput as error:
            self._remember(member_id, announced)
            self._refuse(PolicyRefusal("malformed", str(error), *announced), member_id)

    def _note_failure(self, member_id: bytes, asked_at: Instant) -> None:
        """Listen less to who took long and brought nothing; who fails at once has too many streams."""
        if self._ctx.now - asked_at < _SLOW_NS:
            return
        self._ctx.dropped("slow announcer")
        self._slow.pop(member_id, None)
        self._slow[member_id] = self._ctx.now
        if len(self._slow) > _SLOW_REMEMBERED_MAX:
            del self._slow[next(iter(self._slow))]

    def _is_slow(self, member_id: bytes) -> bool:
        failed_at = self._slow.get(member_id)
        return failed_at is not None and self._ctx.now - failed_at < _SLOW_FORGOTTEN_NS

    def receive_trust(self, member: Member, announcement: TrustAnnouncement) -> None:
        """Fetch the Trust versions we lack; of a second member when the first takes long."""
        if not announcement.version > self._trust_version_ahead() > 0 or self._is_slow(member.node_id):
            return
        self._ask_trust(bytes(member.node_id))

    def _ask_trust(self, member_id: bytes) -> bool:
        """Ask a member for the versions we lack, unless another is being asked; tell whether it was."""
        busy = any(self._ctx.now - asked_at < _STUCK_NS for asked_at in self._trust_asked.values())
        if busy or member_id in self._trust_asked or not self._streams.fetch(member_id, None):
            return False
        self._trust_asked[member_id] = self._ctx.now
        return True

    def offer_trust(self, envelope: bytes) -> None:
        """Verify the next Trust given to this node, and write it; it is in force once it is on disk.

        Raises:
            MalformedInput: it does not follow ours. State unchanged.
        """
        ahead = self._documents_ahead()
        version = ahead.load_trust_untrusted(envelope).version
        self._write_trust([(version, ahead.trust_envelope(version))], b"")

    def _documents_ahead(self) -> TrustedDocuments:
        """Return what to judge Trust by: ours, and what is being written."""
        return self._ctx.documents.with_trust([envelope for _, envelope in self._trust_ahead])

    def _trust_version_ahead(self) -> int:
        return self._trust_ahead[-1][0] if self._trust_ahead else self._trust_version()

    def _write_trust(self, verified: list[tuple[int, bytes]], origin_id: bytes) -> bool:
        """Put versions of Trust on disk, oldest first; tell whether one is new, so that something goes on."""
        newer = [one for one in verified if one[0] > self._trust_version_ahead()]
        self._trust_ahead += newer
        for number, (version, envelope) in enumerate(verified, 1):
            goes_on = bool(newer) and number == len(verified)
            self._ctx.persist_durably(
                PersistKind.TRUST,
                version.to_bytes(8, "big"),
                envelope,
                ("trust", (len(newer), origin_id)) if goes_on else None,
            )
        return bool(newer)

    def _trust_written(self, subject: tuple[int, bytes]) -> None:
        """Put in force and announce what is on disk."""
        count, origin_id = subject
        documents = self._ctx.documents
        before = documents.trust
        for _, envelope in self._trust_ahead[:count]:
            documents.load_trust_untrusted(envelope)
        del self._trust_ahead[:count]
        self._take_new_trust(origin_id)
        self._follow_generations(before, origin_id)

    def _follow_generations(self, before: TrustDocument | None, origin_id: bytes) -> None:
        """Fetch at once the sets of generations that Trust begins: of who brought it, and of who told."""
        for scope, version in begun_generations(before, self._ctx.documents.trust):
            self._pending.pop(scope, None)
            if origin_id:
                self._consider(origin_id, (scope, version, b""))
        for announcer, announced in self._newer.take():
            self._consider(announcer, announced)

    def fetched_trust(self, member_id: bytes, data: bytes | None) -> None:
        """Take Trust envelopes, oldest first; None: the stream failed."""
        asked_at = self._trust_asked.pop(member_id, self._ctx.now)
        verified: list[tuple[int, bytes]] = []
        try:
            envelopes = () if data is None else decode_envelopes_untrusted(data)
            ahead = self._documents_ahead()
            for envelope in envelopes:
                version = ahead.load_trust_untrusted(envelope).version
                verified.append((version, ahead.trust_envelope(version)))
        except MalformedInput:
            self._ctx.refused("trust")
        if not self._write_trust(verified, member_id):
            self._note_failure(member_id, asked_at)

    def _take_new_trust(self, origin_id: bytes) -> None:
        """Announce the Trust that is now in force, and judge anew what was refused under the old one."""
        self._refused.clear()
        self._recount()
        self._ctx.notify(TrustChanged(self._trust_version()))
        message = encode_message(TrustAnnouncement(self._trust_version()))
        self._courier.enqueue((TRUST_KIND, b"", b""), message)
        self._courier.push([message], origin_id)
        self.trust_origin = origin_id
        self.has_new_trust = True

    def take_trust_change(self) -> None:
        """Note that what follows from newer Trust is seen to."""
        self.has_new_trust = False

    def answer_policy(self, scope: str) -> bytes:
        """Return the set in force of a scope for a peer; empty when there is none."""
        held = self._ctx.documents.in_force(scope)
        return b"" if held is None else held.raw.to_bytes()

    def answer_trust(self, version: int) -> bytes:
        """Return the envelopes above a version for a peer, as much as one answer holds."""
        documents = self._ctx.documents
        if documents.trust is None or version >= documents.trust.version:
            return b""
        first = documents.trust.version - len(documents.trust_envelopes) + 1
        chosen: list[bytes] = []
        room_bytes = limits.POLICY_SET_BYTES_MAX - 16
        for envelope in documents.trust_envelopes[max(0, version + 1 - first) :]:
            room_bytes -= len(envelope) + 5
            if room_bytes < 0:
                break
            chosen.append(envelope)
        return encode(chosen)
