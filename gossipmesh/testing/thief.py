"""A thief of keys: what a stolen folder or a stolen CA lets it show, and its calls to mesh ports.

It speaks TLS as anybody can and asks nobody who the other end is. Ends at what it met; what that must have
been is the steps' to say (`stolen_node_key`, `stolen_intermediate`).
"""

import ssl
from pathlib import Path
from typing import Final, NamedTuple

import trio

from gossipmesh.agent.identity.identity_store import load_identity
from gossipmesh.control.certificates import SERIAL_BYTES, make_svid, random_serial, to_pem
from gossipmesh.control.roots import Authority
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.identity import node_id_of, node_spiffe_id, parse_spiffe_id
from gossipmesh.model.member import Address
from gossipmesh.net.byte_stream import connect
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.net.tls import (
    ALPN_HTTP,
    ALPN_TCP,
    ALPN_TCP_2,
    TlsStream,
    client_context,
)
from gossipmesh.testing import layout
from gossipmesh.testing.mesh import MeshNode
from gossipmesh.traffic.compiler import server_name
from gossipmesh.trust.carrier import carrier_leaf_pem
from gossipmesh.trust.leaf_serial import encode_leaf_serial
from gossipmesh.trust.svid import LEAF_ENTROPY_BYTES, leaf_key_pem, read_leaf_key_untrusted

SERVED: Final = "served"
REFUSED: Final = "refused"
TIMEOUT_S: Final = 5.0
LATER_S: Final = 100_000
"""How far above all that is known the generation in a forged serial number is."""
HEAD_BYTES_MAX: Final = 65_536
_HEALTH: Final = "/healthz"
_FRAME: Final = bytes([0x81, 0x85, 0, 0, 0, 0]) + b"hello"  # RFC 6455 section 5.2, a mask of zeros
_UPGRADE: Final = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n"
)


class Loot(NamedTuple):
    """A key with a certificate for it; `what` says how the thief came by it."""

    what: str
    spiffe_id: str
    chain_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"Loot({self.what!r}, {self.spiffe_id!r})"

    @property
    def label(self) -> str:
        """Return what evidence calls it."""
        return f"{parse_spiffe_id(self.spiffe_id)[1]}: {self.what}"


def loot_of(folder: Path) -> list[Loot]:
    """Return every key in an identity folder, by each certificate that it can be shown with."""
    identity = load_identity(folder)
    if identity is None:
        raise OperatorError(f"{folder} holds no identity")
    found = []
    for spiffe_id, keys in identity.holding.keys.items():
        for when, key in (("current", keys.current), ("next", keys.next)):
            carried = identity.carrier_pem(spiffe_id, key)
            found.append(Loot(f"{when} key, carrier leaf", spiffe_id, carried, key.key_pem))
            if key.chain_pem:
                found.append(Loot(f"{when} key", spiffe_id, key.chain_pem, key.key_pem))
    return found


def forged(authority: Authority, node: str, spiffe_id: str) -> list[Loot]:
    """Return what a stolen intermediate, and the carrier, make of a new key: `spiffe_id`, as if of `node`.

    The intermediate's once with a serial number above all that is known of the node, once with one of the
    form of builds before, which says no node.
    """
    node_id, later = node_id_of(node_spiffe_id(authority.trust_domain, node)), wall_seconds() + LATER_S
    numbers = {
        "intermediate, a later serial number": encode_leaf_serial(node_id, later, later, 0),
        "intermediate, a serial number of no node": random_serial(random_bytes(SERIAL_BYTES)),
    }
    key_pem = leaf_key_pem(random_bytes(LEAF_ENTROPY_BYTES))
    carried = carrier_leaf_pem(authority.trust_domain, spiffe_id, key_pem, later)
    return [
        *(
            Loot(what, spiffe_id, _issued(authority, spiffe_id, key_pem, number), key_pem)
            for what, number in numbers.items()
        ),
        Loot("carrier", spiffe_id, carried, key_pem),
    ]


def _issued(authority: Authority, spiffe_id: str, key_pem: bytes, serial: int) -> bytes:
    public_key = read_leaf_key_untrusted(key_pem).public_key()
    signer, key = authority.intermediate, authority.intermediate_key
    leaf = make_svid(public_key, spiffe_id, signer, key, wall_seconds(), serial)
    return to_pem(leaf) + to_pem(signer)


class Caller:
    """Calls engines with one piece of loot."""

    def __init__(self, loot: Loot, bundle_pem: bytes) -> None:
        self._contexts = {
            protocol: client_context(loot, bundle_pem, protocol) for protocol in (ALPN_HTTP, ALPN_TCP)
        }
        for context in self._contexts.values():
            context.verify_mode = ssl.CERT_NONE

    async def call(self, node: MeshNode, service: str) -> str:
        """Ask a workload on `node` whether it is well; return SERVED, REFUSED, or what else was met."""
        try:
            with trio.fail_after(TIMEOUT_S):
                async with Held("call", await self._open(node, service, ALPN_HTTP)) as held:
                    return await held.ask(service, _HEALTH)
        except trio.TooSlowError:
            return "silence"
        except ConnectionRefusedError:
            return "nobody listens"
        except OSError:
            return REFUSED

    async def hold(self, kind: str, node: MeshNode, service: str) -> "Held":
        """Open something that lasts: `request` (an answer that takes minutes), `websocket` or `tcp`."""
        protocol = ALPN_TCP if kind == "tcp" else ALPN_HTTP
        held = Held(kind, await self._open(node, service, protocol))
        with trio.fail_after(TIMEOUT_S):
            await held.begin(service)
        return held

    async def _open(self, node: MeshNode, service: str, protocol: str) -> TlsStream:
        name = server_name(service, f"{layout.NAMESPACE}/{service}", layout.TRUST_DOMAIN)
        sock = await connect(Address(node.host, layout.MESH_PORT), mesh=True)
        stream = TlsStream(sock, self._contexts[protocol], server_name=name, server_side=False)
        try:
            await stream.handshake()
        except BaseException:
            stream.close()
            raise
        return stream


class Held:
    """One connection of the thief's, and when the other end closed it."""

    def __init__(self, kind: str, stream: TlsStream) -> None:
        self.kind = kind
        self._stream = stream

    async def __aenter__(self) -> "Held":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stream.close()

    async def ask(self, service: str, path: str, fields: str = "") -> str:
        """Send a request and read the head of its answer; OSError when there is none."""
        await self._stream.send_all(_request(service, path, fields))
        data = b""
        while b"\r\n\r\n" not in data:
            more = await self._stream.receive()
            if not more or len(data) > HEAD_BYTES_MAX:
                return REFUSED
            data += more
        status = data.split(b" ", 2)[1].decode("latin-1")
        return SERVED if status in ("101", "200") else f"status {status}"

    async def begin(self, service: str) -> None:
        """Set up what lasts, and see that it lives; OperatorError when it does not."""
        if self.kind == "request":
            await self._stream.send_all(_request(service, "/slow/300", ""))
            return
        if self.kind == "websocket":
            met = await self.ask(service, "/echo", _UPGRADE)
            await self._stream.send_all(_FRAME)
        else:
            met = SERVED
            if self._stream.protocol == ALPN_TCP_2 and await self._stream.receive() != b"\0":
                met = REFUSED
            await self._stream.send_all(b"hello\n")
        if met != SERVED or not await self._stream.receive():
            raise OperatorError(f"the thief's {self.kind} was never served: {met}")

    async def wait_closed(self, started_s: float) -> dict[str, float | str]:
        """Return when it was closed, in seconds since `started_s`, and what had come instead, if anything."""
        came = b""
        try:
            while data := await self._stream.receive():
                came += data[:HEAD_BYTES_MAX]
        except OSError:
            pass  # cut is closed
        first = came.partition(b"\r\n")[0].decode("latin-1")
        return {"after_s": round(trio.current_time() - started_s, 3), "came": first}


def _request(service: str, path: str, fields: str) -> bytes:
    host = f"{service}.{layout.NAMESPACE}"
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()
