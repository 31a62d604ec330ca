"""Getting an identity, and keeping it: the node's side of `authority serve`.

Rules:
1. Keys are made here and never leave; what goes out are requests that prove them.
2. The authority is known before anything is said: its chain ends at the token's root (later: at the
   bundle's), and its SVID is `spiffe://TRUST-DOMAIN/authority`.
3. Disk space is held before the token is redeemed: a full disk must not cost a token.
4. An answer is checked whole, then written whole; until then the old identity stands.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h11
import msgspec
import trio

from gossipmesh.agent.identity_store import (
    NodeIdentity,
    StoredIdentity,
    StoredSvid,
    encode_stored,
    open_stored_untrusted,
    reserve_identity,
)
from gossipmesh.model.enrolment import (
    ANSWER_BYTES_MAX,
    EnrolRequest,
    Issued,
    JoinToken,
    Refusal,
    RenewRequest,
    allows,
    decode_token_untrusted,
    is_concrete,
)
from gossipmesh.model.errors import MalformedInput, OperatorError, Untrusted
from gossipmesh.model.identity import authority_spiffe_id, node_spiffe_id, service_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeCredential
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.net.secret_files import read_secret
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import KEY_BYTES, ExchangeKey, SigningKey, Verifier
from gossipmesh.trust.svid import (
    LEAF_ENTROPY_BYTES,
    certificate_sha256,
    check_chain_untrusted,
    check_leaf_untrusted,
    leaf_key_pem,
    make_request,
)
from gossipmesh.wire.versions import FEATURES, STATE_FORMAT

REQUEST_TIMEOUT_S: Final = 15.0
RECEIVE_BYTES: Final = 65_536
HEAD_BYTES_MAX: Final = 16_384

Clock = Callable[[], WallSeconds]


class AuthorityRefused(OperatorError):
    """A request the authority read and does not grant; `code` is stable."""

    def __init__(self, sentence: str, code: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class _Keys:
    """What a node keeps to itself; `leaves` maps SPIFFE ID to key PEM, the node's first."""

    signing: SigningKey
    exchange: ExchangeKey
    leaves: Mapping[str, bytes]

    def requests(self) -> tuple[str, ...]:
        """Return a certificate request for each leaf key."""
        return tuple(make_request(key, spiffe_id) for spiffe_id, key in self.leaves.items())


async def enrol(directory: Path, token_file: Path, *, clock: Clock = wall_seconds) -> NodeIdentity:
    """Redeem a join token, and keep the identity it brings in `directory`, replacing any there.

    Raises:
        OperatorError: the token cannot be read or is refused, the authority cannot be reached or is
            not the token's, or the disk is full. The identity in `directory` is unchanged.
    """
    token = read_token(token_file)
    with reserve_identity(directory) as reservation:
        names = [node_spiffe_id(token.trust_domain, token.node)]
        names += [service_spiffe_id(token.trust_domain, s) for s in token.services if is_concrete(s)]
        keys = _Keys(
            SigningKey(random_bytes(KEY_BYTES)),
            ExchangeKey(random_bytes(KEY_BYTES)),
            {name: leaf_key_pem(random_bytes(LEAF_ENTROPY_BYTES)) for name in names},
        )
        request = EnrolRequest(
            authority_instance=token.authority_instance,
            token_id=token.token_id,
            secret=token.secret,
            signing_key=keys.signing.public,
            exchange_key=keys.exchange.public,
            requests=keys.requests(),
        )
        signed = msgspec.structs.replace(request, proof=keys.signing.sign(request.proof_bytes()))
        authority = Address.parse(token.authority)
        context = _anonymous_context(token.root_certificate)
        body = msgspec.json.encode(signed)
        issued = await _ask(authority, context, token.trust_domain, "/v1/enrol", body)
        try:
            if not _names_root(issued, token):
                raise Untrusted("its Trust does not name the root certificate of the token")
            stored = _store(token.trust_domain, authority, keys, issued, (), clock())
            identity = open_stored_untrusted(stored)
        except MalformedInput as error:
            raise OperatorError(
                f"the authority at {authority} answered with an identity that does not hold ({error}); "
                "nothing was kept, and the token is spent: create a new one when the authority is mended"
            ) from None
        reservation.commit(encode_stored(stored))
    return identity


async def renew(
    directory: Path, identity: NodeIdentity, services: Sequence[str], *, clock: Clock = wall_seconds
) -> NodeIdentity:
    """Have the node's SVID, its credential, and the SVIDs of its services issued again.

    Services are those its token named, and `services` (`namespace/name`) under a pattern of it. Keys
    stay: the peers know their hashes from the credential. Enrolling again changes them.

    Raises:
        OperatorError: unreachable or refused. The identity in `directory` is unchanged.
    """
    if identity.authority is None:
        raise OperatorError(f"{identity.name} knows no authority to renew at; enrol it with a token")
    patterns = identity.credential_body.service_patterns
    for service in services:
        if not allows(patterns, service):
            raise OperatorError(
                f"{identity.name} may not serve {service}: its token allows {', '.join(patterns) or 'none'}; "
                "create a token with --service for it, remove stateDir/identity and enrol again"
            )
    wanted = sorted({*services, *(pattern for pattern in patterns if is_concrete(pattern))})
    names = [identity.spiffe_id, *(service_spiffe_id(identity.trust_domain, s) for s in wanted)]
    leaves = {name: _leaf_key(identity, name) for name in names}
    keys = _Keys(identity.signing, identity.exchange, leaves)
    with reserve_identity(directory) as reservation:
        now = clock()
        request = RenewRequest(
            spiffe_id=identity.spiffe_id,
            requests=keys.requests(),
            issued=now,
            serial=max(identity.credential_body.serial + 1, now),
        )
        issued = await _ask_to_renew(identity, identity.authority, keys.signing, request)
        try:
            held = identity.trust_envelopes
            stored = _store(identity.trust_domain, identity.authority, keys, issued, held, clock())
            renewed = open_stored_untrusted(stored)
            _require_not_older(identity.credential_body, renewed.credential_body)
        except MalformedInput as error:
            raise OperatorError(
                f"the authority at {identity.authority} answered with an identity that does not hold "
                f"({error}); the old one is kept"
            ) from None
        # In a thread: an fsync may take as long as the disk likes, and the agent runs meanwhile.
        await trio.to_thread.run_sync(reservation.commit, encode_stored(stored))
    return renewed


async def _ask_to_renew(
    identity: NodeIdentity, authority: Address, signing: SigningKey, request: RenewRequest
) -> Issued:
    """Send a renewal; to an authority of 0.2, which takes no serial, without one.

    Raises:
        OperatorError: unreachable or refused. State unchanged.
    """
    try:
        context = _anonymous_context(identity.bundle_pem.decode())  # the proof says who asks
    except (OSError, ValueError) as error:
        raise OperatorError(
            f"{identity.name} cannot prepare a connection to the authority at {authority} "
            f"({error}); the old identity is kept; see that the agent has descriptors left, or enrol "
            "this node again"
        ) from None

    async def ask(form: RenewRequest) -> Issued:
        signed = msgspec.structs.replace(form, proof=signing.sign(form.proof_bytes()))
        body = msgspec.json.encode(signed)
        return await _ask(authority, context, identity.trust_domain, "/v1/renew", body)

    try:
        return await ask(request)
    except AuthorityRefused as refusal:
        if refusal.code != "malformed":
            raise
    return await ask(msgspec.structs.replace(request, serial=msgspec.UNSET))


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
    documents = TrustedDocuments(trust_domain=trust_domain, verifier=Verifier(), features=FEATURES)
    trusts = [documents.load_trust_untrusted(envelope) for envelope in envelopes]
    return {root for trust in trusts for root in trust.root_certificates}


def _leaf_key(identity: NodeIdentity, spiffe_id: str) -> bytes:
    svid = identity.svids.get(spiffe_id)
    return leaf_key_pem(random_bytes(LEAF_ENTROPY_BYTES)) if svid is None else svid.key_pem


def _names_root(issued: Issued, token: JoinToken) -> bool:
    """Tell whether some version of the Trust that came names the root the token pins."""
    return token.root_certificate in _roots_in(token.trust_domain, issued.trust)


def _store(
    trust_domain: str,
    authority: Address,
    keys: _Keys,
    issued: Issued,
    held: Sequence[bytes],
    now: WallSeconds,
) -> StoredIdentity:
    """Put keys and answer together; Trust must go on from `held`.

    Raises:
        MalformedInput: another number or other names than asked for, chains not valid now, or a Trust
            that does not follow. State unchanged.
    """
    documents = TrustedDocuments(trust_domain=trust_domain, verifier=Verifier(), features=FEATURES)
    for envelope in (*held, *issued.trust):
        documents.load_trust_untrusted(envelope)
    if documents.trust is None:
        raise MalformedInput("it holds no Trust document")
    if [svid.spiffe_id for svid in issued.svids] != list(keys.leaves):
        raise Untrusted("it is not for the names that were asked for")
    bundle_pem = "".join(documents.trust.root_certificates).encode()
    for svid in issued.svids:
        check_chain_untrusted(svid.chain.encode(), bundle_pem, now)
    return StoredIdentity(
        version=STATE_FORMAT,
        trust_domain=trust_domain,
        authority=str(authority),
        credential=issued.credential,
        signing_seed=keys.signing.seed(),
        exchange_seed=keys.exchange.seed(),
        trust=tuple(documents.trust_envelopes),
        svids=tuple(
            StoredSvid(svid.spiffe_id, svid.chain, keys.leaves[svid.spiffe_id].decode())
            for svid in issued.svids
        ),
    )


def _anonymous_context(root_pem: str) -> ssl.SSLContext:
    """Return a context that trusts this root only and shows no certificate: there is none yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the name is a SPIFFE ID, checked after the handshake
    context.load_verify_locations(cadata=root_pem)
    return context


async def _ask(
    authority: Address, context: ssl.SSLContext, trust_domain: str, target: str, body: bytes
) -> Issued:
    """POST `body` to the authority and return its answer.

    Raises:
        OperatorError: unreachable, someone else, or refused. State unchanged.
    """
    try:
        with trio.fail_after(REQUEST_TIMEOUT_S):
            stream = await trio.open_tcp_stream(authority.host, authority.port)
            tls = trio.SSLStream(stream, context, https_compatible=True)
            try:
                await _check_server(tls, authority, trust_domain)
                status, answer = await _exchange(tls, authority, target, body)
            finally:
                await trio.aclose_forcefully(tls)
    except trio.TooSlowError:
        raise OperatorError(
            f"the authority at {authority} did not answer within {REQUEST_TIMEOUT_S:.0f} s; try again"
        ) from None
    except OSError as error:
        raise OperatorError(
            f"cannot reach the authority at {authority} ({error.strerror or error}); "
            "is `gossipmesh authority serve` running there?"
        ) from None
    except (trio.BrokenResourceError, MalformedInput, h11.ProtocolError) as error:
        raise OperatorError(
            f"the authority at {authority} broke off ({error.__cause__ or error or 'no reason'}); "
            "its log says why"
        ) from None
    return _read_answer(authority, status, answer)


async def _check_server(
    tls: trio.SSLStream[trio.SocketStream], authority: Address, trust_domain: str
) -> None:
    """Shake hands, and make sure that whoever answers is the authority."""
    expected = authority_spiffe_id(trust_domain)
    try:
        await tls.do_handshake()
        der = tls.getpeercert(binary_form=True)
        found = check_leaf_untrusted(der if isinstance(der, bytes) else b"").spiffe_id
        if found != expected:
            raise Untrusted(f"it is {found}")
    except (trio.BrokenResourceError, MalformedInput) as error:
        reason = error.__cause__ or error
        raise OperatorError(
            f"the server at {authority} is not the authority this node trusts, {expected} "
            f"({getattr(reason, 'verify_message', '') or reason}); check the address, nothing was sent to it"
        ) from None


async def _exchange(
    tls: trio.SSLStream[trio.SocketStream], authority: Address, target: str, body: bytes
) -> tuple[int, bytes]:
    """Send the one request of this connection; return status and body.

    Raises:
        MalformedInput: no HTTP, or more bytes than any answer has. Remote's fault. State: close it.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
    headers = [
        ("host", str(authority)),
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    request = h11.Request(method="POST", target=target, headers=headers)
    parts = [connection.send(event) for event in (request, h11.Data(data=body), h11.EndOfMessage())]
    await tls.send_all(b"".join(part for part in parts if part))
    status, answer = 0, bytearray()
    while True:
        event: Any = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await tls.receive_some(RECEIVE_BYTES)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            answer += event.data
            if len(answer) > ANSWER_BYTES_MAX:
                raise MalformedInput(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return status, bytes(answer)


def _read_answer(authority: Address, status: int, answer: bytes) -> Issued:
    try:
        if status == 200:
            return msgspec.json.decode(answer, type=Issued)
        refusal = msgspec.json.decode(answer, type=Refusal)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise OperatorError(
            f"the authority at {authority} answered {status} with nothing readable ({error})"[:300]
        ) from None
    raise AuthorityRefused(f"the authority at {authority} refuses: {refusal.error[:400]}", refusal.code)
