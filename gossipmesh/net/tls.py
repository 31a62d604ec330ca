"""TLS between proxies: contexts, a lean stream, the peer's SPIFFE ID, and the node probe.

Responsible for who is at the other end. Ends at what they may do. Rules:

1. TLS 1.3 only, certificates on both sides, no session tickets: every connection proves identity anew.
2. The engine never writes a key to disk; a memfd carries it into OpenSSL.
3. A peer is its one SPIFFE ID of the expected trust domain, or the connection ends.
4. TLS runs over memory buffers, not an SSLSocket: measured at three quarters of its CPU for small
   messages, and closing one direction cannot then race with bytes already in the socket, which
   OpenSSL answers by breaking the other direction.

Spec: X509-SVID section 2 (one URI SAN), section 5.2 (leaf validation).
"""

import os
import socket
import ssl
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, cast

import trio

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import parse_spiffe_id
from gossipmesh.model.member import Address
from gossipmesh.net.byte_stream import (
    RECEIVE_BYTES,
    SMALL_MESSAGE_BYTES,
    connect,
    reset_on_close,
    socket_is_stale,
    wait_readable,
    wait_writable,
)

ALPN_HTTP: Final = "gm-http/1.1"
ALPN_TCP: Final = "gm-tcp"
ALPN_TCP_2: Final = "gm-tcp/2"  # with the callee's status byte first
ALPN_PROBE: Final = "gm-probe"
_SERVED: Final = (ALPN_HTTP, ALPN_TCP_2, ALPN_TCP, ALPN_PROBE)  # by preference
_OFFERS: Final = {ALPN_TCP: (ALPN_TCP_2, ALPN_TCP)}  # newest first; 0.1 speaks the last
_TURNS_PER_CHECKPOINT: Final = 16


class TlsError(OSError):
    """The handshake failed or the peer is not who it must be. Remote's fault. State: close it."""


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


class _NamedObject(ssl.SSLObject):
    """Remembers the SNI its client asked for."""

    requested_name: str | None = None


def _context(purpose: int, pair: KeyPair, bundle_pem: bytes, protocols: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # names are SPIFFE IDs, checked after the handshake
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET
    context.load_verify_locations(cadata=bundle_pem.decode("ascii"))
    context.set_alpn_protocols(list(protocols))
    _load_pair(context, pair)
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
    context.sslobject_class = _NamedObject
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

    __slots__ = ("_closed", "_descriptor", "_drained", "_flushing", "_incoming", "_outgoing", "_ready",
                 "_tls", "_turns", "_unsent", "socket")  # fmt: skip

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
        self._unsent = b""
        self._flushing = False
        self._closed = False
        self._drained = False
        self._ready = b""
        self._turns = 0

    @property
    def requested_name(self) -> str | None:
        """Return the SNI the client asked for, on the accepting side."""
        return getattr(self._tls, "requested_name", None)

    @property
    def protocol(self) -> str | None:
        """Return the ALPN protocol both agreed on."""
        return self._tls.selected_alpn_protocol()

    def peer_spiffe_id(self, trust_domain: str) -> str:
        """Return who the peer is.

        Spec: X509-SVID section 2: exactly one URI SAN, and it is the SPIFFE ID.

        Raises:
            TlsError: no such certificate, or of another trust domain. Remote's fault. State: close it.
        """
        certificate = self._tls.getpeercert() or {}
        names = cast(Sequence[tuple[str, str]], certificate.get("subjectAltName", ()))
        uris = [value for kind, value in names if kind == "URI"]
        if len(uris) != 1:
            raise TlsError(f"a certificate with {len(uris)} URI names, exactly one expected")
        try:
            domain, _path = parse_spiffe_id(uris[0])
        except MalformedInput as error:
            raise TlsError(str(error)) from None
        if domain != trust_domain:
            raise TlsError(f"{uris[0]} is not of trust domain {trust_domain}")
        return uris[0]

    async def handshake(self) -> None:
        """Shake hands; the caller bounds it with a cancel scope.

        Raises:
            TlsError: refused by either side. State: close it.
            OSError: the connection broke. State: close it.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
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
        self._turns += 1
        if self._turns % _TURNS_PER_CHECKPOINT == 0:
            await trio.lowlevel.checkpoint()
        if self._ready:
            data, self._ready = self._ready, b""
            return data
        if self._incoming.pending:
            read = self._read()
            if read is not None:
                return read
        while True:
            await self._fill()
            read = self._read()
            if read is not None:
                return read
            if self._outgoing.pending:
                await self._flush()  # an answer to a key update

    def _read(self) -> bytes | None:
        try:
            return self._tls.read(RECEIVE_BYTES)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""

    async def _fill(self) -> None:
        while True:
            if self._drained:
                self._turns = 0  # whoever waits lets others run
                await wait_readable(self._descriptor, self._closed)
            try:
                data = self.socket.recv(RECEIVE_BYTES)
                break
            except BlockingIOError:
                self._drained = True
        self._drained = 0 < len(data) < SMALL_MESSAGE_BYTES
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything.

        Raises:
            OSError: the connection broke or was closed here. State: close it.
        """
        size = len(data)
        sent = self._tls.write(data) if size else 0
        while sent < size:  # OpenSSL takes a record's worth at a time
            sent += self._tls.write(memoryview(data)[sent:])
        if self._flushing or self._unsent or not self._sent_at_once():
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
        while self._incoming.pending:
            data = self._read()
            if not data:
                break
            self._ready += data
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        await self._flush()

    async def _flush(self) -> None:
        if self._flushing:
            return  # whoever is at it sends ours too
        self._flushing = True
        try:
            while True:
                data = self._unsent or self._outgoing.read()
                if not data:
                    return
                try:
                    sent = self.socket.send(data)
                except BlockingIOError:
                    self._unsent = data
                    await wait_writable(self._descriptor, self._closed)
                    continue
                self._unsent = data[sent:] if sent < len(data) else b""
        finally:
            self._flushing = False

    def _flush_once(self) -> None:
        if not self._flushing and not self._closed:
            try:
                self.socket.send(self._unsent + self._outgoing.read())
            except OSError:
                pass  # best effort on a connection that is ending anyway

    def is_stale(self) -> bool:
        """Tell whether an idle connection has ended or has bytes nobody asked for."""
        return self._incoming.pending > 0 or bool(self._ready) or socket_is_stale(self.socket)

    def close(self) -> None:
        """Say close_notify if that needs no waiting, and close; waiters get OSError."""
        if self._closed:
            return
        try:
            if not self._incoming.pending:
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
    address: Address, context: ssl.SSLContext, *, server_name: str, spiffe_id: str, protocol: str
) -> TlsStream:
    """Connect, shake hands and check that the peer is `spiffe_id`; the caller bounds it in time.

    Raises:
        TlsError: the peer is someone else or refused us. State: nothing is left open.
        OSError: refused, unreachable, reset. State: nothing is left open.
    """
    stream = TlsStream(await connect(address, mesh=True), context, server_name=server_name, server_side=False)
    try:
        await stream.handshake()
        peer = stream.peer_spiffe_id(parse_spiffe_id(spiffe_id)[0])
        if peer != spiffe_id:
            raise TlsError(f"{address} is {peer}, not {spiffe_id}")
        if stream.protocol not in _OFFERS.get(protocol, (protocol,)):
            raise TlsError(f"{address} does not speak {protocol}")
    except BaseException:
        stream.close()
        raise
    return stream


class EngineAnswer(Enum):
    """What a question to an engine met."""

    ANSWERED = "answered"
    REFUSED = "refused"
    SILENT = "silent"


class _Pems(NamedTuple):
    """A key pair by value, which no log can show."""

    chain_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "_Pems(...)"


@lru_cache(maxsize=2)  # the identity in use, and the one before while it is renewed
def _probe_context(pair: _Pems, bundle_pem: bytes) -> ssl.SSLContext:
    """Return the context probes connect with; making one costs as much as the handshake."""
    return client_context(pair, bundle_pem, ALPN_PROBE)


async def probe_engine(
    addresses: Sequence[Address],
    server_name: str,
    spiffe_id: str,
    identity: KeyPair,
    bundle_pem: bytes,
    timeout_s: float,
) -> bool:
    """Tell whether an engine that is `spiffe_id` answers at any of `addresses`, tried in order.

    Raises:
        ssl.SSLError: our own chain, key or bundle does not load. Local fault. State unchanged.
    """
    answer = await ask_engine(addresses, server_name, spiffe_id, identity, bundle_pem, timeout_s)
    return answer is EngineAnswer.ANSWERED


async def ask_engine(
    addresses: Sequence[Address],
    server_name: str,
    spiffe_id: str,
    identity: KeyPair,
    bundle_pem: bytes,
    timeout_s: float,
) -> EngineAnswer:
    """Tell the same, and whether every address refused the connection: then nobody listens there.

    Raises:
        ssl.SSLError: our own chain, key or bundle does not load. Local fault. State unchanged.
    """
    context = _probe_context(_Pems(identity.chain_pem, identity.key_pem), bundle_pem)
    refused_count = 0
    with trio.move_on_after(timeout_s):
        for address in addresses:
            try:
                stream = await open_tls(
                    address, context, server_name=server_name, spiffe_id=spiffe_id, protocol=ALPN_PROBE
                )
            except ConnectionRefusedError:
                refused_count += 1
                continue
            except OSError:
                continue
            stream.close()
            return EngineAnswer.ANSWERED
    return EngineAnswer.REFUSED if addresses and refused_count == len(addresses) else EngineAnswer.SILENT
