"""Asking a node's engine whether it answers, as a peer would: a handshake on its mesh port and nothing more.

Ends at the answer; what it means for a node's life is the gossip core's to say.
"""

import ssl
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

import trio

from gossipmesh.model.member import Address
from gossipmesh.net.tls import ALPN_PROBE, KeyPair, client_context, open_tls
from gossipmesh.trust.peer_identity import Dialled, PeerFacts
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted


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


class Trusted(NamedTuple):
    """What a prober trusts: roots (PEM), the carrier CA where it takes carrier leaves, and what it knows."""

    facts: PeerFacts
    bundle_pem: bytes
    carrier_root_pem: bytes = b""

    @classmethod
    def of_roots(cls, trust_domain: str, bundle_pem: bytes) -> "Trusted":
        """Return the trust of who knows the roots only, as nodes of 0.2 do."""
        return cls(PeerFacts(trust_domain, frozenset(certificates_in_pem_untrusted(bundle_pem))), bundle_pem)


@lru_cache(maxsize=2)  # the identity in use, and the one before while it is renewed
def _probe_context(pair: _Pems, trusted_pem: bytes) -> ssl.SSLContext:
    """Return the context probes connect with; making one costs as much as the handshake."""
    return client_context(pair, trusted_pem, ALPN_PROBE)


async def probe_engine(
    addresses: Sequence[Address],
    server_name: str,
    dialled: Dialled,
    identity: KeyPair,
    trusted: Trusted,
    timeout_s: float,
) -> bool:
    """Tell whether an engine that is `dialled` answers at any of `addresses`, tried in order.

    Raises:
        ssl.SSLError: our own chain, key or bundle does not load. Local fault. State unchanged.
    """
    answer = await ask_engine(addresses, server_name, dialled, identity, trusted, timeout_s)
    return answer is EngineAnswer.ANSWERED


async def ask_engine(
    addresses: Sequence[Address],
    server_name: str,
    dialled: Dialled,
    identity: KeyPair,
    trusted: Trusted,
    timeout_s: float,
) -> EngineAnswer:
    """Tell the same, and whether every address refused the connection: then nobody listens there.

    Raises:
        ssl.SSLError: our own chain, key or bundle does not load. Local fault. State unchanged.
    """
    trusted_pem = trusted.bundle_pem + trusted.carrier_root_pem
    context = _probe_context(_Pems(identity.chain_pem, identity.key_pem), trusted_pem)
    refused_count = 0
    with trio.move_on_after(timeout_s):
        for address in addresses:
            try:
                stream = await open_tls(
                    address,
                    context,
                    server_name=server_name,
                    dialled=dialled,
                    facts=trusted.facts,
                    protocol=ALPN_PROBE,
                )
            except ConnectionRefusedError:
                refused_count += 1
                continue
            except OSError:
                continue
            stream.close()
            return EngineAnswer.ANSWERED
    return EngineAnswer.REFUSED if addresses and refused_count == len(addresses) else EngineAnswer.SILENT
