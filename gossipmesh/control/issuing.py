"""Who gets which certificates: tokens, enrolments and renewals, decided and recorded.

Sans-IO but for the ledger: requests and the time come in, answers go out. Rules:
1. Everything is checked and made before the token is spent; the token is spent on disk before the answer.
2. A request proves its keys: each PKCS #10 by its own, the whole by the Ed25519 signing key.
3. A generation rises with each enrolment of a node, a serial with each issue; neither ever falls.
4. A node gets the services its token allowed and no other; a renewal cannot widen them.
Spec: docs/IDENTITY.md. Ends at values; sockets are `control.server`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gossipmesh.control.certificates import make_svid, to_pem
from gossipmesh.control.ledger import (
    TOKEN_ID_BYTES,
    Enrolment,
    Ledger,
    TokenRecord,
    hash_secret,
)
from gossipmesh.control.roots import Authority, Entropy
from gossipmesh.model.enrolment import (
    CREDENTIAL_LIFE_S,
    LEAF_BACKDATE_S,
    PATTERNS_PER_NODE_MAX,
    SERVICES_PER_REQUEST_MAX,
    TOKEN_TTL_MAX_S,
    EnrolRequest,
    Issued,
    IssuedSvid,
    JoinToken,
    RenewRequest,
    allows,
    is_service_pattern,
)
from gossipmesh.model.errors import MalformedInput, OperatorError, Untrusted
from gossipmesh.model.identity import (
    is_label,
    node_id_of,
    node_name_of_spiffe_id,
    node_spiffe_id,
    parse_spiffe_id,
    service_of_spiffe_id,
)
from gossipmesh.model.instant import HOUR_S, WallSeconds
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeCredential, RecordKind
from gossipmesh.trust.keys import KEY_BYTES, Verifier
from gossipmesh.trust.leaf_serial import encode_leaf_serial
from gossipmesh.trust.records import sign_record
from gossipmesh.trust.svid import CertificateRequest, certificate_sha256, read_request_untrusted
from gossipmesh.wire.codec import encode

SECRET_BYTES: Final = 32
CLOCK_SKEW_MAX_S: Final = HOUR_S


class RequestRefused(Untrusted):
    """A request that is not granted; the sentence goes to the node. Remote's fault. State unchanged."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class TokenOrder:
    """What `token create` was asked for; `services` are patterns."""

    address: Address
    node: str
    services: Sequence[str]
    ttl_s: int


class Issuer:
    """An authority at work."""

    def __init__(self, authority: Authority, ledger: Ledger, entropy: Entropy) -> None:
        self._authority = authority
        self._ledger = ledger
        self._entropy = entropy
        self._verifier = Verifier(verdicts_max=64)

    def create_token(self, order: TokenOrder, now: WallSeconds) -> JoinToken:
        """Make a one-time token and remember its hash.

        Raises:
            OperatorError: words that cannot be, or a disk that refuses. State unchanged.
        """
        if not is_label(order.node):
            raise OperatorError(f"{order.node!r} cannot be a node's name; use a-z, 0-9 and '-', at most 63")
        for pattern in order.services:
            if not is_service_pattern(pattern):
                raise OperatorError(
                    f"{pattern!r} is not a service; write it as shop/cart, shop/* or '*/*' (quoted)"
                )
        if len(order.services) > PATTERNS_PER_NODE_MAX:
            raise OperatorError(
                f"{len(order.services)} services in one token, {PATTERNS_PER_NODE_MAX} allowed"
            )
        if not 1 <= order.ttl_s <= TOKEN_TTL_MAX_S:
            raise OperatorError("a token lives between 1s and 168h; the default, 10m, is enough to copy it")
        secret = self._entropy(SECRET_BYTES).hex()
        token_id = self._entropy(TOKEN_ID_BYTES).hex()
        services = tuple(sorted(set(order.services)))
        expires = now + order.ttl_s
        self._ledger.add_token(
            TokenRecord(token_id, hash_secret(secret), order.node, services, created=now, expires=expires)
        )
        return JoinToken(
            version=1,
            trust_domain=self._authority.trust_domain,
            authority=str(order.address),
            authority_instance=self._authority.instance,
            root_certificate=self._authority.root_pem,
            root_sha256=certificate_sha256(self._authority.root_pem),
            token_id=token_id,
            node=order.node,
            services=services,
            secret=secret,
            expires=expires,
        )

    def enrol(self, request: EnrolRequest, now: WallSeconds) -> Issued:
        """Redeem a token.

        Raises:
            RequestRefused: a token unknown, used, expired or of another authority; keys unproven;
                a service not allowed. Remote's fault. State unchanged, the token is not spent.
            OperatorError: the ledger cannot be written. Local's fault. Nothing was answered.
        """
        token = self._check_token(request, now)
        self._check_keys(request)
        requests = self._read_requests(request.requests, token.node, token.services)
        known = self._ledger.enrolment(token.node)
        enrolment = Enrolment(
            node=token.node,
            generation=1 if known is None else known.generation + 1,
            serial=1 if known is None else known.serial + 1,
            signing_key=request.signing_key,
            exchange_key=request.exchange_key,
            services=token.services,
            node_spki=requests[0].spki_hash,
            enrolled=now,
            ends=now + CREDENTIAL_LIFE_S,
        )
        issued = self._issue(enrolment, requests, now)
        self._ledger.spend_token(token, now)
        self._ledger.put_enrolment(enrolment)
        return issued

    def renew(self, request: RenewRequest, peer_spiffe_id: str | None, now: WallSeconds) -> Issued:
        """Issue again to a node that is enrolled.

        Args:
            request: with a proof by the enrolled signing key.
            peer_spiffe_id: who the TLS client is; None when it showed no certificate, which a node
                whose leaf has run out may do until its credential ends.
            now: wall seconds.

        Raises:
            RequestRefused: not enrolled, keys unproven, a service not allowed, or too late.
                Remote's fault. State unchanged.
            OperatorError: the ledger cannot be written. Local's fault. Nothing was answered.
        """
        if peer_spiffe_id is not None and peer_spiffe_id != request.spiffe_id:
            raise RequestRefused(
                "identity", f"the connection is of {peer_spiffe_id}, not of {request.spiffe_id}"
            )
        enrolment = self._check_enrolled(request, now)
        requests = self._read_requests(request.requests, enrolment.node, enrolment.services)
        if requests[0].spki_hash != enrolment.node_spki:
            raise RequestRefused(
                "proof", "a renewal keeps the node's key; to change it, enrol again with a new token"
            )
        renewed = Enrolment(
            node=enrolment.node,
            generation=enrolment.generation,
            serial=enrolment.serial + 1,
            signing_key=enrolment.signing_key,
            exchange_key=enrolment.exchange_key,
            services=enrolment.services,
            node_spki=enrolment.node_spki,
            enrolled=enrolment.enrolled,
            ends=now + CREDENTIAL_LIFE_S,
        )
        issued = self._issue(renewed, requests, now)
        self._ledger.put_enrolment(renewed)
        return issued

    def _check_token(self, request: EnrolRequest, now: WallSeconds) -> TokenRecord:
        if request.authority_instance != self._authority.instance:
            raise RequestRefused(
                "token-foreign",
                f"this token was made by another authority (instance {request.authority_instance[:32]}, "
                f"this one is {self._authority.instance}); create one here",
            )
        token = self._ledger.token(request.token_id)
        if token is None or not token.holds(request.secret):
            raise RequestRefused("token-unknown", "this authority did not make this token; create a new one")
        if token.used is not None:
            raise RequestRefused(
                "token-used", f"this token was used already ({now - token.used} s ago); create a new one"
            )
        if token.expires <= now:
            raise RequestRefused(
                "token-expired", f"this token expired {now - token.expires} s ago; create a new one"
            )
        return token

    def _check_keys(self, request: EnrolRequest) -> None:
        if len(request.signing_key) != KEY_BYTES or len(request.exchange_key) != KEY_BYTES:
            raise RequestRefused("malformed", f"a signing or exchange key that is not {KEY_BYTES} bytes")
        if not self._verifier.verify(request.signing_key, request.proof_bytes(), request.proof):
            raise RequestRefused("proof", "the request is not signed with the signing key it names")

    def _check_enrolled(self, request: RenewRequest, now: WallSeconds) -> Enrolment:
        try:
            domain, _ = parse_spiffe_id(request.spiffe_id)
            node = node_name_of_spiffe_id(request.spiffe_id)
        except MalformedInput as error:
            raise RequestRefused("malformed", str(error)) from None
        enrolment = None
        if node is not None and domain == self._authority.trust_domain:
            enrolment = self._ledger.enrolment(node)
        if enrolment is None:
            raise RequestRefused(
                "not-enrolled", f"{request.spiffe_id} is not enrolled here; enrol it with a token"
            )
        if not self._verifier.verify(enrolment.signing_key, request.proof_bytes(), request.proof):
            raise RequestRefused(
                "proof",
                "the request is not signed with the key this node enrolled; it may have been replaced",
            )
        if abs(now - request.issued) > CLOCK_SKEW_MAX_S:
            raise RequestRefused(
                "clock",
                f"the node's clock is {request.issued - now} s away from this one; set it right first",
            )
        if enrolment.ends <= now:
            raise RequestRefused(
                "too-late", f"its credential ended {now - enrolment.ends} s ago; enrol it again with a token"
            )
        return enrolment

    def _read_requests(
        self, pems: Sequence[str], node: str, services: tuple[str, ...]
    ) -> list[CertificateRequest]:
        """Return the requests, the node's own first, each for an identity it may have."""
        if not 1 <= len(pems) <= 1 + SERVICES_PER_REQUEST_MAX:
            raise RequestRefused("malformed", f"{len(pems)} certificate requests")
        try:
            requests = [read_request_untrusted(pem) for pem in pems]
        except MalformedInput as error:
            raise RequestRefused("malformed", str(error)) from None
        own = node_spiffe_id(self._authority.trust_domain, node)
        names = [request.spiffe_id for request in requests]
        if names[0] != own:
            raise RequestRefused("identity", f"this token is for {own}, not for {names[0]}")
        if len(set(names)) != len(names):
            raise RequestRefused("malformed", "two certificate requests for one identity")
        for name in names[1:]:
            service = service_of_spiffe_id(name)
            foreign = parse_spiffe_id(name)[0] != self._authority.trust_domain
            if service is None or foreign or not allows(services, service):
                allowed = ", ".join(services) or "none"
                raise RequestRefused("service", f"{node} may not be {name}; its token allows {allowed[:200]}")
        return requests

    def _issue(
        self, enrolment: Enrolment, requests: Sequence[CertificateRequest], now: WallSeconds
    ) -> Issued:
        issuer, key = self._authority.intermediate, self._authority.intermediate_key
        issuer_pem = to_pem(issuer).decode()
        svids = []
        node_id = node_id_of(requests[0].spiffe_id)
        for index, request in enumerate(requests):
            serial = encode_leaf_serial(node_id, enrolment.generation, enrolment.serial, index)
            leaf = make_svid(request.public_key, request.spiffe_id, issuer, key, now, serial)
            svids.append(IssuedSvid(request.spiffe_id, to_pem(leaf).decode() + issuer_pem))
        spiffe_id = requests[0].spiffe_id
        credential = NodeCredential(
            node_id=node_id,
            spiffe_id=spiffe_id,
            generation=enrolment.generation,
            serial=enrolment.serial,
            signing_key=enrolment.signing_key,
            exchange_key=enrolment.exchange_key,
            spki_hashes=tuple(request.spki_hash for request in requests),
            service_patterns=enrolment.services,
            not_before=now - LEAF_BACKDATE_S,
            ends=enrolment.ends,
        )
        record = sign_record(
            self._authority.trust_domain, RecordKind.CREDENTIAL, credential, self._authority.credential_key
        )
        return Issued(
            svids=tuple(svids),
            credential=encode(record),
            trust=self._authority.trust_envelopes,
        )
