"""Finds and mends differences between two nodes over an authenticated stream.

Roots in every ping say that something differs; bucket hashes say where; lists say what; records follow.
Rules:
1. Equal roots are the only proof of agreement; a finished comparison is judged by them as well.
2. Of two nodes that see a difference the one of lesser id opens the stream, the other if that fails.
3. Records from a stream are merged a few per step, so that no table of any size holds the loop.
Paper: Demers et al. 1987 (anti-entropy). Deviation: sums in 256 buckets instead of a Merkle tree.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from gossipmesh.gossip.catalog import Catalog, Checks
from gossipmesh.gossip.context import Context
from gossipmesh.gossip.effects import StreamId, ViewRepaired
from gossipmesh.gossip.intake import Intake
from gossipmesh.gossip.member import Member
from gossipmesh.gossip.own import OwnRecords
from gossipmesh.gossip.roots import Rank
from gossipmesh.gossip.spreading import PolicySpreading
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import MILLISECOND_NS
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.trust.seal import Sealer
from gossipmesh.wire.frames import (
    BUCKET_BYTES,
    BUCKETS_COUNT,
    ENTRIES_PER_FRAME,
    PAGE_BYTES,
    Compare,
    Done,
    Entries,
    Entry,
    FetchPolicy,
    FetchTrust,
    FrameMessage,
    FrameReader,
    Part,
    PolicyPart,
    Records,
    Request,
    StreamHello,
    Table,
    TrustPart,
)

_RECORD_OVERHEAD_BYTES: Final = 96  # signature, key id and msgpack around a record's body
_HASTY_ROUNDS: Final = 3
_HASTY_GAP_NS: Final = 150 * MILLISECOND_NS
_QUESTIONS_MAX: Final = 4  # an answer can be the whole table; ours ask once
Name = tuple[int, bytes]


class Session:
    """One stream: its handshake, its keys, and where its conversation stands."""

    def __init__(self, stream: StreamId, *, opener: bool, purpose: str, scope: str | None) -> None:
        self.stream = stream
        self.opener = opener
        self.purpose = purpose
        self.scope = scope
        self.reader = FrameReader()
        self.nonce = b""
        self.expected: Member | None = None
        self.member: Member | None = None
        self.peer_id: bytes = b""
        self.hello: StreamHello | None = None
        self.credential: NodeCredential | None = None
        self.sealer: Sealer | None = None
        self.unsealer: Sealer | None = None
        self.sent_count = 0
        self.received_count = 0
        self.completed = False
        self.entries: dict[Name, Rank] = {}
        self.requested: list[Name] = []
        self.backlog: deque[SignedRecord | Done | None] = deque()
        self.parts = bytearray()
        self.questions_count = 0


class Repair:
    """Both sides of every conversation, and when to begin one."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        own: OwnRecords,
        intake: Intake,
        spreading: PolicySpreading,
        *,
        say: Callable[[Session, object], None],
        close: Callable[[Session], None],
        open_sync: Callable[[Member], bool],
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._own = own
        self._intake = intake
        self._spreading = spreading
        self._say = say
        self._close = close
        self._open_sync = open_sync
        self._syncing = False
        self._synced_at: int | None = None
        self._unequal_since: int | None = None
        self._repaired: dict[bytes, None] = {}
        self._fruitless_count = 0
        self._hasty: list[Member] = []

    def start(self) -> None:
        """Begin the periodic full comparison at a random moment of its interval."""
        wait_ns = self._ctx.rng.randrange(self._ctx.settings.full_compare_interval_ns)
        self._ctx.timers.set(("full compare", None), self._ctx.now + wait_ns, self._full_compare)

    def _full_compare(self) -> None:
        self._ctx.timers.set(
            ("full compare", None),
            self._ctx.now + self._ctx.settings.full_compare_interval_ns,
            self._full_compare,
        )
        members = [member for member in self._catalog.reachable if member.run]
        if members:
            self.sync(self._ctx.rng.choice(members))

    def compared(self, member: Member, group_root: bytes, documents_root: bytes) -> None:
        """Take a peer's roots; open a comparison once they differ for good."""
        if (group_root, documents_root) == (self._catalog.ledger.root, self._spreading.root):
            member.unequal_count = 0
            self._unequal_since = None
            self._fruitless_count = 0
            self._agreed(member.node_id, False)
            return
        now = self._ctx.now
        if documents_root != self._spreading.root:
            self._spreading.announce_to(member)
        member.unequal_count += 1
        if self._unequal_since is None:
            self._unequal_since = now
        wait_ns = self._ctx.settings.repair_after_ns
        patience = 1 if self._own.node_id < member.node_id else 2
        lasting = now - self._unequal_since > patience * wait_ns or member.unequal_count >= 2 * patience
        # Records come to rest soon; documents one side refuses may differ for good, so ask ever less.
        doublings = min(self._fruitless_count, 2 if group_root != self._catalog.ledger.root else 6)
        gap_ns = self._ctx.settings.repair_gap_ns << doublings
        rested = self._synced_at is None or now - self._synced_at >= gap_ns
        if lasting and rested:
            self.sync(member)

    def hasten(self) -> None:
        """Compare with a few random members soon: a record too long for packets has come."""
        chosen = [member for member in self._catalog.reachable if member.run]
        self._hasty = self._ctx.rng.sample(chosen, min(_HASTY_ROUNDS, len(chosen)))
        if not self._ctx.timers.pending(("hasten", None)):
            wait_ns = self._ctx.rng.randrange(_HASTY_GAP_NS)
            self._ctx.timers.set(("hasten", None), self._ctx.now + wait_ns, self._hasty_round)

    def _hasty_round(self) -> None:
        if self._hasty:
            self.sync(self._hasty.pop())
        if self._hasty:
            self._ctx.timers.set(("hasten", None), self._ctx.now + _HASTY_GAP_NS, self._hasty_round)

    def sync(self, member: Member) -> None:
        """Open a comparison with a member, unless one runs."""
        if not self._syncing and self._open_sync(member):
            self._syncing = True
            self._synced_at = self._ctx.now
            self._ctx.statistics.repairs_started += 1

    def _agreed(self, node_id: bytes, finished: bool) -> None:
        if node_id not in self._repaired:
            self._repaired[node_id] = None
        elif not finished:
            return
        self._ctx.notify(ViewRepaired(len(self._repaired)))

    def begin(self, session: Session) -> None:
        """Say what an opened stream is for."""
        match session.purpose:
            case "policy":
                assert session.scope is not None
                self._say(session, FetchPolicy(session.scope))
            case "trust":
                trust = self._ctx.documents.trust
                self._say(session, FetchTrust(0 if trust is None else trust.version))
            case "ping":
                session.completed = True
                self._close(session)
            case _ if len(self._catalog) <= 2:
                self._say(session, Table(self._spreading.summary()))
            case _:
                self._say(session, Compare(self._catalog.ledger.bucket_hashes(), self._spreading.summary()))

    def receive(self, session: Session, message: FrameMessage) -> None:
        """Go on with a conversation.

        Raises:
            MalformedInput: a message out of place or beyond limits. Remote's fault; the stream ends.
        """
        member = session.member
        assert member is not None
        if isinstance(message, Compare | Table | FetchPolicy | FetchTrust):
            session.questions_count += 1
            if session.questions_count > _QUESTIONS_MAX:
                raise MalformedInput("more questions than one stream may ask")
        match message:
            case Records():
                self._queue(session, message.records)
            case Compare() if not session.opener:
                self._answer_compare(session, message)
                self._spreading.consider(member, message.documents)
            case Table() if not session.opener:
                self._send_records(session, self._everything())
                self._say(session, Done(self._catalog.ledger.root, self._spreading.root))
                self._spreading.consider(member, message.documents)
            case Request() if not session.opener:
                self._receive_request(session, message)
            case FetchPolicy() if not session.opener:
                self._send_parts(session, PolicyPart, self._spreading.answer_policy(message.scope))
            case FetchTrust() if not session.opener:
                self._send_parts(session, TrustPart, self._spreading.answer_trust(message.version))
            case Entries() if session.opener:
                self._receive_entries(session, message)
            case Done() if session.opener:
                self._enqueue(session, message)
            case PolicyPart() | TrustPart() if session.opener:
                self._receive_part(session, message)
            case _:
                raise MalformedInput("a stream message out of place")

    def _answer_compare(self, session: Session, compare: Compare) -> None:
        own = self._catalog.ledger.bucket_hashes()
        size = BUCKET_BYTES
        differing = bytes(
            number
            for number in range(BUCKETS_COUNT)
            if own[number * size : number * size + size]
            != compare.buckets[number * size : number * size + size]
        )
        entries = [
            Entry(kind, subject, *rank)
            for number in differing
            for kind, subject, rank in self._bucket(number)
        ]
        summary = self._spreading.summary()
        pages = max(1, -(-len(entries) // ENTRIES_PER_FRAME))
        for page in range(pages):
            part = tuple(entries[page * ENTRIES_PER_FRAME : (page + 1) * ENTRIES_PER_FRAME])
            self._say(session, Entries(part, differing, page == pages - 1, summary))

    def _bucket(self, number: int) -> list[tuple[int, bytes, Rank]]:
        return self._catalog.ledger.bucket(number)

    def _receive_entries(self, session: Session, message: Entries) -> None:
        for entry in message.entries:
            rank = Rank(entry.generation, entry.epoch, entry.sequence, entry.tie)
            session.entries[(entry.kind, entry.subject)] = rank
        if len(session.entries) > 4 * limits.MEMBERS_MAX:
            raise MalformedInput("more entries than members can have")
        if not message.last:
            return
        wanted = [name for name, rank in session.entries.items() if self._is_newer(name, rank)]
        given: list[Name] = []
        for number in dict.fromkeys(message.differing):
            for kind, subject, rank in self._bucket(number):
                theirs = session.entries.get((kind, subject))
                if theirs is None or theirs < rank:
                    given.append((kind, subject))
        self._send_records(session, self._records_of(given))
        wanted.sort()
        pages = max(1, -(-len(wanted) // ENTRIES_PER_FRAME))
        for page in range(pages):
            part = tuple(wanted[page * ENTRIES_PER_FRAME : (page + 1) * ENTRIES_PER_FRAME])
            self._say(session, Request(part, page == pages - 1))
        assert session.member is not None
        self._spreading.consider(session.member, message.documents)

    def _is_newer(self, name: Name, rank: Rank) -> bool:
        held = self._catalog.ledger.get(*name)
        return held is None or held.rank < rank

    def _receive_request(self, session: Session, message: Request) -> None:
        session.requested += message.names
        if len(session.requested) > 4 * limits.MEMBERS_MAX:
            raise MalformedInput("more requests than members can have records")
        if message.last:
            self._enqueue(session, None)

    def _everything(self) -> list[SignedRecord]:
        names = [
            (kind, subject) for number in range(BUCKETS_COUNT) for kind, subject, _ in self._bucket(number)
        ]
        return self._records_of(names)

    def _records_of(self, names: Iterable[Name]) -> list[SignedRecord]:
        """Return records by name, credentials before what they vouch for."""
        records: list[SignedRecord] = []
        for kind, subject in sorted(names):
            member = self._catalog.get(subject)
            record = None if member is None else member.records.get(kind)
            if record is not None:
                records.append(record)
        return records

    def _send_records(self, session: Session, records: list[SignedRecord]) -> None:
        page: list[SignedRecord] = []
        page_bytes = 0
        for record in records:
            size = len(record.body) + _RECORD_OVERHEAD_BYTES
            if page and (page_bytes + size > PAGE_BYTES or len(page) == limits.FRAME_RECORDS_MAX):
                self._say(session, Records(tuple(page)))
                page, page_bytes = [], 0
            page.append(record)
            page_bytes += size
        if page:
            self._say(session, Records(tuple(page)))

    def _queue(self, session: Session, records: tuple[SignedRecord, ...]) -> None:
        if len(session.backlog) + len(records) > limits.STREAM_BACKLOG_RECORDS_MAX:
            raise MalformedInput("more records than a stream may bring")
        for record in records:
            self._enqueue(session, record)

    def _enqueue(self, session: Session, item: SignedRecord | Done | None) -> None:
        session.backlog.append(item)
        key = ("ingest", session.stream)
        if not self._ctx.timers.pending(key):
            self._ctx.timers.set(key, self._ctx.now, lambda: self._ingest(session))

    def _ingest(self, session: Session) -> None:
        """Merge a few records of a stream; a marker is acted on once all before it are merged."""
        checks = Checks(limits.STREAM_RECORDS_PER_STEP_MAX)
        for _ in range(limits.STREAM_RECORDS_PER_STEP_MAX):
            if not session.backlog:
                return
            item = session.backlog.popleft()
            if isinstance(item, SignedRecord):
                self._intake.take(item, session.member, checks)
            elif isinstance(item, Done):
                self._finished(session, item)
                return
            else:
                self._send_records(session, self._records_of(session.requested))
                session.requested = []
                self._say(session, Done(self._catalog.ledger.root, self._spreading.root))
        if session.backlog:
            self._ctx.timers.set(("ingest", session.stream), self._ctx.now, lambda: self._ingest(session))

    def _finished(self, session: Session, done: Done) -> None:
        session.completed = True
        self._ctx.statistics.repairs_completed += 1
        self._fruitless_count += 1
        if (done.group_root, done.documents_root) == (self._catalog.ledger.root, self._spreading.root):
            self._fruitless_count = 0
            self._unequal_since = None
            if session.member is not None:
                session.member.unequal_count = 0
            self._agreed(session.peer_id, True)
        self._close(session)

    def _send_parts(self, session: Session, shape: type[PolicyPart] | type[TrustPart], data: bytes) -> None:
        for start in range(0, max(1, len(data)), PAGE_BYTES):
            self._say(session, shape(len(data), data[start : start + PAGE_BYTES]))

    def _receive_part(self, session: Session, part: Part) -> None:
        session.parts += part.data
        if len(session.parts) > part.total:
            raise MalformedInput("more bytes than were announced")
        if len(session.parts) < part.total:
            return
        session.completed = True
        data = bytes(session.parts)
        self._close(session)
        self._deliver(session, data or None)

    def _deliver(self, session: Session, data: bytes | None) -> None:
        if session.purpose == "policy" and session.scope is not None:
            peer_id = session.peer_id or (b"" if session.expected is None else session.expected.node_id)
            self._spreading.fetched_policy(peer_id, session.scope, data)
        elif session.purpose == "trust":
            self._spreading.fetched_trust(session.peer_id, data)

    def ended(self, session: Session) -> None:
        """Clean up after a stream, however it ended."""
        if session.opener and session.purpose == "sync":
            self._syncing = False
        if session.opener and not session.completed and session.purpose in ("policy", "trust"):
            session.completed = True
            self._deliver(session, None)
