"""Two ends of one TLS connection over a socket pair, shaken hands."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.net.tls import (
    ALPN_HTTP,
    TlsError,
    TlsStream,
    client_context,
    select_by_name,
    server_context,
)
from tests.unit.dataplane.certificates import TRUST_DOMAIN, Authority, shared_authority

WEB = f"spiffe://{TRUST_DOMAIN}/ns/shop/svc/web"
CART = f"spiffe://{TRUST_DOMAIN}/ns/shop/svc/cart"
NAME = "cart.cart.shop.mesh.test"


@asynccontextmanager
async def shaken(
    *,
    server: Identity | None = None,
    client: Identity | None = None,
    trusted: Authority | None = None,
    name: str | None = NAME,
    protocol: str = ALPN_HTTP,
    key_log: Path | None = None,
    tcp: bool = False,
) -> AsyncIterator[tuple[TlsStream, TlsStream]]:
    """Yield (server's stream, client's stream) after both have shaken hands."""
    authority = shared_authority()
    bundle = (trusted or authority).bundle_pem
    theirs = server_context(server or authority.identity(CART), bundle)
    front = server_context(authority.identity(WEB), bundle)
    select_by_name(front, lambda asked: theirs if asked == NAME else None)
    ours = client_context(client or authority.identity(WEB), authority.bundle_pem, protocol)
    if key_log is not None:
        ours.keylog_filename = str(key_log)
    left, right = _tcp_pair() if tcp else socket.socketpair()
    accepting = TlsStream(left, front, server_name=None, server_side=True)
    connecting = TlsStream(right, ours, server_name=name, server_side=False)
    try:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_accept, accepting)
                await connecting.handshake()
            yield accepting, connecting
    finally:
        accepting.close()
        connecting.close()


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return listener.accept()[0], near


async def _accept(stream: TlsStream) -> None:
    """Shake hands; what goes wrong is the client's to notice."""
    try:
        await stream.handshake()
    except TlsError:
        pass
