"""Targets that read bytes and keep nothing: decoders, signed records, documents, YAML, frames."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from gossipmesh.dataplane import protocol
from gossipmesh.model.documents import Manifest
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.member import Address, NodePhase
from gossipmesh.model.policy import HTTPRoute
from gossipmesh.model.records import (
    IdentityPins,
    KeySet,
    NodeState,
    PolicyStatus,
    RecordKind,
    ServiceSet,
    SignedRecord,
)
from gossipmesh.model.snapshot import (
    PathMatch,
    RetryRule,
    Route,
    RouteMatch,
    RoutesSection,
    SnapshotEndpoint,
    UpstreamSection,
    WeightedUpstream,
)
from gossipmesh.testing.builders import TrustDomainBuilder, access_policy, http_route, service_entry
from gossipmesh.testing.mutator import Mutator
from gossipmesh.traffic import sections
from gossipmesh.trust.documents import PolicySet, decode_policy_set_untrusted
from gossipmesh.trust.envelope import MANIFEST_PAYLOAD_TYPE, decode_envelope_untrusted, seal_envelope
from gossipmesh.trust.keys import Verifier
from gossipmesh.trust.records import open_credential_untrusted, open_owned_untrusted, sign_record
from gossipmesh.wire import datagram, frames
from gossipmesh.wire.codec import decode_untrusted, encode
from gossipmesh.wire.versions import FEATURES
from gossipmesh.wire.yaml_source import check_shape, parse_yaml_untrusted

DOMAIN = TrustDomainBuilder(signers={"policy": ("mesh",), "second": ("mesh",)})
MUTATORS: dict[str, Callable[..., Any]] = {
    "bytes": Mutator.mutate_bytes,
    "mixed": Mutator.mutate_mixed,
    "json": Mutator.mutate_json,
    "text": Mutator.mutate_text,
}


class Target(NamedTuple):
    """Something that reads mutated input. `share` is its part of all inputs, in thousandths.

    A target that `is_whole` puts its input to a whole core, or through files, which takes ten times as long
    as to decode it. `feed` returns how much work it did: (signature checks, records or items kept). It
    raises only what is `declared`; `checks_max` and `items_max` bound the work of one input.
    """

    name: str
    share: int
    mutation: str
    corpus: list[Any]
    feed: Callable[[Any], tuple[int, int]]
    checks_max: int
    items_max: int
    is_whole: bool = False
    declared: tuple[type[Exception], ...] = (MalformedInput,)


def signed_records() -> list[SignedRecord]:
    """Return one valid record of each kind, of the node `n1`."""
    keys = DOMAIN.node("n1")
    address = (Address("10.0.0.1", 7948),)
    policies = (PolicyStatus("mesh", 3, bytes(32)),)
    state = NodeState(
        keys.node_id, 1, 2, 3, "n1", address, address, NodePhase.SERVING, "1", 1, 1, FEATURES, policies
    )
    services = ServiceSet(keys.node_id, 1, 2, 3, (service_entry(labels=[("version", "2")]),))
    key_set = KeySet(keys.node_id, 1, 2, 3, (IdentityPins("/node/n1", (b"1" * 16, b"2" * 16)),))
    owned = [
        (RecordKind.NODE_STATE, state),
        (RecordKind.SERVICE_SET, services),
        (RecordKind.KEY_SET, key_set),
    ]
    return [
        keys.credential,
        *(sign_record(DOMAIN.trust_domain, kind, value, keys.signing) for kind, value in owned),
    ]


def record_targets() -> list[Target]:
    keys = DOMAIN.node("n1")
    authority = DOMAIN.documents().credential_keys
    verifier = Verifier(256)

    def feed_record(data: bytes) -> tuple[int, int]:
        before = verifier.computed_count
        record = decode_untrusted(data, SignedRecord, bytes_max=20_000)
        try:
            if record.kind == RecordKind.CREDENTIAL:
                open_credential_untrusted(record, DOMAIN.trust_domain, authority, verifier)
            else:
                open_owned_untrusted(record, DOMAIN.trust_domain, keys.signing.public, verifier)
        finally:
            assert verifier.computed_count - before <= 1, "more than one check for one record"
        return verifier.computed_count - before, 1

    def feed_self_signed(data: bytes) -> tuple[int, int]:
        """A hostile owner signs what it likes: only the decoders stand in its way."""
        accepted_count = 0
        datagram.peek_order_untrusted(data)
        for shape in (NodeState, ServiceSet, KeySet):
            try:
                decode_untrusted(data, shape, bytes_max=20_000)
            except MalformedInput:
                continue
            accepted_count += 1
        return 0, accepted_count

    records = signed_records()
    return [
        Target("record", 40, "mixed", [encode(r) for r in records], feed_record, 1, 1),
        Target("record-body", 40, "mixed", [r.body for r in records], feed_self_signed, 0, 3),
    ]


def packet_messages() -> list[bytes]:
    """Return one encoded message of each type."""
    state_sum = bytes(range(16))
    messages: list[Any] = [
        datagram.Seen(7),
        datagram.Ping(1, state_sum, state_sum, 1_750_000_000),
        datagram.Ack(1, state_sum, state_sum, 1_750_000_000),
        datagram.PingReq(2, state_sum),
        datagram.Nack(2),
        datagram.RelayedAck(2),
        datagram.PolicyAnnouncement("mesh", 3, bytes(32)),
        datagram.TrustAnnouncement(1),
        datagram.Want(2, state_sum),
        *signed_records(),
    ]
    return [datagram.encode_message(message) for message in messages]


def frame_messages() -> list[bytes]:
    """Return one encoded stream message of each type."""
    state_sum = bytes(range(16))
    summary = frames.DocumentsSummary(1, (("mesh", 3, bytes(32)),))
    entry = frames.Entry(2, state_sum, 1, 2, 3, b"tie")
    messages: list[Any] = [
        frames.Compare(bytes(frames.BUCKETS_COUNT * frames.BUCKET_BYTES), summary),
        frames.Entries((entry,) * 3, b"\1\2", True, summary),
        frames.Request(((2, state_sum),) * 3, True),
        frames.Records(tuple(signed_records())),
        frames.Done(state_sum, state_sum),
        frames.Table(summary),
        frames.FetchPolicy("mesh"),
        frames.PolicyPart(100, b"x" * 100),
        frames.FetchTrust(1),
        frames.TrustPart(10, b"x" * 10),
        frames.Turn(state_sum),
        frames.Packet(b"p" * 300),
    ]
    return [frames.encode_frame_message(message) for message in messages]


def wire_targets() -> list[Target]:
    messages = packet_messages()
    bodies = [datagram.encode_body(messages[:4]), datagram.encode_body(messages[4:10]), *messages]
    stream = b"".join(frames.encode_frame(message) for message in frame_messages()[2:])

    def feed_body(data: bytes) -> tuple[int, int]:
        return 0, len(datagram.decode_body_untrusted(data))

    def feed_frame(data: bytes) -> tuple[int, int]:
        return 0, int(frames.decode_frame_message_untrusted(data) is not None)

    def feed_chunks(data: bytes) -> tuple[int, int]:
        reader = frames.FrameReader()
        middle = len(data) // 2
        return 0, len(reader.feed_untrusted(data[:middle]) + reader.feed_untrusted(data[middle:]))

    return [
        Target("datagram-body", 48, "mixed", bodies, feed_body, 0, 1_200),
        Target("stream-message", 32, "mixed", frame_messages(), feed_frame, 0, 1),
        Target("stream-chunks", 26, "bytes", [stream], feed_chunks, 0, 4_000),
    ]


def document_targets() -> list[Target]:
    good = DOMAIN.policy_set(3, [http_route("r"), access_policy("a")])
    envelope = decode_envelope_untrusted(good.manifest)
    trusts = [DOMAIN.trust_envelope, DOMAIN.sign_trust(DOMAIN.trust_document(2))]
    verifier = Verifier(256)
    documents = DOMAIN.documents(verifier)
    for envelope_held in trusts:
        documents.load_trust_untrusted(envelope_held)  # else what is signed, in other bytes, is taken first

    def counted(step: Callable[[], Any]) -> tuple[int, int]:
        before = verifier.computed_count
        try:
            step()
        except MalformedInput:
            assert verifier.computed_count - before <= CHECKS_MAX
            raise
        assert documents.in_force("mesh") is None, "a check changed something"
        return verifier.computed_count - before, 1

    def feed_set(data: bytes) -> tuple[int, int]:
        return counted(lambda: documents.check_untrusted(decode_policy_set_untrusted(data)))

    def feed_signed_payload(data: bytes) -> tuple[int, int]:
        """A hostile signer with a good key signs a broken manifest."""
        sealed = seal_envelope(MANIFEST_PAYLOAD_TYPE, data, [DOMAIN.signers["policy"]])
        offered = PolicySet(sealed.to_bytes(), good.bodies)
        return counted(lambda: documents.check_untrusted(offered))

    def feed_signed_body(data: bytes) -> tuple[int, int]:
        """A hostile signer signs a broken document."""
        manifest = msgspec.json.decode(envelope.payload, type=Manifest)
        entry = manifest.entries[1]
        resigned = _sign_bodies(manifest, {entry.name: data})
        return counted(lambda: documents.check_untrusted(resigned))

    def feed_trust(data: bytes) -> tuple[int, int]:
        checks = len(documents.trust_envelopes)
        result = counted(lambda: documents.load_trust_untrusted(data))
        assert len(documents.trust_envelopes) == checks or data in trusts
        return result

    def feed_restored(data: bytes) -> tuple[int, int]:
        """A damaged disk: what comes back is the very set that was stored, or nothing."""
        fresh = DOMAIN.documents(verifier)
        accepted = fresh.restore_untrusted(decode_policy_set_untrusted(data))
        assert accepted.raw.bodies == good.bodies, "a mutated set was put in force"
        return 0, 1

    return [
        Target("policy-set", 30, "mixed", [good.to_bytes()], feed_set, CHECKS_MAX, 1),
        Target("policy-restored", 10, "mixed", [good.to_bytes()], feed_restored, CHECKS_MAX, 1),
        Target("manifest", 40, "json", [envelope.payload], feed_signed_payload, CHECKS_MAX, 1),
        Target("document", 30, "json", list(good.bodies), feed_signed_body, CHECKS_MAX, 1),
        Target("trust", 30, "mixed", trusts, feed_trust, CHECKS_MAX, 1),
    ]


CHECKS_MAX = 32  # SIGNATURES_PER_ENVELOPE_MAX, by two versions of Trust


def _sign_bodies(manifest: Manifest, bodies: dict[str, bytes]) -> Any:
    entries = tuple(
        msgspec.structs.replace(entry, sha256=hashlib.sha256(body).hexdigest(), size=len(body))
        for entry, body in ((e, bodies[e.name]) for e in manifest.entries if e.name in bodies)
    )
    payload = msgspec.json.encode(msgspec.structs.replace(manifest, entries=entries))
    sealed = seal_envelope(MANIFEST_PAYLOAD_TYPE, payload, [DOMAIN.signers["policy"]])
    return PolicySet(sealed.to_bytes(), tuple(bodies.values()))


def yaml_targets() -> list[Target]:
    text = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop, labels: {team: "a"}}
spec:
  parentRefs:
    - name: cart
  rules:
    - matches: [{path: {type: Exact, value: /x}, method: GET}]
      backendRefs: [{name: cart, weight: 90}, {name: cart-v2, weight: 10}]
      timeouts: {request: 10s}
---
a: [1, 2.5, true, null, "text", 0x1f]
"""

    def feed(mutated: str) -> tuple[int, int]:
        found = parse_yaml_untrusted(mutated, "fuzz.yaml")
        for document in found:
            value, problems = check_shape(document, HTTPRoute)
            assert value is not None or problems, "neither a value nor a problem"
            for problem in problems[:20]:
                str(problem)
        return 0, len(found)

    return [Target("yaml", 30, "text", [text], feed, 0, 500)]


def engine_targets() -> list[Target]:
    agent: list[Any] = [
        protocol.AgentHello(b"n" * 16, "boot"),
        protocol.SnapshotOffer(1, "ab" * 32, {"limits": b"h" * 16}, (b"section",)),
        protocol.SectionsSupply(1, (b"section",), True),
        protocol.IdentitiesSupply(1, (protocol.Identity("spiffe://a/node/b", b"pem", b"key"),), b"pem"),
        protocol.IdentitiesSupply(
            2, (protocol.Identity("spiffe://a/node/b", b"", b"key", b"pem"),), b"pem", b"pem"
        ),
        protocol.Listeners(1, ("mesh", "proxy")),
        protocol.TakeListeners(2),
        protocol.Drain(3, 1_000),
        protocol.UnknownService("shop/ghost"),
    ]
    outcome = protocol.Outcome("2xx", "-", 3)
    delta = protocol.TrafficDelta("inbound", "c", "s", "r", "http", (outcome,), (0,) * 26, 1, 2, 3, 4)
    durations = (3, *(0,) * 14)
    requests = protocol.RequestsDelta(
        "outbound", "c", "s", "s@v", "r", "http", 200, "-", 3, 0, durations, 2, 3, 4
    )
    connections = protocol.ConnectionsDelta("inbound", "c", "s", "", "", "UC", 0, 1, 0, 2, 3)
    engine: list[Any] = [
        protocol.EngineHello("reference", 1, ("http",), None, ("mesh",), 1),
        protocol.Ack(1, None),
        protocol.Nack(1, "ab" * 32, "why"),
        protocol.Need(1, (b"h" * 16,)),
        protocol.Statistics(1_000, (delta,), {"a": 1}, {"b": 2}),
        protocol.Statistics(1_000, (), {"a": 1}, {"b": 2}, (requests,), (connections,)),
        protocol.Demand("shop/cart"),
        protocol.Ejection("shop/cart", "cart", "n1", "5xx", True),
        protocol.Denial("spiffe://a/node/b", "shop/cart", "GET", "/", "default"),
    ]

    def feed(data: bytes) -> tuple[int, int]:
        buffer = protocol.FrameBuffer()
        buffer.feed_untrusted(data)
        count = 0
        while (body := buffer.next_body()) is not None:
            count += 1
            for decode in (protocol.decode_agent_frame_untrusted, protocol.decode_engine_frame_untrusted):
                try:
                    decode(body)
                except MalformedInput:
                    continue
        return 0, count

    def feed_body(data: bytes) -> tuple[int, int]:
        protocol.decode_agent_frame_untrusted(data)
        protocol.decode_engine_frame_untrusted(data)
        return 0, 2

    encoded = [protocol.encode_frame(frame) for frame in (*agent, *engine)]
    bodies = [frame[protocol.LENGTH_BYTES :] for frame in encoded]
    return [
        Target("engine-stream", 30, "bytes", [*encoded, b"".join(encoded)], feed, 0, 400),
        Target("engine-frame", 25, "mixed", bodies, feed_body, 0, 2),
    ]


def snapshot_targets() -> list[Target]:
    match = RouteMatch(PathMatch("prefix", "/"), "GET", ())
    backends = (WeightedUpstream("shop/cart", 1),)
    route = Route("shop/r#0", ("cart.shop",), match, backends, None, 10**9, RetryRule(2, (503,), 10**7))
    endpoint = SnapshotEndpoint(
        "cart", "n1", Address("10.0.0.1", 15008), "cart.cart.shop.mesh.test", "spiffe://a/node/b", 0, 100
    )
    encoded = {
        "routes/shop/cart": sections.encode_section(RoutesSection("shop/cart", "http", (route,))),
        "upstream/shop/cart": sections.encode_section(
            UpstreamSection("shop/cart", "shop/cart", "http", (endpoint,))
        ),
    }
    whole = sections.encode_snapshot(sections.make_snapshot(encoded))

    def feed_snapshot(data: bytes) -> tuple[int, int]:
        return 0, len(sections.decode_snapshot_untrusted(data).root)

    def feed_section(data: bytes) -> tuple[int, int]:
        for name in (*encoded, "inbound/shop/cart", "limits", "unknown"):
            try:
                sections.decode_section_untrusted(name, data)
            except MalformedInput:
                continue
        return 0, 5

    return [
        Target("snapshot", 30, "mixed", [whole], feed_snapshot, 0, 10),
        Target("snapshot-section", 30, "mixed", list(encoded.values()), feed_section, 0, 5),
    ]


def decoder_targets() -> list[Target]:
    """Return every target of this module."""
    return [
        *record_targets(),
        *wire_targets(),
        *document_targets(),
        *yaml_targets(),
        *engine_targets(),
        *snapshot_targets(),
    ]
