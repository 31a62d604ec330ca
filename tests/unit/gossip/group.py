"""A few gossip nodes exchanging real bytes in virtual time; a transcript reads `group.run(5)`."""

import hashlib
import heapq
import json
import random
from dataclasses import dataclass, field

import msgspec

from gossipmesh.gossip.base.effects import (
    CloseStream,
    Effect,
    Event,
    Notify,
    OpenStream,
    Persist,
    PersistKind,
    ProbeEngine,
    SendDatagram,
    SendStream,
    StreamId,
)
from gossipmesh.gossip.base.settings import (
    GossipSettings,
    NodeKeys,
    NodeProfile,
    RestoredState,
)
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.documents import Manifest, ManifestEntry, Signer, SignerRole, TrustDocument
from gossipmesh.model.identity import node_id_of, node_spiffe_id
from gossipmesh.model.instant import NEVER, SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.model.opening import Unconfirmed
from gossipmesh.model.records import NodeCredential, RecordKind, SignedRecord
from gossipmesh.trust.documents import PolicySet, TrustedDocuments, decode_policy_set_untrusted
from gossipmesh.trust.envelope import MANIFEST_PAYLOAD_TYPE, TRUST_PAYLOAD_TYPE, seal_envelope
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.codec import decode_untrusted
from gossipmesh.wire.versions import FEATURES

DOMAIN = "mesh.example"
WALL_OFFSET_S = 1_700_000_000
LATENCY_NS = 1_000_000


def key_of(name: str) -> SigningKey:
    return SigningKey(random.Random("sign " + name).randbytes(32))


AUTHORITY = key_of("authority")
ROOT = key_of("root")
POLICY = key_of("policy")


def trust_envelope(
    version: int = 1, *, floors: dict[str, int] | None = None, signer: SigningKey | None = None
) -> bytes:
    """Return a version of Trust; `signer`: whose key signs policy from now on."""
    document = TrustDocument(
        version=version,
        trust_domain=DOMAIN,
        root_certificates=("pem",),
        intermediates=(),
        root_keys=(ROOT.public.hex(),),
        root_threshold=1,
        signers=(
            Signer("authority", SignerRole.CREDENTIAL, AUTHORITY.public.hex()),
            Signer("policy", SignerRole.POLICY, (signer or POLICY).public.hex(), ("mesh",)),
        ),
        floors=floors or {},
    )
    return seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(document), [ROOT]).to_bytes()


def policy_set(version: int, path: str = "/", signer: SigningKey = POLICY) -> PolicySet:
    body = json.dumps(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {
                "parentRefs": [{"name": "cart"}],
                "rules": [
                    {
                        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
                        "backendRefs": [{"name": "cart"}],
                    }
                ],
            },
        }
    ).encode()
    entry = ManifestEntry("HTTPRoute/shop/cart", hashlib.sha256(body).hexdigest(), len(body), version)
    manifest = Manifest(
        trust_domain=DOMAIN,
        scope="mesh",
        version=version,
        base=version - 1,
        base_hash="" if version == 1 else "00" * 32,
        entries=(entry,),
        requires=(),
        created=WALL_OFFSET_S,
        refresh_by=WALL_OFFSET_S + 1_000_000,
    )
    envelope = seal_envelope(MANIFEST_PAYLOAD_TYPE, msgspec.json.encode(manifest), [signer])
    return PolicySet(envelope.to_bytes(), (body,))


def credential_of(
    name: str, *, serial: int = 1, generation: int = 1, ends: int = 2**33, keys: str | None = None
) -> NodeCredential:
    """Return the credential of a name; `keys`: whose keys it is for, if not the name's own."""
    spiffe_id = node_spiffe_id(DOMAIN, name)
    return NodeCredential(
        node_id=node_id_of(spiffe_id),
        spiffe_id=spiffe_id,
        generation=generation,
        serial=serial,
        signing_key=key_of(keys or name).public,
        exchange_key=exchange_of(keys or name).public,
        spki_hashes=(),
        service_patterns=("shop/*",),
        not_before=0,
        ends=ends,
    )


def exchange_of(name: str) -> ExchangeKey:
    return ExchangeKey(random.Random("exchange " + name).randbytes(32))


def signed_credential(
    name: str,
    *,
    serial: int = 1,
    ends: int = 2**33,
    leaves: int = 0,
    generation: int = 1,
    keys: str | None = None,
) -> SignedRecord:
    credential = credential_of(name, serial=serial, ends=ends, generation=generation, keys=keys)
    hashes = tuple(number.to_bytes(32, "big") for number in range(leaves))
    credential = msgspec.structs.replace(credential, spki_hashes=hashes)
    return sign_record(DOMAIN, RecordKind.CREDENTIAL, credential, AUTHORITY)


def restored_from(disk: dict[tuple[PersistKind, bytes], bytes]) -> RestoredState:
    """Return what a node of this disk knew when it ended."""
    epoch = disk.get((PersistKind.EPOCH, b""))
    return RestoredState(
        0 if epoch is None else decode_untrusted(epoch, int, bytes_max=16),
        tuple((key, value) for (kind, key), value in disk.items() if kind is PersistKind.MEMBER),
        roll=tuple(value for (kind, _), value in disk.items() if kind is PersistKind.ROLL),
    )


@dataclass
class Host:
    """One node with its disk, its engine and what it told its agent."""

    name: str
    index: int
    address: Address
    node: GossipNode | None = None
    events: list[Event] = field(default_factory=list)
    disk: dict[tuple[PersistKind, bytes], bytes] = field(default_factory=dict)
    writing: list[int] = field(default_factory=list)
    engine_serves: bool = True
    is_up: bool = True
    refuses: bool = True
    starts: int = 0


class Group:
    """Hosts on one perfect or imperfect network; every random choice comes from one seed."""

    def __init__(
        self,
        names: str,
        *,
        seed: int = 1,
        settings: GossipSettings | None = None,
        node_class: type[GossipNode] = GossipNode,
    ) -> None:
        self.settings = settings or GossipSettings()
        self.node_class = node_class
        self.rng = random.Random(seed)
        self.seed = seed
        self.now = SECOND_NS
        self.verifier = Verifier()
        self.features = FEATURES
        self.features_of: dict[str, tuple[str, ...]] = {}  # of hosts that say other ones
        self.first_trust = trust_envelope()
        self.hosts = {
            name: Host(name, number, Address(f"10.0.0.{number + 1}", 7948))
            for number, name in enumerate(names.split())
        }
        self.by_address = {host.address: host for host in self.hosts.values()}
        self.cut: set[frozenset[str]] = set()
        self.loss = 0.0
        self.deaf: set[str] = set()
        self.mute: set[str] = set()
        self.slow: set[str] = set()
        self.lost_from: set[str] = set()  # hosts whose datagrams go nowhere, though their streams pass
        self.lost_to: set[str] = set()  # hosts that no datagram reaches
        self.trace: list[tuple[int, str, str, bytes]] = []
        self._queue: list[tuple[int, int, str, str, tuple]] = []
        self._number = 0
        self._streams: dict[tuple[str, int], tuple[str, int] | None] = {}
        self._odd = 1

    def start(
        self,
        name: str,
        *seeds: str,
        ends: int = 2**33,
        leaves: int = 0,
        enrolled_as: str | None = None,
        copy_of: str | None = None,
        generation: int | None = None,
        unconfirmed: Unconfirmed | None = None,
        wall_ahead_s: int = 0,
    ) -> GossipNode:
        """Start a host's node, its clock so far ahead.

        `enrolled_as`: with the name of another host, enrolled again here; `copy_of`: with the name and the
        keys of another host.
        """
        host = self.hosts[name]
        called, keys = enrolled_as or copy_of or name, copy_of or name
        generation = generation or (1 if enrolled_as is None else 2)
        credential = signed_credential(called, ends=ends, leaves=leaves, generation=generation, keys=keys)
        documents = self.documents_on_disk(host)
        host.starts += 1
        if not host.is_up:
            host.is_up = host.engine_serves = True
        host.node = self.node_class(
            settings=self.settings,
            trust_domain=DOMAIN,
            keys=NodeKeys(credential, key_of(keys), exchange_of(keys)),
            profile=NodeProfile(
                called,
                (host.address,),
                (Address(host.address.host, 15008),),
                "test",
                self.features_of.get(name, self.features),
            ),
            documents=documents,
            verifier=self.verifier,
            restored=msgspec.structs.replace(restored_from(host.disk), unconfirmed=unconfirmed),
            rng=random.Random(f"{self.seed} {name} {host.starts}"),
            now=Instant(self.now),
            wall_offset_s=WALL_OFFSET_S + wall_ahead_s,
        )
        addresses = [self.hosts[seed].address for seed in seeds]
        self.perform(host, host.node.start(addresses, Instant(self.now)))
        return host.node

    def documents_on_disk(self, host: Host) -> TrustedDocuments:
        documents = TrustedDocuments(trust_domain=DOMAIN, verifier=self.verifier, features=FEATURES)
        documents.load_trust_untrusted(self.first_trust)
        for (kind, _), value in sorted(host.disk.items()):
            if kind is PersistKind.TRUST:
                documents.load_trust_untrusted(value)
        for (kind, key), value in host.disk.items():
            if kind is PersistKind.FLOOR:
                version, manifest_hash = decode_untrusted(value, tuple[int, bytes], bytes_max=100)
                documents.restore_floor(key.decode(), version, manifest_hash)
        for (kind, _), value in host.disk.items():
            if kind is PersistKind.POLICY_SET:
                documents.restore_untrusted(decode_policy_set_untrusted(value))
        return documents

    def start_all(self) -> None:
        first, *others = self.hosts
        self.start(first)
        for name in others:
            self.start(name, first)

    def kill(self, name: str, *, silent: bool = False) -> None:
        """End an agent; `silent`: its machine as well, so that nothing refuses either."""
        self.hosts[name].node = None
        if silent:
            self.hosts[name].is_up = self.hosts[name].engine_serves = False
        for here, there in list(self._streams.items()):
            if here[0] == name:
                self._streams.pop(here)
                if there is not None:
                    self._later(there[0], "closed", (there[1],))

    def node(self, name: str) -> GossipNode:
        node = self.hosts[name].node
        assert node is not None
        return node

    def partition(self, one: str, other: str) -> None:
        self.cut = {frozenset((a, b)) for a in one.split() for b in other.split()}

    def heal(self) -> None:
        self.cut = set()

    def status(self, at: str, of: str) -> str:
        for view in self.node(at).members():
            if view.name == of:
                return view.status.label
        return "unknown"

    def statuses(self, of: str) -> dict[str, str]:
        return {name: self.status(name, of) for name, h in self.hosts.items() if h.node and name != of}

    def converged(self) -> bool:
        return len({host.node.state_sums() for host in self.hosts.values() if host.node}) == 1

    def perform(self, host: Host, effects: list[Effect]) -> None:
        """Perform a list, and what the core goes on with once its durable writes are on disk.

        That is at once, but for hosts in `slow`: those wait for `written`.
        """
        ticket = 0
        for effect in effects:
            match effect:
                case SendDatagram():
                    self.trace.append((self.now, host.name, str(effect.destination), effect.payload))
                    target = self.by_address.get(effect.destination)
                    is_lost = effect.destination in self._unreached or host.name in self.lost_from
                    if is_lost:
                        continue
                    if target is not None and self._passes(host, target) and self.rng.random() >= self.loss:
                        self._later(target.name, "datagram", (effect.payload, host.address))
                        if target.node is None and target.is_up and target.refuses:
                            self._later(host.name, "port", (target.address,))
                case Persist():
                    if effect.value is None:
                        host.disk.pop((effect.kind, effect.key), None)
                    else:
                        host.disk[(effect.kind, effect.key)] = effect.value
                    ticket = effect.ticket or ticket
                case Notify():
                    host.events.append(effect.event)
                case ProbeEngine():
                    target = self.by_address.get(Address(effect.addresses[0].host, 7948))
                    reached = target is not None and self._passes(host, target) and target.is_up
                    answered = reached and target.engine_serves
                    self._later(host.name, "engine", (effect.probe, answered, reached and not answered))
                case OpenStream():
                    self._open(host, effect)
                case SendStream():
                    there = self._streams.get((host.name, effect.stream))
                    if there is not None and self._passes(host, self.hosts[there[0]]):
                        self._later(there[0], "bytes", (there[1], effect.payload))
                case CloseStream():
                    there = self._streams.pop((host.name, effect.stream), None)
                    if there is not None:
                        self._streams.pop(there, None)
                        self._later(there[0], "closed", (there[1],))
        if ticket:
            host.writing.append(ticket)
            if host.name not in self.slow:
                self.written(host.name)

    def written(self, name: str) -> None:
        """Have a host's disk end the writes it has begun, oldest first."""
        host = self.hosts[name]
        while host.writing and host.node is not None:
            ticket = host.writing.pop(0)
            self.perform(host, host.node.persisted(ticket, Instant(self.now)))

    @property
    def _unreached(self) -> set[Address]:
        return {self.hosts[name].address for name in self.lost_to}

    def _open(self, host: Host, effect: OpenStream) -> None:
        target = self.by_address.get(effect.destination)
        if target is None or target.node is None or not self._passes(host, target):
            self._later(host.name, "closed", (effect.stream,))
            return
        self._odd += 2
        self._streams[(host.name, effect.stream)] = (target.name, self._odd)
        self._streams[(target.name, self._odd)] = (host.name, effect.stream)
        self._later(target.name, "accepted", (self._odd, host.address))
        self._later(host.name, "opened", (effect.stream,))

    def _passes(self, one: Host, other: Host) -> bool:
        is_cut = frozenset((one.name, other.name)) in self.cut
        return not is_cut and other.name not in self.deaf and one.name not in self.mute

    def _later(self, name: str, what: str, arguments: tuple) -> None:
        self._number += 1
        heapq.heappush(self._queue, (self.now + LATENCY_NS, self._number, name, what, arguments))

    def run(self, seconds: float) -> None:
        end = self.now + int(seconds * SECOND_NS)
        while True:
            live = [host for host in self.hosts.values() if host.node is not None]
            deadline, due = min(
                ((host.node.next_deadline(), host) for host in live if host.node),
                key=lambda pair: (pair[0], pair[1].index),
                default=(NEVER, None),
            )
            arrival = self._queue[0][0] if self._queue else NEVER
            if min(deadline, arrival) > end:
                self.now = end
                return
            self.now = max(self.now, min(deadline, arrival))
            if arrival <= deadline:
                self._deliver(*heapq.heappop(self._queue)[2:])
            elif due is not None and due.node is not None:
                self.perform(due, due.node.handle_deadline(Instant(self.now)))

    def run_until(self, condition, seconds: float) -> float:
        """Run until `condition()`; fail after `seconds` of virtual time; return how long it took."""
        begin = self.now
        while not condition():
            assert self.now - begin < seconds * SECOND_NS, f"not within {seconds} virtual seconds"
            self.run(0.05)
        return (self.now - begin) / SECOND_NS

    def _deliver(self, name: str, what: str, arguments: tuple) -> None:
        host = self.hosts[name]
        node = host.node
        if node is None:
            return
        now = Instant(self.now)
        if what == "datagram":
            effects = node.receive_datagram(*arguments, now)
        elif what == "engine":
            effects = node.engine_probed(*arguments[:2], now, refused=arguments[2])
        elif what == "port":
            effects = node.port_refused(*arguments, now)
        elif what == "accepted":
            effects = node.stream_accepted(StreamId(arguments[0]), arguments[1], now)
        elif what == "opened":
            effects = node.stream_opened(StreamId(arguments[0]), now)
        elif what == "bytes":
            effects = node.receive_stream(StreamId(arguments[0]), arguments[1], now)
        else:
            effects = node.stream_closed(StreamId(arguments[0]), now)
        self.perform(host, effects)
