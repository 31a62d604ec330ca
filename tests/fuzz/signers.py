"""Targets behind a signature: what whoever holds a good key may sign, mutated before it is signed."""

import json
from pathlib import Path
from typing import Any

import msgspec

from gossipmesh.dataplane.reference.peers import KnownPeers
from gossipmesh.gossip.membership.soundness import require_credential_sound_untrusted
from gossipmesh.model.documents import Access, first_version_of, says_more_than_0_2
from gossipmesh.model.host_port import is_host_port
from gossipmesh.model.records import NodeCredential, RecordKind
from gossipmesh.model.snapshot import TrustSection
from gossipmesh.testing.builders import VALID_FROM_S
from gossipmesh.traffic.sections import decode_section_untrusted, encode_section
from gossipmesh.trust.envelope import (
    TRUST_PAYLOAD_TYPE,
    Envelope,
    decode_envelope_untrusted,
    seal_envelope,
    signers_of,
)
from gossipmesh.trust.keys import Verifier, key_id
from gossipmesh.trust.records import open_credential_untrusted, sign_record, signed_bytes
from gossipmesh.wire import datagram
from gossipmesh.wire.codec import encode
from tests.fuzz.decoders import CHECKS_MAX, DOMAIN, Target

CERTIFICATES: dict[str, str] = json.loads(
    Path(__file__).parents[2].joinpath("spec", "engine", "v1-draft", "peers.json").read_text()
)["certificates"]
WALL_S = VALID_FROM_S + 1_000


def trust_payload(**changes: Any) -> bytes:
    """Return a second Trust that says all that can be said."""
    trust = msgspec.structs.replace(
        DOMAIN.trust_document(2, floors={"mesh": first_version_of(1), "edge": 7}),
        root_certificates=(CERTIFICATES["root"],),
        intermediates=(CERTIFICATES["issuing"],),
        policy_threshold={"mesh": 2},
        access=Access.DENY,
        revoked={"n9": 3, "n8": 2**40},
        roll="ab" * 32,
        authorities=("authority.test:7443", "10.0.0.9:7443"),
        **changes,
    )
    return msgspec.json.encode(trust)


def trust_target() -> Target:
    verifier = Verifier(256)
    documents = DOMAIN.documents(verifier)

    def feed(payload: bytes) -> tuple[int, int]:
        """Root keys sign a broken Trust; who takes it gives it to all that read it."""
        before = verifier.computed_count
        sealed = seal_envelope(TRUST_PAYLOAD_TYPE, payload, [DOMAIN.root_key]).to_bytes()
        ahead = documents.with_trust([sealed])
        trust = ahead.trust
        assert trust is not None
        assert trust.version == 2
        assert documents.trust is not None
        assert documents.trust.version == 1, "a check changed something"
        for scope in (*trust.floors, "mesh"):
            assert ahead.floor(scope)[0] >= 0
            assert ahead.is_current(scope, ahead.floor(scope)[0])
        assert all(map(is_host_port, trust.authorities))
        assert isinstance(says_more_than_0_2(trust), bool)
        KnownPeers.of_sections(trust.trust_domain, {"trust": TrustSection(trust.intermediates, True)}, None)
        return verifier.computed_count - before, 1

    return Target("trust-signed", 14, "json", [trust_payload()], feed, CHECKS_MAX, 1)


def envelope_target() -> Target:
    verifier = Verifier(256)
    keys = {key_id(key.public): key.public for key in (DOMAIN.root_key, *DOMAIN.signers.values())}
    signing = [DOMAIN.root_key, *DOMAIN.signers.values()]
    whole = seal_envelope(TRUST_PAYLOAD_TYPE, trust_payload(), signing)
    nameless = Envelope(
        whole.payload_type,
        b"{}",
        tuple(msgspec.structs.replace(one, key_id=b"") for one in whole.signatures),
    )

    def feed(data: bytes) -> tuple[int, int]:
        before = verifier.computed_count
        envelope = decode_envelope_untrusted(data)
        signed = signers_of(envelope, keys, verifier)
        assert not signed or (envelope.payload, envelope.payload_type) == (whole.payload, whole.payload_type)
        json.loads(envelope.to_json())
        return verifier.computed_count - before, 1

    corpus = [whole.to_bytes(), nameless.to_bytes()]
    return Target("envelope", 8, "mixed", corpus, feed, CHECKS_MAX * len(keys), 1)


def credential_bodies() -> list[bytes]:
    """Return a credential's body, one with a service each, and a tombstone's, all of the node `n3`."""
    body = msgspec.msgpack.decode(DOMAIN.node("n3").credential.body, type=NodeCredential)
    served = msgspec.structs.replace(body, serial=2, service_patterns=("shop/cart", "web/*", "*/*"))
    gone = msgspec.structs.replace(
        body, generation=2, signing_key=b"", exchange_key=b"", spki_hashes=(), service_patterns=()
    )
    return [encode(one) for one in (body, served, gone)]


def credential_target() -> Target:
    verifier = Verifier(256)
    authority = DOMAIN.documents().credential_keys
    key = DOMAIN.credential_key

    def feed(data: bytes) -> tuple[int, int]:
        """Whoever holds the credential key signs what it likes: only its own form stands in its way."""
        made = sign_record(DOMAIN.trust_domain, RecordKind.CREDENTIAL, (), key)
        signature = key.sign(signed_bytes(DOMAIN.trust_domain, RecordKind.CREDENTIAL, data))
        record = msgspec.structs.replace(made, body=data, signature=signature)
        datagram.encode_message(record)
        before = verifier.computed_count
        credential = open_credential_untrusted(record, DOMAIN.trust_domain, authority, verifier)
        require_credential_sound_untrusted(credential, WALL_S)
        if credential.is_tombstone:
            allowed = (credential.exchange_key, credential.service_patterns, credential.spki_hashes)
            assert not any(allowed), "a tombstone that allows something"
        return verifier.computed_count - before, 1

    return Target("credential-signed", 8, "mixed", credential_bodies(), feed, 1, 1)


def trust_section_target() -> Target:
    whole = encode_section(TrustSection((CERTIFICATES["issuing"], CERTIFICATES["root"]), True))

    def feed(data: bytes) -> tuple[int, int]:
        section = decode_section_untrusted("trust", data)
        known = KnownPeers.of_sections("mesh.test", {"trust": section}, None)
        assert known.intermediates is not None
        return 0, len(known.intermediates)

    return Target("trust-section", 5, "mixed", [whole], feed, 0, 200)


def plain_target() -> Target:
    """Packets that are not sealed: hello, cookie, welcome, and of two that run under one node's keys."""
    credential = DOMAIN.node("n1").credential
    bodies: list[tuple[int, Any]] = [
        (
            datagram.PacketType.HELLO,
            datagram.Hello(b"c" * 32, 7, b"n" * 16, credential, None, b"p" * 64, b""),
        ),
        (datagram.PacketType.COOKIE, datagram.Cookie(b"c" * 32)),
        (datagram.PacketType.WELCOME, datagram.Welcome(b"n" * 16, credential, None, b"p" * 64)),
        (datagram.PacketType.RIVAL, datagram.Rival(b"c" * 32, 7, b"n" * 16, 5_000, 3, b"p" * 64)),
        (datagram.PacketType.RULING, datagram.Ruling(b"n" * 16, True, 3, b"p" * 64)),
    ]

    def feed(data: bytes) -> tuple[int, int]:
        datagram.decode_plain_untrusted(data[0] if data else 0, data[1:])
        return 0, 1

    corpus = [bytes((kind,)) + encode(body) for kind, body in bodies]
    return Target("plain-body", 10, "bytes", corpus, feed, 0, 1)


def signer_targets() -> list[Target]:
    """Return every target of this module."""
    return [trust_target(), envelope_target(), credential_target(), trust_section_target(), plain_target()]
