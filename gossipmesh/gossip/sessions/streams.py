"""Streams: the handshake over TCP, sealed frames, and who may have how many of them.

What is said inside an authenticated stream is the router's to hand on. Rules:
1. The first frame of each side is plain and signed; everything after is sealed under keys bound to
   both nonces and runs, so a replayed opening ends at its second frame.
2. The opener is believed only once a sealed frame of its opens; the acceptor signed both nonces.
3. A header within a second, something within ten, an end within sixty, a few streams per identity: or it is
   closed. What one peer spins out is asked of another meanwhile, or after.
4. Who opens a stream by a credential that Trust revokes is shut out: it proves its key like everybody, is
   never believed, and may ask for Trust, by which it learns why.
Paper: memberlist's TCP ping and push/pull. Deviation: caps by identity, not address (NAT, loopback).
"""

from collections.abc import Iterator
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.budgets import KeyedBudgets, PrefixBudgets
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import CloseStream, OpenStream, SendStream, StreamId
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.membership.catalog import Catalog, Checks
from gossipmesh.gossip.membership.credentials import RevokedByTrust, is_replaced
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import hear_of_successor
from gossipmesh.gossip.sessions.facts import (
    FrameReceived,
    PeerMet,
    RevokedCame,
    StreamEnded,
    StreamFact,
    StreamReady,
)
from gossipmesh.gossip.sessions.handshake import Handshake, Replaced, proof_bytes
from gossipmesh.gossip.sessions.links import derive_pair_untrusted
from gossipmesh.gossip.sessions.session import CARRY, Session
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeCredential, RecordKind, SignedRecord
from gossipmesh.wire.codec import encode
from gossipmesh.wire.frames import (
    StreamHello,
    decode_frame_message_untrusted,
    decode_stream_hello_untrusted,
    encode_frame,
    encode_frame_message,
)
from gossipmesh.wire.versions import WIRE_MAX, WIRE_MIN

_OPEN_TIMEOUT_NS: Final = 3 * SECOND_NS
_OPENED_MAX: Final = 32
_UNCOUNTED: Final = ("ping", CARRY)  # proofs end at once; of carriers there are few, and one for each member
_ROLE_OPENER: Final = b"stream opener"
_ROLE_ACCEPTOR: Final = b"stream acceptor"


@kept.part("streams")
class Streams:
    """All streams of this node, opened and accepted."""

    def __init__(self, ctx: Context, catalog: Catalog, handshake: Handshake) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._handshake = handshake
        self._sessions: dict[StreamId, Session] = {}
        self._next_id = 0
        self._prefixes = PrefixBudgets(limits.HELLOS_PER_PREFIX_PER_S, limits.HELLOS_PER_PREFIX_BURST)
        self._shut_out = KeyedBudgets(
            limits.SHUT_OUT_PER_NODE_PER_S, limits.SHUT_OUT_PER_NODE_BURST, keys_max=limits.TRUST_REVOKED_MAX
        )

    def open_at(self, address: Address) -> None:
        """Open a comparison with whoever is at an address; for hellos that fit no datagram."""
        self._open(address, None, "sync", None)

    def serves(self, node_id: bytes) -> bool:
        """Tell whether a stream that this member opened is being answered."""
        return any(
            s.peer_id == node_id and not s.opener and s.purpose != CARRY for s in self._sessions.values()
        )

    def opens(self, member: Member, purpose: str) -> bool:
        """Tell whether a stream to a member for a purpose is on its way to serve it."""
        return any(
            s.expected is member and s.purpose == purpose and not s.completed for s in self._sessions.values()
        )

    def ping(self, member: Member) -> None:
        """Prove by TCP that a member lives: it must sign our nonce."""
        self.open_to(member, "ping")

    def fetch(self, node_id: bytes, scope: str | None) -> bool:
        """Fetch a scope's set, or newer Trust (None), from a member; False when that cannot be tried."""
        member = self._catalog.get(node_id)
        if member is None or node_id == self._catalog.own_id:
            return False
        return self.open_to(member, "trust" if scope is None else "policy", scope)

    def open_to(self, member: Member, purpose: str, scope: str | None = None) -> bool:
        """Open a stream to a member for a purpose (see `Session`); False when that cannot be tried."""
        address = member.address
        return address is not None and self._open(address, member, purpose, scope)

    def _open(self, address: Address, member: Member | None, purpose: str, scope: str | None) -> bool:
        opened = [
            session for session in self._sessions.values() if session.opener and session.purpose != CARRY
        ]
        asked = [session for session in opened if member is not None and session.expected is member]
        with_it = 0 if purpose in _UNCOUNTED else sum(1 for session in asked if session.purpose != "ping")
        if (
            len(opened) >= _OPENED_MAX and purpose != CARRY
        ) or with_it >= limits.STREAMS_OPENED_PER_MEMBER_MAX:
            self._ctx.statistics.streams_refused += 1
            return False
        self._next_id += 2
        stream = StreamId(self._next_id)
        session = Session(stream, opener=True, purpose=purpose, scope=scope)
        session.member = member
        session.expected = member
        self._keep(session)
        self._ctx.statistics.streams_opened += 1
        self._ctx.emit(OpenStream(stream, address))
        self._watch(session, _OPEN_TIMEOUT_NS)
        return True

    def _keep(self, session: Session) -> None:
        session.nonce = self._ctx.fresh(16)
        session.ends_at = Instant(self._ctx.now + limits.STREAM_LIFETIME_NS)
        self._sessions[session.stream] = session

    def _watch(self, session: Session, wait_ns: int) -> None:
        due = min(self._ctx.now + wait_ns, session.ends_at)
        self._ctx.timers.set(("stream", session.stream), due)

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"stream": self._timeout}

    def _timeout(self, stream: StreamId) -> StreamEnded:
        self._ctx.dropped("stream timeout")
        session = self._sessions[stream]
        self.close(session)
        return StreamEnded(session)

    def accepted(self, stream: StreamId, peer: Address) -> None:
        """Take a connection; it has a second to say who it is."""
        self._ctx.statistics.streams_accepted += 1
        if stream in self._sessions or not self._prefixes.take(peer, self._ctx.now) or not self._make_room():
            self._ctx.statistics.streams_refused += 1
            self._ctx.emit(CloseStream(stream))
            return
        session = Session(stream, opener=False, purpose="serve", scope=None)
        self._keep(session)
        self._watch(session, limits.STREAM_HEADER_TIMEOUT_NS)

    def _make_room(self) -> bool:
        """Close the stranger that has been silent longest if all places are taken; False: all are members."""
        accepted = [session for session in self._sessions.values() if not session.opener]
        if len(accepted) < limits.STREAMS_ACCEPTED_MAX:
            return True
        silent = next((session for session in accepted if session.member is None), None)
        if silent is not None:
            self._ctx.dropped("stream of a silent stranger")
            self.close(silent)  # nothing was said on it, so nothing is to be tidied up after it
        return silent is not None

    def opened(self, stream: StreamId) -> None:
        """Introduce ourselves on a connection we asked for."""
        session = self._sessions.get(stream)
        if session is None or not session.opener:
            return
        self._send_hello(session, _ROLE_OPENER, 0, session.nonce)
        self._watch(session, _OPEN_TIMEOUT_NS)

    def closed(self, stream: StreamId) -> StreamEnded | None:
        """Forget a connection that ended."""
        session = self._sessions.get(stream)
        if session is None:
            return None
        self._end(session)
        return StreamEnded(session)

    def close(self, session: Session) -> bool:
        """Close a stream; False when it had ended already."""
        if session.stream not in self._sessions:
            return False
        self._ctx.emit(CloseStream(session.stream))
        self._end(session)
        return True

    def cut_off(self, node_id: bytes) -> list[StreamEnded]:
        """Close every stream with a node, or on its way to it; return what ended."""
        cut = [
            session
            for session in self._sessions.values()
            if session.peer_id == node_id
            or (session.expected is not None and session.expected.node_id == node_id)
        ]
        return [StreamEnded(session) for session in cut if self.close(session)]

    def spoil(self, stream: StreamId, error: MalformedInput) -> StreamEnded | None:
        """Close a stream that brought what it may not, and count that."""
        self._ctx.dropped("stream " + type(error).__name__)
        session = self._sessions.get(stream)
        if session is None:
            return None
        self.close(session)
        return StreamEnded(session)

    def _end(self, session: Session) -> None:
        self._sessions.pop(session.stream, None)
        self._ctx.timers.cancel(("stream", session.stream))
        if session.opener and not session.completed:
            self._ctx.statistics.streams_failed += 1

    def receive(self, stream: StreamId, data: bytes) -> Iterator[StreamFact]:
        """Take bytes of a connection, and yield what they say, one fact after the other; a bad one ends it.

        Each fact is to be acted on before the next is asked for: what follows from it may end the stream.
        """
        session = self._sessions.get(stream)
        if session is None:
            return
        self._ctx.statistics.stream_bytes_received += len(data)
        try:
            for frame in session.reader.feed_untrusted(data):
                if stream not in self._sessions:
                    return
                yield from self._receive_frame_untrusted(session, frame)
        except MalformedInput as error:
            ended = self.spoil(stream, error)
            if ended is not None:
                yield ended

    def _receive_frame_untrusted(self, session: Session, frame: bytes) -> Iterator[StreamFact]:
        if session.sealer is None or session.unsealer is None:
            hello = decode_stream_hello_untrusted(frame)
            yield from self._receive_hello_untrusted(session, hello)
            return
        body = session.unsealer.open_untrusted(session.received_count, b"", frame)
        session.received_count += 1
        self._watch(session, limits.STREAM_IDLE_TIMEOUT_NS)
        if not session.opener and session.received_count == 1 and not session.is_shut_out:
            yield self._believe(session)
        message = decode_frame_message_untrusted(body)
        if message is not None:
            yield FrameReceived(session, message)

    def _receive_hello_untrusted(self, session: Session, hello: StreamHello) -> Iterator[StreamFact]:
        if not WIRE_MIN <= hello.version <= WIRE_MAX or hello.group_tag != self._ctx.group_tag:
            raise Untrusted("a stream of another version or group")
        checks = Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX)
        credential = self._admissible_untrusted(session, hello, checks)
        if credential.node_id == self._catalog.own_id:
            hear_of_successor(self._ctx, self._catalog, credential, hello.credential)
            raise Untrusted("a stream from ourselves")
        expected = session.expected
        if expected is not None and credential.node_id != expected.node_id:
            raise Untrusted("a stream answered by another node than was asked")
        role = _ROLE_ACCEPTOR if session.opener else _ROLE_OPENER
        fresh = session.nonce + hello.nonce if session.opener else hello.nonce
        peer_run = self._ctx.run_id if session.opener else 0
        proof = proof_bytes(self._ctx.group_tag, role, credential.node_id, hello.run, peer_run, fresh)
        self._handshake.check_proof_untrusted(credential, proof, hello.proof, checks)
        if not session.opener:
            held = [s for s in self._sessions.values() if not s.opener and s.peer_id == credential.node_id]
            if len(held) >= limits.STREAMS_PER_MEMBER_MAX:
                self._ctx.statistics.streams_refused += 1
                raise Untrusted("more streams than one member may have")
        session.peer_id = credential.node_id
        session.hello = hello
        session.credential = credential
        nonces = session.nonce + hello.nonce if session.opener else hello.nonce + session.nonce
        session.sealer, session.unsealer = derive_pair_untrusted(
            self._ctx.keys.exchange,
            credential.exchange_key,
            self._ctx.group_tag,
            b"stream",
            self._catalog.own_id + self._ctx.run_id.to_bytes(8, "big") + nonces,
            credential.node_id + hello.run.to_bytes(8, "big") + nonces,
        )
        if session.opener:
            yield self._believe(session)
            self._watch(session, limits.STREAM_IDLE_TIMEOUT_NS)
            yield StreamReady(session)
            return
        fresh = hello.nonce + session.nonce
        member = self._catalog.get(credential.node_id)
        supersedes = member is not None and self._catalog.credentials.supersedes(
            hello.credential.key_id, member.signer
        )
        if member is not None and not supersedes and is_replaced(credential, member.credential):
            # It learns from a hello that carries its successor's credential instead of ours.
            newer = member.records[RecordKind.CREDENTIAL]
            self._send_hello(session, _ROLE_ACCEPTOR, hello.run, fresh, newer)
            raise Replaced(newer)
        self._send_hello(session, _ROLE_ACCEPTOR, hello.run, fresh)
        if session.is_shut_out:
            yield RevokedCame(session)

    def _admissible_untrusted(self, session: Session, hello: StreamHello, checks: Checks) -> NodeCredential:
        """Verify a credential; who opened a stream by one that Trust revokes is shut out (rule 4).

        Raises:
            MalformedInput: it does not hold. Remote's fault. State unchanged.
        """
        try:
            return self._handshake.admissible_untrusted(hello.credential, checks)
        except RevokedByTrust as revoked:
            if session.opener or not self._shut_out.take_key(revoked.credential.node_id, self._ctx.now):
                raise
            session.is_shut_out = True
            return revoked.credential

    def _believe(self, session: Session) -> PeerMet:
        """Admit the peer of a session that has proved itself."""
        hello, credential = session.hello, session.credential
        assert hello is not None
        assert credential is not None
        member = self._handshake.take_untrusted(credential, hello.credential)
        session.member = member
        checks = Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX)
        return PeerMet(member, hello.run, [hello.state], checks, was_asked=session.opener)

    def _send_hello(
        self,
        session: Session,
        role: bytes,
        peer_run: int,
        fresh: bytes,
        credential: SignedRecord | None = None,
    ) -> None:
        own = self._catalog.get(self._catalog.own_id)
        assert own is not None
        proof = proof_bytes(
            self._ctx.group_tag, role, self._catalog.own_id, self._ctx.run_id, peer_run, fresh
        )
        hello = StreamHello(
            version=WIRE_MAX,
            group_tag=self._ctx.group_tag,
            run=self._ctx.run_id,
            nonce=session.nonce,
            credential=credential or own.records[RecordKind.CREDENTIAL],
            state=own.records[RecordKind.NODE_STATE],
            proof=self._ctx.keys.signing.sign(proof),
        )
        self._send(session, encode(hello))

    def say(self, session: Session, message: object) -> None:
        """Seal and send one frame message, or one that is encoded already; nothing once the stream ended."""
        if session.stream not in self._sessions:
            return
        assert session.sealer is not None
        content = message if isinstance(message, bytes) else encode_frame_message(message)  # type: ignore[arg-type]
        sealed = session.sealer.seal(session.sent_count, b"", content)
        session.sent_count += 1
        self._send(session, sealed)

    def _send(self, session: Session, payload: bytes) -> None:
        framed = encode_frame(payload)
        self._ctx.statistics.stream_bytes_sent += len(framed)
        self._ctx.emit(SendStream(session.stream, framed))
