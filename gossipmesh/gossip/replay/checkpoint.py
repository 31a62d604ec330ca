"""The whole state of a core as one versioned encoding, so that a replay may begin in the middle of its life.

Written are what a core is made of (settings, credential, documents), its members, what its parts hold and
its timers: names and values, no code. The reader makes a core of its own build and gives its parts what they
held.
Rules:
1. A checkpoint of an older build is read as long as `VERSION` is the same: what it lacks is what a new core
   has, or what `kept` says of a value. One of another version is refused, in one sentence.
2. Nothing is written while a stream is open or long work is under way: neither is a value. Nor is anything
   before a start's epoch is on disk. What goes on after a durable write is a value, and written.
3. No key is written: ours are given to the reader, those of links are derived anew.
Paper: none. Deviation: none.
"""

from operator import attrgetter
from random import Random
from typing import Any, Final

import msgspec

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.settings import (
    GossipSettings,
    GossipStatistics,
    MonitorSettings,
    NodeKeys,
    NodeProfile,
    RestoredState,
)
from gossipmesh.gossip.failure.monitor_detector import MonitorDetector
from gossipmesh.gossip.failure.verdicts import decode_verdict_untrusted
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.endpoints import entries_of, in_use
from gossipmesh.gossip.membership.member import Member, Messages, credential_of
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.packing import Packed, Packer, Unpacker, Unwritable, fields_of, plain
from gossipmesh.gossip.sessions.links import Link, LinkMaker
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import RecordKind, SignedRecord
from gossipmesh.trust.documents import TrustedDocuments, decode_policy_set_untrusted
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier
from gossipmesh.wire.versions import POLICY_FEATURES

VERSION: Final = 1
_VERDICTS_MAX: Final = 1_000_000
_LENGTH_MAX: Final = 2**31
_MEMBER_BYTES: Final = 900  # about what one takes: three records, its row, its part of the state sums
_WINDOW_BYTES: Final = 64
# What composition gives to a part and no input changes; what is made of keys; what `Context` holds for all.
_WIRING: Final = (Context, GossipSettings, MonitorSettings, LinkMaker, Verifier, TrustedDocuments, Random)
_MEMBERS_OF: Final = ("members", "by_short")  # of the catalog: they stand in a table of their own
_DERIVED: Final = (
    *("messages", "link", "verdict", "node_id", "short_id", "name", "ends", "status"),
    *("entries", "told"),
)
_COLUMNS: Final = tuple(name for name in Member.__slots__ if name not in _DERIVED)
_VALUES_OF: Final = attrgetter(*_COLUMNS)

Row = tuple[Any, ...]

kept.part("node")(GossipNode)
kept.part("monitor detector")(MonitorDetector)


class Documents(msgspec.Struct, frozen=True):
    """What a node believes, as its owner restores it: Trust, floors and sets in force."""

    trust_envelopes: tuple[bytes, ...]
    floors: tuple[tuple[str, int, bytes], ...]
    policy_sets: tuple[bytes, ...]

    @classmethod
    def of(cls, documents: TrustedDocuments) -> "Documents":
        """Return what is held."""
        held = [documents.in_force(scope) for scope in documents.scopes()]
        sets = tuple(accepted.raw.to_bytes() for accepted in held if accepted is not None)
        return cls(tuple(documents.trust_envelopes), tuple(documents.kept_floors()), sets)

    def restore(self, trust_domain: str, verifier: Verifier) -> TrustedDocuments:
        """Return documents in that state.

        Raises:
            MalformedInput: one of them does not verify. State unchanged.
        """
        documents = TrustedDocuments(trust_domain=trust_domain, verifier=verifier, features=POLICY_FEATURES)
        for envelope in self.trust_envelopes:
            documents.load_trust_untrusted(envelope)
        for scope, version, manifest_hash in self.floors:
            documents.restore_floor(scope, version, manifest_hash)
        for data in self.policy_sets:
            documents.restore_untrusted(decode_policy_set_untrusted(data))
        return documents


class MemberTable(msgspec.Struct, frozen=True):
    """All members in their order; `columns` name the values after each row's first six.

    Those are credential, state, services, further records by kind, link (run, sent, highest received and
    which of those before it), status; then the columns. Rows beyond `count` are of those who are members no
    more and that something still names.
    """

    count: int
    columns: tuple[str, ...]
    rows: list[Row]


class _Version(msgspec.Struct, frozen=True):
    version: int


class Checkpoint(msgspec.Struct, frozen=True):
    """The file's form; a field that is added later has a default."""

    version: int
    settings: GossipSettings
    trust_domain: str
    credential: SignedRecord
    profile: NodeProfile
    documents: Documents
    generator: tuple[int, tuple[int, ...], float | None]
    now: int
    started: int
    wall_offset_s: int
    run_id: int
    statistics: GossipStatistics
    members: MemberTable
    layouts: dict[str, tuple[str, ...]]
    objects: list[Packed]
    parts: dict[str, dict[str, Packed]]
    timers: list[tuple[int, str, Packed]]


def take_checkpoint(core: GossipNode, length_max: int = _LENGTH_MAX) -> bytes | None:
    """Return the core's state; None while a stream is open, and where it would be longer than so many bytes.

    Cost: O(members), some 10 us each; none where so many members are known to be too long.
    """
    if core._ctx.is_mute or core._streams._sessions or len(core._catalog) * _MEMBER_BYTES > length_max:
        return None
    try:
        return write_checkpoint(core)
    except Unwritable:
        return None


def write_checkpoint(core: GossipNode) -> bytes:
    """Return the core's state.

    Raises:
        Unwritable: something in it is no value just now. State unchanged.
    """
    ctx = core._ctx
    packer = Packer(list(core._catalog))
    count = len(packer.members)
    parts = {name: _fields(name, part, packer) for name, part in parts_of(core).items()}
    timers = [(at, timer[0], packer.pack(timer[1])) for timer, at in ctx.timers.pending_all()]
    checkpoint = Checkpoint(
        version=VERSION,
        settings=ctx.settings,
        trust_domain=ctx.trust_domain,
        credential=ctx.keys.credential,
        profile=core._own._profile,
        documents=Documents.of(ctx.documents),
        generator=ctx.rng.getstate(),
        now=ctx.now,
        started=ctx.started,
        wall_offset_s=ctx.wall_offset_s,
        run_id=ctx.run_id,
        statistics=ctx.statistics,
        members=_table_of(packer, count),
        layouts=packer.layouts,
        objects=packer.objects,
        parts=parts,
        timers=timers,
    )
    return msgspec.msgpack.encode(checkpoint)


def open_checkpoint_untrusted(data: bytes, signing: SigningKey, exchange: ExchangeKey) -> GossipNode:
    """Return a core in that state, speaking by these keys.

    Raises:
        MalformedInput: not a checkpoint, or of a version that this build does not read. State unchanged.
    """
    try:
        version = msgspec.msgpack.decode(data, type=_Version).version
        if version != VERSION:
            problem = f"a checkpoint of version {version}, and this build reads {VERSION}"
            raise MalformedInput(f"{problem}: replay it with the build that wrote it")
        checkpoint = msgspec.msgpack.decode(data, type=Checkpoint)
        return _Reading(checkpoint, signing, exchange).core
    except MalformedInput:
        raise
    except Exception as error:  # building from foreign data fails in as many ways as there are classes
        raise MalformedInput(f"not a checkpoint: {type(error).__name__}: {error}"[:300]) from None


# Parts


def parts_of(core: GossipNode) -> dict[str, Any]:
    """Return the parts of a core by their names, each once.

    Raises:
        Unwritable: two parts of one name. State unchanged.
    """
    found: dict[str, Any] = {}
    ctx = core._ctx
    waiting: list[Any] = [core, ctx.lag, ctx.clocks, ctx.civil, ctx.history, ctx.writes]
    while waiting:
        part = waiting.pop(0)
        name = kept.NAMES[type(part)]
        if found.setdefault(name, part) is not part:
            raise Unwritable(f"two parts called {name}")
        for _, held in fields_of(part):
            if _is_part(held) and found.get(kept.NAMES[type(held)]) is not held:
                waiting.append(held)
    return found


def _is_part(held: Any) -> bool:
    return kept.NAMES.get(type(held)) in kept.PARTS


def _is_wiring(held: Any) -> bool:
    if _is_part(held) or callable(held) or isinstance(held, _WIRING):
        return True
    return isinstance(held, dict) and any(callable(one) for one in held.values())


def _fields(name: str, part: Any, packer: Packer) -> dict[str, Packed]:
    found: dict[str, Packed] = {}
    for field, held in fields_of(part):
        if not _is_wiring(held) and not (name == "catalog" and plain(field) in _MEMBERS_OF):
            found[plain(field)] = packer.pack(held)
    return found


# Members


def _table_of(packer: Packer, count: int) -> MemberTable:
    return MemberTable(count, _COLUMNS, [_row_of(member) for member in packer.members])


def _row_of(member: Member) -> Row:
    messages = member.messages
    return (
        messages.credential,
        messages.state,
        messages.services,
        messages.beside(),
        None if member.link is None else _link_row(member.link),
        int(member.status),
        *_VALUES_OF(member),
    )


def _link_row(link: Link) -> tuple[int, int, int, bytes]:
    window = link._window
    return link.run, link._sent, window.highest, window.taken.to_bytes(_WINDOW_BYTES, "big").lstrip(b"\0")


class _Reading:
    """Makes a core of this build and gives it what a checkpoint holds."""

    def __init__(self, checkpoint: Checkpoint, signing: SigningKey, exchange: ExchangeKey) -> None:
        self._checkpoint = checkpoint
        verifier = Verifier(_VERDICTS_MAX)
        self.core = GossipNode(
            settings=checkpoint.settings,
            trust_domain=checkpoint.trust_domain,
            keys=NodeKeys(checkpoint.credential, signing, exchange),
            profile=checkpoint.profile,
            documents=checkpoint.documents.restore(checkpoint.trust_domain, verifier),
            verifier=verifier,
            restored=RestoredState(),
            rng=Random(0),
            now=Instant(checkpoint.now),
            wall_offset_s=checkpoint.wall_offset_s,
        )
        members = [self._member(row) for row in checkpoint.members.rows]
        self._unpacker = Unpacker(members, checkpoint.objects, checkpoint.layouts)
        self._restore_parts()
        self._restore_catalog(members[: checkpoint.members.count])
        self._restore_context(members)

    def _member(self, row: Row) -> Member:
        now = Instant(self._checkpoint.now)
        messages = Messages()
        messages.credential, messages.state, messages.services, beside, _, status = row[:6]
        for kind, message in (beside or {}).items():
            messages[kind] = message
        member = Member(credential_of(messages.credential or b""), now)
        member.messages = messages
        member.status = MemberStatus(status)
        for name, held in zip(self._checkpoint.members.columns, row[6:], strict=True):
            if name in _COLUMNS:
                setattr(member, name, held)
        verdict = member.record(RecordKind.VERDICT)
        member.verdict = None if verdict is None else decode_verdict_untrusted(verdict)
        member.entries = entries_of(messages.services)
        found = in_use(member, self.core.own_node_id)
        member.told = None if found is None else found.entries
        return member

    def _restore_parts(self) -> None:
        for name, part in parts_of(self.core).items():
            own = {plain(field): (field, held) for field, held in fields_of(part)}
            for field, packed in self._checkpoint.parts.get(name, {}).items():
                if field in own and not _is_wiring(own[field][1]):
                    setattr(part, own[field][0], self._unpacker.unpack(packed))

    def _restore_catalog(self, members: list[Member]) -> None:
        catalog: Catalog = self.core._catalog
        catalog._members = {member.node_id: member for member in members}
        catalog._by_short = {member.short_id: member for member in members}
        catalog._revoked_count = sum(member.is_revoked for member in members)  # older builds counted none
        for member in members:  # a build that did not know key sets kept them unread
            catalog.drop_disallowed(member, member.credential)

    def _restore_context(self, members: list[Member]) -> None:
        ctx, checkpoint = self.core._ctx, self._checkpoint
        ctx.run_id, ctx.started = checkpoint.run_id, Instant(checkpoint.started)
        ctx.speak()
        for member, row in zip(members, checkpoint.members.rows, strict=True):
            if row[4] is not None:
                member.link = self._link(member, *row[4])
        statistics = checkpoint.statistics
        ctx.statistics = statistics
        ctx.rng.setstate(checkpoint.generator)
        timers = [((kind, self._unpacker.unpack(subject)), at) for at, kind, subject in checkpoint.timers]
        ctx.timers.restore(timers)

    def _link(self, member: Member, run: int, sent: int, highest: int, bits: bytes) -> Link:
        key = member.credential.exchange_key
        link = self.core._courier._links.derive_untrusted(member.node_id, key, run)
        link._sent = sent
        link._window.restore(highest, int.from_bytes(bits, "big"))
        return link
