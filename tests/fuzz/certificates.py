"""Targets that read what certificates are made of: a peer's leaf, chains, requests, tables of keys."""

import json
from pathlib import Path
from typing import Any

from gossipmesh.model.snapshot import HAS_KEY_SETS, CredentialsSection, PinsSection
from gossipmesh.testing.peer_sections import peer_sections
from gossipmesh.traffic.sections import decode_section_untrusted, encode_section
from gossipmesh.trust.peer_identity import Ground, PeerFacts, Presented, identify_untrusted
from gossipmesh.trust.peer_tables import CredentialTable, PinTable
from gossipmesh.trust.svid import (
    check_chain_untrusted,
    leaf_key_pem,
    make_request,
    read_request_untrusted,
)
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted, read_leaf_untrusted
from tests.fuzz.decoders import Target

VECTORS: dict[str, Any] = json.loads(
    Path(__file__).parents[2].joinpath("spec", "engine", "v1-draft", "peers.json").read_text()
)
_CERTIFICATES: dict[str, str] = VECTORS["certificates"]
_NODE = b"\x10nnnnnnn"


def _pem(named: str) -> bytes:
    return _CERTIFICATES.get(named, named).encode()


def _der(named: str) -> bytes:
    (found,) = certificates_in_pem_untrusted(_pem(named))
    return found


def peer_targets() -> list[Target]:
    leaves = [_der(vector["shown"]["chain"][0]) for vector in VECTORS["vectors"]]
    listed = {read_leaf_untrusted(leaf).pin: _NODE for leaf in leaves[:3]}
    sections = peer_sections((), listed, {_NODE: (1, 1, HAS_KEY_SETS)})
    pins = {int(name[-2:], 16): one.entries for name, one in sections.items() if isinstance(one, PinsSection)}
    (known,) = (one.entries for one in sections.values() if isinstance(one, CredentialsSection))
    issuers = (_der("issuing"), _der("root"))
    told = PeerFacts(
        "mesh.test",
        frozenset(issuers[1:]),
        frozenset(issuers[:1]),
        PinTable(pins),
        CredentialTable({_NODE[0]: known}),
    )

    def feed(data: bytes) -> tuple[int, int]:
        """Whatever is taken is listed: nothing of this node is taken for being issued."""
        peer = identify_untrusted(Presented(data, issuers), told)
        assert peer.ground is Ground.LISTED
        assert read_leaf_untrusted(data).pin in listed
        return 0, 1

    return [Target("peer-leaf", 10, "bytes", leaves, feed, 0, 1)]


def certificate_targets() -> list[Target]:
    """Return the targets of this module."""
    root = _pem("root")
    chains = [
        b"".join(_pem(name) for name in vector["shown"]["chain"])
        for vector in VECTORS["vectors"]
        if "issuing" in vector["shown"]["chain"]
    ]
    request = make_request(leaf_key_pem(b"\x07" * 48), "spiffe://mesh.test/node/n1")
    pins = encode_section(PinsSection(b"".join(bytes([7, number] * 8) + _NODE for number in range(9))))
    said = b"".join(bytes([7] * 7 + [number]) + bytes(16) + b"\x01" for number in range(9))

    def feed_chain(data: bytes) -> tuple[int, int]:
        check_chain_untrusted(data, root, None)
        return 0, 1

    def feed_request(text: str) -> tuple[int, int]:
        read_request_untrusted(text)
        return 0, 1

    def feed_pins(data: bytes) -> tuple[int, int]:
        decode_section_untrusted("pins/07", data)
        return 0, 1

    def feed_credentials(data: bytes) -> tuple[int, int]:
        decode_section_untrusted("credentials/07", data)
        return 0, 1

    credentials = encode_section(CredentialsSection(said))
    return [
        *peer_targets(),
        Target("certificate-chain", 5, "bytes", chains, feed_chain, 0, 1),
        Target("certificate-request", 5, "text", [request], feed_request, 0, 1),
        Target("pins-section", 5, "mixed", [pins], feed_pins, 0, 1),
        Target("credentials-section", 5, "mixed", [credentials], feed_credentials, 0, 1),
    ]
