"""How strangers become members on datagrams: cookie, hello, welcome.

Rules:
1. Before a valid cookie: no state, no signature check, no answer longer than the question.
2. A hello proves that its sender holds the credential's key now, in this run, at this address.
3. A packet that cannot be opened is answered with a cookie: the sender may hold an older run of ours.
   Of the run it holds, the cookie says that we are not known there yet: news of us is likely on its way,
   so we ask once more before we say hello. Many who join at once would all greet one another otherwise.
4. Whoever proves a credential that a later enrolment of its name, or a tombstone, replaced is welcomed with
   that one in the place of ours: the authority's word that it must stop. Whoever proves itself elsewhere
   than a newer state of its own says is welcomed with that one in the place of ours: another agent may use
   its keys.
5. Whom Trust revokes is welcomed with nothing, so that it opens a stream: there it is told (`streams`).
Paper: none; the cookie is DTLS's (RFC 9147 section 5.1).
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.budgets import PrefixBudgets
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.membership.catalog import Catalog, Checks
from gossipmesh.gossip.membership.credentials import RevokedByTrust, is_replaced
from gossipmesh.gossip.membership.member import Member, short_id_of
from gossipmesh.gossip.membership.own import hear_of_successor
from gossipmesh.gossip.membership.resigning import held_by_keys
from gossipmesh.gossip.sessions.facts import PeerMet, PingDue, TooLong
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeCredential, RecordKind, SignedRecord
from gossipmesh.trust.seal import CookieJar
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import (
    HEADER_BYTES,
    Cookie,
    Header,
    Hello,
    PacketType,
    Welcome,
    encode_header,
    encode_hello_padded,
)
from gossipmesh.wire.versions import WIRE_MAX

_NONCE_BYTES = 16
_TRIES_MAX = 12
_WAIT_DOUBLINGS_MAX = 1  # at 5 % loss an exchange of four packets fails one time in five: try often
_UNKNOWN_WAIT_NS = SECOND_NS  # in a storm news takes a few ticks; no silence is judged before 2.5 s
_UNKNOWN_FORGOTTEN_NS = 10 * SECOND_NS
_IN_VAIN_MAX = 2
_IN_VAIN_GAP_NS = 2 * SECOND_NS  # a wait, and until the next cookie
_ROLE_HELLO = b"hello"
_ROLE_WELCOME = b"welcome"
kept.value("cookie jar")(CookieJar)


class Replaced(Untrusted):
    """A credential of a name that was enrolled again since; `newer` is the later one's record."""

    def __init__(self, newer: SignedRecord) -> None:
        super().__init__("a credential of an older generation")
        self.newer = newer


@kept.value("hello attempt")
class _Attempt:
    """A hello of ours that is not answered yet."""

    __slots__ = ("address", "cookie", "cookie_at", "echo", "nonce", "peer_run", "tries")

    def __init__(self, address: Address, echo: int, nonce: bytes) -> None:
        self.address = address
        self.echo = echo
        self.nonce = nonce
        self.cookie = b""
        self.cookie_at = 0
        self.peer_run = 0
        self.tries = 0


@kept.part("handshake")
class Handshake:
    """Both sides of the datagram handshake; returns who has proved itself."""

    def __init__(self, ctx: Context, catalog: Catalog, own_id: bytes) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._own_id = own_id
        self._own_short = short_id_of(own_id)
        self._jar = CookieJar(ctx.fresh(32), ctx.settings.cookie_age_s)
        self._attempts: dict[Address, _Attempt] = {}
        self._by_echo: dict[int, _Attempt] = {}
        self._unknown_to: dict[bytes, int] = {}
        self._ask_since: dict[bytes, int] = {}
        self._in_vain: dict[bytes, tuple[int, int]] = {}
        self._budgets = PrefixBudgets(limits.HELLOS_PER_PREFIX_PER_S, limits.HELLOS_PER_PREFIX_BURST)

    @property
    def pending_count(self) -> int:
        """Return how many hellos wait for an answer."""
        return len(self._attempts)

    def start(self, address: Address) -> None:
        """Introduce ourselves at `address`, unless that is under way."""
        self._begin(address, b"", 0)

    def start_anew(self, address: Address) -> None:
        """Introduce ourselves at `address` from the beginning, which a cookie answers."""
        self.stop(address)
        self.start(address)

    def stop(self, address: Address) -> None:
        """Introduce ourselves at `address` no more."""
        attempt = self._attempts.get(address)
        if attempt is not None:
            self._finish(attempt)

    def asked_at(self, echo: int) -> Address | None:
        """Return where a hello of ours went that is not answered yet, by its counter; None: none is such."""
        attempt = self._by_echo.get(echo)
        return None if attempt is None else attempt.address

    def holds_cookie(self, cookie: bytes, run: int, sender: Address) -> bool:
        """Tell whether a stranger within its budget shows a cookie of ours for its run and address."""
        if not self._jar.accepts(cookie, str(sender), run, self._ctx.now // SECOND_NS):
            return False
        return self._budgets.take(sender, self._ctx.now)

    def _begin(self, address: Address, cookie: bytes, peer_run: int) -> TooLong | None:
        """Begin a hello; with a cookie, which saves a round trip, it may be too long."""
        if address in self._attempts or len(self._attempts) >= limits.HELLOS_PENDING_MAX:
            return None
        attempt = _Attempt(address, self._ctx.fresh_number(), self._ctx.fresh(_NONCE_BYTES))
        attempt.cookie, attempt.peer_run, attempt.cookie_at = cookie, peer_run, self._ctx.now
        self._attempts[address] = attempt
        self._by_echo[attempt.echo] = attempt
        return self._send(attempt)

    def _send(self, attempt: _Attempt) -> TooLong | None:
        if attempt.tries >= _TRIES_MAX:
            self._finish(attempt)
            return None
        # A cookie is used while it is surely good; then a new one is asked for.
        if self._ctx.now - attempt.cookie_at > self._ctx.settings.cookie_age_s * SECOND_NS // 2:
            attempt.cookie = b""
        attempt.tries += 1
        body = self._hello(attempt)
        if body is None:
            self._finish(attempt)
            return TooLong(attempt.address)
        self._ctx.statistics.hellos_sent += 1
        header = Header(
            WIRE_MAX, PacketType.HELLO, self._ctx.group_tag, self._own_short, self._ctx.run_id, attempt.echo
        )
        self._ctx.send(attempt.address, encode_header(header) + body)
        # Whoever gave us a cookie is there, and may be busy: many join at once.
        doublings = _WAIT_DOUBLINGS_MAX if attempt.cookie or attempt.tries > 1 else 0
        wait_ns = self._ctx.settings.hello_retry_ns << doublings
        self._ctx.timers.set(("hello", attempt.address), self._ctx.now + wait_ns)
        return None

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"hello": self._again, "unknown": self._ask_again}

    def _again(self, address: Address) -> TooLong | None:
        return self._send(self._attempts[address])

    def _finish(self, attempt: _Attempt) -> None:
        self._attempts.pop(attempt.address, None)
        self._by_echo.pop(attempt.echo, None)
        self._ctx.timers.cancel(("hello", attempt.address))

    def _hello(self, attempt: _Attempt) -> bytes | None:
        if not attempt.cookie:
            return encode_hello_padded(Hello(b"", 0, b"", None, None, b"", b""))
        own = self._catalog.get(self._own_id)
        assert own is not None
        proof = self._proof(_ROLE_HELLO, attempt.peer_run, attempt.cookie, attempt.nonce)
        return encode_hello_padded(
            Hello(
                cookie=attempt.cookie,
                peer_run=attempt.peer_run,
                nonce=attempt.nonce,
                credential=own.record(RecordKind.CREDENTIAL),
                state=own.record(RecordKind.NODE_STATE),
                proof=self._ctx.keys.signing.sign(proof),
                padding=b"",
            )
        )

    def _proof(self, role: bytes, peer_run: int, cookie: bytes, nonce: bytes) -> bytes:
        return proof_bytes(
            self._ctx.group_tag, role, self._own_id, self._ctx.run_id, peer_run, cookie + nonce
        )

    def challenge(self, header: Header, size_bytes: int, sender: Address) -> None:
        """Answer a packet we cannot open with a cookie, if that is no longer than the packet was."""
        if not self._budgets.take(sender, self._ctx.now):
            self._ctx.dropped("stranger over budget")
            return
        now_s = self._ctx.now // SECOND_NS
        cookie = self._jar.bake(str(sender), header.run, now_s)
        answer = Header(
            WIRE_MAX,
            PacketType.COOKIE,
            self._ctx.group_tag,
            self._own_short,
            self._ctx.run_id,
            header.counter,
        )
        payload = encode_header(answer) + encode(Cookie(cookie))
        if len(payload) <= size_bytes:
            self._ctx.statistics.cookies_sent += 1
            self._ctx.send(sender, payload)

    def receive_hello_untrusted(
        self, header: Header, hello: Hello, size_bytes: int, sender: Address
    ) -> PeerMet | None:
        """Answer a hello with a cookie, or return who has proved itself and is to be welcomed.

        Raises:
            MalformedInput: the credential, state or proof does not hold. Remote's fault. State unchanged.
        """
        now_s = self._ctx.now // SECOND_NS
        if size_bytes < limits.DATAGRAM_BYTES_MAX - 2:
            raise MalformedInput("a hello that is not padded")
        if hello.peer_run != self._ctx.run_id or not self._jar.accepts(
            hello.cookie, str(sender), header.run, now_s
        ):
            self.challenge(header, size_bytes, sender)
            return None
        if not self._budgets.take(sender, self._ctx.now):
            self._ctx.dropped("stranger over budget")
            return None
        checks = Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX)
        try:
            member = self._admit_untrusted(header, hello, _ROLE_HELLO, hello.cookie + hello.nonce, checks)
        except Replaced as replaced:
            self._answer_hello(header, Welcome(hello.nonce, replaced.newer, None, b""), sender)
            raise
        except RevokedByTrust:
            self._answer_hello(header, Welcome(hello.nonce, None, None, b""), sender)
            raise
        self._ctx.statistics.hellos_accepted += 1
        return _met(member, header.run, hello, checks)._replace(sender=sender)

    def _admit_untrusted(
        self, header: Header, message: Hello | Welcome, role: bytes, fresh: bytes, checks: Checks
    ) -> Member:
        if message.credential is None:
            raise Untrusted("a hello without a credential")
        credential = self.admissible_untrusted(message.credential, checks)
        if credential.node_id == self._own_id:
            hear_of_successor(self._ctx, self._catalog, credential, message.credential)
        if short_id_of(credential.node_id) != header.sender or credential.node_id == self._own_id:
            raise Untrusted("a hello whose sender is not its credential's node")
        proof = proof_bytes(
            self._ctx.group_tag, role, credential.node_id, header.run, self._ctx.run_id, fresh
        )
        self.check_proof_untrusted(credential, proof, message.proof, checks)
        return self.take_untrusted(credential, message.credential)

    def admissible_untrusted(self, record: SignedRecord, checks: Checks) -> NodeCredential:
        """Verify a newcomer's credential; nothing is stored yet.

        Raises:
            MalformedInput: it does not hold. Remote's fault. State unchanged.
        """
        held = held_by_keys(self._ctx, self._catalog, record)
        return held or self._catalog.open_credential_untrusted(record, checks)

    def check_proof_untrusted(
        self, credential: NodeCredential, proof: bytes, signature: bytes, checks: Checks
    ) -> None:
        """Verify that whoever shows a credential holds its key now.

        Raises:
            MalformedInput: it does not. Remote's fault. State unchanged.
        """
        checks.spend_untrusted()
        self._ctx.statistics.signature_checks += 1
        if not self._ctx.verifier.verify(credential.signing_key, proof, signature):
            raise Untrusted("a hello that does not prove its key")

    def take_untrusted(self, credential: NodeCredential, record: SignedRecord) -> Member:
        """Store a proven credential unless a newer one is held, and return its member.

        Raises:
            Replaced: a newer generation or a tombstone is held. Remote's fault. State unchanged.
            Untrusted: there is no room. Remote's fault. State unchanged.
        """
        member = self._catalog.get(credential.node_id)
        if member is not None and not self._catalog.credentials.supersedes(record.key_id, member.signer):
            held = member.credential
            if is_replaced(credential, held):
                raise Replaced(member.records[RecordKind.CREDENTIAL])
            if (credential.generation, credential.serial) <= (held.generation, held.serial):
                if credential.signing_key != held.signing_key:
                    raise Untrusted("a credential that was replaced")
                return member
        return self._catalog.install_credential(credential, record).member

    def welcome(
        self, header: Header, nonce: bytes, sender: Address, overtaking: SignedRecord | None = None
    ) -> None:
        """Tell whoever proved itself by a hello who we are.

        Args:
            overtaking: a newer state of its own, shown to it in the place of ours.
        """
        own = self._catalog.get(self._own_id)
        assert own is not None
        proof = self._ctx.keys.signing.sign(self._proof(_ROLE_WELCOME, header.run, b"", nonce))
        credential, state = own.record(RecordKind.CREDENTIAL), overtaking or own.record(RecordKind.NODE_STATE)
        self._answer_hello(header, Welcome(nonce, credential, state, proof), sender)

    def _answer_hello(self, header: Header, welcome: Welcome, sender: Address) -> None:
        """Send a welcome, without its records where they do not fit: then a stream has to be used."""
        answer = Header(
            WIRE_MAX,
            PacketType.WELCOME,
            self._ctx.group_tag,
            self._own_short,
            self._ctx.run_id,
            header.counter,
        )
        body = encode(welcome)
        if HEADER_BYTES + len(body) > limits.DATAGRAM_BYTES_MAX - 2:
            body = encode(Welcome(welcome.nonce, None, None, welcome.proof))
        self._ctx.send(sender, encode_header(answer) + body)

    def receive_cookie(self, header: Header, cookie: Cookie, sender: Address) -> TooLong | None:
        """Go on with our hello, or begin one because a member could not open our packet."""
        # A peer with several addresses may answer from another than was asked; the echo is the proof.
        attempt = self._by_echo.get(header.counter)
        if attempt is not None:
            if attempt.cookie and attempt.peer_run == header.run:
                return None
            attempt.cookie, attempt.peer_run, attempt.cookie_at = cookie.cookie, header.run, self._ctx.now
            return self._send(attempt)
        member = self._catalog.by_short(header.sender)
        if sender in self._attempts or member is None or member.node_id == self._own_id:
            self._ctx.dropped("cookie not asked for")
            return None
        if member.state is None or sender not in member.state.gossip_addresses:
            self._ctx.dropped("cookie not asked for")
            return None
        if header.run == member.run and self._asks_again(member):
            return None
        if member.told_at >= 0 and self._ctx.now - member.told_at < SECOND_NS // 2:
            return None
        member.told_at = self._ctx.now
        return self._begin(sender, cookie.cookie, header.run)

    def _asks_again(self, member: Member) -> bool:
        """Ask a member that does not know us yet once more in a moment; False: that was done, to no avail."""
        now, asked_at = self._ctx.now, self._unknown_to.get(member.node_id)
        if asked_at is not None and _UNKNOWN_WAIT_NS <= now - asked_at < _UNKNOWN_FORGOTTEN_NS:
            del self._unknown_to[member.node_id]
            return False
        if asked_at is None or now - asked_at >= _UNKNOWN_FORGOTTEN_NS:
            if len(self._unknown_to) >= limits.HELLOS_PENDING_MAX:
                del self._unknown_to[next(iter(self._unknown_to))]
            self._unknown_to[member.node_id] = now
            self._ask_since[member.node_id] = now
            self._ctx.timers.set(("unknown", member.node_id), now + _UNKNOWN_WAIT_NS)
        return True

    def _ask_again(self, node_id: bytes) -> PingDue | None:
        member, since = self._catalog.get(node_id), self._ask_since.pop(node_id)
        if member is None:
            return None
        if member.heard_at > since and not self._is_heard_in_vain(node_id):
            self._unknown_to.pop(member.node_id, None)
            return None
        return PingDue(member)

    def _is_heard_in_vain(self, node_id: bytes) -> bool:
        """Tell whether a member that we heard, by a stream perhaps, sent cookies for a while all the same.

        It follows another run of ours then, and no news of this one is on its way.
        """
        now = self._ctx.now
        count, last_at = self._in_vain.pop(node_id, (0, -_IN_VAIN_GAP_NS))
        count = count + 1 if now - last_at < _IN_VAIN_GAP_NS else 1
        if count >= _IN_VAIN_MAX:
            return True
        if len(self._in_vain) >= limits.HELLOS_PENDING_MAX:
            del self._in_vain[next(iter(self._in_vain))]
        self._in_vain[node_id] = (count, now)
        return False

    def receive_welcome_untrusted(self, header: Header, welcome: Welcome) -> PeerMet | TooLong:
        """Finish our hello, and return who answered it.

        Raises:
            MalformedInput: not the answer to a hello of ours, or it proves nothing. Remote's fault.
                State unchanged.
        """
        attempt = self._by_echo.get(header.counter)
        if attempt is None or attempt.nonce != welcome.nonce:
            raise MalformedInput("a welcome not asked for")
        if welcome.credential is None:
            self._finish(attempt)
            return TooLong(attempt.address)
        checks = Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX)
        member = self._admit_untrusted(header, welcome, _ROLE_WELCOME, welcome.nonce, checks)
        self._finish(attempt)
        return _met(member, header.run, welcome, checks)


def _met(member: Member, run: int, message: Hello | Welcome, checks: Checks) -> PeerMet:
    return PeerMet(member, run, [] if message.state is None else [message.state], checks)


def proof_bytes(group_tag: int, role: bytes, node_id: bytes, run: int, peer_run: int, fresh: bytes) -> bytes:
    """Return what a hello's sender signs: who, in which runs, against what challenge."""
    return b"\0".join(
        (
            b"gossipmesh hello v1",
            role,
            group_tag.to_bytes(4, "big") + node_id + run.to_bytes(8, "big") + peer_run.to_bytes(8, "big"),
            fresh,
        )
    )
