"""Scripted peers of a transcript: servers that answer as a file says, and clients that are told what to do.

A server's connection follows a script, a list of actions; each new connection takes the next script of its
list, the last one repeats. Ends at bytes: what must come is the steps' to say.
"""

import ssl
import struct
from collections.abc import Callable, Sequence
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final

import trio

from gossipmesh.testing.conformance import files
from gossipmesh.testing.conformance.http import Peer
from gossipmesh.testing.conformance.identities import client_context, server_context
from gossipmesh.testing.conformance.node import AUTHORITY, HOST
from gossipmesh.testing.conformance.outcome import Departed

RESET: Final = struct.pack("ii", 1, 0)
_REPEAT: Final = "again"
_IN_TURN: Final = [{"read": "message"}, {"answer": "next"}, _REPEAT]


def tcp_of(peer: Peer) -> trio.SocketStream:
    """Return the TCP stream under a peer's connection."""
    stream = peer.stream
    return stream.transport_stream if isinstance(stream, trio.SSLStream) else stream


async def end(peer: Peer, how: str) -> None:
    """End a connection: `fin` as it should be, `reset` by RST, `cut` without what TLS says at an end."""
    tcp = tcp_of(peer)
    if how == "reset":
        tcp.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
    if how == "fin":
        try:
            await peer.stream.aclose()
        except (trio.BrokenResourceError, OSError):
            pass  # the other end was quicker
    await trio.aclose_forcefully(tcp)


class Server:
    """A workload, or another node's engine (`tls`), that answers by its scripts."""

    def __init__(self, said: dict[str, Any], events: Callable[[str], trio.Event]) -> None:
        self._said = said
        self._events = events
        self._listener: trio.SocketListener
        self._scripts: list[list[Any]] = said.get("connections") or [_IN_TURN]
        self.connections = 0
        self.messages: list[bytes] = []
        self.came = b""
        self.ends: list[str] = []
        self.asked_names: list[Any] = []
        self.protocols: list[str | None] = []

    async def start(self, nursery: trio.Nursery) -> list[Any]:
        """Listen; return where."""
        (self._listener,) = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, self._serve, [self._listener])
        return list(self._listener.socket.getsockname()[:2])

    async def stop(self) -> None:
        """Listen no more: from now on connections are refused."""
        await self._listener.aclose()

    async def _serve(self, tcp: trio.SocketStream) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        peer = Peer(tcp)
        try:
            if "tls" in self._said:
                tls = self._said["tls"]
                pair = AUTHORITY.svid(tls["as"])
                context = server_context(pair, tls["alpn"], self.asked_names, AUTHORITY.bundle_pem)
                peer.stream = trio.SSLStream(tcp, context, server_side=True)
                await peer.stream.do_handshake()
                self.protocols.append(peer.stream.selected_alpn_protocol())
            await self._follow(peer, script)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError):
            pass  # the engine hung up; what came is kept
        finally:
            self.ends.append(peer.ended or "ours")
            await trio.aclose_forcefully(tcp)

    async def _follow(self, peer: Peer, script: Sequence[Any]) -> None:
        at = 0
        while at < len(script):
            action = script[at]
            at += 1
            if action == _REPEAT:
                at = 0
            elif not await self._act(peer, action):
                return

    async def _act(self, peer: Peer, action: dict[str, Any]) -> bool:
        """Do one action; False at the end of the connection."""
        ((verb, what),) = action.items()
        if verb == "read" and what == "message":
            message = await peer.message()
            self.messages += [message] if message else []
            return bool(message)
        if verb == "read" and what == "end":
            await peer.rest()
        elif verb == "read":
            self.came += await peer.exactly(what)
        elif verb == "echo":
            while await peer.more():
                self.came += peer.buffer
                await peer.send(peer.buffer)
                peer.buffer = b""
        elif verb == "answer":
            answers = self._said["answers"]
            await peer.send(files.expanded(answers[min(len(self.messages), len(answers)) - 1]))
        elif verb == "send":
            await peer.send(files.expanded(what))
        elif verb == "wait":
            await self._events(what).wait()
        elif verb == "pause_s":
            await trio.sleep(what)
        elif verb == "end":
            await end(peer, what)
            return False
        return True


async def connected(address: tuple[str, int], tls: dict[str, Any] | None) -> Peer:
    """Connect as a client; with `tls` as a caller at a mesh port, the handshake done.

    Raises:
        Departed: the handshake failed. State: closed. The sentence has OpenSSL's reason.
        OSError: the connection was refused. State: closed.
    """
    tcp = await trio.open_tcp_stream(*address)
    if tls is None:
        return Peer(tcp)
    pair = AUTHORITY.svid(tls["as"]) if tls.get("as") else None
    context = client_context(pair, tls.get("alpn", []))
    if tls.get("version") == "1.2":
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    stream = trio.SSLStream(tcp, context, server_hostname=tls.get("sni"))
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(tcp)
        reason = getattr(error.__cause__, "reason", None)
        raise Departed(f"the handshake failed: {reason or 'the connection ended'}") from None
    return Peer(stream)
