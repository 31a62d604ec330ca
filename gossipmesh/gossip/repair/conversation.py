"""What two nodes say on a repair stream: where they differ, in lists, and page by page the records.

Rules:
1. The opener asks for one page at a time and merges it before the next; it gives its own likewise.
   So neither side ever has more than a page of the other's on its hands, whatever the tables' size.
2. What arrives is worked off in steps between which the loop is free (`slices`), in order.
3. Credentials and states come before verdicts, which others' credentials vouch for.
Paper: Demers et al. 1987 (anti-entropy). Deviation: sums in 256 buckets instead of a Merkle tree.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.budgets import KeyedBudgets
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.dissemination.documents import PolicySpreading
from gossipmesh.gossip.membership.catalog import Catalog, Checks
from gossipmesh.gossip.membership.state_sums import Rank
from gossipmesh.gossip.repair.facts import RecordArrived
from gossipmesh.gossip.repair.slices import Slices
from gossipmesh.gossip.sessions.session import Name, Session, Step
from gossipmesh.gossip.sessions.streams import Streams
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import SignedRecord
from gossipmesh.wire.frames import (
    BUCKET_BYTES,
    BUCKETS_COUNT,
    ENTRIES_PER_FRAME,
    PAGE_BYTES,
    Compare,
    Done,
    Entries,
    Entry,
    Request,
    Table,
    Turn,
    encode_records_frame,
)

_NAMES_PER_REQUEST: Final = 128  # some 40 KB of ordinary records
_BUCKETS_PER_STEP: Final = 8
_MESSAGE_PREFIX_BYTES: Final = 2  # a kept message is [RECORD, record]; a page holds the record alone


@kept.part("conversation")
class Conversation:
    """Both sides of comparisons and tables."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        streams: Streams,
        spreading: PolicySpreading,
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._streams = streams
        self._spreading = spreading
        self.is_first = True  # until the first comparison, or table, of this run was gone through
        self._slices = Slices(ctx)
        self._pages = KeyedBudgets(
            limits.STREAM_PAGES_PER_MEMBER_PER_S,
            limits.STREAM_PAGES_PER_MEMBER_BURST,
            keys_max=limits.MEMBERS_MAX,
        )

    # Work in steps

    def take_records(self, session: Session, records: Iterable[SignedRecord]) -> None:
        """Merge records one after the other, after what came before them.

        Raises:
            MalformedInput: more than one stream may have waiting. Remote's fault; the stream ends.
        """
        session.backlog.extend(records)
        if len(session.backlog) > limits.STREAM_BACKLOG_RECORDS_MAX:
            raise MalformedInput("more records than a stream may bring at once")
        self._work(session)

    def then(self, session: Session, step: Step) -> None:
        """Do something once everything that came before it was merged."""
        session.backlog.append(step)
        self._work(session)

    def work(self) -> Iterator[object]:
        """Do a step of what waits (timer `slice`), and yield the facts it tells."""
        return self._slices.step()

    def forget(self, session: Session) -> None:
        """Do no more for a stream that ended."""
        session.backlog.clear()
        self._slices.drop(session.stream)

    def _work(self, session: Session) -> None:
        if session.stream not in self._slices:
            self._slices.add(session.stream, self._job(session))

    def _job(self, session: Session) -> Iterator[object]:
        checks = Checks(limits.STREAM_CHECKS_PER_STEP_MAX)
        count = 0
        while session.backlog:
            spent = checks.left < limits.DATAGRAM_SIGNATURE_CHECKS_MAX
            if spent or count == limits.STREAM_RECORDS_PER_STEP_MAX:
                yield None
                checks, count = Checks(limits.STREAM_CHECKS_PER_STEP_MAX), 0
                continue
            item = session.backlog.popleft()
            if isinstance(item, SignedRecord):
                count += 1
                # What a newcomer learns from a first table, or comparison, is news to nobody but itself.
                is_quiet = session.purpose == "table" or (self.is_first and session.opener)
                yield RecordArrived(session, item, checks, is_quiet)
                continue
            pieces = item()
            if pieces is not None:
                yield from pieces
            count = limits.STREAM_RECORDS_PER_STEP_MAX

    def count_page(self, session: Session) -> None:
        """Count one page asked of us, by stream and by identity.

        Raises:
            MalformedInput: more than one stream, or one member, may ask for. Remote's fault; it ends.
        """
        session.pages_count += 1
        self._ctx.statistics.pages_sent += 1
        if session.pages_count > limits.STREAM_PAGES_MAX:
            raise MalformedInput("more pages than one stream may ask for")
        if not self._pages.take_key(session.peer_id, self._ctx.now):
            raise MalformedInput("more pages than one member may ask for")

    # The acceptor's side

    def answer_compare(self, session: Session, compare: Compare) -> None:
        """List what we hold in the buckets that differ."""
        self.then(session, lambda: self._list_differing(session, compare))

    def _list_differing(self, session: Session, compare: Compare) -> Iterator[object]:
        own, size = self._catalog.ledger.bucket_hashes(), BUCKET_BYTES
        differing = bytes(
            number
            for number in range(BUCKETS_COUNT)
            if own[number * size : number * size + size]
            != compare.buckets[number * size : number * size + size]
        )
        summary = self._spreading.summary()
        entries: list[Entry] = []
        for turn, number in enumerate(differing):
            entries += [
                Entry(kind, subject, *rank) for kind, subject, rank in self._catalog.ledger.bucket(number)
            ]
            while len(entries) > ENTRIES_PER_FRAME:
                self._streams.say(
                    session, Entries(tuple(entries[:ENTRIES_PER_FRAME]), differing, False, summary)
                )
                del entries[:ENTRIES_PER_FRAME]
                yield None
            if turn % _BUCKETS_PER_STEP == _BUCKETS_PER_STEP - 1:
                yield None
        self._streams.say(session, Entries(tuple(entries), differing, True, summary))

    def answer_table(self, session: Session, table: Table) -> None:
        """Send one page of a range of buckets.

        Raises:
            MalformedInput: too many pages. Remote's fault; the stream ends.
        """
        self.count_page(session)
        self.then(session, lambda: self._send_page(session, table))

    def _send_page(self, session: Session, table: Table) -> None:
        first = max(table.first, table.after[0]) if table.after else table.first
        page: list[bytes] = []
        verdicts: list[bytes] = []
        page_bytes = 0
        last = table.after
        for number in range(first, table.until):
            for subject in self._catalog.ledger.subjects(number):
                if subject <= table.after:
                    continue
                owned, about = self._raw_of_subject(subject)
                size = sum(map(len, owned)) + sum(map(len, about))
                full = len(page) + len(verdicts) > limits.FRAME_RECORDS_MAX // 2
                if page and (full or page_bytes + size > PAGE_BYTES):
                    self._say_records(session, page + verdicts)
                    self._streams.say(session, Turn(last))
                    return
                page += owned
                verdicts += about
                page_bytes += size
                last = subject
        if page:
            self._say_records(session, page + verdicts)
        self.say_done(session)

    def _say_records(self, session: Session, records: list[bytes]) -> None:
        """Send records in as many frames as they need: one member's alone may fill several."""
        frame: list[bytes] = []
        frame_bytes = 0
        for record in records:
            if frame and frame_bytes + len(record) > PAGE_BYTES:
                self._streams.say(session, encode_records_frame(frame, more=False))
                frame, frame_bytes = [], 0
            frame.append(record)
            frame_bytes += len(record)
        self._streams.say(session, encode_records_frame(frame, more=False))

    def say_done(self, session: Session) -> None:
        """Say that everything asked for was sent, and our state sums."""
        self._streams.say(session, Done(*self._catalog.sums.both_for(session.member)))

    def _raw_of_subject(self, subject: bytes) -> tuple[list[bytes], list[bytes]]:
        """Return a member's records as kept: what it signed, credential first, and verdicts about it."""
        member = self._catalog.get(subject)
        owned: list[bytes] = []
        about: list[bytes] = []
        for kind, message in sorted(member.messages.items()) if member is not None else ():
            if self._catalog.ledger.get(kind, subject) is not None:
                target = about if kind == self._catalog.verdict_kind else owned
                target.append(message[_MESSAGE_PREFIX_BYTES:])
        return owned, about

    def answer_request(self, session: Session, request: Request) -> None:
        """Send records by name, then say whose turn it is.

        Raises:
            MalformedInput: too many pages. Remote's fault; the stream ends.
        """
        self.count_page(session)
        self.then(session, lambda: self._send_named(session, request))

    def _send_named(self, session: Session, request: Request) -> Iterator[object]:
        names = deque(request.names)
        while names:
            page = self._take_page(names)
            if page:
                self._streams.say(session, encode_records_frame(page, more=False))
                yield None
        if request.last:
            self.say_done(session)
        else:
            self._streams.say(session, Turn())

    def _take_page(self, names: deque[Name]) -> list[bytes]:
        """Take as many names as fill a page and return their records as kept."""
        page: list[bytes] = []
        page_bytes = 0
        while names and len(page) < limits.FRAME_RECORDS_MAX:
            kind, subject = names[0]
            member = self._catalog.get(subject)
            message = None if member is None else member.messages.get(kind)
            if message is not None:
                if page and page_bytes + len(message) > PAGE_BYTES:
                    break
                page.append(message[_MESSAGE_PREFIX_BYTES:])
                page_bytes += len(message)
            names.popleft()
        return page

    # The opener's side

    def compare(self, session: Session) -> None:
        """Ask where the other differs."""
        self._streams.say(session, Compare(self._catalog.ledger.bucket_hashes(), self._spreading.summary()))

    def receive_entries(self, session: Session, message: Entries) -> None:
        """Take a list of what the other holds; after the last, exchange records.

        Raises:
            MalformedInput: more than members can have. Remote's fault; the stream ends.
        """
        for entry in message.entries:
            rank = Rank(entry.generation, entry.epoch, entry.sequence, entry.tie)
            session.entries[(entry.kind, entry.subject)] = rank
        if len(session.entries) > 4 * limits.MEMBERS_MAX:
            raise MalformedInput("more entries than members can have")
        if session.listed or session.purpose != "sync":
            raise MalformedInput("a list nobody asked for")
        if message.last:
            session.listed = True
            self.then(session, lambda: self._plan(session, message.differing))
            assert session.member is not None
            self._spreading.consider(session.member, message.documents)

    def _plan(self, session: Session, differing: bytes) -> Iterator[object]:
        """Sort out who lacks what, a few buckets at a time, and begin the exchange."""
        ledger, verdict_kind = self._catalog.ledger, self._catalog.verdict_kind
        theirs: dict[int, list[Name]] = {}
        for name in session.entries:
            theirs.setdefault(name[1][0], []).append(name)
        late_give: list[Name] = []
        late_ask: list[Name] = []
        for turn, number in enumerate(dict.fromkeys(differing)):
            for kind, subject, rank in ledger.bucket(number):
                held = session.entries.get((kind, subject))
                if held is None or held < rank:
                    (late_give if kind == verdict_kind else session.give).append((kind, subject))
            for name in sorted(theirs.get(number, ())):
                own = ledger.get(*name)
                if own is None or own.rank < session.entries[name]:
                    (late_ask if name[0] == verdict_kind else session.ask).append(name)
            if turn % _BUCKETS_PER_STEP == _BUCKETS_PER_STEP - 1:
                yield None
        session.entries = {}
        session.give.extend(late_give)
        session.ask.extend(late_ask)
        self.go_on(session)

    def go_on(self, session: Session) -> None:
        """Give the next page, or ask for the next: the last page given and the question go together."""
        if session.give:
            page = self._take_page(session.give)
            self._streams.say(session, encode_records_frame(page, more=bool(session.give)))
            if session.give:
                return
        names = tuple(islice(session.ask, _NAMES_PER_REQUEST))
        for _ in names:
            session.ask.popleft()
        self._streams.say(session, Request(names, not session.ask))
