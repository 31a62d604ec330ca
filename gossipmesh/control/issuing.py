"""Who gets which certificates: tokens, enrolments and renewals, decided and recorded.

Sans-IO but for the ledger: requests and the time come in, answers go out. Rules:
1. Everything is checked and made before the token is spent; the token is spent on disk before the answer.
2. A request proves its keys: each PKCS #10 by its own, the whole by the Ed25519 signing key.
3. A generation rises with each enrolment of a node, a serial with each issue; neither ever falls, nor does an
   authority that lost its newest records use one again: both are wall seconds at least.
4. A node gets the services its token allowed and no other; a renewal cannot widen them. What a renewal asks
   for beyond them is left out and named; the rest is issued, or a whole node would end for one service.
5. A renewal is the Ed25519 key's that was enrolled, whoever carries it. An unknown name and a bad proof are
   refused in the same words, so that strangers learn no names.
6. While no node has said that it is open, whoever enrols is told that it founds the mesh.
7. A credential is signed again when it is old or says something else; until then its bytes are answered.
Spec: docs/IDENTITY.md. Ends at values; sockets are `control.server`'s.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from gossipmesh.control.credentials import is_fresh, make_leaves, sign_credential
from gossipmesh.control.ledger import (
    TOKEN_ID_BYTES,
    Enrolment,
    Ledger,
    TokenRecord,
    hash_secret,
)
from gossipmesh.control.opening import MeshOpening
from gossipmesh.control.pacing import refusals, renewals
from gossipmesh.control.requests import RequestRefused, check_names, split_allowed
from gossipmesh.control.roots import Authority, Entropy
from gossipmesh.control.tokens import TokenOrder, check_order
from gossipmesh.model.enrolment import (
    LATE_RENEWAL_S,
    SERIAL_AHEAD_S,
    SERVICES_PER_REQUEST_MAX,
    EnrolRequest,
    Issued,
    JoinToken,
    OpenNoted,
    OpenReport,
    RenewRequest,
)
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import (
    host_name_of_spiffe_id,
    node_name_of_spiffe_id,
    parse_spiffe_id,
)
from gossipmesh.model.instant import HOUR_S, WallSeconds
from gossipmesh.trust.envelope import payload_sha256_untrusted
from gossipmesh.trust.keys import KEY_BYTES, Verifier, is_public_key
from gossipmesh.trust.svid import CertificateRequest, certificate_sha256, read_request_untrusted

SECRET_BYTES: Final = 32
CLOCK_SKEW_MAX_S: Final = HOUR_S


class Issuer:
    """An authority at work."""

    def __init__(self, authority: Authority, ledger: Ledger, entropy: Entropy) -> None:
        self._authority = authority
        self._ledger = ledger
        self._opening = MeshOpening(authority.directory)
        self._entropy = entropy
        self._verifier = Verifier(verdicts_max=64)
        self._renewals = renewals()
        self._refusals = refusals()

    def use(self, authority: Authority) -> None:
        """Issue by this authority from now on: its keys or its Trust were changed."""
        self._authority = authority

    def create_token(self, order: TokenOrder, now: WallSeconds) -> JoinToken:
        """Make a one-time token and remember its hash.

        Raises:
            OperatorError: words that cannot be, or a disk that refuses. State unchanged.
        """
        check_order(order)
        secret = self._entropy(SECRET_BYTES).hex()
        token_id = self._entropy(TOKEN_ID_BYTES).hex()
        services = tuple(sorted(set(order.services)))
        expires = now + order.ttl_s
        record = TokenRecord(
            token_id, hash_secret(secret), order.node, services, created=now, expires=expires
        )
        with self._ledger.changing():
            allowed = f"token {token_id} for {', '.join(services) or 'no service'}"
            self._ledger.log.append(now, "token", node=order.node, detail=allowed)
            self._ledger.add_token(record)
        made = JoinToken(
            version=order.format,
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
            more_authorities=tuple(order.more),
        )
        if order.format == 1:
            return made
        newest = payload_sha256_untrusted(self._authority.trust_envelopes[-1]).hex()
        version = self._authority.trust.version
        return msgspec.structs.replace(made, trust_version=version, trust_sha256=newest)

    def enrol(self, request: EnrolRequest, now: WallSeconds, peer: str = "") -> Issued:
        """Redeem a token; `peer` is whose address it came from.

        Raises:
            RequestRefused: a token unknown, used, expired or of another authority; keys unproven;
                a service not allowed. Remote's fault. State unchanged, the token is not spent.
            OperatorError: the ledger cannot be written. Local's fault. Nothing was answered.
        """
        with self._ledger.changing():
            token = self._find_token(request)
            with self._noting(token.node, token.token_id, peer, now):
                _require_redeemable(token, now)
                self._check_keys(request)
                requests = self._read_requests(request.requests)
                check_names(self._authority.trust_domain, token.node, token.services, requests)
            known = self._ledger.enrolment(token.node)
            enrolment = Enrolment(
                node=token.node,
                generation=_next(None if known is None else known.generation, now),
                serial=_next(None if known is None else known.serial, now),
                signing_key=request.signing_key,
                exchange_key=request.exchange_key,
                services=token.services,
                enrolled=now,
                ends=0,
            )
            signed = sign_credential(self._authority, enrolment, requests, now)
            issued = self._answer(signed, requests, now)
            nodes = self._ledger.nodes()
            is_open = self._opening.is_open(has_enrolled=bool(nodes))
            # A node of 0.2 answers calls at once and never says so.
            self._opening.begin(is_open=is_open)
            if not is_open and _is_of_before(requests):
                self._opening.note(token.node, now)
            self._log_issue("enrolled", signed, requests, peer, now, f"token {token.token_id}")
            self._ledger.spend_token(token, now)
            self._ledger.put_enrolment(signed)
        count = self._ledger.standing_count(sorted({*nodes, token.node}))
        return msgspec.structs.replace(issued, enrolled_count=count, founder=not is_open)

    def take_report(self, report: OpenReport, now: WallSeconds, peer: str = "") -> OpenNoted:
        """Note that a node is open; only the first that says so is put on record.

        Raises:
            RequestRefused: not enrolled, revoked, or unproven. Remote's fault. State unchanged.
            OperatorError: the ledger cannot be written. Local's fault. Nothing was answered.
        """
        with self._ledger.changing():
            enrolment = self._find_enrolment(report)
            with self._noting(enrolment.node, enrolment.node, peer, now):
                _require_good(enrolment, report.issued, now)
            if not self._opening.is_open(has_enrolled=False):
                self._ledger.log.append(now, "opened", node=enrolment.node, peer=peer, detail=report.how)
                self._opening.note(enrolment.node, now)
        return OpenNoted()

    def renew(self, request: RenewRequest, now: WallSeconds, peer: str = "") -> Issued:
        """Issue again to a node that is enrolled, for new keys or the ones it has.

        Args:
            request: with a proof by the enrolled signing key.
            now: wall seconds.
            peer: whose address it came from.

        Returns:
            What was issued; `left_out` names the services asked for that the node may not be (any more).

        Raises:
            RequestRefused: not enrolled, revoked, keys unproven, or too late. Remote's fault. State
                unchanged.
            OperatorError: the ledger cannot be written. Local's fault. Nothing was answered.
        """
        with self._ledger.changing():
            enrolment = self._find_enrolment(request)
            with self._noting(enrolment.node, enrolment.node, peer, now):
                _require_renewable(enrolment, request, now)
                requests, left_out = self._allowed_requests(request, enrolment)
            if not self._renewals.take(enrolment.node, now):
                raise RequestRefused("busy", f"{enrolment.node} renewed too often; it may again in a minute")
            renewed = msgspec.structs.replace(enrolment, serial=_next_serial(enrolment, request, now))
            detail = ""
            # A node that names no serial is of 0.2: it reports a credential that is not a newer one.
            if request.serial is msgspec.UNSET or not is_fresh(self._authority, renewed, now):
                renewed = sign_credential(self._authority, renewed, requests, now)
                detail = "new credential"
            if left_out:
                detail += f"{'; ' if detail else ''}left out: {', '.join(left_out)}"
            issued = msgspec.structs.replace(self._answer(renewed, requests, now), left_out=left_out)
            self._log_issue("renewed", renewed, requests, peer, now, detail)
            self._ledger.put_enrolment(renewed)
        return issued

    @contextmanager
    def _noting(self, node: str, party: str, peer: str, now: WallSeconds) -> Iterator[None]:
        """Put a refusal of a known token or a proven node on record, so many a day for each."""
        try:
            yield
        except RequestRefused as refusal:
            if self._refusals.take(party, now):
                detail = f"[{refusal.code}] {refusal}"
                self._ledger.log.append(now, "refused", node=node, peer=peer, detail=detail)
            raise

    def _log_issue(
        self,
        what: str,
        enrolment: Enrolment,
        requests: Sequence[CertificateRequest],
        peer: str,
        now: WallSeconds,
        more: str,
    ) -> None:
        names = ", ".join(request.spiffe_id.partition("://")[2].partition("/")[2] for request in requests)
        self._ledger.log.append(
            now,
            what,
            node=enrolment.node,
            peer=peer,
            generation=enrolment.generation,
            serial=enrolment.serial,
            detail=f"{more}; {names}" if more else names,
        )

    def _find_token(self, request: EnrolRequest) -> TokenRecord:
        if request.authority_instance != self._authority.instance:
            raise RequestRefused(
                "token-foreign",
                f"this token was made by another authority (instance {request.authority_instance[:32]}, "
                f"this one is {self._authority.instance}); create one here",
            )
        token = self._ledger.token(request.token_id)
        if token is None or not token.holds(request.secret):
            raise RequestRefused("token-unknown", "this authority did not make this token; create a new one")
        return token

    def _check_keys(self, request: EnrolRequest) -> None:
        if not is_public_key(request.signing_key) or len(request.exchange_key) != KEY_BYTES:
            raise RequestRefused(
                "malformed", f"a signing or exchange key that is no key of {KEY_BYTES} bytes"
            )
        if not self._verifier.verify(request.signing_key, request.proof_bytes(), request.proof):
            raise RequestRefused("proof", "the request is not signed with the signing key it names")

    def _find_enrolment(self, request: RenewRequest | OpenReport) -> Enrolment:
        try:
            domain, _ = parse_spiffe_id(request.spiffe_id)
            node = node_name_of_spiffe_id(request.spiffe_id)
        except MalformedInput as error:
            raise RequestRefused("malformed", str(error)) from None
        enrolment = None
        if node is not None and domain == self._authority.trust_domain:
            enrolment = self._ledger.enrolment(node)
        # A name nobody enrolled costs a check as well, so that time tells nothing either.
        key = self._authority.credential_key.public if enrolment is None else enrolment.signing_key
        proven = self._verifier.verify(key, request.proof_bytes(), request.proof)
        if enrolment is None or not proven:
            raise RequestRefused(
                "proof",
                f"{request.spiffe_id} is not enrolled here with the key that signed this request (another "
                "machine may have been enrolled under its name since); enrol it with a token",
            )
        return enrolment

    def _allowed_requests(
        self, request: RenewRequest, enrolment: Enrolment
    ) -> tuple[list[CertificateRequest], tuple[str, ...]]:
        """Return the requests for what a node may be, the node's own first, and the names of the others."""
        requests = self._read_requests(request.requests)
        left_out: tuple[str, ...] = ()
        if request.serial is not msgspec.UNSET:  # a node of 0.2 takes an answer to all it asked for, or none
            requests, left_out = split_allowed(enrolment.services, requests)
        check_names(self._authority.trust_domain, enrolment.node, enrolment.services, requests)
        return requests, left_out

    def _read_requests(self, pems: Sequence[str]) -> list[CertificateRequest]:
        """Return the requests, each proven by the key it names."""
        if not 1 <= len(pems) <= 2 + SERVICES_PER_REQUEST_MAX:  # the node, its workloads
            raise RequestRefused("malformed", f"{len(pems)} certificate requests")
        try:
            return [read_request_untrusted(pem) for pem in pems]
        except MalformedInput as error:
            raise RequestRefused("malformed", str(error)) from None

    def _answer(
        self, enrolment: Enrolment, requests: Sequence[CertificateRequest], now: WallSeconds
    ) -> Issued:
        return Issued(
            svids=make_leaves(self._authority, enrolment, requests, now),
            credential=enrolment.credential,
            trust=self._authority.trust_envelopes,
        )


def _require_redeemable(token: TokenRecord, now: WallSeconds) -> None:
    if token.used is not None:
        raise RequestRefused(
            "token-used", f"this token was used already ({now - token.used} s ago); create a new one"
        )
    if token.expires <= now:
        raise RequestRefused(
            "token-expired", f"this token expired {now - token.expires} s ago; create a new one"
        )


def _require_good(enrolment: Enrolment, issued: int, now: WallSeconds) -> None:
    """Check that a node that proved its key is no revoked one, and that its request is of today."""
    if enrolment.revoked is not None:
        raise RequestRefused(
            "revoked", f"this node was revoked {now - enrolment.revoked} s ago; enrol it with a token"
        )
    if abs(now - issued) > CLOCK_SKEW_MAX_S:
        raise RequestRefused(
            "clock", f"the node's clock is {issued - now} s away from this one; set it right first"
        )


def _require_renewable(enrolment: Enrolment, request: RenewRequest, now: WallSeconds) -> None:
    _require_good(enrolment, request.issued, now)
    if enrolment.ends + LATE_RENEWAL_S <= now:
        raise RequestRefused(
            "too-late", f"its credential ended {now - enrolment.ends} s ago; enrol it again with a token"
        )


def _is_of_before(requests: Sequence[CertificateRequest]) -> bool:
    """Tell whether a node of 0.2 asks: it knows no identity of its workloads."""
    return all(host_name_of_spiffe_id(one.spiffe_id) is None for one in requests)


def _next(known: int | None, now: WallSeconds) -> int:
    """Return a number above the one known, and above all that were used before `now`."""
    return max(0 if known is None else known + 1, now)


def _next_serial(enrolment: Enrolment, request: RenewRequest, now: WallSeconds) -> int:
    """Return the serial of a renewal: what the node asked for, within bounds and above all issued."""
    wanted = now if request.serial is msgspec.UNSET else min(request.serial, now + SERIAL_AHEAD_S)
    return max(enrolment.serial + 1, wanted)
