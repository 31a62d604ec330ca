"""TLS between proxies: contexts, a lean stream, and what the peer showed.

Responsible for who is at the other end. Ends at what they may do. Rules:

1. TLS 1.3 only, certificates on both sides, no session tickets: every connection proves identity anew.
2. The engine never writes a key to disk; a memfd carries it into OpenSSL.
3. Who a peer is is `trust.peer_identity`'s to say, after every handshake: OpenSSL alone lets anyone through.
4. TLS runs over memory buffers, not an SSLSocket: measured at three quarters of its CPU for small
   messages, and closing one direction cannot then race with bytes already in the socket, which
   OpenSSL answers by breaking the other direction.
5. OpenSSL gets one record at a time, so that one call of it works off one; records without data are few
   in a row, or the connection ends. A read waits for no write: what TLS has to answer goes out when it can.

Spec: RFC 8446; X509-SVID section 5 (the path, which OpenSSL verifies).
"""

import os
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

import trio

from gossipmesh.model import limits
from gossipmesh.model.errors import PeerRefused
from gossipmesh.model.member import Address
from gossipmesh.net.byte_stream import (
    RECEIVE_BYTES,
    SMALL_MESSAGE_BYTES,
    StaleCheck,
    connect,
    reset_on_close,
    wait_readable,
    wait_writable,
)
from gossipmesh.net.turns import TURN
from gossipmesh.trust.peer_identity import Dialled, Peer, PeerFacts, Shown, identify_untrusted

ALPN_HTTP: Final = "gm-http/1.1"
ALPN_TCP: Final = "gm-tcp"
ALPN_TCP_2: Final = "gm-tcp/2"  # with the callee's status byte first
ALPN_PROBE: Final = "gm-probe"
_SERVED: Final = (ALPN_HTTP, ALPN_TCP_2, ALPN_TCP, ALPN_PROBE)  # by preference
_OFFERS: Final = {ALPN_TCP: (ALPN_TCP_2, ALPN_TCP)}  # newest first; 0.1 speaks the last
_ENCODING_DER: Final = 2  # `_ssl.ENCODING_DER`
HEADER_BYTES: Final = 5
RECORD_BYTES: Final = 16_384
SEALED_RECORD_BYTES: Final = RECORD_BYTES + 22  # header, content type and tag (RFC 8446 section 5.2)
FILL_BYTES: Final = RECEIVE_BYTES // RECORD_BYTES * SEALED_RECORD_BYTES


class TlsError(OSError):
    """The handshake failed or the peer is not who it must be. Remote's fault. State: close it."""


class TlsPeerRefused(TlsError):
    """The handshake is done and the peer is taken for nobody; `code` says by which rule. State: close it."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"peer_refused[{code}]: {sentence}")
        self.code = code


class KeyPair(Protocol):
    """A certificate chain and its key, PEM."""

    @property
    def chain_pem(self) -> bytes:
        """Return the leaf, then intermediates."""
        ...

    @property
    def key_pem(self) -> bytes:
        """Return the private key."""
        ...


class _Connection(ssl.SSLObject):
    """Remembers the SNI its client asked for, and shows the path OpenSSL verified."""

    requested_name: str | None = None
    _sslobj: Any

    def presented(self) -> Shown:
        """Return what the peer showed; after the handshake.

        Raises:
            PeerRefused: it showed nothing. Remote's fault. State: close it.
        """
        leaf = self.getpeercert(True)
        if leaf is None:
            raise PeerRefused("unreadable", "it showed no certificate")
        return _Presented(leaf, self)

    def verified_path(self) -> list[bytes]:
        """Return the path OpenSSL verified, DER, the leaf first; empty without a certificate."""
        if sys.version_info >= (3, 13):
            return list(self.get_verified_chain())
        return [one.public_bytes(_ENCODING_DER) for one in self._sslobj.get_verified_chain() or ()]


class _Presented(NamedTuple):
    """A leaf at once; what is above it when that is asked, which most keys do not need."""

    leaf: bytes
    connection: _Connection

    @property
    def issuers(self) -> list[bytes]:
        """Return what OpenSSL verified above the leaf."""
        return self.connection.verified_path()[1:]


class AnonymousContext(ssl.SSLContext):
    """Connects without a certificate, and tells what the peer of its newest connection showed."""

    sslobject_class: type[_Connection]
    _newest: _Connection | None = None

    def wrap_bio(self, *given: Any, **named: Any) -> _Connection:
        """Make a connection."""
        self._newest = cast(_Connection, super().wrap_bio(*given, **named))
        return self._newest

    def presented(self) -> Shown:
        """Return what the peer of the newest connection showed; after its handshake.

        Raises:
            PeerRefused: it showed nothing. Remote's fault. State: close it.
        """
        if self._newest is None:
            raise PeerRefused("unreadable", "there was no connection")
        return self._newest.presented()


def anonymous_context(roots_pem: str) -> AnonymousContext:
    """Return a context that trusts these roots and shows no certificate.

    Raises:
        ssl.SSLError: they do not load. Local fault. State unchanged.
    """
    context = AnonymousContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # names are SPIFFE IDs, checked after the handshake
    context.load_verify_locations(cadata=roots_pem)
    context.sslobject_class = _Connection
    return context


def _context(purpose: int, pair: KeyPair, bundle_pem: bytes, protocols: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # names are SPIFFE IDs, checked after the handshake
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET
    context.load_verify_locations(cadata=bundle_pem.decode("ascii"))
    context.set_alpn_protocols(list(protocols))
    _load_pair(context, pair)
    context.sslobject_class = _Connection
    return context


def _load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pair.chain_pem + b"\n" + pair.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def client_context(pair: KeyPair, bundle_pem: bytes, protocol: str) -> ssl.SSLContext:
    """Return a context that connects as `pair` and speaks ALPN `protocol`, in its newest form if it can.

    Raises:
        ssl.SSLError: a chain, key or bundle does not load. Local fault. State unchanged.
        ValueError: the bundle is not PEM. Local fault. State unchanged.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, pair, bundle_pem, _OFFERS.get(protocol, (protocol,)))


def server_context(pair: KeyPair, bundle_pem: bytes) -> ssl.SSLContext:
    """Return a context that serves as `pair`; whether the agreed ALPN fits is the acceptor's to check.

    Raises:
        ssl.SSLError: a chain, key or bundle does not load. Local fault. State unchanged.
        ValueError: the bundle is not PEM. Local fault. State unchanged.
    """
    context = _context(
        ssl.PROTOCOL_TLS_SERVER, pair, bundle_pem, [ALPN_HTTP, ALPN_TCP_2, ALPN_TCP, ALPN_PROBE]
    )
    context.num_tickets = 0
    return context


def select_by_name(context: ssl.SSLContext, choose: Callable[[str], ssl.SSLContext | None]) -> None:
    """Have connections accepted with `context` go on with what `choose` answers for their SNI.

    None, or no SNI at all, ends the handshake with the alert `unrecognized_name`.
    """

    def on_name(named: Any, name: str | None, _context: ssl.SSLContext) -> int | None:
        chosen = None if name is None else choose(name)
        if chosen is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        named.requested_name = name
        named.context = chosen
        return None

    context.sni_callback = cast(Any, on_name)


class TlsStream:
    """TLS over a non-blocking TCP socket. Call `handshake` first; one reader, one writer at a time."""

    __slots__ = (
        "_arrived",
        "_barren_count",
        "_closed",
        "_cut",
        "_descriptor",
        "_drained",
        "_ended",
        "_incoming",
        "_outgoing",
        "_owed",
        "_ready",
        "_stale_check",
        "_tls",
        "_unsent",
        "_used",
        "peer",
        "socket",
    )

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, *, server_name: str | None, server_side: bool
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._descriptor = sock.fileno()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # As bytes: text would load the tables of internationalized names for names that are plain.
        name = None if server_name is None else server_name.encode("ascii")
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=name
        )
        self._arrived = b""  # what came and OpenSSL has not got,
        self._used = 0  # but for this part,
        self._owed = 0  # and what lacks of the record begun
        self._ready: list[bytes] = []  # read while our direction was ended
        self._barren_count = 0  # records since the last with data
        self._ended = False  # by close_notify
        self._cut = False  # by the end of TCP
        self._unsent = b""
        self._closed = False
        self._drained = False
        self._stale_check = StaleCheck(sock)
        self.peer: Peer | None = None

    @property
    def requested_name(self) -> str | None:
        """Return the SNI the client asked for, on the accepting side."""
        return getattr(self._tls, "requested_name", None)

    @property
    def protocol(self) -> str | None:
        """Return the ALPN protocol both agreed on."""
        return self._tls.selected_alpn_protocol()

    def presented(self) -> Shown:
        """Return what the peer showed, and the path OpenSSL verified; after the handshake.

        Raises:
            PeerRefused: it showed nothing. Remote's fault. State: close it.
        """
        return cast(_Connection, self._tls).presented()

    def identify(self, facts: PeerFacts, dialled: Dialled | None = None) -> Peer:
        """Tell who the peer is, and keep it as `peer`; after the handshake.

        Raises:
            TlsPeerRefused: nobody we may take it for. Remote's fault. State: close it.
        """
        try:
            self.peer = identify_untrusted(self.presented(), facts, dialled)
        except PeerRefused as error:
            raise TlsPeerRefused(error.code, str(error)) from None
        return self.peer

    async def handshake(self) -> None:
        """Shake hands; the caller bounds it with a cancel scope.

        Raises:
            TlsError: refused by either side. State: close it.
            OSError: the connection broke. State: close it.
        """
        while True:
            if TURN.over():
                await TURN.rest()
            try:
                TURN.spend(0)
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                while not self._feed() and not self._cut:
                    await self._fill()
                continue
            except ssl.SSLError as error:
                self._flush_once()  # the alert tells the peer why
                raise TlsError(f"TLS handshake failed: {error.reason or error}") from error
            await self._flush()
            return

    async def receive(self) -> bytes:
        """Return what has arrived, `b""` once the peer said it is done (close_notify).

        Raises:
            OSError: the connection broke, was cut short or was closed here. State: close it.
        """
        while True:
            if TURN.over():
                await TURN.rest()
            if self._ready or self._ended:
                return self._take_ready()
            if self._arrived or self._cut:
                data = self._read()
                if self._outgoing.pending:
                    self._answer()
                if data is not None:
                    return data
            await self._fill()

    def _take_ready(self) -> bytes:
        ready, self._ready = b"".join(self._ready), []
        return ready

    def _read(self) -> bytes | None:
        """Return what the records in hand hold; None when none is whole, `b""` at the end."""
        first = self._read_record()
        if not first or self._used == len(self._arrived):
            return first
        # Sent on together: a call and a record for each of many small ones would cost more than they do.
        pieces, size = [first], len(first)
        while size + RECORD_BYTES <= RECEIVE_BYTES and not TURN.over():
            piece = self._read_record()
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _read_record(self) -> bytes | None:
        while (self._feed() and not self._owed) or self._cut:
            try:
                data = self._tls.read(RECORD_BYTES)
            except ssl.SSLWantReadError:
                TURN.spend(0)
                self._barren_count += 1
                if self._barren_count > limits.TLS_BARREN_RECORDS_MAX:
                    raise TlsError(f"{self._barren_count} TLS records without data") from None
                continue
            except ssl.SSLZeroReturnError:
                data = b""
            if len(data) < limits.TURN_CALL_BYTES:
                TURN.spend(0)  # a large record's call is little beside its bytes, counted when they came
            self._barren_count = 0
            self._ended = not data
            return data
        return None

    def _feed(self) -> int:
        """Give OpenSSL what is in hand of one record; return how many bytes, and leave in _owed what lacks.

        One at a time, because OpenSSL would work off all it has in one call as long as none holds data: key
        updates of 27 bytes cost 10 to 30 microseconds each.
        """
        arrived, used = self._arrived, self._used
        left = len(arrived) - used
        if not self._owed:
            if left < HEADER_BYTES:
                return 0
            self._owed = HEADER_BYTES + (arrived[used + 3] << 8 | arrived[used + 4])
        size = min(left, self._owed)
        self._owed -= size
        if size == len(arrived):
            self._incoming.write(arrived)
        else:
            self._incoming.write(memoryview(arrived)[used : used + size])
        if size == left:
            self._arrived, self._used = b"", 0
        else:
            self._used = used + size
        return size

    async def _fill(self) -> None:
        rest = self._arrived[self._used :]  # less than a header
        # So many bytes that what is in hand then ends with a record, if they are full ones.
        size = FILL_BYTES - len(rest)
        if self._owed:
            size = min(self._owed, SEALED_RECORD_BYTES) + FILL_BYTES - SEALED_RECORD_BYTES
        while True:
            if self._drained:
                await wait_readable(self._descriptor, self._closed)
            try:
                data = self.socket.recv(size)
                break
            except BlockingIOError:
                self._drained = True
        TURN.spend(len(data))
        self._drained = 0 < len(data) < SMALL_MESSAGE_BYTES
        self._arrived, self._used = rest + data, 0
        if not data:
            self._cut = True
            self._incoming.write(rest)
            self._incoming.write_eof()
            self._arrived = b""

    def _answer(self) -> None:
        """Send what TLS answers to the peer's own messages, if that needs no waiting; else the writer does.

        Raises:
            TlsError: the peer asks for answers and does not read them. State: close it.
        """
        if not self._unsent:
            self._sent_at_once()
        elif self._outgoing.pending > limits.TLS_ANSWERS_BYTES_MAX:
            raise TlsError("the peer asks for new keys and does not read the answers")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything.

        Raises:
            OSError: the connection broke or was closed here. State: close it.
        """
        size, sealed = len(data), 0
        while sealed < size:
            if TURN.over():
                await TURN.rest()
            end = min(size, sealed + RECEIVE_BYTES)
            TURN.spend(end - sealed)
            while sealed < end:  # OpenSSL takes a record's worth at a time
                sealed += self._tls.write(data if size <= RECORD_BYTES else memoryview(data)[sealed:end])
            if self._unsent or not self._sent_at_once():
                await self._flush()

    def _sent_at_once(self) -> bool:
        """Send what TLS made, once; False when the socket did not take all of it."""
        data = self._outgoing.read()
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        self._unsent = data[sent:]
        return sent == len(data)

    async def send_eof(self) -> None:
        """Send close_notify; the other direction stays open.

        Raises:
            OSError: the connection broke or was closed here. State: close it.
        """
        # What has arrived is read first: OpenSSL treats data met while closing as an error.
        while not self._ended and not self._cut:
            if TURN.over():
                await TURN.rest()
            piece = self._read_record()
            if not piece:
                break
            self._ready.append(piece)
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        await self._flush()

    async def _flush(self) -> None:
        """Send what TLS made; for the one who writes."""
        while data := self._unsent or self._outgoing.read():
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                self._unsent = data
                await wait_writable(self._descriptor, self._closed)
                continue
            TURN.spend(sent)
            self._unsent = data[sent:]

    def _flush_once(self) -> None:
        if not self._unsent and not self._closed:
            try:
                self.socket.send(self._outgoing.read())
            except OSError:
                pass  # best effort on a connection that is ending anyway

    def _in_hand(self) -> bool:
        """Tell whether bytes have come that nobody has read."""
        return bool(self._arrived or self._ready or self._incoming.pending)

    def is_stale(self) -> bool:
        """Tell whether an idle connection has ended or has bytes nobody asked for."""
        return self._in_hand() or self._stale_check.answer()

    def close(self) -> None:
        """Say close_notify if that needs no waiting, and close; waiters get OSError."""
        if self._closed:
            return
        try:
            if not self._in_hand():
                self._tls.unwrap()
        except (ssl.SSLError, ValueError, OSError):
            pass  # WANT_READ is what success looks like; anything else ends the same way
        self._flush_once()
        self._close_socket()

    def abort(self) -> None:
        """Close with a reset and no close_notify; waiters get OSError."""
        if not self._closed:
            reset_on_close(self.socket)
            self._close_socket()

    def _close_socket(self) -> None:
        self._closed = True
        trio.lowlevel.notify_closing(self._descriptor)
        self.socket.close()


async def open_tls(
    address: Address,
    context: ssl.SSLContext,
    *,
    server_name: str,
    dialled: Dialled,
    facts: PeerFacts,
    protocol: str,
) -> TlsStream:
    """Connect, shake hands and check that the peer is whom we dialled; the caller bounds it in time.

    Raises:
        TlsPeerRefused: the peer is not that one. State: nothing is left open.
        TlsError: the peer refused us. State: nothing is left open.
        OSError: refused, unreachable, reset. State: nothing is left open.
    """
    stream = TlsStream(await connect(address, mesh=True), context, server_name=server_name, server_side=False)
    try:
        await stream.handshake()
        stream.identify(facts, dialled)
        if stream.protocol not in _OFFERS.get(protocol, (protocol,)):
            raise TlsError(f"{address} does not speak {protocol}")
    except BaseException:
        stream.close()
        raise
    return stream
