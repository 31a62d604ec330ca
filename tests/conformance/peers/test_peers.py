"""Who a peer is, by every vector: asked of the function. Engines are asked at their ports by the runner.

`spec/engine/v1-draft/peers.json`: what a peer shows (chain, its key, the path OpenSSL verifies), what is
known of members, whom a caller dialled, and the verdict: `identity` and `ground`, or `refused` with its
code. Certificates are PEM or stand in `certificates` by name. `openssl_refuses`: the handshake itself ends,
the code is of who asks nonetheless (`handshake`: the leaf alone is as it should be).
"""

from typing import Any

import pytest

from gossipmesh.model.errors import PeerRefused
from gossipmesh.testing.conformance.files import read
from gossipmesh.testing.peer_sections import peer_sections
from gossipmesh.trust.peer_identity import Dialled, PeerFacts, Presented, identify_untrusted
from gossipmesh.trust.peer_tables import CredentialTable, PinTable
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted

FILE: dict[str, Any] = read("peers.json")
VECTORS: list[dict[str, Any]] = FILE["vectors"]


def pem(named: str) -> str:
    """Return a certificate the file writes out or names."""
    return named if named.startswith("-----") else str(FILE["certificates"][named])


def der(named: str) -> bytes:
    (found,) = certificates_in_pem_untrusted(pem(named).encode())
    return found


def facts_of(vector: dict[str, Any]) -> PeerFacts:
    facts = vector["facts"]
    sections = peer_sections(
        (),
        {bytes.fromhex(pin): bytes.fromhex(node) for pin, node in facts["pins"].items()},
        {bytes.fromhex(node): tuple(numbers) for node, numbers in facts["credentials"].items()},
    )

    def shards(kind: str) -> dict[int, bytes]:
        return {
            int(name[-2:], 16): section.entries  # type: ignore[union-attr]
            for name, section in sections.items()
            if name.startswith(kind)
        }

    intermediates = facts["intermediates"]
    return PeerFacts(
        facts["trust_domain"],
        frozenset(der(name) for name in facts["roots"]),
        None if intermediates is None else frozenset(der(name) for name in intermediates),
        PinTable(shards("pins/")),
        CredentialTable(shards("credentials/")),
        facts["alone"],
    )


def dialled_of(vector: dict[str, Any]) -> Dialled | None:
    asked = vector["dialled"]
    if asked is None:
        return None
    pins = None if asked["pins"] is None else tuple(bytes.fromhex(one) for one in asked["pins"])
    return Dialled(asked["spiffe_id"], bytes.fromhex(asked["node"]), pins)


JUDGED = [vector for vector in VECTORS if vector.get("refused") != "handshake"]


@pytest.mark.parametrize("vector", JUDGED, ids=lambda vector: vector["name"])
def test_the_function(vector: dict[str, Any]) -> None:
    shown = vector["shown"]
    presented = Presented(der(shown["chain"][0]), [der(name) for name in shown["issuers"]])
    if "refused" in vector:
        with pytest.raises(PeerRefused) as caught:
            identify_untrusted(presented, facts_of(vector), dialled_of(vector))
        assert caught.value.code == vector["refused"]
        assert str(caught.value)
    else:
        peer = identify_untrusted(presented, facts_of(vector), dialled_of(vector))
        assert (peer.spiffe_id, peer.ground) == (vector["identity"], vector["ground"])
