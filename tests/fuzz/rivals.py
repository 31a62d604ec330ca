"""Targets behind a signer's key and a member's: rival sets and Trusts that a whole core fetches and judges.

What is signed is made from what is in force, of the same version or the next, then mutated and signed: the
core is told of it by a packet, opens a stream, and is given it in an envelope that was changed as well.
"""

import hashlib
import json
import random
from typing import Any

import msgspec

from gossipmesh.gossip.base.effects import OpenStream, Persist
from gossipmesh.model import limits
from gossipmesh.testing.relayer import changed_envelope
from gossipmesh.trust.documents import AcceptedSet, PolicySet
from gossipmesh.trust.envelope import (
    MANIFEST_PAYLOAD_TYPE,
    TRUST_PAYLOAD_TYPE,
    decode_envelope_untrusted,
    seal_envelope,
)
from gossipmesh.wire import datagram, frames
from gossipmesh.wire.codec import encode
from tests.fuzz.decoders import DOMAIN, Target
from tests.fuzz.members import Pair

# A set is checked when it comes and again when it is on disk; each by the newest Trust, then by all.
RIVAL_CHECKS_MAX = 2 * limits.SIGNATURES_PER_ENVELOPE_MAX


class Told:
    """A victim that is told of documents by the hostile member, and fetches them from it."""

    def __init__(self) -> None:
        self.pair = Pair()

    def begin_anew(self) -> None:
        """Take another victim: this one has gone where nothing is left to reach."""
        self.pair = Pair()

    @property
    def documents(self) -> Any:
        return self.pair.victim._ctx.documents

    def held(self) -> AcceptedSet:
        found: AcceptedSet | None = self.documents.in_force("mesh")
        assert found is not None
        return found

    def fetched(self, announcement: Any, answer: Any) -> tuple[int, int]:
        """Announce, answer the stream that it opens, and let the disk do its part."""
        pair = self.pair
        now, before = pair.tick(), pair.work()
        body = datagram.encode_body([datagram.encode_message(announcement)])
        effects = pair.victim.receive_datagram(pair.packet(body), pair.hostile_host.address, now)
        opened = [effect.stream for effect in effects if type(effect) is OpenStream]
        for stream in opened:
            effects = pair.answer_stream(stream, frames.encode_frame_message(answer))
            for ticket in [effect.ticket for effect in effects if type(effect) is Persist and effect.ticket]:
                effects += pair.victim.persisted(ticket, pair.tick())
        checks, _ = pair.measured(effects, before)
        return checks, len(opened)


def rival_set_target() -> Target:
    told = Told()

    def feed(data: bytes) -> tuple[int, int]:
        held, rng = told.held(), random.Random(data)
        number = held.version + rng.choice((0, 1, 1))
        if number >= 2**31:
            told.begin_anew()
            return 0, 0
        payload = _numbered(data, number) if rng.random() < 0.5 else _kept(data, number, held.manifest)
        sealed = seal_envelope(MANIFEST_PAYLOAD_TYPE, payload, [DOMAIN.signers["policy"]])
        manifest = changed_envelope(sealed.to_bytes(), rng)
        raw = PolicySet(manifest, held.raw.bodies).to_bytes()
        offered = (number, hashlib.sha256(payload).digest())
        work = told.fetched(
            datagram.PolicyAnnouncement("mesh", *offered),
            frames.PolicyPart(len(raw), raw[: frames.PAGE_BYTES]),
        )
        after = told.held()
        assert after.floor in (held.floor, offered), "a set that nobody offered"
        assert after.floor >= held.floor
        assert all(
            len(one.signature) == 64 for one in decode_envelope_untrusted(after.raw.manifest).signatures
        )
        assert len(told.documents.alarms.kept) <= limits.DOCUMENT_ALARMS_MAX
        return work

    corpus = [decode_envelope_untrusted(told.held().raw.manifest).payload]
    return Target("rival-set", 8, "json", corpus, feed, RIVAL_CHECKS_MAX, 1, True)


def rival_trust_target() -> Target:
    told = Told()

    def feed(data: bytes) -> tuple[int, int]:
        held, rng = told.documents.trust, random.Random(data)
        sealed = []
        for version in rng.sample((held.version, held.version + 1), rng.randint(1, 2)):
            payload = _numbered(data, version) if rng.random() < 0.5 else _kept(data, version, held)
            envelope = seal_envelope(TRUST_PAYLOAD_TYPE, payload, [DOMAIN.root_key]).to_bytes()
            sealed.append(changed_envelope(envelope, rng))
        raw = encode(sealed)
        work = told.fetched(
            datagram.TrustAnnouncement(held.version + 1), frames.TrustPart(len(raw), raw[: frames.PAGE_BYTES])
        )
        after = told.documents.trust
        assert after.version in (held.version, held.version + 1)
        assert told.documents.trust_envelopes[0] == DOMAIN.trust_envelope
        assert len(told.documents.alarms.kept) <= limits.DOCUMENT_ALARMS_MAX
        is_lost = len(told.pair.victim.members()) < 2 or after.root_keys != held.root_keys
        if is_lost or after.version > limits.TRUST_VERSION_PUBLISHED_MAX:
            told.begin_anew()
        return work

    corpus = [decode_envelope_untrusted(DOMAIN.sign_trust(DOMAIN.trust_document(2))).payload]
    return Target("rival-trust", 4, "json", corpus, feed, RIVAL_CHECKS_MAX, 1, True)


def _numbered(payload: bytes, version: int) -> bytes:
    """Return a payload with this version, where it still is a JSON object; else as it is."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return payload
    if not isinstance(value, dict):
        return payload
    return json.dumps({**value, "version": version}, ensure_ascii=True).encode()


def _kept(payload: bytes, version: int, held: Any) -> bytes:
    """Return what is held under this version, with one field of the mutated payload in it."""
    whole = msgspec.json.decode(msgspec.json.encode(held))
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        value = {}
    if isinstance(value, dict):
        changed = sorted(name for name in value if whole.get(name) != value[name] and name != "version")
        whole.update({name: value[name] for name in changed[:1]})
    return json.dumps({**whole, "version": version}).encode()


def rival_targets() -> list[Target]:
    """Return every target of this module."""
    return [rival_set_target(), rival_trust_target()]
