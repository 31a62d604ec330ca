"""The SVIDs this engine may use and the contexts made from them. In memory only.

Rule: a new set is loaded whole before the old one is let go, so a bad chain, key or bundle changes
nothing. Connections that are open keep what they proved.
"""

import ssl
from collections.abc import Sequence

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import parse_spiffe_id
from gossipmesh.net.tls import client_context, server_context


class IdentitiesRefused(Exception):
    """A chain, key or bundle does not load. Local fault (the agent's). State unchanged."""


class Identities:
    """One set of SVIDs with their roots; replaced, never changed."""

    def __init__(self, identities: Sequence[Identity], bundle_pem: bytes) -> None:
        """Load every pair.

        Raises:
            IdentitiesRefused: one does not load. State: not made.
        """
        self.bundle_pem = bundle_pem
        self._pairs = {identity.spiffe_id: identity for identity in identities}
        self._clients: dict[tuple[str, str], ssl.SSLContext] = {}
        self._servers: dict[str, ssl.SSLContext] = {}
        for identity in identities:
            try:
                parse_spiffe_id(identity.spiffe_id)
                self._servers[identity.spiffe_id] = server_context(identity, bundle_pem)
            except (ssl.SSLError, OSError, ValueError, MalformedInput) as error:
                raise IdentitiesRefused(f"{identity.spiffe_id[:300]} does not load: {error}") from None
        self._front = self._make_front()

    def server(self, spiffe_id: str) -> ssl.SSLContext | None:
        """Return the context that serves as `spiffe_id`, None without its SVID."""
        return self._servers.get(spiffe_id)

    def client(self, spiffe_id: str, protocol: str) -> ssl.SSLContext | None:
        """Return the context that connects as `spiffe_id` with ALPN `protocol`, None without its SVID."""
        context = self._clients.get((spiffe_id, protocol))
        if context is None and spiffe_id in self._pairs:
            context = client_context(self._pairs[spiffe_id], self.bundle_pem, protocol)
            self._clients[spiffe_id, protocol] = context
        return context

    def front(self) -> ssl.SSLContext | None:
        """Return the context to accept with until SNI has chosen, None without any SVID."""
        return self._front

    def _make_front(self) -> ssl.SSLContext | None:
        for pair in self._pairs.values():
            try:
                return server_context(pair, self.bundle_pem)
            except OSError as error:
                raise IdentitiesRefused(f"no context to accept with: {error}") from None
        return None
