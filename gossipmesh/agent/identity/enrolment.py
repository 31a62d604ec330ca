"""Getting an identity, and keeping it: the node's side of `authority serve`.

Rules:
1. Keys are made here and never leave; what goes out are requests that prove them.
2. The authority is known before anything is said: its chain ends at the token's root (later: at the
   bundle's), directly below an intermediate, and its SVID is `spiffe://TRUST-DOMAIN/authority`.
3. Disk space is held before the token is redeemed: a full disk must not cost a token.
4. An answer is checked whole, then written whole; until then the old identity stands.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from gossipmesh.agent.identity.authority_client import AuthorityClient, AuthorityRefused
from gossipmesh.agent.identity.identity_store import (
    FORMAT,
    NodeIdentity,
    StoredIdentity,
    certified_key,
    encode_stored,
    fresh_key,
    open_stored_untrusted,
    reserve_identity,
    stored_keys,
    stored_of,
)
from gossipmesh.agent.identity.key_turning import HeldKeys, LeafKey
from gossipmesh.model.documents import TrustDocument, revoked_serials
from gossipmesh.model.enrolment import (
    EnrolRequest,
    Issued,
    JoinToken,
    OpenReport,
    RenewRequest,
    decode_token_untrusted,
    is_concrete,
)
from gossipmesh.model.errors import MalformedInput, OperatorError, Untrusted
from gossipmesh.model.identity import (
    host_name_of_spiffe_id,
    node_spiffe_id,
    service_spiffe_id,
    workloads_spiffe_id,
)
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.opening import Enrolled, HowOpened
from gossipmesh.model.records import NodeCredential
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.net.secret_files import read_secret
from gossipmesh.net.tls import AnonymousContext, anonymous_context
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.envelope import payload_sha256_untrusted
from gossipmesh.trust.keys import KEY_BYTES, ExchangeKey, SigningKey, Verifier
from gossipmesh.trust.peer_identity import PeerFacts
from gossipmesh.trust.svid import (
    certificate_sha256,
    check_chain_untrusted,
    make_request,
)
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted
from gossipmesh.wire.versions import POLICY_FEATURES

Clock = Callable[[], WallSeconds]


@dataclass(frozen=True)
class Renewal:
    """What an authority answered: the identity under its newest credential and Trust, the keys as they were,
    and by pin the keys it issued certificates for. `left_out`: SPIFFE IDs that it allows no more.
    """

    identity: NodeIdentity
    keys: Mapping[bytes, LeafKey]
    left_out: tuple[str, ...] = ()


async def enrol(
    directory: Path,
    token_file: Path,
    *,
    clock: Clock = wall_seconds,
    client: AuthorityClient | None = None,
) -> NodeIdentity:
    """Redeem a join token, and keep the identity it brings in `directory`, replacing any there.

    Raises:
        OperatorError: the token cannot be read or is refused, the authority cannot be reached or is
            not the token's, or the disk is full. The identity in `directory` is unchanged.
    """
    token = read_token(token_file)
    with reserve_identity(directory) as reservation:
        names = [node_spiffe_id(token.trust_domain, token.node)]
        names.append(workloads_spiffe_id(token.trust_domain, token.node))
        names += [service_spiffe_id(token.trust_domain, s) for s in token.services if is_concrete(s)]
        keys = {name: HeldKeys(fresh_key(name), fresh_key(name)) for name in names}
        signing, exchange = SigningKey(random_bytes(KEY_BYTES)), ExchangeKey(random_bytes(KEY_BYTES))
        request = EnrolRequest(
            authority_instance=token.authority_instance,
            token_id=token.token_id,
            secret=token.secret,
            signing_key=signing.public,
            exchange_key=exchange.public,
            requests=(),
        )
        leaves = {name: held.current for name, held in keys.items()}
        issued = await _ask_to_enrol(client or AuthorityClient(), token, request, signing, leaves)
        try:
            _require_token_trust(issued, token)
            documents = _follow_trust(token.trust_domain, (), issued.trust)
            certified = _check_issued(documents, leaves, issued, clock())
            held = {name: _certified(one, certified) for name, one in keys.items()}
            stored = StoredIdentity(
                version=FORMAT,
                trust_domain=token.trust_domain,
                authority=",".join(token.every_authority()),
                credential=issued.credential,
                signing_seed=signing.seed(),
                exchange_seed=exchange.seed(),
                trust=tuple(documents.trust_envelopes),
                turned=clock(),
                keys=stored_keys(held),
            )
            identity = open_stored_untrusted(stored)
        except MalformedInput as error:
            raise OperatorError(
                f"the authority at {token.authority} answered with an identity that does not hold ({error}); "
                "nothing was kept, and the token is spent: create a new one when the authority is mended"
            ) from None
        reservation.commit(encode_stored(stored))
    return replace(identity, enrolled=Enrolled(issued.enrolled_count, issued.founder))


async def renew(
    identity: NodeIdentity,
    leaves: Mapping[str, LeafKey],
    *,
    clock: Clock = wall_seconds,
    client: AuthorityClient | None = None,
    authorities: Sequence[str] | None = None,
    trust: TrustDocument | None = None,
) -> Renewal:
    """Have the credential and certificates issued again; nothing is kept yet.

    Args:
        authorities: where the authority may be, HOST:PORT; None: where the identity says.
        trust: the newest one that gossip brought; None: the one the identity knows.
        leaves: the keys to have certificates for, by SPIFFE ID; the node's own must be among them.

    Raises:
        OperatorError: unreachable or refused. State unchanged.
    """
    places = identity.authorities if authorities is None else authorities
    if not places:
        raise OperatorError(f"{identity.name} knows no authority to renew at; enrol it with a token")
    first = identity.spiffe_id
    ordered = {first: leaves[first]} | {name: leaves[name] for name in sorted(leaves)}
    now = clock()
    request = RenewRequest(
        spiffe_id=first, requests=(), issued=now, serial=max(identity.credential_body.serial + 1, now)
    )
    context, facts = _renewal_context(identity, places, trust)

    async def ask(body: bytes) -> Issued:
        return await (client or AuthorityClient()).ask(places, context, facts, "/v1/renew", body)

    issued = await _ask_to_renew(ask, identity.signing, ordered, request)
    try:
        documents = _follow_trust(identity.trust_domain, identity.trust_envelopes, issued.trust)
        certified = _check_issued(documents, ordered, issued, clock())
        stored = msgspec.structs.replace(
            stored_of(identity), credential=issued.credential, trust=tuple(documents.trust_envelopes)
        )
        renewed = open_stored_untrusted(stored)
        _require_not_older(identity.credential_body, renewed.credential_body)
    except MalformedInput as error:
        raise OperatorError(
            f"the authority of {identity.trust_domain} answered with an identity that does not hold "
            f"({error}); the old one is kept"
        ) from None
    return Renewal(renewed, certified, issued.left_out)


async def _ask_to_enrol(
    client: AuthorityClient,
    token: JoinToken,
    request: EnrolRequest,
    signing: SigningKey,
    leaves: Mapping[str, LeafKey],
) -> Issued:
    """Send an enrolment; an authority of 0.2 is not asked for what it does not know.

    Raises:
        OperatorError: unreachable or refused. State unchanged.
    """
    context = anonymous_context(token.root_certificate)
    facts = _known_roots(token.trust_domain, token.root_certificate)

    async def ask(names: Sequence[str]) -> Issued:
        form = msgspec.structs.replace(request, requests=_requests(leaves, names))
        signed = msgspec.structs.replace(form, proof=signing.sign(form.proof_bytes()))
        body = msgspec.json.encode(signed)
        return await client.ask(token.every_authority(), context, facts, "/v1/enrol", body)

    try:
        return await ask(list(leaves))
    except AuthorityRefused as refusal:
        if refusal.code != "malformed":
            raise
    return await ask(_known_before(leaves))


def _renewal_context(
    identity: NodeIdentity, places: Sequence[str], trust: TrustDocument | None
) -> tuple[AnonymousContext, PeerFacts]:
    """Return what knows the authority; the proof in a request says who asks, no certificate does.

    Raises:
        OperatorError: there is no descriptor left for it, or Trust holds a certificate that is none. State
            unchanged.
    """
    known = trust or _follow_trust(identity.trust_domain, identity.trust_envelopes, ()).trust
    try:
        if known is None:
            raise ValueError("no Trust")
        return anonymous_context("".join(known.root_certificates)), _known_issuers(known)
    except (OSError, ValueError, MalformedInput) as error:
        raise OperatorError(
            f"{identity.name} cannot prepare a connection to the authority at {', '.join(places)} "
            f"({error}); the old identity is kept; see that the agent has descriptors left, or enrol "
            "this node again"
        ) from None


async def _ask_to_renew(
    ask: Callable[[bytes], Awaitable[Issued]],
    signing: SigningKey,
    leaves: Mapping[str, LeafKey],
    request: RenewRequest,
) -> Issued:
    """Send a renewal; an authority of 0.2 is given no serial, nor asked for what it does not know.

    Raises:
        OperatorError: unreachable or refused. State unchanged.
    """

    async def ask_for(form: RenewRequest, names: Sequence[str]) -> Issued:
        form = msgspec.structs.replace(form, requests=_requests(leaves, names))
        signed = msgspec.structs.replace(form, proof=signing.sign(form.proof_bytes()))
        return await ask(msgspec.json.encode(signed))

    try:
        return await ask_for(request, list(leaves))
    except AuthorityRefused as refusal:
        if refusal.code != "malformed":
            raise
    return await ask_for(msgspec.structs.replace(request, serial=msgspec.UNSET), _known_before(leaves))


def _requests(leaves: Mapping[str, LeafKey], names: Sequence[str]) -> tuple[str, ...]:
    """Return a certificate request for each of these names."""
    return tuple(make_request(leaves[name].key_pem, name) for name in names)


def _known_before(leaves: Mapping[str, LeafKey]) -> list[str]:
    """Return the names that an authority of 0.2 issues to: it knows no workloads without a service."""
    return [name for name in leaves if host_name_of_spiffe_id(name) is None]


def _require_not_older(held: NodeCredential, answered: NodeCredential) -> None:
    """Check that an answer does not take us back.

    Raises:
        Untrusted: an authority that lost its newest records, or a copy of it. State unchanged.
    """
    before, after = (held.generation, held.serial), (answered.generation, answered.serial)
    if after < before:
        raise Untrusted(
            f"its credential is of generation {after[0]}, serial {after[1]}, ours of {before[0]}, {before[1]}"
        )


def read_token(path: Path) -> JoinToken:
    """Read a token file and check that its parts agree.

    Raises:
        OperatorError: missing, open to others, or not a token. State unchanged.
    """
    content = read_secret(path)
    try:
        token = decode_token_untrusted(content)
        if certificate_sha256(token.root_certificate) != token.root_sha256:
            raise Untrusted("its root certificate is not the one of its root_sha256")
    except MalformedInput as error:
        raise OperatorError(
            f"{path} is not a usable join token ({error}); create a new one with `gossipmesh token create`"
        ) from None
    return token


def root_certificates(identity: NodeIdentity) -> set[str]:
    """Return the roots, as PEM, of every Trust an identity has gone through."""
    return _roots_in(identity.trust_domain, identity.trust_envelopes)


def _roots_in(trust_domain: str, envelopes: Sequence[bytes]) -> set[str]:
    documents = TrustedDocuments(trust_domain=trust_domain, verifier=Verifier(), features=POLICY_FEATURES)
    trusts = [documents.load_trust_untrusted(envelope) for envelope in envelopes]
    return {root for trust in trusts for root in trust.root_certificates}


def _require_token_trust(issued: Issued, token: JoinToken) -> None:
    """Check that the Trust that came goes through what the token pins: its root, and its version of Trust.

    Raises:
        Untrusted: it does not. State unchanged.
    """
    if token.root_certificate not in _roots_in(token.trust_domain, issued.trust):
        raise Untrusted("its Trust does not name the root certificate of the token")
    hashes = [payload_sha256_untrusted(envelope).hex() for envelope in issued.trust]
    if token.trust_sha256 and token.trust_sha256 not in hashes:
        raise Untrusted(f"its Trust is not the one of the token, version {token.trust_version}")


def _follow_trust(trust_domain: str, held: Sequence[bytes], envelopes: Sequence[bytes]) -> TrustedDocuments:
    """Return Trust as it goes on from `held`.

    Raises:
        MalformedInput: it does not follow, or there is none. State unchanged.
    """
    documents = TrustedDocuments(trust_domain=trust_domain, verifier=Verifier(), features=POLICY_FEATURES)
    for envelope in (*held, *envelopes):
        documents.load_trust_untrusted(envelope)
    if documents.trust is None:
        raise MalformedInput("it holds no Trust document")
    return documents


def _check_issued(
    documents: TrustedDocuments, leaves: Mapping[str, LeafKey], issued: Issued, now: WallSeconds
) -> dict[bytes, LeafKey]:
    """Return the keys with what was issued for them, by pin.

    Raises:
        MalformedInput: for other names or keys than asked for, or chains not valid now. State unchanged.
    """
    names = [svid.spiffe_id for svid in issued.svids]
    asked = [name for name in leaves if name not in issued.left_out]
    if not asked or asked[0] != next(iter(leaves)) or names not in (asked, _known_before(leaves)):
        raise Untrusted("it is not for the names that were asked for")
    assert documents.trust is not None
    bundle_pem = "".join(documents.trust.root_certificates).encode()
    intermediates = documents.trust.intermediates
    found: dict[bytes, LeafKey] = {}
    for svid in issued.svids:
        key = leaves[svid.spiffe_id]
        facts = check_chain_untrusted(svid.chain.encode(), bundle_pem, now, intermediates)
        found[key.pin] = certified_key(svid.spiffe_id, key, svid.chain.encode(), facts)
    return found


def _certified(keys: HeldKeys, certified: Mapping[bytes, LeafKey]) -> HeldKeys:
    return msgspec.structs.replace(keys, current=certified.get(keys.current.pin, keys.current))


def _known_roots(trust_domain: str, root_pem: str) -> PeerFacts:
    """Return what a newcomer knows: the root its token names, and not yet who issues below it."""
    return PeerFacts(trust_domain, frozenset(certificates_in_pem_untrusted(root_pem.encode())))


def _known_issuers(trust: TrustDocument) -> PeerFacts:
    """Return what a member knows: who may issue, by Trust.

    Raises:
        MalformedInput: a certificate in Trust that is none. State unchanged.
    """
    roots = certificates_in_pem_untrusted("\n".join(trust.root_certificates).encode())
    issuers = certificates_in_pem_untrusted("\n".join(trust.intermediates).encode())
    revoked = revoked_serials(trust)
    return PeerFacts(trust.trust_domain, frozenset(roots), frozenset(issuers), revoked_leaves=revoked)


async def report_open(
    identity: NodeIdentity,
    how: HowOpened,
    *,
    clock: Clock = wall_seconds,
    client: AuthorityClient | None = None,
    authorities: Sequence[str] | None = None,
    trust: TrustDocument | None = None,
) -> None:
    """Tell the authority that this node answers calls, so that it lets nobody found the mesh anew.

    `authorities` and `trust` are as for `renew`.

    Raises:
        OperatorError: unreachable or refused. State unchanged.
    """
    places = identity.authorities if authorities is None else authorities
    if not places:
        raise OperatorError(f"{identity.name} knows no authority to report to")
    report = OpenReport(identity.spiffe_id, str(how), clock())
    signed = msgspec.structs.replace(report, proof=identity.signing.sign(report.proof_bytes()))
    context, facts = _renewal_context(identity, places, trust)
    body = msgspec.json.encode(signed)
    await (client or AuthorityClient()).post(places, context, facts, "/v1/open", body)
