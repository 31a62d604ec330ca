"""The SVIDs this engine may use and the contexts made from them. In memory only. Rules:

1. A new set is loaded whole before the old one is let go, so a bad chain, key or bundle changes nothing.
   Connections that are open keep what they proved.
2. An identity is shown with the authority's leaf while that holds, because whoever trusts the roots alone
   takes it; else with the carrier's leaf of the same key. That changes over by itself: no agent is needed.
"""

import ssl
from collections.abc import Sequence
from typing import Final, NamedTuple

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import parse_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.tls import client_context, server_context
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted, read_leaf_untrusted

SHOWN_MARGIN_S: Final = 300  # a leaf that is about to end, or began just now, may not hold by a peer's clock


class IdentitiesRefused(Exception):
    """A chain, key or bundle does not load. Local fault (the agent's). State unchanged."""


class _Pair(NamedTuple):
    """A chain that can be shown, its key, and from when to when (wall seconds)."""

    chain_pem: bytes
    key_pem: bytes
    not_before: int
    not_after: int

    def __repr__(self) -> str:
        return "_Pair(...)"

    def holds(self, now: WallSeconds) -> bool:
        """Tell whether peers whose clocks are a little off take it."""
        return self.not_before + SHOWN_MARGIN_S <= now <= self.not_after - SHOWN_MARGIN_S


class Identities:
    """One set of SVIDs with their roots; replaced, never changed."""

    def __init__(
        self, identities: Sequence[Identity], bundle_pem: bytes, carrier_root_pem: bytes = b""
    ) -> None:
        """Load every pair.

        Raises:
            IdentitiesRefused: one does not load. State: not made.
        """
        self.bundle_pem = bundle_pem
        self._trusted_pem = bundle_pem + b"\n" + carrier_root_pem
        self._pairs: dict[str, list[_Pair]] = {}
        self._clients: dict[tuple[_Pair, str], ssl.SSLContext] = {}
        self._servers: dict[_Pair, ssl.SSLContext] = {}
        try:
            self.roots = frozenset(certificates_in_pem_untrusted(bundle_pem))
        except MalformedInput as error:
            raise IdentitiesRefused(f"the roots do not load: {error}") from None
        for identity in identities:
            self._load(identity)
        self._front = self._make_front()

    def _load(self, identity: Identity) -> None:
        try:
            parse_spiffe_id(identity.spiffe_id)
            chains = [chain for chain in (identity.chain_pem, identity.carrier_pem) if chain]
            pairs = [_pair(identity, chain) for chain in chains]
            if not pairs:
                raise MalformedInput("neither a chain nor a carrier leaf")
            self._pairs[identity.spiffe_id] = pairs
            for pair in pairs:
                self._servers[pair] = server_context(pair, self._trusted_pem)
        except (ssl.SSLError, OSError, ValueError, MalformedInput) as error:
            raise IdentitiesRefused(f"{identity.spiffe_id[:300]} does not load: {error}") from None

    def server(self, spiffe_id: str) -> ssl.SSLContext | None:
        """Return the context that serves as `spiffe_id`, None without its SVID."""
        pair = self._shown(spiffe_id)
        return None if pair is None else self._servers[pair]

    def client(self, spiffe_id: str, protocol: str) -> ssl.SSLContext | None:
        """Return the context that connects as `spiffe_id` with ALPN `protocol`, None without its SVID."""
        pair = self._shown(spiffe_id)
        if pair is None:
            return None
        context = self._clients.get((pair, protocol))
        if context is None:
            context = client_context(pair, self._trusted_pem, protocol)
            self._clients[pair, protocol] = context
        return context

    def front(self) -> ssl.SSLContext | None:
        """Return the context to accept with until SNI has chosen, None without any SVID."""
        return self._front

    def _shown(self, spiffe_id: str) -> _Pair | None:
        """Return the pair `spiffe_id` is shown with now: the carrier's when the other does not hold."""
        pairs = self._pairs.get(spiffe_id)
        if pairs is None:
            return None
        if len(pairs) == 1:
            return pairs[0]
        return pairs[0] if pairs[0].holds(wall_seconds()) else pairs[1]

    def _make_front(self) -> ssl.SSLContext | None:
        for pairs in self._pairs.values():
            try:
                return server_context(pairs[0], self._trusted_pem)
            except OSError as error:
                raise IdentitiesRefused(f"no context to accept with: {error}") from None
        return None


def _pair(identity: Identity, chain_pem: bytes) -> _Pair:
    """Return a chain with its dates.

    Raises:
        MalformedInput: no leaf, or one of another identity. State unchanged.
    """
    certificates = certificates_in_pem_untrusted(chain_pem)
    if not certificates:
        raise MalformedInput("a chain without a certificate")
    leaf = read_leaf_untrusted(certificates[0])
    if leaf.spiffe_id != identity.spiffe_id:
        raise MalformedInput(f"its certificate is of {leaf.spiffe_id}")
    return _Pair(chain_pem, identity.key_pem, leaf.not_before, leaf.not_after)
