"""Builders for tests and simulations: a trust domain in memory, deterministic in its seed.

Keys follow from names, so two runs (and two processes) build byte-identical documents. Never use
these keys anywhere else: anyone can compute them.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gossipmesh.model.documents import Manifest, ManifestEntry, Signer, SignerRole, TrustDocument
from gossipmesh.model.identity import NodeId, node_id_of, node_spiffe_id
from gossipmesh.model.instant import DAY_S, Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.policy import (
    API_VERSIONS,
    AccessFrom,
    AccessPolicy,
    AccessPolicySpec,
    AccessRuleSpec,
    BackendRef,
    Document,
    HTTPRoute,
    HTTPRouteRule,
    HTTPRouteSpec,
    Metadata,
    ParentRef,
    TargetRef,
    document_name,
)
from gossipmesh.model.records import NodeCredential, RecordKind, SignedRecord
from gossipmesh.model.service import EndpointHealth, NodeEndpoints, Protocol, ServiceEntry
from gossipmesh.trust.documents import PolicySet, TrustedDocuments
from gossipmesh.trust.envelope import MANIFEST_PAYLOAD_TYPE, TRUST_PAYLOAD_TYPE, seal_envelope
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.versions import FEATURES

VALID_FROM_S = 1_700_000_000
VALID_UNTIL_S = VALID_FROM_S + 3_650 * DAY_S


@dataclass(frozen=True)
class BuiltKeys:
    """A node's keys and the credential over them."""

    name: str
    node_id: NodeId
    spiffe_id: str
    credential: SignedRecord
    signing: SigningKey
    exchange: ExchangeKey


class TrustDomainBuilder:
    """A trust domain: a root key, a credential key, policy signers by name and scope."""

    def __init__(
        self,
        trust_domain: str = "mesh.test",
        *,
        seed: str = "0",
        signers: Mapping[str, Sequence[str]] | None = None,
        policy_threshold: Mapping[str, int] | None = None,
    ) -> None:
        self.trust_domain = trust_domain
        self._seed = seed
        self.root_key = self.signing_key("root")
        self.credential_key = self.signing_key("credential")
        named = {"policy": ("mesh",)} if signers is None else signers
        self.signers = {name: self.signing_key(f"signer/{name}") for name in named}
        self._scopes = {name: tuple(scopes) for name, scopes in named.items()}
        self._policy_threshold = dict(policy_threshold or {})
        self.trust = self.trust_document(1)
        self.trust_envelope = self.sign_trust(self.trust)

    def signing_key(self, label: str) -> SigningKey:
        """Return the Ed25519 key that follows from the seed and `label`."""
        return SigningKey(self._secret(f"sign/{label}"))

    def exchange_key(self, label: str) -> ExchangeKey:
        """Return the X25519 key that follows from the seed and `label`."""
        return ExchangeKey(self._secret(f"exchange/{label}"))

    def trust_document(self, version: int, *, floors: Mapping[str, int] | None = None) -> TrustDocument:
        """Return a Trust document of this domain."""
        signers = [Signer("credential", SignerRole.CREDENTIAL, self.credential_key.public.hex())]
        for name, key in self.signers.items():
            signers.append(Signer(name, SignerRole.POLICY, key.public.hex(), self._scopes[name]))
        return TrustDocument(
            version=version,
            trust_domain=self.trust_domain,
            root_certificates=("-----BEGIN CERTIFICATE-----\n(none in memory)\n-----END CERTIFICATE-----\n",),
            intermediates=(),
            root_keys=(self.root_key.public.hex(),),
            root_threshold=1,
            signers=tuple(signers),
            policy_threshold=self._policy_threshold,
            floors=dict(floors or {}),
        )

    def sign_trust(self, trust: TrustDocument) -> bytes:
        """Return the envelope of a Trust document, signed by the root key."""
        return seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(trust), [self.root_key]).to_bytes()

    def documents(self, verifier: Verifier | None = None) -> TrustedDocuments:
        """Return what a freshly enrolled node believes."""
        documents = TrustedDocuments(
            trust_domain=self.trust_domain, verifier=verifier or Verifier(), features=FEATURES
        )
        documents.load_trust_untrusted(self.trust_envelope)
        return documents

    def node(
        self,
        name: str,
        *,
        generation: int = 1,
        serial: int = 1,
        service_patterns: Sequence[str] = ("*/*",),
        not_before: int = VALID_FROM_S,
        ends: int = VALID_UNTIL_S,
    ) -> BuiltKeys:
        """Return the keys of a node and its credential; a new generation has new keys."""
        spiffe_id = node_spiffe_id(self.trust_domain, name)
        signing = self.signing_key(f"node/{name}/{generation}")
        exchange = self.exchange_key(f"node/{name}/{generation}")
        credential = NodeCredential(
            node_id=node_id_of(spiffe_id),
            spiffe_id=spiffe_id,
            generation=generation,
            serial=serial,
            signing_key=signing.public,
            exchange_key=exchange.public,
            spki_hashes=(self._secret(f"spki/{name}/{generation}"),),
            service_patterns=tuple(service_patterns),
            not_before=not_before,
            ends=ends,
        )
        record = sign_record(self.trust_domain, RecordKind.CREDENTIAL, credential, self.credential_key)
        return BuiltKeys(name, credential.node_id, spiffe_id, record, signing, exchange)

    def policy_set(
        self,
        version: int,
        documents: Sequence[Document] = (),
        *,
        scope: str = "mesh",
        signers: Sequence[str] = ("policy",),
        base: int | None = None,
        base_hash: str = "",
        requires: Sequence[str] = (),
        trust_domain: str | None = None,
    ) -> PolicySet:
        """Return a signed set of `documents`, put in the manifest's order."""
        return seal_policy_set(
            Manifest(
                trust_domain=trust_domain or self.trust_domain,
                scope=scope,
                version=version,
                base=version - 1 if base is None else base,
                base_hash=base_hash,
                entries=(),
                requires=tuple(requires),
                created=VALID_FROM_S,
                refresh_by=VALID_UNTIL_S,
            ),
            documents,
            [self.signers[name] for name in signers],
        )

    def _secret(self, label: str) -> bytes:
        return hashlib.sha256(
            f"gossipmesh test key/{self._seed}/{self.trust_domain}/{label}".encode()
        ).digest()


def seal_policy_set(manifest: Manifest, documents: Sequence[Document], keys: list[SigningKey]) -> PolicySet:
    """Return the set of `documents` under `manifest` with its entries filled in, signed by `keys`."""
    named = sorted((document_name(document), msgspec.json.encode(document)) for document in documents)
    entries = tuple(
        ManifestEntry(name, hashlib.sha256(body).hexdigest(), len(body), manifest.version)
        for name, body in named
    )
    payload = msgspec.json.encode(msgspec.structs.replace(manifest, entries=entries))
    envelope = seal_envelope(MANIFEST_PAYLOAD_TYPE, payload, keys)
    return PolicySet(envelope.to_bytes(), tuple(body for _, body in named))


def http_route(name: str, *, service: str = "cart", backends: Mapping[str, int] | None = None) -> HTTPRoute:
    """Return a route of `service` to weighted backends."""
    refs = tuple(
        BackendRef(name=backend, weight=weight) for backend, weight in (backends or {service: 1}).items()
    )
    return HTTPRoute(
        apiVersion=API_VERSIONS["HTTPRoute"],
        metadata=Metadata(name=name, namespace="shop"),
        spec=HTTPRouteSpec(parentRefs=(ParentRef(name=service),), rules=(HTTPRouteRule(backendRefs=refs),)),
    )


def access_policy(name: str, *, service: str = "cart", namespaces: Sequence[str] = ("shop",)) -> AccessPolicy:
    """Return a policy that lets the given namespaces call `service`."""
    rule = AccessRuleSpec(from_=(AccessFrom(namespaces=tuple(namespaces)),))
    return AccessPolicy(
        apiVersion=API_VERSIONS["AccessPolicy"],
        metadata=Metadata(name=name, namespace="shop"),
        spec=AccessPolicySpec(targetRef=TargetRef(name=service), action="Allow", rules=(rule,)),
    )


def service_entry(
    service: str = "shop/cart",
    *,
    registration: str = "cart",
    health: EndpointHealth = EndpointHealth.PASSING,
    labels: Sequence[tuple[str, str]] = (),
    weight: int = 100,
) -> ServiceEntry:
    """Return one registration as a node publishes it."""
    return ServiceEntry(
        registration=registration,
        service=service,
        protocol=Protocol.HTTP,
        health=int(health),
        draining=False,
        weight=weight,
        labels=tuple(labels),
    )


def node_endpoints(node: str, *services: str | ServiceEntry, **changes: Any) -> NodeEndpoints:
    """Return the endpoints of an alive member that serves these; `changes` are of its other fields."""
    entries = [
        one if isinstance(one, ServiceEntry) else service_entry(one, registration=one.partition("/")[2])
        for one in services
    ]
    plain = NodeEndpoints(
        node_id=node_id_of(node_spiffe_id("mesh.test", node)),
        node=node,
        address=Address("10.0.0.1", 15008),
        draining=False,
        status=MemberStatus.ALIVE,
        since=Instant(0),
        unreachable=False,
        retained=False,
        entries=tuple(sorted(entries, key=lambda entry: entry.registration)),
    )
    return msgspec.structs.replace(plain, **changes)


class OneEndpoint(msgspec.Struct, frozen=True):
    """A member that serves one thing, said in one line."""

    registration: str
    service: str
    protocol: str
    labels: dict[str, str]
    weight: int
    health: EndpointHealth
    draining: bool
    node: str
    address: Address
    status: MemberStatus

    def of_node(self) -> NodeEndpoints:
        """Return it as the core tells it."""
        entry = ServiceEntry(
            registration=self.registration,
            service=self.service,
            protocol=self.protocol,
            health=int(self.health),
            draining=self.draining,
            weight=self.weight,
            labels=tuple(sorted(self.labels.items())),
        )
        return node_endpoints(self.node, entry, address=self.address, status=self.status)


def serving(endpoints: Iterable[OneEndpoint]) -> dict[str, tuple[NodeEndpoints, ...]]:
    """Return who serves what, as a compiler takes it."""
    found: dict[str, list[NodeEndpoints]] = {}
    for endpoint in endpoints:
        found.setdefault(endpoint.service, []).append(endpoint.of_node())
    return {service: tuple(members) for service, members in found.items()}
